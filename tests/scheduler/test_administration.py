"""Who operates an application: pauses and resumes it, has what failed run again, looks at how far it is behind."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    Id,
    InvalidIdError,
    InvalidScheduleError,
    MutationCtx,
    QueryCtx,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.app import Stats
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = 60_000.0
gates: list[asyncio.Event] = []
"""The last one holds up actions."""


@mutation
async def schedule(ctx: MutationCtx, name: str, delay: float = 0, n: int = 0) -> Id:
    return await ctx.scheduler.run_after(delay, f"app:{name}", {"n": n})


@internal_mutation
async def note(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("notes", {"n": n})


@internal_mutation
async def note_if_open(ctx: MutationCtx, n: int) -> None:
    if await ctx.db.query("closed").first() is not None:
        raise ValueError("the shop is closed")
    await ctx.db.insert("notes", {"n": n})


@internal_action
async def wait(ctx: ActionCtx, n: int) -> None:
    await gates[-1].wait()
    await ctx.run_mutation(note, {"n": n})


@query
async def notes(ctx: QueryCtx) -> list[int]:
    return [note["n"] for note in await ctx.db.query("notes").collect()]


@query
async def executor(ctx: QueryCtx) -> list[float]:
    return [row["pausedTime"] for row in await ctx.db.system.query("_executor").collect()]


APP = SimpleNamespace(**handlers_in(globals()))
MODULES = {"app": APP}


@pytest.fixture
def t() -> Harness:
    gates.append(asyncio.Event())
    return Harness(MODULES, start=START)


async def close(ctx: MutationCtx) -> None:
    await ctx.db.insert("closed", {})


async def reopen(ctx: MutationCtx) -> None:
    for row in await ctx.db.query("closed").collect():
        await ctx.db.delete(row["_id"])


# Pause and resume.


async def test_nothing_starts_while_the_executor_is_paused_and_all_of_it_in_order_afterwards(t: Harness) -> None:
    async with t:
        await t.app.pause()
        for n, delay in ((1, 2 * MINUTE), (2, 0.0), (3, MINUTE)):
            await t.mutation(schedule, {"name": "note", "delay": delay, "n": n})
        await t.mutation(schedule, {"name": "wait"})
        await t.advance(timedelta(minutes=5))
        assert [job["state"]["kind"] for job in await t.jobs()] == ["pending"] * 4
        await t.app.resume()
        gates[-1].set()
        await t.run_until_idle()
        assert await t.query(notes) == [2, 3, 1, 0]
        assert [job["completedTime"] for job in await t.jobs()] == [START.timestamp() * 1000 + 5 * MINUTE] * 4


async def test_what_runs_goes_on_while_the_executor_is_paused(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"name": "wait", "n": 7})
        running = asyncio.ensure_future(t.run_until_idle())
        while (await t.app.stats()).running == 0:
            await asyncio.sleep(0)
        await t.app.pause()
        await t.mutation(schedule, {"name": "note", "n": 8})
        gates[-1].set()
        await running
        assert await t.query(notes) == [7]
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "pending"]


async def test_a_pause_outlasts_a_crash(t: Harness) -> None:
    async with t:
        await t.app.pause()
        await t.mutation(schedule, {"name": "note"})
        await t.crash()
        await t.run_until_idle()
        assert await t.query(notes) == []
        await t.app.resume()
        await t.run_until_idle()
        assert await t.query(notes) == [0]


async def test_pausing_twice_keeps_the_time_of_the_first_and_resuming_twice_does_nothing(t: Harness) -> None:
    async with t:
        assert await t.query(executor) == []
        await t.app.pause()
        await t.advance(timedelta(minutes=1))
        await t.app.pause()
        assert await t.query(executor) == [START.timestamp() * 1000]
        await t.app.resume()
        await t.app.resume()
        assert await t.query(executor) == []


async def test_a_resumed_executor_starts_what_is_due_by_itself(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.pause()
        await app.mutation(schedule, {"name": "note", "n": 3})
        await app.resume()
        async for found in app.subscribe(notes):
            if found == [3]:
                break


# Retry.


async def test_a_failed_function_that_is_retried_runs_again_with_the_same_arguments(t: Harness) -> None:
    async with t:
        await t.transaction(close)
        failed = await t.mutation(schedule, {"name": "note_if_open", "n": 5})
        await t.run_until_idle()
        await t.transaction(reopen)
        await t.advance(timedelta(minutes=1))
        new = await t.app.retry(failed)
        await t.run_until_idle()
        assert await t.query(notes) == [5]
        old, again = await t.jobs()
        assert old["_id"] == failed
        assert old["state"]["kind"] == "failed"
        assert again == {
            "_id": new,
            "_creationTime": again["_creationTime"],
            "name": "app:note_if_open",
            "args": [{"n": 5}],
            "scheduledTime": START.timestamp() * 1000 + MINUTE,
            "completedTime": START.timestamp() * 1000 + MINUTE,
            "state": {"kind": "success"},
            "retryOf": failed,
        }


async def test_a_function_that_fails_again_can_be_retried_again(t: Harness) -> None:
    async with t:
        await t.transaction(close)
        first = await t.mutation(schedule, {"name": "note_if_open"})
        await t.run_until_idle()
        second = await t.app.retry(first)
        await t.run_until_idle()
        third = await t.app.retry(second)
        assert [job.get("retryOf") for job in await t.jobs()] == [None, first, second]
        assert [job["_id"] for job in await t.failures()] == [first, second]
        assert third not in (first, second)


@pytest.mark.parametrize(("name", "state"), [("note", "success"), (None, "pending")])
async def test_only_what_has_failed_can_be_retried(t: Harness, name: str | None, state: str) -> None:
    async with t:
        id = await t.mutation(schedule, {"name": name or "note"})
        if name is not None:
            await t.run_until_idle()
        with pytest.raises(InvalidScheduleError, match=f"app:note, which is {state}, expected .* has failed"):
            await t.app.retry(id)


async def test_what_is_no_id_of_a_scheduled_function_cannot_be_retried(t: Harness) -> None:
    async with t:
        with pytest.raises(InvalidIdError, match="'nonsense'"):
            await t.app.retry("nonsense")


# Stats.


async def test_the_stats_of_an_idle_application_are_all_zero(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"name": "note", "delay": MINUTE})
        assert await t.app.stats() == Stats(due=0, oldest_due=None, running=0, lag_ms=0.0, paused_since=None)


async def test_the_stats_say_what_is_due_what_runs_and_how_late_the_oldest_is(t: Harness) -> None:
    start = START.timestamp() * 1000
    async with t:
        await t.mutation(schedule, {"name": "wait"})
        running = asyncio.ensure_future(t.run_until_idle())
        while (await t.app.stats()).running == 0:
            await asyncio.sleep(0)
        await t.app.pause()
        for name, delay in (("note", 2 * MINUTE), ("wait", MINUTE), ("note", 9 * MINUTE)):
            await t.mutation(schedule, {"name": name, "delay": delay})
        clock: Any = t._clock  # pyright: ignore[reportPrivateUsage]
        clock.set(start + 3 * MINUTE)
        assert await t.app.stats() == Stats(
            due=2, oldest_due=start + MINUTE, running=1, lag_ms=2 * MINUTE, paused_since=start
        )
        gates[-1].set()
        await running
