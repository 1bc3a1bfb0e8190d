"""Checks now and then whether the file of the store still exists: the system does not notify of its deletion."""

from __future__ import annotations

import asyncio
from typing import Any

from duly.clock import Clock
from duly.database.database import Database
from duly.limits import STORE_CHECK_MS


class StoreWatch:
    """A worker that stops the others, and ends subscriptions, once the file is gone; even in an idle app."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def step(self) -> float:
        self._database.check_present()
        return self._clock.now() + STORE_CHECK_MS

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Return none: only time makes a check due."""
        return []
