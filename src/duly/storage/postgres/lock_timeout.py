"""How long the holder of the store's lock may be silent before the server ends its session.

The server cannot distinguish a node that died while it held the lock from one whose handler computes for long. So the
timeout is short, LOCK_IDLE_MS. A batch that lost the lock after a longer silence may just be slow. When it is run
again, its timeout is the longest time that a handler may take.
"""

from __future__ import annotations

from typing import Final

from duly.clock import monotonic
from duly.limits import LOCK_IDLE_MS

_MS_MAX: Final = 2**31 - 1


class LockTimeout:
    """The timeout for the next batch that takes the lock."""

    def __init__(self, handler_seconds: float) -> None:
        self._max_ms = int(min(handler_seconds * 1000 + LOCK_IDLE_MS, _MS_MAX))
        self._acquired_at: float | None = None
        self._is_slow = False

    @property
    def milliseconds(self) -> int:
        """How long the next holder may be silent."""
        return self._max_ms if self._is_slow else LOCK_IDLE_MS

    def acquired(self) -> None:
        """Record that the batch holds the lock now."""
        self._acquired_at = monotonic()

    def lost(self) -> None:
        """Record that the connection is lost, and with it the lock if it was held."""
        if self._acquired_at is not None:
            self._is_slow = (monotonic() - self._acquired_at) * 1000 > LOCK_IDLE_MS
            self._acquired_at = None

    def released(self) -> None:
        """Record that the batch has ended in order."""
        if self._acquired_at is not None:
            self._is_slow, self._acquired_at = False, None
