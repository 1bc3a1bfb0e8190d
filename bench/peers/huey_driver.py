"""Huey on SQLite: a consumer of threads in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from time import monotonic

import protocol
from effects import Effects
from huey import SqliteHuey
from huey.consumer import Consumer

WORKERS = 4
POLLING_SECONDS = 0.01
CACHE_MB = 64


class Huey(protocol.Peer):
    package = "huey"
    fsync = True
    told: int | None = None
    """Where the moments of `note` are written that another process measures."""

    async def setup(self) -> None:
        await self.open()

    async def open(self) -> None:
        logging.getLogger("huey").setLevel(logging.ERROR)
        path = f"{self.address}/queue.db"
        self.huey = SqliteHuey("bench", filename=path, fsync=self.fsync, cache_mb=CACHE_MB, results=False)
        tasks = (noop, Effects(self.address).count, self.note)
        self.tasks = {task.__name__: self.huey.task(name=task.__name__)(task) for task in tasks}

    async def enqueue(self, task: str, n: int) -> None:
        self.tasks[task](n)

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        for n in numbers:  # it has no call for many
            self.tasks[task](n)

    async def work(self) -> None:
        protocol.began()
        self._consume()
        await asyncio.Event().wait()

    def _consume(self) -> None:
        Consumer(
            self.huey,
            workers=WORKERS,
            initial_delay=POLLING_SECONDS,
            max_delay=POLLING_SECONDS,
            periodic=False,
            check_worker_health=False,
        ).start()

    async def work_beside(self) -> None:
        self.huey.storage.close()
        moments, told = os.pipe()
        lives, life = os.pipe()
        if os.fork() == 0:
            os.close(life)
            self.told = told
            self._consume()
            os.read(lives, 1)  # until the process that enqueues has ended
            os._exit(0)
        threading.Thread(target=_hear, args=(moments,), daemon=True).start()
        await asyncio.Event().wait()

    def note(self, n: int) -> None:
        assert self.told is not None
        os.write(self.told, b"%d %r\n" % (n, monotonic()))


def _hear(moments: int) -> None:
    with os.fdopen(moments) as lines:
        for line in lines:
            n, moment = line.split()
            protocol.starts[int(n)] = float(moment)


def noop(n: int) -> None:
    pass


if __name__ == "__main__":
    protocol.main(Huey)
