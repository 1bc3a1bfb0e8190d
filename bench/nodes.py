"""Two nodes on one store: processes of their own, both there before there is work.

work STORE    says it is ready and runs what is due; answers a line with when each run of `note` began
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter, time
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import handlers, stores
from bench.peers.drivers import Driver, Failed, started
from bench.product import Figures, Prepare, call_notes, open_app, prepare_counts, prepare_noops
from bench.report import percentiles

COMMAND = [sys.executable, str(Path(__file__).resolve())]
SECONDS_MAX = 60
LEAD_MS = 2_000
LEAD_MS_OF_JOB = 0.15
"""How much time there is to schedule the jobs before they are due."""
REGROUP_SECONDS = 0.7
"""Within two heartbeats every node knows which part is its own."""
POLLS_SHARE = 0.05
"""How much of the time may go into asking whether jobs are left."""


# The other processes.


async def work(store: str) -> None:
    async with open_app(store):
        _say(ready=True)
        await asyncio.to_thread(sys.stdin.readline)
        _say(starts=handlers.starts)
        await asyncio.to_thread(sys.stdin.readline)


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


@asynccontextmanager
async def _running(store: str, count: int) -> AsyncIterator[list[Driver]]:
    """Nodes that have joined and know of each other."""
    async with AsyncExitStack() as stack:
        nodes: list[Driver] = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            nodes.append(await stack.enter_async_context(started(COMMAND, folder, "work", store)))
        for node in nodes:
            await node.answer("ready")
        await asyncio.sleep(REGROUP_SECONDS)
        yield nodes


# Draining.


async def drain_noops(store: str, count: int) -> Figures:
    return (count / await _drain(store, count, prepare_noops),)


async def drain_counts(store: str, count: int) -> Figures:
    seconds = await _drain(store, count, prepare_counts)
    stores.check_counted(store, count)
    return (count / seconds,)


async def _drain(store: str, count: int, prepare: Prepare) -> float:
    """From the moment when all jobs become due at once until none is left."""
    async with _running(store, 2) as nodes:
        due = 1_000 * time() + LEAD_MS + LEAD_MS_OF_JOB * count
        async with open_app(store, executor=False) as app:
            await prepare(app, count, due)
        stores.checkpoint(store)
        gc.collect()
        await asyncio.sleep(REGROUP_SECONDS)
        left = due / 1_000 - time()
        if left < 0:
            raise Failed(f"the jobs were due {-left:.1f} s before all of them were scheduled")
        began = perf_counter() + left
        await asyncio.sleep(left)
        ended = await _until_done(store, nodes)
    stores.check_all_succeeded(store, count)
    return ended - began


async def _until_done(store: str, nodes: list[Driver]) -> float:
    async with stores.connection(store) as postgres:
        until = perf_counter() + SECONDS_MAX
        while (asked := perf_counter()) < until:
            if not await postgres.fetchval("SELECT EXISTS (SELECT FROM jobs)"):
                return asked
            for node in nodes:
                node.check()
            await asyncio.sleep((perf_counter() - asked) / POLLS_SHARE)
    raise Failed(f"jobs were left after {SECONDS_MAX} s")


# Latency.


async def start_on_other(store: str, count: int) -> Figures:
    """From the return of a call on this node, which runs nothing, to the start of the job on the other."""
    async with _running(store, 1) as [other], open_app(store, executor=False) as app:
        await app.mutation("bench:schedule_note", {"n": -1})
        await asyncio.sleep(REGROUP_SECONDS)
        returned, _ = await call_notes(app, count)
        await asyncio.sleep(REGROUP_SECONDS)
        other.go()
        # perf_counter reads a clock that all processes share.
        starts = {int(n): moment for n, moment in (await other.answer("starts")).items()}
    stores.check_all_succeeded(store, count + 1)
    return percentiles(1_000 * (starts[n] - moment) for n, moment in enumerate(returned))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[2]))
