"""A job system that takes every job from its queue before it runs the first: what it has taken, a kill loses."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "peers"))

import protocol
from effects import Effects

SECONDS_OF_A_JOB = 0.03


class Forgetful(protocol.Peer):
    package = "duly"  # whose version it says: it has none

    async def setup(self) -> None:
        self._run("CREATE TABLE jobs (n int)")

    async def open(self) -> None: ...

    async def enqueue(self, task: str, n: int) -> None:
        self._run("INSERT INTO jobs VALUES (?)", n)

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        for n in numbers:
            await self.enqueue(task, n)

    async def work(self) -> None:
        protocol.began()
        effects = Effects(self.address)
        for (n,) in self._run("DELETE FROM jobs RETURNING n"):
            effects.count(n)
            await asyncio.sleep(SECONDS_OF_A_JOB)
        await asyncio.Event().wait()

    def _run(self, sql: str, *values: int) -> list[tuple[int]]:
        with sqlite3.connect(f"{self.address}/queue.db") as connection:
            return connection.execute(sql, values).fetchall()


if __name__ == "__main__":
    protocol.main(Forgetful)
