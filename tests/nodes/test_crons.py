"""Crons on two nodes of one store: what one of them does while the other is about to do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from duly import App, MutationCtx, QueryCtx, cron_jobs, faults, mutation, query
from duly.clock import ManualClock
from tests import postgres

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))

HOUR_MS = 3_600_000.0
NOW = 1_893_456_000_000.0


@mutation
async def note(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"hour": (ctx.now - NOW) / HOUR_MS})


@query
async def notes(ctx: QueryCtx) -> list[float]:
    return [note["hour"] for note in await ctx.db.query("notes").collect()]


@query
async def upcoming(ctx: QueryCtx) -> list[float]:
    return [(cron["nextRunTime"] - NOW) / HOUR_MS for cron in await ctx.db.system.query("_cron_jobs").collect()]


async def drained(app: App) -> None:
    while (await app.executor.run_batch()).ran:
        pass


async def test_a_slot_that_another_node_runs_between_a_claim_and_its_tick_is_run_once(
    store_of: Callable[[str], str],
) -> None:
    hourly = cron_jobs()
    hourly.interval("hourly", {"hours": 1}, "app:note", overlap="allow")
    source = {"app": SimpleNamespace(note=note, notes=notes, upcoming=upcoming), "crons": SimpleNamespace(crons=hourly)}
    store, clock, loop = store_of("postgres"), ManualClock(NOW), asyncio.get_running_loop()
    async with (
        App(source, store, executor=False, clock=clock) as app,
        App(source, store, executor=False, clock=clock) as other,
    ):
        for hour in (1, 2):
            clock.set(NOW + hour * HOUR_MS)
            await drained(other)
            await app.database.refresh()  # from here on this node has to ask what the cron is like
            await drained(app)
        clock.set(NOW + 3 * HOUR_MS)
        claims = 0

        def do_it_there() -> None:
            nonlocal claims
            claims += 1
            if claims == 1:
                asyncio.run_coroutine_threadsafe(drained(other), loop).result(20)

        faults.arm("job.claimed", do_it_there)
        try:
            await drained(app)
        finally:
            faults.disarm()
        assert claims > 1
        assert await app.query("app:notes") == [1, 2, 3]
        assert await app.query("app:upcoming") == [4]
