"""One system on one server: every figure in a database of its own, copied from one that was set up once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from bench.peers.catalogue import Peer
from bench.peers.drivers import SECONDS_MAX, Driver, Failed, started
from bench.peers.install import ENVIRONMENTS

TRIAL = 10
"""How many times fewer jobs a trial has, which tells how many to measure."""
POLLS_SHARE = 0.05
"""How much of the time may go into asking whether jobs are left."""
POLLS_APART = 0.01

TABLES = """
    CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO counters SELECT id, 0 FROM generate_series(0, 999) id;
    CREATE TABLE events (id bigserial PRIMARY KEY, job int NOT NULL, counter int NOT NULL);
"""
WRITTEN = """
    SELECT (SELECT sum(n) FROM counters) AS counted, count(*) AS events, count(DISTINCT job) AS jobs FROM events
"""


class Scale(NamedTuple):
    seconds: float
    """About as long as one figure takes."""
    rounds: int
    latencies: int


class Drained(NamedTuple):
    rate: float
    lost: int
    """Jobs that did not write."""
    doubled: int
    """Rows beyond one a job."""


class Measuring:
    def __init__(self, peer: Peer, command: Sequence[str], address: str, scale: Scale) -> None:
        self.peer, self.command, self.address, self.scale = peer, command, address, scale
        self.template, self.database = f"peers_{peer.key}", f"peers_{peer.key}_run"

    async def set_up(self) -> str:
        """Make the database that the others are copies of; the version of the system."""
        await self._create(self.template)
        async with self._connection(self.template) as connection:
            await connection.execute(TABLES)
        async with self._driver("setup", database=self.template) as driver:
            return await driver.answer("version")

    async def tear_down(self) -> None:
        async with self._connection() as server:
            for database in (self.database, self.template):
                await server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    async def calls(self, callers: int) -> float:
        await self._create(self.database, self.template)
        async with self._driver("calls", self.scale.seconds, callers) as driver:
            return await driver.answer("rate")

    async def bulk(self) -> float:
        await self._create(self.database, self.template)
        async with self._driver("bulk", self.scale.seconds) as driver:
            return await driver.answer("rate")

    async def latencies(self) -> dict[str, list[float]]:
        """How long after the call and after its return the jobs began, in milliseconds."""
        await self._create(self.database, self.template)
        async with self._driver("latency", self.scale.latencies) as driver:
            return await driver.answer("latencies")

    async def drains(self, task: str, jobs: int, processes: int = 1, rounds: int | None = None) -> list[Drained]:
        """Rounds of as many jobs as take the time that they should, as far as the round before tells."""
        drains = [await self._drain(task, jobs // TRIAL, processes)]
        for _ in range(rounds or self.scale.rounds):
            wanted = round(drains[-1].rate * self.scale.seconds)
            drains.append(await self._drain(task, min(max(wanted, jobs // TRIAL), 3 * jobs), processes))
        return drains[1:]

    async def _drain(self, task: str, jobs: int, processes: int) -> Drained:
        await self._create(self.database, self.template)
        async with self._driver("fill", task, jobs) as driver:
            await driver.answer("filled")
        async with self._connection(self.database) as connection, AsyncExitStack() as stack:
            await connection.execute("CHECKPOINT")
            workers = [await stack.enter_async_context(self._driver("work")) for _ in range(processes)]
            for worker in workers:
                await worker.answer("ready")
            for worker in workers:
                worker.go()
            ended = await self._until_done(connection, workers)
            began = [await worker.answer("began") for worker in workers]
            written = await connection.fetchrow(WRITTEN)
        return _drained(jobs, ended - min(began), written if task == "count" else None)

    async def _until_done(self, connection: Any, workers: list[Driver]) -> float:
        until = monotonic() + SECONDS_MAX
        while (asked := monotonic()) < until:
            if not await connection.fetchval(self.peer.unfinished):
                return asked
            for worker in workers:
                worker.check()
            await asyncio.sleep(max(POLLS_APART, (monotonic() - asked) / POLLS_SHARE))
        raise Failed(f"jobs were left after {SECONDS_MAX} s")

    def _driver(self, verb: str, *arguments: object, database: str | None = None) -> Any:
        address = self._address(database or self.database)
        return started(self.command, ENVIRONMENTS / self.peer.key, verb, address, *arguments)

    async def _create(self, database: str, template: str = "template0") -> None:
        async with self._connection() as server:
            await server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            await server.execute(f"CREATE DATABASE {database} TEMPLATE {template}")

    @asynccontextmanager
    async def _connection(self, database: str | None = None) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self._address(database) if database else self.address)
        try:
            yield connection
        finally:
            await connection.close()

    def _address(self, database: str) -> str:
        server = urlsplit(self.address)
        return f"postgresql://{server.netloc}/{database}?{server.query}"


def _drained(jobs: int, seconds: float, written: Any) -> Drained:
    if written is None:
        return Drained(jobs / seconds, 0, 0)
    if written["counted"] != written["events"]:
        raise Failed(f"the counters say {written['counted']}, the log has {written['events']}")
    return Drained(jobs / seconds, jobs - written["jobs"], written["events"] - written["jobs"])
