"""Procrastinate: asynchronous tasks, LISTEN/NOTIFY, a pool with a connection for each job that runs at once."""

from __future__ import annotations

from collections.abc import Sequence

import procrastinate
import protocol

CONCURRENCY = 10


class Procrastinate(protocol.Peer):
    package = "procrastinate"

    async def setup(self) -> None:
        await self._connect(1)
        await self.app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        await self._connect(CONCURRENCY + 2)

    async def _connect(self, connections: int) -> None:
        connector = procrastinate.PsycopgConnector(conninfo=self.address, min_size=connections, max_size=connections)
        self.app = procrastinate.App(connector=connector)
        self.tasks = {task.__name__: self.app.task(task, name=task.__name__) for task in (noop, self.count, note)}
        await self.app.open_async()

    async def enqueue(self, task: str, n: int) -> None:
        await self.tasks[task].defer_async(n=n)

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        await self.tasks[task].batch_defer_async(*({"n": n} for n in numbers))

    async def work(self) -> None:
        protocol.began()
        await self.app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)

    async def count(self, n: int) -> None:
        counter = n % protocol.COUNTERS
        async with self.app.connector.pool.connection() as connection, connection.transaction():
            read = await connection.execute(protocol.READ.format("%s"), (counter,))
            [found] = await read.fetchone()
            await connection.execute(protocol.UPDATE.format("%s", "%s"), (found + 1, counter))
            await connection.execute(protocol.INSERT.format("%s", "%s"), (n, counter))


async def noop(n: int) -> None:
    pass


async def note(n: int) -> None:
    protocol.note(n)


if __name__ == "__main__":
    protocol.main(Procrastinate)
