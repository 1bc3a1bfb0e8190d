"""Looks now and then whether the store is still there: whoever deletes or replaces its file does not tell."""

from __future__ import annotations

import asyncio
from typing import Any

from duly.clock import Clock
from duly.database.database import Database
from duly.limits import STORE_CHECK_MS


class StoreWatch:
    """Has the others stop, and subscriptions end, though nothing is read or written meanwhile."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def step(self) -> float:
        self._database.check_present()
        return self._clock.now() + STORE_CHECK_MS

    def wakers(self) -> list[asyncio.Future[Any]]:
        return []
