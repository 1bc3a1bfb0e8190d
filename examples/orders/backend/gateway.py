"""Stands for a payment provider, one on a bad day: it is busy at the first two attempts."""

ALWAYS_DECLINED = "0000"


class GatewayError(Exception):
    """The charge was not made."""


async def charge(idempotency_key: str, card: str, pence: int, attempt: int) -> None:
    """Charge a card. A provider charges only once for one key, however often it is asked."""
    if card == ALWAYS_DECLINED:
        raise GatewayError("card declined")
    if attempt < 3:
        raise GatewayError("gateway busy")
