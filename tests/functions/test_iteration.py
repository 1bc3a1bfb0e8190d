"""`async for` over a query: it reads as it goes, meets no document twice, and sees its own transaction's writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from duly import LimitError, Limits, MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"])})


async def with_notes(t: Harness, *ranks: object) -> list[str]:
    async def insert(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert("notes", {"rank": rank}) for rank in ranks]

    return await t.transaction(insert)


async def ranks_met(t: Harness, act: Callable[[MutationCtx, Any], Awaitable[object]] | None = None) -> list[Any]:
    """The ranks that a walk up the index meets while `act` is done at each document."""

    async def walk(ctx: MutationCtx) -> list[Any]:
        met: list[Any] = []
        async for note in ctx.db.query("notes").with_index("by_rank"):
            met.append(note["rank"])
            if act is not None:
                await act(ctx, note)
        return met

    return await t.transaction(walk)


async def test_an_iteration_meets_all_documents_in_order() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        await with_notes(t, *reversed(range(100)))
        assert await ranks_met(t) == list(range(100))


async def test_an_iteration_over_a_table_that_does_not_exist_meets_nothing() -> None:
    async def walk(ctx: MutationCtx) -> list[Any]:
        return [note async for note in ctx.db.query("nowhere")]

    async with Harness({"schema": SCHEMA}) as t:
        assert await t.transaction(walk) == []


async def test_moving_each_document_ahead_meets_none_twice() -> None:
    async def move(ctx: MutationCtx, note: Any) -> None:
        await ctx.db.patch(note["_id"], {"rank": note["rank"] + 100})

    async with Harness({"schema": SCHEMA}) as t:
        await with_notes(t, *range(30))
        assert await ranks_met(t, move) == list(range(30))
        assert await ranks_met(t) == list(range(100, 130))


async def test_what_is_deleted_and_inserted_ahead_is_seen_as_it_is_then() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        ids = await with_notes(t, 1, 2, 3, 4)

        async def change(ctx: MutationCtx, note: Any) -> None:
            if note["rank"] == 1:
                await ctx.db.delete(ids[1])
                await ctx.db.insert("notes", {"rank": 3.5})
                await ctx.db.insert("notes", {"rank": 0})  # behind

        assert await ranks_met(t, change) == [1, 3, 3.5, 4]


async def test_what_is_inserted_behind_the_last_document_is_met_too() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        await with_notes(t, 1, 2)

        async def append(ctx: MutationCtx, note: Any) -> None:
            if note["rank"] < 5:
                await ctx.db.insert("notes", {"rank": note["rank"] + 2})

        assert await ranks_met(t, append) == [1, 2, 3, 4, 5, 6]


async def test_a_sub_mutation_changes_what_its_caller_has_not_met_yet() -> None:
    @mutation
    async def drop(ctx: MutationCtx, id: str) -> None:
        await ctx.db.delete(id)

    @mutation
    async def fail(ctx: MutationCtx, id: str) -> None:
        await ctx.db.delete(id)
        raise ValueError("no")

    async with Harness({"app": SimpleNamespace(drop=drop, fail=fail), "schema": SCHEMA}) as t:
        ids = await with_notes(t, 1, 2, 3, 4)

        async def call(ctx: MutationCtx, note: Any) -> None:
            if note["rank"] == 1:
                await ctx.run_mutation(drop, {"id": ids[1]})
                with pytest.raises(ValueError, match="no"):
                    await ctx.run_mutation(fail, {"id": ids[2]})

        assert await ranks_met(t, call) == [1, 3, 4]


async def test_an_iteration_that_is_left_has_read_no_further() -> None:
    @query
    async def first_three(ctx: QueryCtx) -> list[Any]:
        met: list[Any] = []
        async for note in ctx.db.query("notes").with_index("by_rank"):
            met.append(note["rank"])
            if len(met) == 3:
                break
        return met

    async with Harness({"app": SimpleNamespace(first_three=first_three), "schema": SCHEMA}) as t:
        ids = await with_notes(t, *range(20))
        outcome = await t.app.runner.read(t.app.runner.registry.find("app:first_three"), None)
        assert outcome.value == [0, 1, 2]
        watch = t.app.database.watch(outcome.reads, outcome.version)
        await t.transaction(lambda ctx: ctx.db.patch(ids[3], {"seen": True}))
        assert not watch.done()
        await t.transaction(lambda ctx: ctx.db.insert("notes", {"rank": 1.5}))
        assert watch.done()


@pytest.mark.parametrize("descending", [False, True])
async def test_an_iteration_that_is_left_early_has_read_no_further_though_it_has_looked_at_the_end(
    descending: bool,
) -> None:
    @query
    async def first(ctx: QueryCtx) -> int | None:
        async for note in ctx.db.query("notes").with_index("by_rank").order("desc" if descending else "asc"):
            return note["rank"]
        return None

    async with Harness({"app": SimpleNamespace(first=first), "schema": SCHEMA}) as t:
        await with_notes(t, 1, 2, 3)
        outcome = await t.app.runner.read(t.app.runner.registry.find("app:first"), None)
        assert outcome.value == (3 if descending else 1)
        watch = t.app.database.watch(outcome.reads, outcome.version)
        await with_notes(t, *((0, 1.5, 2.5) if descending else (1.5, 2.5, 4)))
        assert not watch.done()
        await with_notes(t, 5 if descending else 0)
        assert watch.done()


async def test_a_filtered_query_has_read_up_to_its_last_match() -> None:
    @query
    async def odd(ctx: QueryCtx) -> Any:
        return await ctx.db.query("notes").with_index("by_rank").filter(lambda q: q.field("rank") % 2 == 1).take(2)

    async with Harness({"app": SimpleNamespace(odd=odd), "schema": SCHEMA}) as t:
        ids = await with_notes(t, *range(10))
        outcome = await t.app.runner.read(t.app.runner.registry.find("app:odd"), None)
        assert [note["rank"] for note in outcome.value or []] == [1, 3]
        watch = t.app.database.watch(outcome.reads, outcome.version)
        await t.transaction(lambda ctx: ctx.db.delete(ids[4]))
        assert not watch.done()
        await t.transaction(lambda ctx: ctx.db.patch(ids[2], {"rank": -5}))
        assert watch.done()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("n", [1, 300, 700])
async def test_take_has_read_up_to_its_last_document_also_over_several_pages(n: int, descending: bool) -> None:
    @query
    async def some(ctx: QueryCtx) -> Any:
        found = await ctx.db.query("notes").with_index("by_rank").order("desc" if descending else "asc").take(n)
        return [note["rank"] for note in found]

    async with Harness({"app": SimpleNamespace(some=some), "schema": SCHEMA}) as t:
        await with_notes(t, *range(1_000))
        outcome = await t.app.runner.read(t.app.runner.registry.find("app:some"), None)
        order = list(range(1_000))
        if descending:
            order.reverse()
        assert outcome.value == order[:n]
        watch = t.app.database.watch(outcome.reads, outcome.version)
        step = -0.5 if descending else 0.5
        await t.transaction(lambda ctx: ctx.db.insert("notes", {"rank": order[n - 1] + step}))
        assert not watch.done()
        await t.transaction(lambda ctx: ctx.db.insert("notes", {"rank": order[n - 1] - step}))
        assert watch.done()


async def test_an_iteration_beyond_the_limit_stops_there() -> None:
    @query
    async def count(ctx: QueryCtx) -> int:
        seen = 0
        try:
            async for _ in ctx.db.query("notes"):
                seen += 1
        except LimitError:
            return seen
        return -1

    async with Harness(
        {"app": SimpleNamespace(count=count), "schema": SCHEMA}, limits=Limits(documents_read_max=100)
    ) as t:
        await with_notes(t, *range(200))
        assert 0 < await t.query("app:count") <= 100
