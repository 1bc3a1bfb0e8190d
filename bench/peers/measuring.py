"""One system on one engine: every figure in a database of its own, copied from one that was set up once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, NamedTuple

from bench.peers.catalogue import Peer
from bench.peers.databases import Databases, Open
from bench.peers.drivers import SECONDS_MAX, Driver, Failed, started
from bench.peers.install import ENVIRONMENTS

TRIAL = 10
"""How many times fewer jobs a trial has, which tells how many to measure."""
POLLS_SHARE = 0.05
"""How much of the time may go into asking whether jobs are left."""
POLLS_APART = 0.01
KILLS = 3
SETTLED_SECONDS = 1.0
"""After which what jobs have begun to write is written: some say that none is left when the last have begun."""


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
    def __init__(self, peer: Peer, command: Sequence[str], databases: Databases, scale: Scale) -> None:
        self.peer, self.command, self.databases, self.scale = peer, command, databases, scale
        self.template, self.database = f"peers_{peer.key}", f"peers_{peer.key}_run"

    async def set_up(self) -> str:
        """Make the database that the others are copies of; the version of the system."""
        await self.databases.create(self.template)
        async with self._driver("setup", database=self.template) as driver:
            return await driver.answer("version")

    async def tear_down(self) -> None:
        for database in (self.database, self.template):
            await self.databases.drop(database)

    async def calls(self, callers: int) -> float:
        await self._create()
        async with self._driver("calls", self.scale.seconds, callers) as driver:
            return await driver.answer("rate")

    async def bulk(self) -> float:
        await self._create()
        async with self._driver("bulk", self.scale.seconds) as driver:
            return await driver.answer("rate")

    async def latencies(self) -> dict[str, list[float]]:
        """How long after the call and after its return the jobs began, in milliseconds."""
        await self._create()
        async with self._driver("latency", self.scale.latencies) as driver:
            return await driver.answer("latencies")

    async def drains(self, task: str, jobs: int, processes: int = 1, rounds: int | None = None) -> list[Drained]:
        """Rounds of as many jobs as take the time that they should, as far as the round before tells."""
        drains = [await self._drain(task, jobs // TRIAL, processes)]
        for _ in range(rounds or self.scale.rounds):
            wanted = round(drains[-1].rate * self.scale.seconds)
            drains.append(await self._drain(task, min(max(wanted, jobs // TRIAL), 3 * jobs), processes))
        return drains[1:]

    async def killed(self, jobs: int) -> Drained:
        """The worker is killed a few times on the way, and the next one begins: what is lost then, and doubled."""
        await self._fill("count", jobs)
        async with self.databases.opened(self.database) as database:
            began = monotonic()
            for kill in range(KILLS + 1):
                enough = jobs * (kill + 1) // (KILLS + 1) if kill < KILLS else None
                async with self._driver("work") as worker:
                    await worker.answer("ready")
                    worker.go()
                    await self._until_done(database, [worker], jobs, enough)
            return _drained(jobs, monotonic() - began, await database.written())

    async def _drain(self, task: str, jobs: int, processes: int) -> Drained:
        await self._fill(task, jobs)
        async with self.databases.opened(self.database) as database, AsyncExitStack() as stack:
            await database.settle()
            workers = [await stack.enter_async_context(self._driver("work")) for _ in range(processes)]
            for worker in workers:
                await worker.answer("ready")
            for worker in workers:
                worker.go()
            ended = await self._until_done(database, workers, jobs if task == "count" else 0)
            began = [await worker.answer("began") for worker in workers]
            written = await database.written()
        return _drained(jobs, ended - min(began), written if task == "count" else None)

    async def _fill(self, task: str, jobs: int) -> None:
        await self._create()
        async with self._driver("fill", task, jobs) as driver:
            await driver.answer("filled")

    async def _until_done(
        self, database: Open, workers: Sequence[Driver], jobs: int, enough: int | None = None
    ) -> float:
        """When no job is left and what so many of them write is written, or when enough of it is."""
        until, events, changed = monotonic() + SECONDS_MAX, -1, monotonic()
        while (asked := monotonic()) < until:
            is_unfinished = await database.is_unfinished(self.peer.unfinished)
            if jobs:
                written = (await database.written())["jobs"]
                if enough is not None and written >= enough:
                    return asked
                if written != events:
                    events, changed = written, asked
            if not is_unfinished and (events >= jobs or not jobs or asked > changed + SETTLED_SECONDS):
                return changed if jobs else asked
            for worker in workers:
                worker.check()
            await asyncio.sleep(max(POLLS_APART, (monotonic() - asked) / POLLS_SHARE))
        raise Failed(f"jobs were left after {SECONDS_MAX} s")

    def _driver(self, verb: str, *arguments: object, database: str | None = None) -> Any:
        address = self.databases.address(database or self.database)
        return started(self.command, ENVIRONMENTS / self.peer.environment, verb, address, *arguments)

    async def _create(self) -> None:
        await self.databases.create(self.database, self.template)


def _drained(jobs: int, seconds: float, written: Mapping[str, int] | None) -> Drained:
    if written is None:
        return Drained(jobs / seconds, 0, 0)
    if (written["counted"] or 0) != written["events"]:
        raise Failed(f"the counters say {written['counted']}, the log has {written['events']}")
    return Drained(jobs / seconds, jobs - written["jobs"], written["events"] - written["jobs"])
