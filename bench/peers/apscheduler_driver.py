"""APScheduler with its SQL job store on SQLite: the scheduler is a thread of the process that adds the jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import protocol
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from effects import Effects
from sqlalchemy import create_engine, event

WORKERS = 10


class ApScheduler(protocol.Peer):
    package = "apscheduler"

    async def setup(self) -> None:
        await self.open()

    async def open(self) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        effects.append(Effects(self.address))
        engine = create_engine(f"sqlite:///{self.address}/queue.db")
        event.listen(engine, "connect", _set_pragmas)
        self.scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(engine=engine)},
            executors={"default": ThreadPoolExecutor(WORKERS)},
            job_defaults={"misfire_grace_time": None, "coalesce": False},
        )
        self.scheduler.start(paused=True)

    async def enqueue(self, task: str, n: int) -> None:
        self.scheduler.add_job(f"__main__:{task}", args=(n,))

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        for n in numbers:  # it has no call for many
            await self.enqueue(task, n)

    async def work(self) -> None:
        protocol.began()
        self.scheduler.resume()
        await asyncio.Event().wait()


def _set_pragmas(connection, _) -> None:  # pyright: ignore
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


# The functions are found by their names.
effects: list[Effects] = []


def noop(n: int) -> None:
    pass


def note(n: int) -> None:
    protocol.note(n)


def count(n: int) -> None:
    effects[0].count(n)


if __name__ == "__main__":
    protocol.main(ApScheduler)
