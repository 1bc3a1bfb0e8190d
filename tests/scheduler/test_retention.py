"""Rows of scheduled functions stay for seven days after their completion, and no longer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import AlreadyCompletedError, App, Id, MutationCtx, QueryCtx, internal_mutation, mutation, query
from duly.clock import ManualClock
from duly.limits import SWEPT_AT_ONCE
from duly.testing import Harness
from duly.workers.sweeper import Sweeper
from tests.conftest import only_on_sqlite
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

START = datetime(2030, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
A_MOMENT = timedelta(milliseconds=1)


@mutation
async def schedule(ctx: MutationCtx, delays: list[float], name: str = "nothing") -> list[Id]:
    return [await ctx.scheduler.run_after(delay, f"app:{name}") for delay in delays]


@internal_mutation
async def nothing(ctx: MutationCtx) -> None: ...


@internal_mutation
async def fails(ctx: MutationCtx) -> None:
    raise ValueError("on purpose")


@mutation
async def cancel(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


@query
async def count(ctx: QueryCtx) -> int:
    return len(await ctx.db.system.query("_scheduled_functions").collect())


@query
async def states(ctx: QueryCtx) -> list[str]:
    return [job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()]


APP = SimpleNamespace(**handlers_in(globals()))


@pytest.fixture
def t() -> Harness:
    return Harness({"app": APP}, start=START)


@pytest.mark.parametrize("name", ["nothing", "fails"])
async def test_a_row_is_there_for_seven_days_after_its_completion_and_then_gone(t: Harness, name: str) -> None:
    async with t:
        await t.mutation(schedule, {"delays": [1000.0], "name": name})
        await t.advance(timedelta(seconds=1))
        await t.advance(WEEK - A_MOMENT)
        assert len(await t.jobs()) == 1
        await t.advance(A_MOMENT)
        assert await t.jobs() == []


async def test_a_canceled_row_expires_seven_days_after_it_was_canceled_not_when_it_was_due(t: Harness) -> None:
    async with t:
        [id] = await t.mutation(schedule, {"delays": [timedelta(days=365) / A_MOMENT]})
        await t.mutation(cancel, {"id": id})
        await t.advance(WEEK)
        assert await t.jobs() == []


async def test_what_is_pending_never_expires(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"delays": [timedelta(days=1_800) / A_MOMENT]})
        await t.advance(timedelta(days=1_799))
        assert [job["state"]["kind"] for job in await t.jobs()] == ["pending"]


async def test_a_function_whose_row_has_expired_cannot_be_canceled(t: Harness) -> None:
    async with t:
        [id] = await t.mutation(schedule, {"delays": [0]})
        await t.advance(WEEK)
        with pytest.raises(AlreadyCompletedError, match="has expired"):
            await t.mutation(cancel, {"id": id})


async def test_rows_are_swept_a_few_at_a_time_with_a_pause_in_between(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"delays": [0] * 700})
        await t.run_until_idle()
        clock: Any = t._clock  # pyright: ignore[reportPrivateUsage]
        now = (START + WEEK).timestamp() * 1000
        clock.set(now)
        sweeper = Sweeper(t.app.database, clock)
        assert await sweeper.step() == now + 10
        assert await t.query(count) == 700 - SWEPT_AT_ONCE
        assert await sweeper.step() == now + 3_600_000  # nothing expires before, but it looks again
        assert await t.query(count) == 0


async def test_the_sweeper_comes_back_when_the_next_row_expires(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"delays": [0, 5_000]})
        await t.advance(timedelta(seconds=5))
        clock = ManualClock((START + WEEK).timestamp() * 1000)
        clock.set((START + WEEK).timestamp() * 1000)
        await t.advance(WEEK - timedelta(seconds=5))
        assert await t.query(count) == 1
        assert await Sweeper(t.app.database, clock).step() == (START + WEEK).timestamp() * 1000 + 5_000


async def test_who_watches_sees_rows_expire(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"delays": [0, 0]})
        await t.run_until_idle()
        counts = t.subscribe(count)
        assert await anext(counts) == 2
        following = asyncio.ensure_future(anext(counts))
        await t.advance(WEEK)
        assert await following == 0


@only_on_sqlite  # between nodes a step may be tried again after a pause, for which this clock stands still
async def test_an_app_sweeps_by_itself(store: str) -> None:
    clock = ManualClock(START.timestamp() * 1000)
    async with App({"app": APP}, store, clock=clock) as app:
        await app.mutation(schedule, {"delays": [0]})
        async with asyncio.timeout(60):
            async for found in app.subscribe(states):
                if found == ["success"]:
                    break
            clock.set((START + WEEK).timestamp() * 1000 + 3_600_000)
            async for found in app.subscribe(states):
                if not found:
                    break
