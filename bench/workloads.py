"""Every workload: what it is, how much of it, what it should reach, and how it is run bare and by duly."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import floor, product
from bench.product import Figures
from bench.report import Measure, Result

Run = Callable[[str, int], Coroutine[Any, Any, Figures]]
"""Measures so many calls or jobs on a new store, of which it gets the address."""
Stores = Callable[[], AbstractContextManager[str]]
"""Gives the address of a new store, which is gone afterwards."""


class Workload(NamedTuple):
    key: str
    title: str
    count: int
    """Calls or jobs of one round."""
    measures: tuple[Measure, ...]
    floor: Run | None
    product: Run


WORKLOADS = (
    Workload(
        "W1",
        "calls, one after another",
        4_000,
        (Measure("calls/s", 5_000),),
        floor.inserts_in_turn,
        product.calls_in_turn,
    ),
    Workload(
        "W1x64",
        "calls, 64 callers",
        51_200,
        (Measure("calls/s", 50_000),),
        floor.inserts_at_once,
        product.calls_at_once,
    ),
    Workload(
        "W2",
        "scheduling, 1,000 a mutation",
        50_000,
        (Measure("jobs/s", 120_000),),
        floor.job_inserts,
        product.schedule,
    ),
    Workload(
        "W3",
        "jobs that do nothing",
        50_000,
        (Measure("jobs/s", 100_000),),
        floor.job_updates,
        product.drain_noops,
    ),
    Workload(
        "W4",
        "jobs that read, patch, insert",
        20_000,
        (Measure("jobs/s", 25_000),),
        floor.job_counts,
        product.drain_counts,
    ),
    Workload(
        "W5",
        "start after commit",
        500,
        (Measure("ms", 0.5, "p50"), Measure("ms", 2, "p99")),
        floor.thread_hops,
        product.start_after_commit,
    ),
    Workload(
        "W6",
        "start after due time",
        1_000,
        (Measure("ms", 1, "p50"), Measure("ms", 5, "p99")),
        floor.timers,
        product.start_after_due,
    ),
    Workload(
        "actions",
        "actions that do nothing",
        10_000,
        (Measure("jobs/s", 20_000),),
        floor.action_updates,
        product.drain_actions,
    ),
)

LATENCY_FLOOR_SHARE = 2
"""The floor of a latency is measured on half of the samples, for it takes as long as they do."""
SECONDS_MAX = 120
"""A run that takes longer has lost something it waits for; no workload takes a quarter of this."""


def named(key: str) -> Workload:
    return next(workload for workload in WORKLOADS if workload.key == key)


def files_in(folder: Path) -> Stores:
    @contextmanager
    def file() -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            yield f"sqlite:///{place}/data.db"

    return file


def measure(workload: Workload, stores: Stores, count: int, rounds: int) -> list[Result]:
    """Floor, product, floor, product, …: each round on stores of its own."""
    pairs = [measure_once(workload, stores, count) for _ in range(rounds)]
    return [
        Result(
            workload.key,
            workload.title,
            figure,
            [of_product[at] for _, of_product in pairs],
            [of_floor[at] for of_floor, _ in pairs if of_floor is not None],
        )
        for at, figure in enumerate(workload.measures)
    ]


def measure_once(workload: Workload, stores: Stores, count: int) -> tuple[Figures | None, Figures]:
    is_latency = workload.measures[0].less_is_better
    of_floor = None
    if workload.floor is not None:
        of_floor = run(workload.floor, stores, max(count // LATENCY_FLOOR_SHARE, 2) if is_latency else count)
    return of_floor, run(workload.product, stores, count)


def run(work: Run, stores: Stores, count: int) -> Figures:
    """Run one side of a workload on a new store."""
    with stores() as store:
        return run_on(work, store, count)


def run_on(work: Run, store: str, count: int) -> Figures:
    """The same on a store that there is, with the garbage of earlier ones collected."""
    gc.collect()
    try:
        return asyncio.run(_within_time(work(store, count)))
    except TimeoutError:
        raise TimeoutError(f"{work.__name__}: got no end in {SECONDS_MAX} s") from None


async def _within_time(figures: Awaitable[Figures]) -> Figures:
    return await asyncio.wait_for(figures, SECONDS_MAX)
