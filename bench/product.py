"""The workloads as duly runs them: each makes a store, measures, and checks what it left there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from time import perf_counter, time

from bench import handlers, stores
from bench.report import percentiles
from duly import App, Limits

TEXT = "forty characters, as in a short message."
COUNTERS = 1_000
AT_ONCE = 1_000  # as many as one mutation may schedule
CALLERS = 64
HOUR_MS = 3_600_000.0
CALLS_PER_SECOND = 50
DUE_PER_SECOND = 100

SOURCE = {"bench": handlers}
LIMITS = Limits(scheduled_functions_max=2 * AT_ONCE)
"""Twice the default, so that nothing comes close to it and is warned of."""

Figures = tuple[float, ...]
"""What one run measured: calls or jobs per second, or (p50, p99) in milliseconds."""


def open_app(store: str, executor: bool = True) -> App:
    return App(SOURCE, store, executor=executor, limits=LIMITS)


# Calls.


async def calls_in_turn(store: str, count: int) -> Figures:
    return await _inserts(store, count, 1)


async def calls_at_once(store: str, count: int) -> Figures:
    return await _inserts(store, count, CALLERS)


async def jobs_in_turn(store: str, count: int) -> Figures:
    return await _schedules(store, count, 1)


async def jobs_at_once(store: str, count: int) -> Figures:
    return await _schedules(store, count, CALLERS)


async def _inserts(store: str, count: int, callers: int) -> Figures:
    made, rate = await _calls(store, count, callers, _insert)
    stores.check_rows(store, "notes", made)
    return (rate,)


async def _schedules(store: str, count: int, callers: int) -> Figures:
    made, rate = await _calls(store, count, callers, _schedule_one)
    assert stores.states(store) == {"pending": made}
    return (rate,)


async def _calls(
    store: str, count: int, callers: int, call: Callable[[App, int], Awaitable[None]]
) -> tuple[int, float]:
    """How many calls were made, those that warm up included, and how many a second."""
    each, warm_up = max(count // callers, 1), min(count, 200)

    async def make(calls: int) -> None:
        for n in range(calls):
            await call(app, n)

    async with open_app(store) as app:
        await make(warm_up)
        started = _start()
        await asyncio.gather(*(make(each) for _ in range(callers)))
        seconds = perf_counter() - started
    return warm_up + callers * each, callers * each / seconds


async def _insert(app: App, n: int) -> None:
    await app.mutation("bench:insert", {"n": n, "text": TEXT})


async def _schedule_one(app: App, n: int) -> None:
    await app.mutation("bench:schedule_for_later", {"first": n, "count": 1, "delay": HOUR_MS})


def _start() -> float:
    gc.collect()
    return perf_counter()


# Scheduling.


async def schedule(store: str, count: int) -> Figures:
    async with open_app(store) as app:
        await app.mutation("bench:schedule_for_later", {"first": 0, "count": 10, "delay": HOUR_MS})
        started = _start()
        for first, size in _portions(count):
            await app.mutation("bench:schedule_for_later", {"first": first, "count": size, "delay": HOUR_MS})
        seconds = perf_counter() - started
    assert stores.states(store) == {"pending": count + 10}
    return (count / seconds,)


def _portions(count: int) -> Iterator[tuple[int, int]]:
    """Where each portion that one mutation can schedule begins, and its size."""
    for first in range(0, count, AT_ONCE):
        yield first, min(AT_ONCE, count - first)


# Draining.


async def drain_noops(store: str, count: int) -> Figures:
    return (count / await _drain(store, count, prepare_noops),)


async def drain_counts(store: str, count: int) -> Figures:
    seconds = await _drain(store, count, prepare_counts)
    stores.check_counted(store, count)
    return (count / seconds,)


async def drain_actions(store: str, count: int) -> Figures:
    return (count / await _drain(store, count, _prepare_actions),)


Prepare = Callable[[App, int, float], Awaitable[list[str]]]
"""Schedules so many jobs, to run from a time on; returns those that are done last."""


async def prepare_noops(app: App, count: int, due: float) -> list[str]:
    ids: list[str] = []
    for first, size in _portions(count):
        ids = await app.mutation("bench:schedule_noops", {"first": first, "count": size, "due": due})
    return ids[-1:]


async def prepare_counts(app: App, count: int, due: float) -> list[str]:
    counters = await app.mutation("bench:add_counters", {"count": min(COUNTERS, count)})
    chosen, ids = Random(1).choices(counters, k=count), list[str]()
    for first, size in _portions(count):
        part = chosen[first : first + size]
        ids = await app.mutation("bench:schedule_counts", {"first": first, "counters": part, "due": due})
    return ids[-1:]


async def _prepare_actions(app: App, count: int, due: float) -> list[str]:
    ids: list[str] = []
    for first, size in _portions(count):
        ids = await app.mutation("bench:schedule_noop_actions", {"first": first, "count": size})
    return ids[-2 * CALLERS :]  # they end in any order: all that may run at the same time as the last


async def _drain(store: str, count: int, prepare: Prepare) -> float:
    """Schedule without an executor, then take the time from its start until the last jobs are known to be done."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:schedule_begin")
        last = await prepare(app, count, 1_000 * time())
    stores.checkpoint(store)
    handlers.drains.clear()
    gc.collect()
    async with open_app(store) as app:
        started = perf_counter()  # the executor has not had a turn of the event loop yet
        seconds = await until_done(app, last) - started
    assert min(handlers.drains) >= started, "the executor ran before the clock was read"
    stores.check_all_succeeded(store, count + 1)
    return seconds


