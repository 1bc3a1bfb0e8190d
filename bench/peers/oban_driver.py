"""Oban for Python, the open edition: one queue with room for many jobs, LISTEN/NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import protocol
import uvloop
from oban import Oban, job
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

CONNECTIONS = 20
LIMIT = 200

pools: list[AsyncConnectionPool[Any]] = []
"""The pool that jobs take their connections from: they are functions of the module."""


class ObanPeer(protocol.Peer):
    package = "oban"

    async def setup(self) -> None:
        await install(await Oban.create_pool(self.address))

    async def open(self) -> None:
        pools[:] = [await Oban.create_pool(self.address, min_size=CONNECTIONS, max_size=CONNECTIONS)]
        self.oban = Oban(pool=pools[0])

    async def enqueue(self, task: str, n: int) -> None:
        await self.oban.enqueue(TASKS[task].new(n))

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        await self.oban.enqueue_many([TASKS[task].new(n) for n in numbers])

    async def work(self) -> None:
        protocol.began()
        async with Oban(pool=pools[0], queues={"default": LIMIT}):
            await asyncio.Event().wait()


@job()
async def noop(n: int) -> None:
    pass


@job()
async def count(n: int) -> None:
    counter = n % protocol.COUNTERS
    async with pools[0].connection() as connection, connection.transaction():
        read = await connection.execute(protocol.READ.format("%s"), (counter,))
        [found] = await read.fetchone()
        await connection.execute(protocol.UPDATE.format("%s", "%s"), (found + 1, counter))
        await connection.execute(protocol.INSERT.format("%s", "%s"), (n, counter))


@job()
async def note(n: int) -> None:
    protocol.note(n)


TASKS: dict[str, Any] = {"noop": noop, "count": count, "note": note}

if __name__ == "__main__":
    protocol.main(ObanPeer, uvloop.run)
