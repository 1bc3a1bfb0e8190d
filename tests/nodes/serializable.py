"""What processes that share a store leave behind, with validation and without: `python -m tests.nodes.serializable`.

Validation has no switch. A control replaces the function in the database that compares what a batch has read with
what others have written, so that the workloads show what they would find if it were wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import asyncpg  # type: ignore[import-untyped]

from duly import App
from tests import postgres
from tests.database.workloads import COUNT, SOURCE, WORKLOADS, Call, Workload, end

ROOT = Path(__file__).parents[2]

VALIDATION, SNAPSHOTS, NOTHING = "all that was read", "only what was written", "nothing"
"""What is compared with the writes of others. The second is what snapshot isolation compares."""


class Outcome(NamedTuple):
    violations: list[str]
    mutations: int
    conflicts: int
    seconds: float


class Processes:
    """Processes that share one store after the other."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self._calls = 0
        self._conflicts = 0
        self._seconds = 0.0

    async def run(self, workload: Workload, compared: str = VALIDATION, count: int = COUNT) -> Outcome:
        """Let them do a workload on a new store."""
        store = postgres.new_store(postgres.shared_address())
        self._calls = self._conflicts = 0
        self._seconds = 0.0
        try:
            async with App(SOURCE, store) as app:
                await self._all({"open": store})
                try:
                    await replace_validation(store, compared)
                    violations = await workload(app, self._call_all, count)
                finally:
                    await self._all({"close": True})
        finally:
            await asyncio.to_thread(postgres.drop_store, store)
        return Outcome(violations, self._calls, self._conflicts, self._seconds)

    async def _call_all(self, app: App, calls: list[Call]) -> None:
        """Make all calls, each process some, so that those that stand together are made at the same time."""
        began, step = time.monotonic(), len(self._processes)
        answers = await asyncio.gather(
            *(
                ask(process, {"calls": calls[n::step], "since": app.database.commit_log.version})
                for n, process in enumerate(self._processes)
            )
        )
        assert sum(answer["returned"] for answer in answers) + await end(app) == len(calls)
        self._seconds += time.monotonic() - began
        self._calls += len(calls)
        self._conflicts += sum(answer["conflicts"] for answer in answers)

    async def _all(self, order: dict[str, Any]) -> None:
        await asyncio.gather(*(ask(process, order) for process in self._processes))


async def ask(process: asyncio.subprocess.Process, order: dict[str, Any]) -> dict[str, int]:
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(order).encode() + b"\n")
    await process.stdin.drain()
    answer = await process.stdout.readline()
    assert answer, "a process has ended"
    return json.loads(answer)


@asynccontextmanager
async def processes(count: int) -> AsyncGenerator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes([await stack.enter_async_context(process(number)) for number in range(count)])


@asynccontextmanager
async def process(number: int) -> AsyncGenerator[asyncio.subprocess.Process]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.nodes.caller", str(number))
    started = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield started
    finally:
        assert started.stdin
        started.stdin.close()
        try:
            await asyncio.wait_for(started.wait(), 30)
        except TimeoutError:
            started.kill()
            await started.wait()


# The controls.


async def replace_validation(store: str, compared: str) -> None:
    """Let this store compare less than all that was read."""
    if compared == VALIDATION:
        return
    connection, schema = await connect(store)
    try:
        if compared == NOTHING:
            await connection.execute(
                f"CREATE OR REPLACE FUNCTION {schema}.conflicts_1(since bigint, read_ids bigint[], relations integer[],"
                " lowers bytea[], uppers bytea[], reads_jobs boolean) RETURNS boolean LANGUAGE sql AS 'SELECT false'"
            )
        else:
            commit = await connection.fetchval("SELECT pg_get_functiondef($1::regproc)", f"{schema}.commit_1")
            read, written = "read_ids, relations, lowers, uppers, reads_jobs)", "ids, '{}', '{}', '{}', false)"
            assert commit.count(f"conflicts_1(since, {read}") == 1
            await connection.execute(commit.replace(f"conflicts_1(since, {read}", f"conflicts_1(since, {written}"))
    finally:
        await connection.close()


async def connect(store: str) -> tuple[Any, str]:
    """A connection of the test's own to a store of `postgres.new_store`, and its schema."""
    [schema] = parse_qs(urlsplit(store).query)["schema"]
    return await asyncpg.connect(store.partition("?")[0]), schema


# The table.


async def main(counts: list[int], count: int, workloads: list[Workload]) -> int:
    print(f"{'workload':20} {'processes':>9} {'compared with the writes of others':34}", end=" ")
    print(f"{'mutations':>9} {'conflicts':>9} {'violations':>10} {'mutations/s':>11}")
    failed = False
    for number in counts:
        async with processes(number) as some:
            for workload in workloads:
                for compared in (VALIDATION, SNAPSHOTS, NOTHING):
                    outcome = await some.run(workload, compared, count)
                    rate = outcome.mutations / outcome.seconds
                    print(f"{workload.__name__:20} {number:9} {compared:34} {outcome.mutations:9}", end=" ")
                    print(f"{outcome.conflicts:9} {len(outcome.violations):10} {rate:11.0f}", flush=True)
                    failed |= compared == VALIDATION and bool(outcome.violations)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nodes.serializable", description="Look for anomalies.")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="how many (default: 2 and then 4)")
    parser.add_argument("--count", type=int, default=6_000, help="calls of a workload (default: 6000)")
    names = [workload.__name__ for workload in WORKLOADS]
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, help="which (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    options = _options()
    chosen = [workload for workload in WORKLOADS if workload.__name__ in options.workloads]
    sys.exit(asyncio.run(main(options.processes, options.count, chosen)))
