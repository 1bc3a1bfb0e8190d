"""Stands for the world outside, which only actions reach: mail, a bank, another disk."""

done: list[str] = []
"""What was asked of it."""


async def ask(what: str) -> None:
    done.append(what)


async def price_of_tea() -> int:
    done.append("price of tea")
    return 450 + len(done) % 7
