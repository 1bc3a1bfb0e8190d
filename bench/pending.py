"""What functions cost that are pending and far from due: the same work beside none and beside a million of them.

run STORE    a process of its own that opens the store, says when the first job that was due has run, works on,
             and says how much memory it has taken
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import handlers
from bench import stores as rows
from bench.filling import clear, count_far, fill
from bench.machine import memory_mib
from bench.peers.drivers import started
from bench.product import drain_counts, drain_noops, open_app, start_after_commit, until_done
from bench.report import lined_up, percentiles
from bench.scale import Compared
from bench.workloads import Run, Stores, run_on
from duly.storage.open import sqlite_path

PENDING = 1_000_000
ROUNDS = 5
PROCESSES = 3
"""How many are started on each store."""
GOAL = 1.15
START_MS_GOAL = 1_000
MEMORY_MIB_GOAL = 100

DRAINS: tuple[tuple[str, Run, int], ...] = (
    ("job that does nothing", drain_noops, 20_000),
    ("job that reads, patches, inserts", drain_counts, 10_000),
)
STARTS, WARM_UP, SECONDS_APART = 200, 10, 0.01
COMMAND = [sys.executable, str(Path(__file__).resolve())]


class Taken(NamedTuple):
    """What a process takes that opens a store, round by round in turn on the empty and on the full one."""

    title: str
    small: list[float]
    large: list[float]
    goal: float


class Found(NamedTuple):
    compared: list[Compared]
    taken: list[Taken]


def measure(stores: Stores, pending: int, rounds: int, share: int, say: Callable[[str], None]) -> Found:
    """Each piece of work on an empty and on a full store, in turn, all rounds on the same two."""
    work: dict[str, Compared] = {}
    processes: dict[str, Taken] = {}
    with stores() as empty, stores() as full:
        say(f"pending: {pending:,} jobs …")
        asyncio.run(fill(empty, 0))
        asyncio.run(fill(full, pending))
        for at in range(rounds + 1):
            say(f"pending: round {at} of {rounds} …")
            _compare(empty, full, share, work, is_kept=at > 0)  # the first round warms up
        for at in range(min(rounds, PROCESSES)):
            say(f"pending: start {at + 1} …")
            _take(empty, full, share, processes)
        found = count_far(full)
        assert found == pending, f"got {found:,} that are pending, expected {pending:,}"
    return Found(list(work.values()), list(processes.values()))


def table(taken: list[Taken], pending: int) -> str:
    lines = [("", "none pending", f"{pending:,} pending", "at most")]
    for title, small, large, goal in taken:
        lines.append((title, *(f"{figure:,.0f}" for figure in (median(small), median(large), goal))))
    return lined_up(lines, left=1)


def _compare(empty: str, full: str, share: int, found: dict[str, Compared], is_kept: bool) -> None:
    for title, work, count in DRAINS:
        micros: list[float] = []
        for store in (empty, full):
            [rate] = run_on(work, store, max(count // share, 2))
            micros.append(1e6 / rate)
            clear(store)
        _keep(found, title, micros, is_kept)
    for label, latencies in zip(("p50", "p99"), _starts(empty, full, max(STARTS // share, 2)), strict=True):
        _keep(found, f"start after commit, {label}", [1_000 * latency for latency in latencies], is_kept)


def _keep(found: dict[str, Compared], title: str, micros: list[float], is_kept: bool) -> None:
    compared = found.setdefault(title, Compared(title, [], [], GOAL))
    if is_kept:
        compared.small.append(micros[0])
        compared.large.append(micros[1])


def _starts(empty: str, full: str, count: int) -> Iterator[tuple[float, ...]]:
    """Both stores open at once and called in turn: what the machine does meanwhile delays both alike."""
    waits = asyncio.run(_call_in_turn((empty, full), count))
    for store in (empty, full):
        clear(store)
    return zip(*map(percentiles, waits), strict=True)


async def _call_in_turn(stores: Sequence[str], count: int) -> list[list[float]]:
    waits: list[list[float]] = [[] for _ in stores]
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(open_app(store)) for store in stores]
        began = perf_counter()
        for n in range(-WARM_UP, count):
            for at, app in enumerate(apps):
                await asyncio.sleep(began + (len(apps) * (n + WARM_UP) + at) * SECONDS_APART - perf_counter())
                job = await app.mutation("bench:schedule_note", {"n": n})
                returned = perf_counter()
                await until_done(app, [job])
                if n >= 0:
                    waits[at].append(1_000 * (handlers.starts[n] - returned))
    return waits


# A process of its own.


def _take(empty: str, full: str, share: int, found: dict[str, Taken]) -> None:
    for store, is_full in ((empty, False), (full, True)):
        milliseconds, mib = asyncio.run(_process(store, share))
        clear(store)
        for title, figure, goal in (
            ("from the start of the process to the first job, ms", milliseconds, START_MS_GOAL),
            ("memory at most, MiB", mib, MEMORY_MIB_GOAL),
        ):
            taken = found.setdefault(title, Taken(title, [], [], goal))
            (taken.large if is_full else taken.small).append(figure)


async def _process(store: str, share: int) -> tuple[float, float]:
    """How long until the first job ran in a process that finds the file on the disk only, and its memory."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:schedule_begin")
    if not rows.is_in_postgres(store):
        _forget(sqlite_path(store))
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        async with started(COMMAND, Path(folder), "run", store, share) as process:
            # perf_counter reads a clock that all processes share.
            milliseconds = 1_000 * (await process.answer("ran") - began)
            return milliseconds, await process.answer("mib")


def _forget(path: str) -> None:
    """Have the system hold nothing of a file in memory, as after a restart of the machine."""
    with suppress(AttributeError), open(path, "rb+") as file:  # where there is no such call, it stays
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def run(store: str, share: int) -> None:
    handlers.drains.clear()
    async with open_app(store) as app:
        await until_done(app, [await app.mutation("bench:schedule_begin")])
    _say(ran=handlers.drains[0])
    clear(store)
    for _, work, count in (*DRAINS, ("", start_after_commit, STARTS // 5)):
        await work(store, max(count // share, 2))
        clear(store)
    _say(mib=memory_mib())


def _say(**message: float) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[2], int(sys.argv[3])))
