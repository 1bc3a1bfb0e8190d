"""A hundred thousand functions that are due in the same millisecond, and how long a client's calls take meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from statistics import median
from time import perf_counter, time
from typing import Any, NamedTuple

from bench import stores as rows
from bench.product import open_app, prepare_counts, until_done
from bench.report import lined_up, percentiles
from bench.workloads import Stores, run_on
from duly import App

JOBS = 100_000
ROUNDS = 2
SECONDS_APART = 0.01
"""Between two mutations of the client, and between two of its queries."""
P99_MS_GOAL = 30

QUIET_SECONDS = 1.0
"""For how long the client calls before the executor starts."""

Client = Callable[[App, int], Awaitable[Any]]


async def _mutation(app: App, n: int) -> None:
    await app.mutation("bench:insert", {"n": n, "text": "from a client"})


async def _query(app: App, n: int) -> None:
    await app.query("bench:newest_note")


CLIENTS: dict[str, Client] = {"mutation": _mutation, "query": _query}


class Call(NamedTuple):
    """A call of a client: when it was to be made, and how many milliseconds later it was answered."""

    planned: float
    milliseconds: float


class Storm(NamedTuple):
    seconds: float
    """From the start of the executor to the end of the last job."""
    quiet: dict[str, list[float]]
    """How long calls took before, by their kind, in milliseconds."""
    meanwhile: dict[str, list[float]]


def measure(stores: Stores, jobs: int, rounds: int, say: Callable[[str], None]) -> list[Storm]:
    found: list[Storm] = []
    for at in range(rounds):
        say(f"storm: round {at + 1} of {rounds} …")
        with stores() as store:
            run_on(lambda store, jobs: _keep(found, store, jobs), store, jobs)
    return found


def table(found: list[Storm], jobs: int) -> str:
    """Of all rounds together: the 99th percentile of one alone is that of a few calls."""
    head = ("ms", "calls", "p50", "p99", "max", "p99 at most")
    lines = [head]
    for kind in CLIENTS:
        for title, of_storm in (("before", _quiet), ("meanwhile", _meanwhile)):
            times = [time for storm in found for time in of_storm(storm)[kind]]
            p50, p99 = percentiles(times)
            goal = f"{P99_MS_GOAL}" if of_storm is _meanwhile else ""
            lines.append((f"{kind}, {title}", f"{len(times):,}", *(f"{ms:.1f}" for ms in (p50, p99, max(times))), goal))
    seconds = median(storm.seconds for storm in found)
    return f"{lined_up(lines, left=1)}\n\nAll {jobs:,} jobs ran once each, in {seconds:.1f} s."


def _quiet(storm: Storm) -> dict[str, list[float]]:
    return storm.quiet


def _meanwhile(storm: Storm) -> dict[str, list[float]]:
    return storm.meanwhile


async def _keep(found: list[Storm], store: str, jobs: int) -> tuple[float]:
    found.append(await run(store, jobs))
    return (found[-1].seconds,)


async def run(store: str, jobs: int) -> Storm:
    """Schedule without an executor, and have the client call: before, and from the start of one to the last job."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        last = await prepare_counts(app, jobs, float(round(1_000 * time())))
        rows.checkpoint(store)
        async with _calling(app) as quiet:
            await asyncio.sleep(QUIET_SECONDS)
    async with open_app(store) as app:
        began = perf_counter()  # the executor has not had a turn of the event loop yet
        async with _calling(app) as meanwhile:
            ended = await until_done(app, last)
    rows.check_all_succeeded(store, jobs)
    rows.check_counted(store, jobs)
    return Storm(ended - began, _answered(quiet), _answered(meanwhile, ended))


def _answered(calls: dict[str, list[Call]], until: float = inf) -> dict[str, list[float]]:
    """How long the calls took that were to be made by then."""
    return {kind: [call.milliseconds for call in calls[kind] if call.planned < until] for kind in CLIENTS}


@asynccontextmanager
async def _calling(app: App) -> AsyncIterator[dict[str, list[Call]]]:
    """Have every client call from now on, at its times, whether or not its calls before have been answered."""
    calls: dict[str, list[Call]] = {kind: [] for kind in CLIENTS}
    clients = [asyncio.create_task(_call(app, CLIENTS[kind], calls[kind])) for kind in CLIENTS]
    try:
        yield calls
    finally:
        for client in clients:
            client.cancel()
        for client in clients:
            await asyncio.gather(client, return_exceptions=True)


async def _call(app: App, client: Client, calls: list[Call]) -> None:
    async def answer(n: int, planned: float) -> None:
        await client(app, n)
        calls.append(Call(planned, 1_000 * (perf_counter() - planned)))

    began, n = perf_counter(), 0
    async with asyncio.TaskGroup() as waiting:
        try:
            while True:
                planned = began + n * SECONDS_APART
                await asyncio.sleep(planned - perf_counter())
                waiting.create_task(answer(n, planned))
                n += 1
        except asyncio.CancelledError:
            pass  # the calls that were made are still answered
