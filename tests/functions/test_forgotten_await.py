"""A forgotten await, a misspelled function or index is an error, not silently wrong."""

from __future__ import annotations

import asyncio
import gc
import re
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest

from duly import (
    ActionCtx,
    FunctionError,
    Id,
    MutationCtx,
    QueryCtx,
    QueryError,
    action,
    define_schema,
    define_table,
    mutation,
    query,
)
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


class Order(TypedDict):
    item: str


@mutation
async def forgets_an_insert(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"item": "tea"})
    ctx.db.insert("orders", {"item": "coffee"})  # pyright: ignore


@mutation
async def forgets_a_schedule(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"item": "tea"})
    ctx.scheduler.run_after(0, forgets_an_insert)  # pyright: ignore
    ctx.run_mutation(forgets_an_insert)  # pyright: ignore


@mutation
async def create(ctx: MutationCtx, item: str) -> Id[Order]:
    return await ctx.db.insert("orders", {"item": item})


@action
async def forgets_its_calls(ctx: ActionCtx) -> None:
    await ctx.run_mutation(create, {"item": "tea"})
    ctx.run_mutation(create, {"item": "coffee"})  # pyright: ignore
    ctx.run_action(forgets_its_calls)  # pyright: ignore
    ctx.scheduler.run_after(0, create, {"item": "coffee"})  # pyright: ignore


@action
async def forgets_one_of_many(ctx: ActionCtx) -> None:
    ctx.scheduler.run_at(0, create, {"item": "coffee"})  # pyright: ignore
    for _ in range(300):
        await ctx.run_mutation(nothing)


@action
async def hands_them_to_tasks(ctx: ActionCtx) -> None:
    await asyncio.gather(*(ctx.run_mutation(create, {"item": "tea"}) for _ in range(200)))
    begun = asyncio.create_task(ctx.run_mutation(create, {"item": "tea"}))
    await begun
    left.append(asyncio.create_task(ctx.run_mutation(create, {"item": "tea"})))


@mutation
async def nothing(ctx: MutationCtx) -> None: ...


left: list[asyncio.Task[Any]] = []


@query
async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None:
    return await ctx.db.get(order_id)  # pyright: ignore


@query
async def all_orders(ctx: QueryCtx) -> list[Order]:
    return await ctx.db.query("orders").collect()  # pyright: ignore


APP: dict[str, Any] = {
    "app": SimpleNamespace(**handlers_in(globals())),
    "schema": define_schema({"orders": define_table(Order)}),
}


async def test_a_forgotten_await_fails_the_mutation_and_says_so() -> None:
    async with Harness(APP) as t:
        with pytest.raises(
            FunctionError, match=r"app:forgets_an_insert: got a call of `ctx` \(insert\) without `await`"
        ):
            await t.mutation(forgets_an_insert)
        with pytest.raises(
            FunctionError, match=r"app:forgets_a_schedule: got 2 calls of `ctx` \(run_after, .*\) without `await`"
        ):
            await t.mutation(forgets_a_schedule)
        assert await t.query(all_orders) == []
        assert await t.jobs() == []


async def test_a_forgotten_await_fails_the_action_and_says_so() -> None:
    async with Harness(APP) as t:
        forgot = r"app:forgets_its_calls: got 3 calls of `ctx` \(run_mutation, run_action, run_after\) without `await`"
        with pytest.raises(FunctionError, match=f"{forgot}.* What this action did before stays"):
            await t.action(forgets_its_calls)
        with pytest.raises(FunctionError, match=r"got a call of `ctx` \(run_at\) without `await`, which did nothing"):
            await t.action(forgets_one_of_many)
        assert [order["item"] for order in await t.query(all_orders)] == ["tea"]
        assert await t.jobs() == []


async def test_what_an_action_hands_to_tasks_is_not_forgotten() -> None:
    async with Harness(APP) as t:
        await t.action(hands_them_to_tasks)
        await left.pop()
        assert len(await t.query(all_orders)) == 202


