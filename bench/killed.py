"""Jobs that read, patch and insert, while the process that runs them is killed again and again: all exactly once?"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from time import monotonic, time
from typing import NamedTuple

from bench import stores as rows
from bench.nodes import COMMAND
from bench.peers.drivers import SECONDS_MAX, Driver, Failed, started
from bench.peers.measuring import KILLS, POLLS_APART
from bench.product import open_app, prepare_counts

JOBS = 20_000


class Outcome(NamedTuple):
    lost: int
    doubled: int


async def run(store: str, jobs: int) -> Outcome:
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        await prepare_counts(app, jobs, 1_000 * time())
    for kill in range(KILLS + 1):
        with tempfile.TemporaryDirectory() as folder:
            async with started(COMMAND, Path(folder), "work", store) as worker:  # it is killed at the end
                await _until(store, jobs * (kill + 1) // (KILLS + 1), worker)
    rows.check_all_succeeded(store, jobs)
    rows.check_counted(store, jobs)
    number, events = rows.dialect_of(store).number, rows.table_of(store, "events")
    [(written, distinct)] = rows.read(store, f"SELECT count(*), count(DISTINCT {number}) FROM {events}")
    return Outcome(jobs - distinct, written - distinct)


async def _until(store: str, enough: int, worker: Driver) -> None:
    until = monotonic() + SECONDS_MAX
    count = f"SELECT count(*) FROM {rows.table_of(store, 'events')}"
    while monotonic() < until:
        if rows.read(store, count)[0][0] >= enough:
            return
        worker.check()
        await asyncio.sleep(POLLS_APART)
    raise Failed(f"jobs were left after {SECONDS_MAX} s")
