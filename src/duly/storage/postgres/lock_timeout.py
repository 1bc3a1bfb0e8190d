"""How long who holds the lock of a store may say nothing."""

from __future__ import annotations

from typing import Final

from duly.clock import monotonic
from duly.limits import LOCK_IDLE_MS

_MS_MAX: Final = 2**31 - 1


class LockTimeout:
    """A batch that has lost the lock after such a time may just be slow: when it is run again, it is given more."""

    def __init__(self, handler_seconds: float) -> None:
        self._most_ms = int(min(handler_seconds * 1000 + LOCK_IDLE_MS, _MS_MAX))
        self._taken: float | None = None
        self._is_slow = False

    @property
    def milliseconds(self) -> int:
        """For how long the next holder may say nothing."""
        return self._most_ms if self._is_slow else LOCK_IDLE_MS

    def take(self) -> None:
        """The lock is taken."""
        self._taken = monotonic()

    def lose(self) -> None:
        """The connection that held it, if any did, is lost."""
        if self._taken is not None:
            self._is_slow = (monotonic() - self._taken) * 1000 > LOCK_IDLE_MS
            self._taken = None

    def leave(self) -> None:
        """The batch has ended in order."""
        if self._taken is not None:
            self._is_slow, self._taken = False, None
