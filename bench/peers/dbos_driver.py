"""DBOS: workflows on a queue that is polled often; what a job writes is a transaction of a datasource."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import protocol
from dbos import DBOS, DBOSClient, SQLAlchemyDatasource
from sqlalchemy import create_engine, text

CONNECTIONS = 20
CALLERS = 64
WORKER_CONCURRENCY = 100
POLLING_SECONDS = 0.02
LAUNCH_SECONDS = 1.5
"""A process looks for queues every second, and is ready when it has found its own."""
QUEUE = "jobs"
# The documented function that enqueues from SQL: nothing else enqueues many jobs with one statement.
ENQUEUE = "SELECT count(dbos.enqueue_workflow(:task, :queue, ARRAY[to_json(n)])) FROM unnest(CAST(:numbers AS int[])) n"

datasources: list[SQLAlchemyDatasource] = []
"""What workflows write with: they are functions of the module."""


class Dbos(protocol.Peer):
    package = "dbos"

    async def setup(self) -> None:
        self._launch()
        await DBOS.register_queue_async(QUEUE, worker_concurrency=0, polling_interval_sec=POLLING_SECONDS)

    async def open(self) -> None:
        url = self.address.replace("postgresql://", "postgresql+psycopg://", 1)
        self.engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        self.client = DBOSClient(system_database_url=self.address, system_database_pool_size=CONNECTIONS)
        self.threads = ThreadPoolExecutor(CALLERS)

    async def enqueue(self, task: str, n: int) -> None:
        loop = asyncio.get_running_loop()
        options = {"queue_name": QUEUE, "workflow_name": task}
        await loop.run_in_executor(self.threads, lambda: self.client.enqueue(options, n))

    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None:
        with self.engine.begin() as connection:
            values = {"task": task, "queue": QUEUE, "numbers": list(numbers)}
            connection.execute(text(ENQUEUE), values)

    async def start(self) -> None:
        datasources[:] = [SQLAlchemyDatasource.create("", engine=self.engine)]
        self._launch()
        await asyncio.sleep(LAUNCH_SECONDS)

    async def work(self) -> None:
        protocol.began()
        queue = await DBOS.retrieve_queue_async(QUEUE)
        await queue.set_worker_concurrency_async(WORKER_CONCURRENCY)
        await asyncio.Event().wait()

    def _launch(self) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self.address,
                "sys_db_pool_size": CONNECTIONS,
                "executor_id": str(os.getpid()),
                "application_version": "1",
                "log_level": "ERROR",
            }
        )
        DBOS.launch()


@DBOS.workflow(name="noop")
def noop(n: int) -> None:
    pass


@DBOS.workflow(name="note")
def note(n: int) -> None:
    protocol.note(n)


@DBOS.workflow(name="count")
def count(n: int) -> None:
    datasources[0].run_tx_step({"name": "count", "isolation_level": "READ COMMITTED"}, count_once, n)


def count_once(n: int) -> None:
    counter, session = n % protocol.COUNTERS, datasources[0].sql_session()
    found = session.scalar(text(protocol.READ.format(":counter")), {"counter": counter})
    session.execute(text(protocol.UPDATE.format(":n", ":counter")), {"n": found + 1, "counter": counter})
    session.execute(text(protocol.INSERT.format(":job", ":counter")), {"job": n, "counter": counter})


if __name__ == "__main__":
    protocol.main(Dbos)