async def test_a_document_may_be_returned_as_its_own_type() -> None:
    async with Harness(APP) as t:
        order_id = await t.mutation(create, {"item": "tea"})
        order = await t.query(get, {"order_id": order_id})
        assert order == {"item": "tea", "_id": order_id, "_creationTime": 1_893_456_000_000.0}
        assert [order] == await t.query(all_orders)


async def test_an_index_of_a_table_that_does_not_exist_is_no_index() -> None:
    async with Harness(APP) as t:
        with pytest.raises(QueryError, match="nothing: got the index 'by_x', expected one of by_creation_time"):
            await t.transaction(lambda ctx: ctx.db.query("nothing").with_index("by_x").collect())


@pytest.mark.parametrize("name", ["create", "app/create", "appp:create", "app:creat"])
async def test_a_misspelled_function_is_guessed(name: str) -> None:
    async with Harness(APP) as t:
        with pytest.raises(Exception, match="did you mean 'app:create'"):
            await t.app.run(name)


async def add_coffee(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"item": "coffee"})


@mutation
async def forgets_a_function_of_its_own(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"item": "tea"})
    add_coffee(ctx)  # pyright: ignore


@mutation
async def forgets_a_read(ctx: MutationCtx) -> str:
    if ctx.db.query("orders").first():  # pyright: ignore
        return "there is one"
    return "there is none"


@pytest.mark.parametrize(
    ("name", "call"), [("forgets_a_function_of_its_own", "add_coffee"), ("forgets_a_read", "first")]
)
async def test_in_development_whatever_is_not_awaited_is_an_error_each_time(name: str, call: str) -> None:
    source = {"app": SimpleNamespace(**{name: globals()[name]}, all_orders=all_orders)}
    async with Harness(source, development=True) as t:
        for _ in range(2):
            with pytest.raises(
                FunctionError, match=rf"which did nothing: {call}\(\) at test_forgotten_await.py:\d+; expected"
            ):
                await t.mutation(f"app:{name}")
        assert await t.query("app:all_orders") == []


@query
async def tally(ctx: QueryCtx) -> int:
    return await ctx.db.query("orders").count()


@mutation
async def collects_garbage(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"item": "tea"})
    gc.collect()


@mutation
async def forgets_a_read_among_lines(ctx: MutationCtx) -> None:
    ctx.db.get(  # pyright: ignore
        await ctx.db.insert("orders", {"item": "tea"})
    )
    await ctx.db.insert("orders", {"item": "coffee"})


async def throw_away_in_a_circle() -> None:
    circle: list[Any] = [add_coffee(None)]  # pyright: ignore
    circle.append(circle)


@pytest.mark.parametrize("debug", [False, True])
async def test_a_coroutine_of_the_programs_own_that_is_collected_during_a_rehearsal_fails_no_mutation(
    debug: bool,
) -> None:
    source = {"app": SimpleNamespace(collects_garbage=collects_garbage, tally=tally)}
    asyncio.get_running_loop().set_debug(debug)  # then Python tells of each coroutine where it was made
    async with Harness(source, development=True) as t:
        await asyncio.sleep(0)
        gc.collect()
        gc.disable()
        try:
            await throw_away_in_a_circle()
            with pytest.warns(RuntimeWarning, match="coroutine 'add_coffee' was never awaited"):
                await t.mutation(collects_garbage)
        finally:
            gc.enable()
        assert await t.query(tally) == 1


@pytest.mark.parametrize(
    ("function", "call", "offset"),
    [
        (forgets_a_function_of_its_own, "add_coffee", 3),
        (forgets_a_read, "first", 2),
        (forgets_a_read_among_lines, "get", 2),
    ],
)
async def test_the_line_that_is_named_for_a_forgotten_await_is_that_of_the_call(
    function: Any, call: str, offset: int
) -> None:
    line = function.handler.__code__.co_firstlineno + offset  # counted from the decorator
    async with Harness({"app": SimpleNamespace(function=function)}, development=True) as t:
        with pytest.raises(
            FunctionError, match=re.escape(f"nothing: {call}() at test_forgotten_await.py:{line}; expected")
        ):
            await t.mutation(function)
