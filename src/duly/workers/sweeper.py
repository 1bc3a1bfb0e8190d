"""The sweeper: deletes rows of what was over long ago, scheduled functions and requests of clients, a few at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from duly.clock import Clock
from duly.database.batch import Batch
from duly.database.database import Database
from duly.limits import SWEEP_CHECK_MS, SWEEP_PAUSE_MS
from duly.model import client_requests, jobs


class Sweeper:
    """A worker that steps when the next row expires. With many expired rows it pauses after each step."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def step(self) -> float:
        # By the time of its batch, which may have begun before this: then rows may have expired since.
        due, now = await self._database.commit(lambda batch: (_sweep(batch), batch.now))
        return min(max(due, now + SWEEP_PAUSE_MS), now + SWEEP_CHECK_MS)

    async def sweep(self) -> None:
        """Delete all expired rows now."""
        while await self._database.commit(_sweep) <= self._clock.now():
            pass

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Return none: no commit makes a row expire earlier."""
        return []


def _sweep(batch: Batch) -> float:
    """Delete some expired rows. Return when the next ones expire."""
    return min(jobs.sweep(batch), client_requests.sweep(batch))