async def until_done(app: App, jobs: list[str]) -> float:
    """When these jobs are known to be done: a subscription, which wakes when one of them changes."""
    async for done in app.subscribe("bench:done", {"jobs": jobs}):
        if done:
            break
    return perf_counter()


# Latency.


async def start_after_commit(store: str, count: int) -> Figures:
    handlers.starts.clear()
    async with open_app(store) as app:
        await until_done(app, [await app.mutation("bench:schedule_note", {"n": -1})])
        gc.collect()
        returned, last = await call_notes(app, count)
        await until_done(app, [last])
    stores.check_all_succeeded(store, count + 1)
    return percentiles(1_000 * (handlers.starts[n] - moment) for n, moment in enumerate(returned))


async def call_notes(app: App, count: int) -> tuple[list[float], str]:
    """Schedule a job for now, again and again: when each call returned, and the last job."""
    returned, last, started = list[float](), "", perf_counter()
    for n in range(count):
        await asyncio.sleep(started + n / CALLS_PER_SECOND - perf_counter())
        last = await app.mutation("bench:schedule_note", {"n": n})
        returned.append(perf_counter())
    return returned, last


async def start_after_due(store: str, count: int) -> Figures:
    handlers.starts.clear()
    async with open_app(store) as app:
        await until_done(app, [await app.mutation("bench:schedule_note", {"n": -1})])
        gc.collect()
        first, since = time() * 1_000 + 200, time() - perf_counter()  # due times stand on the wall clock
        times = [first + 1_000 * offset for offset in random_offsets(count)]
        ids = await app.mutation("bench:schedule_notes", {"times": times})
        await until_done(app, [ids[max(range(count), key=times.__getitem__)]])
    stores.check_all_succeeded(store, count + 1)
    late = [1_000 * (handlers.starts[n] + since) - due for n, due in enumerate(times)]
    assert min(late) > -0.5, f"a job ran {-min(late):.3f} ms before it was due"
    return percentiles(late)


def random_offsets(count: int) -> list[float]:
    """Random moments, in seconds, as dense as the workload wants them."""
    chance = Random(1)
    return [chance.uniform(0, count / DUE_PER_SECOND) for _ in range(count)]
