"""Clocks: the only module that reads the time of the operating system."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from duly.limits import CLOCK_TOLERANCE_MS, TIMER_CHECK_SECONDS


class Clock(Protocol):
    """The time, and sleeping until a time. Times are float milliseconds since 1970-01-01 UTC."""

    def now(self) -> float: ...

    async def sleep_until(self, time_ms: float) -> None: ...

    def follow(self, server_ms: float, at: float) -> None:
        """Follow the clock of a server, which showed `server_ms` when `monotonic` was `at`."""
        ...


class SystemClock:
    """The wall clock of this machine, or of the server that it follows.

    `wall` and `steady` return seconds. Once it follows a server it no longer reads the wall clock of the machine, which
    may be set wrong: what is due only by that clock must not run. It adds the time that `steady` counts since the last
    reading of the server. `steady` may stop while the machine is suspended; then this clock is late until the next
    reading.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.perf_counter) -> None:
        self._wall = wall
        self._steady = steady
        self._reading: tuple[float, float] | None = None
        """The time of the server, and `steady` at that moment."""

    def now(self) -> float:
        reading = self._reading  # read once: another thread may replace it
        return self._wall() * 1000 if reading is None else reading[0] + (self._steady() - reading[1]) * 1000

    def follow(self, server_ms: float, at: float) -> None:
        expected = self.now() - (self._steady() - at) * 1000
        # A smaller difference may be the time that the answer took.
        if self._reading is None or abs(server_ms - expected) > CLOCK_TOLERANCE_MS:
            self._reading = server_ms, at

    async def sleep_until(self, time_ms: float) -> None:
        """Sleep until the wall clock has reached `time_ms`, even if the clock is set meanwhile."""
        while (left := time_ms - self.now()) > 0:
            await asyncio.sleep(min(left / 1000, TIMER_CHECK_SECONDS))


class ManualClock:
    """A clock that stands still until it is set: `clock.set(…)` wakes those that sleep until then."""

    def __init__(self, start_ms: float) -> None:
        self._now = start_ms
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self._now

    def follow(self, server_ms: float, at: float) -> None:
        """Ignore the server: only `set` moves this clock."""

    def set(self, time_ms: float) -> None:
        if time_ms < self._now:
            raise ValueError(f"a clock goes forward: {time_ms} lies before {self._now}")
        self._now = time_ms
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep_until(self, time_ms: float) -> None:
        while self._now < time_ms:
            await self._moved.wait()


monotonic: Final = time.perf_counter
"""Returns seconds for measuring durations; they never go back, and have no relation to a wall clock."""


def pause(seconds: float) -> None:
    """Block this thread."""
    time.sleep(seconds)


def to_milliseconds(moment: datetime) -> float:
    """Return an aware datetime as milliseconds since 1970. Raises ValueError for a naive one: its zone is unknown."""
    if moment.utcoffset() is None:  # a tzinfo may return None, too
        raise ValueError(
            f"got the naive datetime {moment.isoformat()}, expected an aware one such as"
            " datetime(2030, 1, 1, tzinfo=UTC)"
        )
    # Integers are exact; timestamp() * 1000 rounds twice.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return microseconds / 1000


def to_datetime(time_ms: float) -> datetime:
    """Return milliseconds since 1970 as an aware datetime in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)
