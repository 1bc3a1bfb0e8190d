"""What counts against the limits of a call, and what does not."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    LimitError,
    MutationCtx,
    QueryCtx,
    action,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.limits import Limits
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


async def fill(t: Harness, table: str, count: int, text: str) -> None:
    async def act(ctx: MutationCtx) -> None:
        for _ in range(count):
            await ctx.db.insert(table, {"text": text})

    await t.transaction(act)


@query
async def one(ctx: QueryCtx) -> int:
    return 1


async def test_what_scheduling_reads_for_itself_does_not_count() -> None:
    @mutation
    async def fan_out(ctx: MutationCtx, padding: str) -> None:
        for _ in range(3):
            await ctx.scheduler.run_after(1_000_000, "app:fan_out", {"padding": ""})

    limits = Limits(reads_max=2, bytes_read_max=1_000)
    async with Harness({"app": SimpleNamespace(fan_out=fan_out)}, limits=limits) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:fan_out", {"padding": "x" * 900}))
        await t.run_until_idle()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "pending", "pending", "pending"]


async def test_the_end_of_an_action_is_recorded_whatever_the_limits() -> None:
    @action
    async def work(ctx: ActionCtx, padding: str) -> None: ...

    async with Harness({"app": SimpleNamespace(work=work)}, limits=Limits(bytes_read_max=1_000)) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:work", {"padding": "x" * 2_000}))
        await t.run_until_idle()
        assert [job["state"] for job in await t.jobs()] == [{"kind": "success"}]


async def test_an_iteration_counts_the_documents_it_hands_out_and_no_more() -> None:
    @query
    async def some(ctx: QueryCtx, count: int) -> int:
        met = 0
        async for _ in ctx.db.query("texts"):
            met += 1
            if met == count:
                break
        return met

    async with Harness({"app": SimpleNamespace(some=some)}, limits=Limits(documents_read_max=20)) as t:
        await fill(t, "texts", 40, "")
        assert await t.query("app:some", {"count": 20}) == 20
        with pytest.raises(LimitError, match="documents_read_max"):
            await t.query("app:some", {"count": 21})


@pytest.mark.parametrize(("text", "length"), [("x" * 1_000, 10), ("x" * 900_000, 1)])
async def test_a_page_ends_at_the_document_that_reaches_maximum_bytes_read(text: str, length: int) -> None:
    @query
    async def page(ctx: QueryCtx) -> list[Any]:
        found = await ctx.db.query("texts").paginate(num_items=40, maximum_bytes_read=10_000)
        return [len(found["page"]), found["isDone"]]

    async with Harness({"app": SimpleNamespace(page=page)}) as t:
        await fill(t, "texts", 40 if length > 1 else 18, text)
        if length == 1:
            await fill(t, "texts", 18, text)
        assert await t.query("app:page") == [length, False]


@pytest.mark.parametrize("value", [2.5, math.inf])
def test_a_limit_of_whole_things_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="for actions_running_max, expected a number above 0, a whole one"):
        Limits(actions_running_max=value)


@pytest.mark.parametrize("seconds", [math.inf, sys.maxsize])
async def test_a_handler_may_have_all_the_time_there_is(seconds: float) -> None:
    async with Harness({"app": SimpleNamespace(one=one)}, limits=Limits(handler_seconds_max=seconds)) as t:
        assert await t.query("app:one") == 1


async def test_a_cursor_holds_values_as_deep_as_the_limits_of_the_app() -> None:
    @query
    async def pages(ctx: QueryCtx) -> list[int]:
        documents = ctx.db.query("lists").with_index("by_list")
        first = await documents.paginate(num_items=1)
        second = await documents.paginate(num_items=1, cursor=first["continueCursor"])
        return [repr(document["list"]).count("[") for document in (*first["page"], *second["page"])]

    schema = define_schema({"lists": define_table(v.any()).index("by_list", ["list"])})
    modules = {"app": SimpleNamespace(pages=pages), "schema": schema}
    async with Harness(modules, limits=Limits(value_depth_max=31)) as t:
        nested: list[Any] = []
        for depth in range(1, 31):
            if depth > 28:
                await t.transaction(lambda ctx, nested=nested: ctx.db.insert("lists", {"list": nested}))
            nested = [nested]
        assert await t.query("app:pages") == [29, 30]


async def test_the_harness_has_no_limits_for_what_a_test_itself_schedules() -> None:
    @mutation
    async def nothing(ctx: MutationCtx) -> None: ...

    async def schedule_many(ctx: MutationCtx) -> None:
        for _ in range(1_001):
            await ctx.scheduler.run_after(1_000, "app:nothing")

    async with Harness({"app": SimpleNamespace(nothing=nothing)}) as t:
        await t.transaction(schedule_many)
