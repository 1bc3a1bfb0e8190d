"""Timestamps of one server: versions of the store, counted from an origin that all servers of it agree on."""

from __future__ import annotations

import asyncio
from functools import partial

from duly.database.batch import Batch
from duly.database.database import Database
from duly.limits import CATCH_UP_SECONDS
from duly.model import server_clock


class Timestamps:
    """Makes timestamps of versions. Used in the event loop of the app."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._origin = 0

    @property
    def now(self) -> int:
        """The timestamp of the newest commit that is known here."""
        return self.of(self._database.commit_log.version)

    def of(self, version: int) -> int:
        return self._origin + version

    def version_at(self, ts: int) -> int:
        """Return the version of the store that a timestamp stands for."""
        return max(ts - self._origin, 0)

    async def start(self) -> None:
        """Read the origin, or set it if this is the first server of the store."""
        await self._advance(0)

    async def catch_up(self, ts: int) -> bool:
        """Wait until all commits up to a timestamp are known. Return False if that cannot be, or takes too long."""
        if ts <= self.now:
            return True
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._database.refresh()  # another node may have made it
                await self._advance(ts)  # or this store may be an older one, from a backup
        except TimeoutError:
            return False
        return ts <= self.now

    async def _advance(self, beyond: int) -> None:
        move = partial(server_clock.advance, beyond=beyond - self._database.commit_log.version)
        self._origin = max(self._origin, await self._database.commit(lambda batch: batch.attempt(move)))

    async def know(self, version: int) -> None:
        """Wait until a version that a reader has seen is known in the event loop, too."""
        while self._database.commit_log.version < version:
            await self._database.commit(_refresh)


def _refresh(batch: Batch) -> None:
    batch.refresh()
