"""How long an action may take: one timer for all actions of an app."""

from __future__ import annotations

import asyncio
from types import TracebackType


class TimeLimit:
    """The time that each action of an app may take, in seconds. It belongs to the running event loop.

        with time_limit.applied() as timeout:
            await …

    When the time is over, the block is cancelled and raises TimeoutError, and `timeout.expired` is true.

    `asyncio.timeout` does the same, with a timer and two coroutines for each block: a tenth of the cost of a short
    action. Here all blocks have the same limit, so they end in the order in which they began, and one timer is enough.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: dict[Timeout, float] = {}
        """The blocks under way with the ends of their time, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None

    def applied(self) -> Timeout:
        """Return a context manager for one block of the current task."""
        return Timeout(self)

    def close(self) -> None:
        """Let the event loop forget the timer, unless an action goes on."""
        if self._timer is not None and not self._running:
            self._timer.cancel()
            self._timer = None

    def _begin(self, timeout: Timeout) -> None:
        self._running[timeout] = ends = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(ends, self._on_time)

    def _on_time(self) -> None:
        self._timer, now = None, self._loop.time()
        for timeout, ends in tuple(self._running.items()):
            if ends > now:
                self._timer = self._loop.call_at(ends, self._on_time)
                break
            timeout._expire()  # pyright: ignore[reportPrivateUsage]
            del self._running[timeout]


class Timeout:
    """One block whose time is limited."""

    __slots__ = ("_cancelling", "_limit", "_task", "expired")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self.expired = False
        """Whether the time was over before the block had ended."""

    def __enter__(self) -> Timeout:
        task = asyncio.current_task()
        assert task is not None  # coroutines of an app are awaited in tasks
        self._task, self._cancelling = task, task.cancelling()
        self._limit._begin(self)  # pyright: ignore[reportPrivateUsage]
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit._running.pop(self, None)  # pyright: ignore[reportPrivateUsage]
        # The task may have been cancelled by others as well: then the CancelledError is theirs.
        if self.expired and self._task.uncancel() <= self._cancelling and type is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()
