"""The only caller of the operating system's time: wall clocks, real and manual."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from duly.limits import CLOCK_TOLERANCE_MS, TIMER_CHECK_SECONDS


class Clock(Protocol):
    """What tells the time and sleeps. Times are float milliseconds since 1970-01-01 UTC."""

    def now(self) -> float: ...

    async def sleep_until(self, time_ms: float) -> None: ...

    def follow(self, server_ms: float, asked: float) -> None:
        """Go by the clock of a server, which said `server_ms` at the moment `asked` of `monotonic`."""
        ...


class SystemClock:
    """The wall clock of this machine, in seconds by `wall`; or that of the server that it follows.

    Once it follows one it does not look at the machine's any more, which somebody may set: what is due only by that
    must not run. It counts on from what the server said by `steady`, as `monotonic` does. That may stand still while
    the machine is suspended: then it is late, until it is told again.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.perf_counter) -> None:
        self._wall = wall
        self._steady = steady
        self._told: tuple[float, float] | None = None  # what the server said, and when

    def now(self) -> float:
        told = self._told  # read once: other threads ask, too
        return self._wall() * 1000 if told is None else told[0] + (self._steady() - told[1]) * 1000

    def follow(self, server_ms: float, asked: float) -> None:
        then = self.now() - (self._steady() - asked) * 1000
        # What is less than the tolerance is the time that the answer took.
        if self._told is None or abs(server_ms - then) > CLOCK_TOLERANCE_MS:
            self._told = server_ms, asked

    async def sleep_until(self, time_ms: float) -> None:
        """Return when the wall clock has reached `time_ms`, also when it is set forward or back meanwhile."""
        while (left := time_ms - self.now()) > 0:
            await asyncio.sleep(min(left / 1000, TIMER_CHECK_SECONDS))


class ManualClock:
    """A clock that stands still until it is told: `clock.set(…)` wakes whoever sleeps until then."""

    def __init__(self, start_ms: float) -> None:
        self._now = start_ms
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self._now

    def follow(self, server_ms: float, asked: float) -> None:
        """It goes by nobody else."""

    def set(self, time_ms: float) -> None:
        if time_ms < self._now:
            raise ValueError(f"a clock goes forward: {time_ms} lies before {self._now}")
        self._now = time_ms
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep_until(self, time_ms: float) -> None:
        while self._now < time_ms:
            await self._moved.wait()


def monotonic() -> float:
    """Seconds for measuring durations; unrelated to any clock, never goes back."""
    return time.perf_counter()


def pause(seconds: float) -> None:
    """Hold up this thread."""
    time.sleep(seconds)


def to_milliseconds(moment: datetime) -> float:
    """An aware datetime as milliseconds since 1970; a naive one is a ValueError, for its zone is a guess."""
    if moment.utcoffset() is None:  # a zone may not know it
        raise ValueError(
            f"got the naive datetime {moment.isoformat()}, expected an aware one such as"
            " datetime(2030, 1, 1, tzinfo=UTC)"
        )
    # Exact in integers: timestamp() * 1000 rounds twice.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return microseconds / 1000


def to_datetime(time_ms: float) -> datetime:
    """Milliseconds since 1970 as an aware datetime in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)
