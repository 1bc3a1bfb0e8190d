"""The application that is measured: functions that insert, schedule, count, or do nothing."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from bench.stores import job_rows
from duly import ActionCtx, Id, MutationCtx, QueryCtx, internal, internal_action, internal_mutation, mutation, query

starts: dict[int, float] = {}
"""When each run of `note` began; of one that had to be run again, the run that was kept."""
drains: list[float] = []
"""When each run of `begin` began, one that had to be run again included."""
seen: list[dict[str, Any]] = []
"""The rows that `look` found."""


@mutation
async def insert(ctx: MutationCtx, n: int, text: str) -> Id:
    return await ctx.db.insert("notes", {"n": n, "text": text})


@mutation
async def make_tables(ctx: MutationCtx) -> None:
    for table in ("notes", "counters", "events"):
        await ctx.db.delete(await ctx.db.insert(table, {}))


@mutation
async def add_counters(ctx: MutationCtx, count: int) -> list[Id]:
    return [await ctx.db.insert("counters", {"n": 0}) for _ in range(count)]


@query
async def newest_note(ctx: QueryCtx) -> Any:
    return await ctx.db.query("notes").order("desc").first()


# What is scheduled.


@internal_mutation
async def noop(ctx: MutationCtx, n: int) -> None:
    pass


@internal_action
async def noop_action(ctx: ActionCtx, n: int) -> None:
    pass


@internal_mutation
async def count(ctx: MutationCtx, counter: Id, n: int) -> None:
    document = await ctx.db.get(counter)
    assert document is not None
    await ctx.db.patch(counter, {"n": document["n"] + 1})
    await ctx.db.insert("events", {"counter": counter, "n": n})


@internal_mutation
async def note(ctx: MutationCtx, n: int) -> None:
    starts[n] = perf_counter()


@internal_mutation
async def begin(ctx: MutationCtx) -> None:
    drains.append(perf_counter())


@internal_action
async def look(ctx: ActionCtx, store: str) -> None:
    """See the rows of all scheduled functions, as they are while this action runs."""
    seen.extend(job_rows(store))


# Who schedules it.


@mutation
async def schedule_begin(ctx: MutationCtx) -> Id:
    return await ctx.scheduler.run_after(0, internal.bench.begin)


@mutation
async def schedule_noops(ctx: MutationCtx, first: int, count: int, due: float) -> list[Id]:
    run_at = ctx.scheduler.run_at
    return [await run_at(due, internal.bench.noop, {"n": n}) for n in range(first, first + count)]


@mutation
async def schedule_for_later(ctx: MutationCtx, first: int, count: int, delay: float) -> None:
    run_after = ctx.scheduler.run_after
    for n in range(first, first + count):
        await run_after(delay, internal.bench.noop, {"n": n})


@mutation
async def schedule_noop_actions(ctx: MutationCtx, first: int, count: int) -> list[Id]:
    run_after = ctx.scheduler.run_after
    return [await run_after(0, internal.bench.noop_action, {"n": n}) for n in range(first, first + count)]


@mutation
async def schedule_counts(ctx: MutationCtx, first: int, counters: list[Id], due: float) -> list[Id]:
    run_at = ctx.scheduler.run_at
    return [
        await run_at(due, internal.bench.count, {"counter": counter, "n": n})
        for n, counter in enumerate(counters, first)
    ]


@mutation
async def schedule_note(ctx: MutationCtx, n: int) -> Id:
    return await ctx.scheduler.run_after(0, internal.bench.note, {"n": n})


@mutation
async def schedule_notes(ctx: MutationCtx, times: list[float]) -> list[Id]:
    return [await ctx.scheduler.run_at(time, internal.bench.note, {"n": n}) for n, time in enumerate(times)]


@mutation
async def schedule_look(ctx: MutationCtx, store: str) -> Id:
    return await ctx.scheduler.run_after(0, internal.bench.look, {"store": store})


@query
async def done(ctx: QueryCtx, jobs: list[Id]) -> bool:
    """Whether all of these scheduled functions have completed."""
    for job in jobs:
        row = await ctx.db.system.get(job)
        if row is None or row["state"]["kind"] in ("pending", "inProgress"):
            return False
    return True
