"""PgQueuer on asyncpg: one connection for the queue, a pool for those who enqueue and for what jobs write."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import protocol
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

CONNECTIONS = 20
BATCH = 500


class Queuer(protocol.Peer):
    package = "pgqueuer"

    async def setup(self) -> None:
        queries = Queries(AsyncpgDriver(await asyncpg.connect(self.address)))
        await queries.install()
        await queries.optimize_autovacuum()

    async def open(self) -> None:
        self.pool = await asyncpg.create_pool(self.address, min_size=CONNECTIONS, max_size=CONNECTIONS)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))

    async def enqueue(self, task: str, n: int) -> None:
        await self.queries.enqueue(task, b"%d" % n)

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        await self.queries.enqueue([task] * len(numbers), [b"%d" % n for n in numbers], [0] * len(numbers))

    async def work(self) -> None:
        queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(self.address))
        for name, task in (("noop", noop), ("count", self.count), ("note", note)):
            queuer.entrypoint(name)(task)
        protocol.began()
        await queuer.run(batch_size=BATCH, max_concurrent_tasks=2 * BATCH)

    async def count(self, job: Job) -> None:
        n = int(job.payload or b"")
        counter = n % protocol.COUNTERS
        async with self.pool.acquire() as connection, connection.transaction():
            found = await connection.fetchval(protocol.READ.format("$1"), counter)
            await connection.execute(protocol.UPDATE.format("$1", "$2"), found + 1, counter)
            await connection.execute(protocol.INSERT.format("$1", "$2"), n, counter)


async def noop(job: Job) -> None:
    pass


async def note(job: Job) -> None:
    protocol.note(int(job.payload or b""))


if __name__ == "__main__":
    protocol.main(Queuer, uvloop.run)
