"""What the row of a scheduled function shows, and on whose behalf the function runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duly import (
    ActionCtx,
    Id,
    InvalidIdError,
    MutationCtx,
    QueryCtx,
    SchemaValidationError,
    SyncActionCtx,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.testing import Harness
from tests.scheduler.app import NOW, act, modules, note, noted, notes, public, state

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def t() -> Harness:
    return Harness(modules(globals()))


@internal_action
async def looks_at_itself(ctx: ActionCtx) -> None:
    assert ctx.scheduled_function_id is not None
    noted.append(await ctx.run_query(row, {"id": ctx.scheduled_function_id}))


@internal_mutation
async def looks_at_itself_too(ctx: MutationCtx) -> None:
    assert ctx.scheduled_function_id is not None
    job = await ctx.db.system.get(ctx.scheduled_function_id)
    assert job is not None
    assert job["_id"] == ctx.scheduled_function_id
    await ctx.run_mutation(note, {"value": job["state"]["kind"]})


@query
async def row(ctx: QueryCtx, id: Id) -> Any:
    return await ctx.db.system.get(id)


async def test_a_running_action_is_in_progress_and_its_row_has_a_state_of_one_field(t: Harness) -> None:
    async with t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_at(NOW - 5, looks_at_itself))
        await t.run_until_idle()
        [found] = noted
        assert found == {
            "_id": id,
            "_creationTime": found["_creationTime"],
            "name": "app:looks_at_itself",
            "args": [{}],
            "scheduledTime": NOW - 5,
            "state": {"kind": "inProgress"},
        }


async def test_a_mutation_that_runs_is_pending_to_itself_as_to_all_others(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, looks_at_itself_too))
        await t.run_until_idle()
        assert await t.query(notes) == ["pending"]


async def test_a_completed_row_has_its_time_of_completion_and_no_result(t: Harness) -> None:
    async with t:
        first = await t.transaction(lambda ctx: ctx.scheduler.run_after(1_000, public))
        second = await t.transaction(lambda ctx: ctx.scheduler.run_after(1_000, act))
        await t.advance(timedelta(seconds=3))
        [one, other] = await t.jobs()
        assert one == {
            "_id": first,
            "_creationTime": one["_creationTime"],
            "name": "app:public",
            "args": [{}],
            "scheduledTime": NOW + 1_000,
            "completedTime": NOW + 1_000,
            "state": {"kind": "success"},
        }
        assert other == {
            "_id": second,
            "_creationTime": other["_creationTime"],
            "name": "app:act",
            "args": [{}],
            "scheduledTime": NOW + 1_000,
            "completedTime": NOW + 1_000,
            "state": {"kind": "success"},
        }


async def test_a_time_in_the_past_is_due_at_once_and_shown_as_it_was_asked(t: Harness) -> None:
    async with t:
        await t.transaction(lambda ctx: ctx.scheduler.run_at(datetime(2026, 5, 1, tzinfo=UTC), note))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert datetime.fromtimestamp(job["scheduledTime"] / 1000, UTC) == datetime(2026, 5, 1, tzinfo=UTC)
        assert (job["state"]["kind"], job["completedTime"]) == ("success", NOW)


async def test_a_mutation_reads_what_it_has_just_scheduled_as_does_one_that_it_calls(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> Any:
            id = await ctx.scheduler.run_after(0, note)
            return [
                await ctx.run_query(state, {"id": id}),
                len(await ctx.db.system.query("_scheduled_functions").collect()),
            ]

        assert await t.transaction(schedule) == ["pending", 1]


async def test_the_id_of_a_scheduled_function_is_a_value_that_documents_hold(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> Any:
            job = await ctx.scheduler.run_after(0, note)
            task = await ctx.db.insert("tasks", {"job": job})
            found = await ctx.db.query("tasks").with_index("by_job", lambda q: q.eq("job", job)).unique()
            assert found is not None
            assert found["_id"] == task
            return [found["job"] == job, ctx.db.system.normalize_id("_scheduled_functions", job) == job, task]

        [is_same, is_normal, task] = await t.transaction(schedule)
        assert (is_same, is_normal) == (True, True)
        assert await t.transaction(lambda ctx: normalize(ctx, task)) is None
        for other in (task, "abc"):
            with pytest.raises(SchemaValidationError, match='expected an id of table "_scheduled_functions"'):
                await t.transaction(lambda ctx, other=other: ctx.db.insert("tasks", {"job": other}))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert await t.query(state, {"id": job["_id"]}) == "success"


async def normalize(ctx: MutationCtx, id: str) -> Any:
    return ctx.db.system.normalize_id("_scheduled_functions", id)


async def test_the_application_writes_no_row_of_the_systems(t: Harness) -> None:
    async with t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note))
        writes: list[Callable[[Any], Any]] = [
            lambda ctx: ctx.db.patch(id, {"name": "x"}),
            lambda ctx: ctx.db.replace(id, {"name": "x"}),
            lambda ctx: ctx.db.delete(id),
        ]
        for write in writes:
            with pytest.raises(InvalidIdError, match="ctx.db got the id of a document of '_scheduled_functions'"):
                await t.transaction(write)
        for name in ("insert", "patch", "replace", "delete"):
            with pytest.raises(AttributeError):
                await t.transaction(lambda ctx, name=name: getattr(ctx.db.system, name)(id, {}))
        assert await t.query(state, {"id": id}) == "pending"


async def test_rows_are_paged_while_functions_run_and_others_are_scheduled(t: Harness) -> None:
    async def page(cursor: str | None) -> Any:
        return await t.transaction(
            lambda ctx: ctx.db.system.query("_scheduled_functions").paginate(num_items=2, cursor=cursor)
        )

    async with t:
        for n in range(5):
            await t.transaction(lambda ctx, n=n: ctx.scheduler.run_after(n, note, {"value": n}))
        first = await page(None)
        await t.advance(timedelta(milliseconds=2))
        second = await page(first["continueCursor"])
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"value": 5}))
        third = await page(second["continueCursor"])
        found = [
            (job["args"][0]["value"], job["state"]["kind"]) for one in (first, second, third) for job in one["page"]
        ]
        assert found == [(0, "pending"), (1, "pending"), (2, "success"), (3, "pending"), (4, "pending"), (5, "pending")]


# Nobody's.


@query
async def who(ctx: QueryCtx) -> str:
    identity = await ctx.auth.get_user_identity()
    return "nobody" if identity is None else identity["subject"]


@internal_mutation
async def notes_who(ctx: MutationCtx) -> None:
    await ctx.run_mutation(note, {"value": await ctx.run_query(who)})


@internal_action
async def acts_as(ctx: ActionCtx) -> None:
    identity = await ctx.auth.get_user_identity()
    noted.append(identity)
    await ctx.run_mutation(notes_who)
    await ctx.scheduler.run_after(0, notes_who)


@internal_action
def acts_in_a_thread_as(ctx: SyncActionCtx) -> None:
    noted.append(ctx.auth.get_user_identity())
    ctx.run_mutation(notes_who)


@mutation
async def schedules_as_somebody(ctx: MutationCtx) -> None:
    await ctx.run_mutation(notes_who)
    for function in (notes_who, acts_as, acts_in_a_thread_as):
        await ctx.scheduler.run_after(0, function)


async def test_a_scheduled_function_and_all_it_calls_run_without_an_identity(t: Harness) -> None:
    async with t:
        await t.with_identity({"subject": "ada"}).mutation(schedules_as_somebody)
        assert await t.query(notes) == ["ada"]
        await t.run_until_idle()
        assert await t.query(notes) == ["ada", "nobody", "nobody", "nobody", "nobody"]
        assert noted == [None, None]
        noted.clear()
        await t.with_identity({"subject": "ada"}).action(acts_as)
        await t.run_until_idle()
        assert [identity["subject"] for identity in noted] == ["ada"]
        assert (await t.query(notes))[5:] == ["ada", "nobody"]
