"""A clock in which days pass while one watches."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

DAYS_PER_SECOND: Final = 2.0
DAY_MS: Final = 24 * 60 * 60 * 1000.0
OPENING: Final = datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000
"""Where the clock starts: the beginning of day 0."""

_LOOK_SECONDS: Final = 0.02
_STEP_SECONDS_MAX: Final = 0.1


class TimelapseClock:
    """A `duly.clock.Clock` that is fast, and keeps its time in a file: the next process goes on where this one ends.

    It moves whenever somebody looks, never far at once: on a machine that is too busy days get longer, none is skipped.
    """

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT)
        saved = os.pread(self._file, 8, 0)
        self._now: float = struct.unpack("d", saved)[0] if saved else OPENING
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            looked, self._looked = self._looked, time.monotonic()
            self._now += min(self._looked - looked, _STEP_SECONDS_MAX) * DAYS_PER_SECOND * DAY_MS
            os.pwrite(self._file, struct.pack("d", self._now), 0)
            return self._now

    async def sleep_until(self, time_ms: float) -> None:
        while self.now() < time_ms:  # noqa: ASYNC110  looking is what moves it
            await asyncio.sleep(_LOOK_SECONDS)

    async def sleep_until_day(self, day: float) -> None:
        await self.sleep_until(OPENING + day * DAY_MS)


def day_of(time_ms: float) -> int:
    """The day of the shop, counted from its opening."""
    return int((time_ms - OPENING) // DAY_MS)
