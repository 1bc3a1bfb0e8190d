"""A clock in which days pass while one watches."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

DAYS_PER_SECOND = 2.5
DAY_MS = 24 * 60 * 60 * 1000.0
OPENING = datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000


class TimelapseClock:
    """Tells the time of a shop that opened at `opened`, in seconds of the real time; day 0 is January 1, 2030.

    Two processes that are told the same opening live in the same time, and it goes on while neither runs. It is a
    `duly.clock.Clock`: it tells milliseconds since 1970, and sleeps.
    """

    def __init__(self, opened: float) -> None:
        self.opened = opened

    def now(self) -> float:
        return OPENING + (time.time() - self.opened) * DAYS_PER_SECOND * DAY_MS

    async def sleep_until(self, time_ms: float) -> None:
        while (left := time_ms - self.now()) > 0:
            await asyncio.sleep(left / (DAYS_PER_SECOND * DAY_MS))

    async def sleep_until_day(self, day: float) -> None:
        await self.sleep_until(OPENING + day * DAY_MS)


def day_of(time_ms: float) -> int:
    """The day of the shop, counted from its opening."""
    return int((time_ms - OPENING) // DAY_MS)
