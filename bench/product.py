"""The workloads as duly runs them: each makes a store, measures, and checks what it left in the file."""

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

Figures = tuple[float, ...]
"""What one run measured: calls or jobs per second, or (p50, p99) in milliseconds."""


def open_app(path: str, executor: bool = True) -> App:
    # Twice the default, so that nothing comes close to it and is warned of.
    limits = Limits(scheduled_functions_max=2 * AT_ONCE)
    return App(SOURCE, f"sqlite:///{path}", executor=executor, limits=limits)


# Calls.


async def calls_in_turn(path: str, count: int) -> Figures:
    async with open_app(path) as app:
        await _insert(app, _warm_up(count))
        started = _start()
        await _insert(app, count)
        seconds = perf_counter() - started
    stores.check_rows(path, "notes", _warm_up(count) + count)
    return (count / seconds,)


async def calls_at_once(path: str, count: int) -> Figures:
    each = max(count // CALLERS, 1)
    async with open_app(path) as app:
        await _insert(app, _warm_up(count))
        started = _start()
        await asyncio.gather(*(_insert(app, each) for _ in range(CALLERS)))
        seconds = perf_counter() - started
    stores.check_rows(path, "notes", _warm_up(count) + CALLERS * each)
    return (CALLERS * each / seconds,)


async def _insert(app: App, count: int) -> None:
    for n in range(count):
        await app.mutation("bench:insert", {"n": n, "text": TEXT})


def _warm_up(count: int) -> int:
    return min(count, 200)


def _start() -> float:
    gc.collect()
    return perf_counter()


# Scheduling.


async def schedule(path: str, count: int) -> Figures:
    async with open_app(path) as app:
        await app.mutation("bench:schedule_for_later", {"first": 0, "count": 10, "delay": HOUR_MS})
        started = _start()
        for first, size in _portions(count):
            await app.mutation("bench:schedule_for_later", {"first": first, "count": size, "delay": HOUR_MS})
        seconds = perf_counter() - started
    assert stores.states(path) == {"pending": count + 10}
    return (count / seconds,)


def _portions(count: int) -> Iterator[tuple[int, int]]:
    """Where each portion that one mutation can schedule begins, and its size."""
    for first in range(0, count, AT_ONCE):
        yield first, min(AT_ONCE, count - first)


# Draining.


async def drain_noops(path: str, count: int) -> Figures:
    async def prepare(app: App) -> list[str]:
        ids: list[str] = []
        for first, size in _portions(count):
            ids = await app.mutation("bench:schedule_noops", {"first": first, "count": size, "delay": 0})
        return ids[-1:]

    return (count / await _drain(path, count, prepare),)


async def drain_counts(path: str, count: int) -> Figures:
    async def prepare(app: App) -> list[str]:
        counters = await app.mutation("bench:add_counters", {"count": min(COUNTERS, count)})
        chosen, ids = Random(1).choices(counters, k=count), list[str]()
        for first, size in _portions(count):
            part = chosen[first : first + size]
            ids = await app.mutation("bench:schedule_counts", {"first": first, "counters": part})
        return ids[-1:]

    seconds = await _drain(path, count, prepare)
    stores.check_counted(path, count)
    return (count / seconds,)


async def drain_actions(path: str, count: int) -> Figures:
    async def prepare(app: App) -> list[str]:
        ids: list[str] = []
        for first, size in _portions(count):
            ids = await app.mutation("bench:schedule_noop_actions", {"first": first, "count": size})
        return ids[-2 * CALLERS :]  # they end in any order: all that may run at the same time as the last

    return (count / await _drain(path, count, prepare),)


async def _drain(path: str, count: int, prepare: Callable[[App], Awaitable[list[str]]]) -> float:
    """Schedule without an executor, then take the time from its start until the last jobs are known to be done."""
    async with open_app(path, executor=False) as app:
        await app.mutation("bench:schedule_begin")
        last = await prepare(app)
    handlers.drains.clear()
    gc.collect()
    async with open_app(path) as app:
        started = perf_counter()  # the executor has not had a turn of the event loop yet
        seconds = await until_done(app, last) - started
    [began] = handlers.drains
    assert began >= started, "the executor ran before the clock was read"
    stores.check_all_succeeded(path, count + 1)
    return seconds


async def until_done(app: App, jobs: list[str]) -> float:
    """When these jobs are known to be done: a subscription, which wakes when one of them changes."""
    async for done in app.subscribe("bench:done", {"jobs": jobs}):
        if done:
            break
    return perf_counter()


# Latency.


async def start_after_commit(path: str, count: int) -> Figures:
    returned: list[float] = []
    handlers.starts.clear()
    async with open_app(path) as app:
        await until_done(app, [await app.mutation("bench:schedule_note", {"n": -1})])
        started = _start()
        for n in range(count):
            await asyncio.sleep(started + n / CALLS_PER_SECOND - perf_counter())
            last = await app.mutation("bench:schedule_note", {"n": n})
            returned.append(perf_counter())
        await until_done(app, [last])
    stores.check_all_succeeded(path, count + 1)
    return percentiles(1_000 * (handlers.starts[n] - moment) for n, moment in enumerate(returned))


async def start_after_due(path: str, count: int) -> Figures:
    handlers.starts.clear()
    async with open_app(path) as app:
        await until_done(app, [await app.mutation("bench:schedule_note", {"n": -1})])
        gc.collect()
        first, since = time() * 1_000 + 200, time() - perf_counter()  # due times stand on the wall clock
        times = [first + 1_000 * offset for offset in random_offsets(count)]
        ids = await app.mutation("bench:schedule_notes", {"times": times})
        await until_done(app, [ids[max(range(count), key=times.__getitem__)]])
    stores.check_all_succeeded(path, count + 1)
    late = [1_000 * (handlers.starts[n] + since) - due for n, due in enumerate(times)]
    assert min(late) > -0.5, f"a job ran {-min(late):.3f} ms before it was due"
    return percentiles(late)


def random_offsets(count: int) -> list[float]:
    """Random moments, in seconds, as dense as the workload wants them."""
    chance = Random(1)
    return [chance.uniform(0, count / DUE_PER_SECOND) for _ in range(count)]
