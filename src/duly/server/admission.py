"""How many WebSockets are open: in all, and from one address. Those beyond a limit are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from duly.limits import Limits

_HOME_BITS: Final = 64
"""The bits of an IPv6 address that a provider gives to one customer, who chooses the others as he likes."""


class Admission:
    """The sockets of one server. Used in its event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._counts: Counter[str] = Counter()

    @contextmanager
    def of(self, client: str | None, limits: Limits) -> Generator[str | None]:
        """Count a socket of a client, while the context lasts. Yields why it is refused; None if it is not."""
        origin = origin_of(client)
        problem = self._problem(origin, limits)
        if problem is not None:
            yield problem
            return
        self._count += 1
        if origin is not None:
            self._counts[origin] += 1
        try:
            yield None
        finally:
            self._count -= 1
            if origin is not None:
                self._counts[origin] -= 1
                if not self._counts[origin]:
                    del self._counts[origin]

    def _problem(self, origin: str | None, limits: Limits) -> str | None:
        if self._count >= limits.sockets_max:
            return f"{self._count:,} are open (sockets_max)"
        if origin is not None and self._counts[origin] >= limits.sockets_per_address_max:
            return f"{self._counts[origin]:,} of {origin} are open (sockets_per_address_max)"
        return None


def origin_of(client: str | None) -> str | None:
    """Return what the sockets of one client have in common: its address, or the network of an IPv6 address.

    None for this machine, whose users can do worse, or where a proxy stands for all clients.
    """
    try:
        address = ip_address(client or "")
    except ValueError:
        return None  # a Unix socket
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return None
    return str(ip_network((address, _HOME_BITS), strict=False) if isinstance(address, IPv6Address) else address)
