"""What is scheduled is part of its mutation, and runs by due time, then in the order of scheduling."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Final

import pytest

from duly import (
    MutationCtx,
    ReturnsValidationError,
    internal_mutation,
    mutation,
)
from duly.declare.function import AsyncFunction
from duly.storage.rows import JOBS
from duly.testing import Harness
from tests.scheduler.app import NOW, act, modules, note, noted, notes
from tests.scheduler.held import Held

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def t() -> Harness:
    return Harness(modules(globals()))


# Part of the mutation.


async def test_nothing_that_is_scheduled_runs_inside_its_mutation_or_before_its_time(t: Harness) -> None:
    async with t:

        async def parent(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(0, note, {"value": "child"})
            await ctx.scheduler.run_after(60_000, note, {"value": "late child"})
            await ctx.run_mutation(note, {"value": "parent"})

        await t.transaction(parent)
        assert await t.query(notes) == ["parent"]
        await t.run_until_idle()
        assert await t.query(notes) == ["parent", "child"]
        await t.advance(timedelta(seconds=59, milliseconds=999))
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "pending"]
        await t.advance(1)
        assert await t.query(notes) == ["parent", "child", "late child"]


@mutation
async def schedules_and_returns_no_value(ctx: MutationCtx) -> int:
    await ctx.scheduler.run_after(0, note)
    return "seven"  # pyright: ignore[reportReturnType]


async def test_a_mutation_that_fails_at_its_very_end_has_scheduled_nothing(t: Harness) -> None:
    async with t:
        with pytest.raises(ReturnsValidationError):
            await t.mutation(schedules_and_returns_no_value)
        assert await t.jobs() == []
        await t.run_until_idle()
        assert await t.query(notes) == []


async def test_a_mutation_that_fails_does_not_undo_what_another_has_scheduled(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, act, {"value": 1}))
        await t.run_until_idle()
        with pytest.raises(ReturnsValidationError):
            await t.mutation(schedules_and_returns_no_value)
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success"]
        assert noted == [1]


@mutation
async def nested(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, note, {"value": "of the nested one"})
    await ctx.run_mutation(nested_more, {})


@mutation
async def nested_more(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, note, {"value": "of the one nested in that"})


async def test_what_a_nested_mutation_schedules_runs_by_itself_after_the_commit(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.run_mutation(nested))
        assert await t.query(notes) == []
        await t.run_until_idle()
        assert await t.query(notes) == ["of the nested one", "of the one nested in that"]


async def test_a_rehearsal_schedules_nothing_of_its_own() -> None:
    async with Harness(modules(globals()), development=True) as t:
        await t.mutation(nested)
        assert len(await t.jobs()) == 2
        await t.run_until_idle()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "success"]


# Order.


async def test_times_that_have_passed_count_as_other_times_do(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_at(NOW - 1_000, note, {"value": 1})
            await ctx.scheduler.run_after(0, note, {"value": 2})
            await ctx.scheduler.run_at(NOW - 5_000, note, {"value": 3})
            await ctx.scheduler.run_at(NOW, note, {"value": 4})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == [3, 1, 2, 4]


async def test_a_time_in_the_past_comes_before_what_has_become_due_later(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(10, note, {"value": "due first"}))
        t._clock.set(NOW + 20)  # pyright: ignore[reportPrivateUsage]
        await t.transaction(lambda ctx: ctx.scheduler.run_at(NOW - 5_000, note, {"value": "asked for earlier"}))
        await t.run_until_idle()
        assert await t.query(notes) == ["asked for earlier", "due first"]


A_YEAR: Final = timedelta(days=365)


async def test_what_was_due_a_year_ago_runs_before_a_hundred_that_are_due_now(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            for value in range(100):
                await ctx.scheduler.run_after(0, note, {"value": value})
            await ctx.scheduler.run_at(t.now - A_YEAR, note, {"value": "a year ago"})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == ["a year ago", *range(100)]


@mutation
async def notes_and_looks_back(ctx: MutationCtx, value: str, fails: bool = False) -> None:
    await ctx.run_mutation(note, {"value": value})
    await ctx.scheduler.run_at(ctx.now - 86_400_000, act, {"value": "action of yesterday"})
    await ctx.scheduler.run_at(ctx.now - 86_400_000, note, {"value": "yesterday"})
    await ctx.scheduler.run_at(ctx.now - 5, note, {"value": "just now"})
    if fails:
        raise ValueError


@mutation
async def looks_back_in_a_part(ctx: MutationCtx, value: str, fails: bool) -> None:
    with suppress(ValueError):
        await ctx.run_mutation(notes_and_looks_back, {"value": value, "fails": fails})


@pytest.mark.parametrize("looks_back", [notes_and_looks_back, looks_back_in_a_part])
async def test_what_a_due_function_schedules_for_the_past_runs_before_the_next_one(
    t: Harness, looks_back: AsyncFunction[..., None]
) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(0, act, {"value": "action"})
            await ctx.scheduler.run_after(0, looks_back, {"value": "first", "fails": False})
            await ctx.scheduler.run_after(0, note, {"value": "second"})
            await ctx.scheduler.run_at(NOW - 10, note, {"value": "ten milliseconds ago"})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == ["ten milliseconds ago", "first", "yesterday", "just now", "second"]
        assert noted == ["action of yesterday", "action"]


async def test_what_a_part_that_failed_had_scheduled_for_the_past_changes_no_order(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(0, looks_back_in_a_part, {"value": "undone", "fails": True})
            await ctx.scheduler.run_after(0, note, {"value": "next"})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == ["next"]
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "success"]


@pytest.mark.timed_batches
async def test_a_call_that_schedules_for_the_past_comes_before_what_is_due_in_the_same_commit(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"value": "waits"}))
        async with Held(t.app) as held:
            before = asyncio.create_task(t.transaction(held.fills_a_batch))
            await held.arrived()
            call = asyncio.create_task(t.mutation(notes_and_looks_back, {"value": "called"}))
            await held.queued(1)
            idle = asyncio.create_task(t.run_until_idle())
            await held.queued(2)
        await asyncio.gather(before, call, idle)
        assert await t.query(notes) == ["called", "yesterday", "just now", "waits"]


@pytest.mark.timed_batches
async def test_a_call_does_not_wait_for_many_functions_that_are_due_in_the_same_commit(
    t: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.workers.executor.DUE_SECONDS_BEHIND_CALLS_MAX", 0.0)
    async with t:

        async def schedules(ctx: MutationCtx) -> None:
            for value in range(5):
                await ctx.scheduler.run_after(0, note, {"value": value})

        await t.transaction(schedules)
        async with Held(t.app) as held:
            before = asyncio.create_task(t.transaction(held.fills_a_batch))
            await held.arrived()
            call = asyncio.create_task(t.mutation(note, {"value": "called"}))
            await held.queued(1)
            idle = asyncio.create_task(t.run_until_idle())
            await held.queued(2)
        await asyncio.gather(before, call, idle)
        assert await t.query(notes) == ["called", 0, 1, 2, 3, 4]
        commits = t.app.database.commit_log._commits  # pyright: ignore[reportPrivateUsage]
        jobs = [
            len(change.ids)
            for commit in commits
            for change in commit.changes
            if change.table == JOBS.name and change.ids
        ]
        assert jobs[:2] == [5, 1]  # scheduled, and then the one that is in the commit of the call


@mutation
async def schedules_many(ctx: MutationCtx, before: int, behind: int) -> None:
    for value in range(before):
        await ctx.scheduler.run_after(0, note, {"value": value})
    await ctx.scheduler.run_after(0, notes_and_looks_back, {"value": "looks back"})
    for value in range(behind):
        await ctx.scheduler.run_after(0, note, {"value": before + value})


@pytest.mark.parametrize("before", [20, 300, 700])
async def test_a_time_in_the_past_comes_before_what_was_claimed_and_has_not_run_yet(t: Harness, before: int) -> None:
    async with t:
        await t.mutation(schedules_many, {"before": before, "behind": 900 - before})
        await t.run_until_idle(2_000)
        numbers = list(range(900))
        assert await t.query(notes) == [*numbers[:before], "looks back", "yesterday", "just now", *numbers[before:]]


async def test_equal_times_of_different_mutations_run_in_the_order_of_scheduling_and_fractions_count(
    t: Harness,
) -> None:
    async with t:
        for value, when in ((1, 100), (2, 100), (3, 99.75), (4, 100), (5, 99.5)):
            await t.transaction(
                lambda ctx, value=value, when=when: ctx.scheduler.run_at(NOW + when, note, {"value": value})
            )
        t._clock.set(NOW + 200)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        assert await t.query(notes) == [5, 3, 1, 2, 4]


@mutation
async def schedules_two(ctx: MutationCtx, value: int) -> None:
    await ctx.scheduler.run_after(0, note, {"value": value})
    await ctx.scheduler.run_after(0, note, {"value": value + 1})


@pytest.mark.timed_batches
async def test_mutations_of_one_batch_have_scheduled_in_the_order_in_which_they_ran(t: Harness) -> None:
    async with t:
        async with Held(t.app) as held:
            before = asyncio.create_task(t.transaction(held.fills_a_batch))
            await held.arrived()
            together: list[asyncio.Task[None]] = []
            for n in range(5):
                together.append(asyncio.create_task(t.mutation(schedules_two, {"value": 2 * n})))
                await held.queued(n + 1)
        await asyncio.gather(before, *together)
        await t.run_until_idle()
        assert await t.query(notes) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert [job["args"][0]["value"] for job in await t.jobs()] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_actions_start_in_the_order_of_their_due_times(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            for value, delay in ((1, 30), (2, 10), (3, 30), (4, 20), (5, 10)):
                await ctx.scheduler.run_after(delay, act, {"value": value})

        await t.transaction(schedule)
        t._clock.set(NOW + 100)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        assert noted == [2, 5, 4, 1, 3]


@internal_mutation
async def notes_and_goes_on(ctx: MutationCtx, left: int) -> None:
    await ctx.run_mutation(note, {"value": left})
    if left:
        await ctx.scheduler.run_after(0, notes_and_goes_on, {"left": left - 1})


async def test_what_a_due_function_schedules_for_now_comes_behind_what_is_due(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(0, notes_and_goes_on, {"left": 2})
            await ctx.scheduler.run_after(0, note, {"value": "the other"})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == [2, "the other", 1, 0]
