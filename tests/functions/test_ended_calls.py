"""A `ctx` belongs to one call: whoever keeps it longer, or uses it where it would wait for itself, is told so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    FunctionError,
    LimitError,
    Limits,
    MutationCtx,
    QueryCtx,
    action,
    crons,
    mutation,
    query,
)
from duly.ctx.sync_context import SyncActionCtx
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

ENDED = "got a use of `ctx` after its call had ended, expected it before"
kept: dict[str, Any] = {}
"""What the functions below have kept of their calls."""


@mutation
async def add(ctx: MutationCtx, item: str) -> str:
    return await ctx.db.insert("items", {"item": item})


@query
async def items(ctx: QueryCtx) -> list[str]:
    return [row["item"] for row in await ctx.db.query("items").collect()]


# Queries and mutations.


@query
async def keep_query(ctx: QueryCtx) -> None:
    kept["ctx"], kept["rows"] = ctx, aiter(ctx.db.query("items"))
    await anext(kept["rows"])


@mutation
async def keep_mutation(ctx: MutationCtx, fails: bool = False) -> None:
    kept["ctx"], kept["rows"] = ctx, aiter(ctx.db.query("items"))
    kept["id"] = (await anext(kept["rows"]))["_id"]
    if fails:
        raise ValueError("no more")


@query
async def keep_inner_query(ctx: QueryCtx) -> None:
    await ctx.run_query(keep_query)
    await use_kept(ctx)


@mutation
async def keep_inner_mutation(ctx: MutationCtx) -> None:
    await ctx.run_mutation(keep_mutation)
    await use_kept(ctx)


@mutation
async def keep_failed_mutation(ctx: MutationCtx) -> None:
    with pytest.raises(ValueError, match="no more"):
        await ctx.run_mutation(keep_mutation, {"fails": True})
    await use_kept(ctx)


@mutation
async def use_kept(_: object) -> None:
    """Each way to use a ctx is refused, and the refusal may be caught."""
    ctx = kept["ctx"]
    uses: list[Callable[[], Awaitable[Any]]] = [
        lambda: ctx.db.query("items").collect(),
        lambda: ctx.db.query("no_such_table").first(),
        lambda: anext(kept["rows"]),
        lambda: ctx.run_query(items),
        lambda: ctx.db.system.query("_scheduled_functions").take(1),
        lambda: crons.list(ctx),
    ]
    if isinstance(ctx, MutationCtx):
        id = kept["id"]
        uses += [
            lambda: ctx.db.get(id),
            lambda: ctx.db.get_many([id]),
            lambda: ctx.db.query("items").count(),
            lambda: ctx.db.query("items").paginate(num_items=1),
            lambda: ctx.db.insert("items", {"item": "late"}),
            lambda: ctx.db.insert("new_table", {}),
            lambda: ctx.db.patch(id, {"item": "late"}),
            lambda: ctx.db.replace(id, {"item": "late"}),
            lambda: ctx.db.delete(id),
            lambda: ctx.scheduler.run_after(0, add, {"item": "late"}),
            lambda: ctx.scheduler.run_at(ctx.now, add, {"item": "late"}),
            lambda: ctx.run_mutation(add, {"item": "late"}),
            lambda: crons.register(ctx, {"kind": "interval", "ms": 60_000}, add, {"item": "late"}, name="late"),
        ]
    for use in uses:
        with pytest.raises(FunctionError, match=ENDED):
            await use()


@pytest.mark.parametrize("name", ["keep_query", "keep_mutation"])
@pytest.mark.parametrize("development", [False, True])
async def test_what_another_mutation_has_kept_of_a_ctx_is_refused(name: str, development: bool) -> None:
    async with Harness(APP, development=development) as t:
        for item in ("tea", "cake", "milk"):
            await t.mutation(add, {"item": item})
        await t.app.run(f"app:{name}")
        await t.mutation(use_kept)
        assert await t.query(items) == ["tea", "cake", "milk"]
        assert await t.jobs() == []


@pytest.mark.parametrize("name", ["keep_inner_query", "keep_inner_mutation", "keep_failed_mutation"])
async def test_what_a_caller_has_kept_of_the_ctx_of_a_nested_call_is_refused(name: str) -> None:
    async with Harness(APP) as t:
        for item in ("tea", "cake", "milk"):
            await t.mutation(add, {"item": item})
        await t.app.run(f"app:{name}")
        assert await t.query(items) == ["tea", "cake", "milk"]
        assert await t.jobs() == []


async def test_a_ctx_is_refused_after_a_failed_a_scheduled_and_a_run_of_the_test_s_own() -> None:
    async with Harness(APP) as t:
        for item in ("tea", "cake", "milk"):
            await t.mutation(add, {"item": item})
        with pytest.raises(ValueError, match="no more"):
            await t.mutation(keep_mutation, {"fails": True})
        await t.mutation(use_kept)
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, keep_mutation))
        await t.run_until_idle()
        await t.mutation(use_kept)

        async def keep(ctx: MutationCtx) -> None:
            kept["ctx"], kept["rows"] = ctx, aiter(ctx.db.query("items"))
            await anext(kept["rows"])

        await t.transaction(keep)
        await t.mutation(use_kept)
        assert await t.query(items) == ["tea", "cake", "milk"]
        assert await t.failures() == []


@mutation
async def keep_generator(ctx: MutationCtx) -> None:
    async def adding() -> AsyncIterator[None]:
        while True:
            await ctx.db.insert("items", {"item": "tea"})
            yield

    kept["generator"] = adding()
    await anext(kept["generator"])


@mutation
async def go_on_with_generator(ctx: MutationCtx) -> None:
    await anext(kept["generator"])


async def test_a_generator_of_an_earlier_call_writes_nothing() -> None:
    async with Harness(APP) as t:
        await t.mutation(keep_generator)
        with pytest.raises(FunctionError, match=ENDED):
            await t.mutation(go_on_with_generator)
        assert await t.query(items) == ["tea"]


@pytest.mark.both_engines
async def test_a_thread_or_a_task_that_goes_on_after_a_mutation_reads_and_writes_nothing() -> None:
    async with Harness(APP) as t:
        await t.mutation(add, {"item": "tea"})
        await t.mutation(keep_mutation)
        ctx: MutationCtx = kept["ctx"]
        with pytest.raises(FunctionError, match=ENDED):
            await asyncio.to_thread(lambda: asyncio.run(ctx.db.insert("items", {"item": "late"})))
        with pytest.raises(FunctionError, match=ENDED):
            await asyncio.create_task(ctx.db.delete(kept["id"]))
        with pytest.raises(FunctionError, match=ENDED):
            await ctx.gather(ctx.db.get(kept["id"]), ctx.db.get(kept["id"]))
        assert await t.query(items) == ["tea"]


async def test_nested_calls_have_chance_of_their_own() -> None:
    async def chances(ctx: MutationCtx) -> set[float]:
        return {*[await ctx.run_mutation(chance) for _ in range(3)], *[await ctx.run_query(luck) for _ in range(3)]} | {
            ctx.random.random()
        }

    async with Harness(APP) as t:
        assert len(await t.transaction(chances)) == 7


@mutation
async def chance(ctx: MutationCtx) -> float:
    return ctx.random.random()


@query
async def luck(ctx: QueryCtx) -> float:
    return ctx.random.random()


# Actions.


@action
async def keep_action(ctx: ActionCtx, fails: bool = False) -> None:
    kept["ctx"], kept["scheduler"] = ctx, ctx.scheduler
    if fails:
        kept["call"] = ctx.run_mutation(add, {"item": "late"})
        raise ValueError("no more")


@action
async def keep_inner_action(ctx: ActionCtx) -> None:
    await ctx.run_action(keep_action)
    await use_kept_action()
    await ctx.run_mutation(add, {"item": "tea"})  # its own goes on


async def use_kept_action() -> None:
    ctx: ActionCtx = kept["ctx"]
    scheduler = kept["scheduler"]
    uses: list[Callable[[], Awaitable[Any]]] = [
        lambda: ctx.run_query(items),
        lambda: ctx.run_mutation(add, {"item": "late"}),
        lambda: ctx.run_action(keep_action),
        lambda: scheduler.run_after(0, add, {"item": "late"}),
        lambda: ctx.scheduler.run_at(ctx.now, add, {"item": "late"}),
        lambda: ctx.scheduler.cancel("0" * 32),
        lambda: crons.list(ctx),
        lambda: crons.register(ctx, {"kind": "interval", "ms": 60_000}, add, {"item": "late"}, name="late"),
    ]
    for use in uses:
        with pytest.raises(FunctionError, match=ENDED):
            await use()


@pytest.mark.parametrize("how", ["called", "nested", "scheduled"])
async def test_what_is_kept_of_the_ctx_of_an_action_is_refused(how: str) -> None:
    async with Harness(APP) as t:
        if how == "scheduled":
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, keep_inner_action))
            await t.run_until_idle()
            assert await t.failures() == []
        else:
            await t.action(keep_inner_action if how == "nested" else keep_action)
            await use_kept_action()
        assert await t.query(items) == ([] if how == "called" else ["tea"])
        assert len(await t.jobs()) == (how == "scheduled")


async def test_a_call_that_a_failed_action_has_made_and_not_begun_cannot_be_begun() -> None:
    async with Harness(APP) as t:
        with pytest.raises(ValueError, match="no more"):
            await t.action(keep_action, {"fails": True})
        await use_kept_action()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await kept["call"]
        assert await t.query(items) == []


@action
async def leave_a_task(ctx: ActionCtx) -> None:
    door = kept["door"] = asyncio.Event()

    async def later() -> None:
        await door.wait()
        await ctx.run_mutation(add, {"item": "late"})

    kept["task"] = asyncio.create_task(later())


@action
def leave_a_thread(ctx: SyncActionCtx) -> None:
    door = kept["door"] = threading.Event()

    def later() -> None:
        door.wait()
        for use in (
            lambda: ctx.run_query(items),
            lambda: ctx.run_mutation(add, {"item": "late"}),
            lambda: ctx.scheduler.run_after(0, add, {"item": "late"}),
            lambda: ctx.run_action(keep_action),
        ):
            try:
                use()
            except FunctionError as error:
                kept["errors"].append(str(error))

    kept["errors"] = list[str]()
    kept["thread"] = threading.Thread(target=later)
    kept["thread"].start()


async def test_a_task_that_an_action_leaves_behind_writes_nothing() -> None:
    async with Harness(APP) as t:
        await t.action(leave_a_task)
        kept["door"].set()
        with pytest.raises(FunctionError, match=ENDED):
            await kept["task"]
        assert await t.query(items) == []


async def test_a_thread_that_an_action_leaves_behind_writes_nothing() -> None:
    async with Harness(APP) as t:
        await t.action(leave_a_thread)
        kept["door"].set()
        await asyncio.to_thread(kept["thread"].join)
        assert [error.startswith(ENDED) for error in kept["errors"]] == [True] * 4
        assert await t.query(items) == []
        assert await t.jobs() == []


@action
def outstay(ctx: SyncActionCtx) -> None:
    kept["begun"].set()
    kept["door"].wait()
    try:
        ctx.run_mutation(add, {"item": "late"})
    except FunctionError as error:
        kept["error"] = str(error)
    kept["gone"].set()


@pytest.mark.parametrize("how", ["out of time", "cancelled"])
async def test_a_thread_whose_action_has_failed_meanwhile_writes_nothing(how: str) -> None:
    kept.update(door=threading.Event(), begun=threading.Event(), gone=threading.Event())
    limits = Limits(action_seconds_max=0.1) if how == "out of time" else Limits()
    async with Harness(APP, limits=limits) as t:
        call = asyncio.create_task(t.action(outstay))
        await asyncio.to_thread(kept["begun"].wait)
        if how == "cancelled":
            call.cancel()
        with pytest.raises(LimitError if how == "out of time" else asyncio.CancelledError):
            await call
        kept["door"].set()
        await asyncio.to_thread(kept["gone"].wait)
        assert kept["error"].startswith(ENDED)
        assert await t.query(items) == []


# Where a ctx may be used.


@action
def keep_thread_ctx(ctx: SyncActionCtx) -> None:
    kept["ctx"] = ctx
    kept["begun"].set()
    kept["door"].wait()


def ways(ctx: SyncActionCtx) -> list[Callable[[], Any]]:
    return [
        lambda: ctx.run_query(items),
        lambda: ctx.run_mutation(add, {"item": "late"}),
        lambda: ctx.run_action(keep_action),
        lambda: ctx.scheduler.run_after(0, add, {"item": "late"}),
        lambda: ctx.scheduler.run_at(ctx.now, add, {"item": "late"}),
        lambda: ctx.scheduler.cancel("0" * 32),
        lambda: ctx.wait(asyncio.sleep(0)),
    ]


@mutation
async def use_thread_ctx(ctx: MutationCtx) -> None:
    for use in ways(kept["ctx"]):
        with pytest.raises(FunctionError, match=r"ctx` of a `def` action in a query or mutation, which would wait for"):
            use()


@query
async def read_thread_ctx(ctx: QueryCtx) -> None:
    with pytest.raises(FunctionError, match=r"ctx` of a `def` action in a query or mutation, which would wait for"):
        kept["ctx"].run_query(items)


async def test_a_ctx_that_blocks_is_refused_where_it_would_wait_for_itself() -> None:
    kept.update(door=threading.Event(), begun=threading.Event())
    async with Harness(APP) as t:
        call = asyncio.create_task(t.action(keep_thread_ctx))
        try:
            await asyncio.to_thread(kept["begun"].wait)
            for use in ways(kept["ctx"]):
                with pytest.raises(FunctionError, match=r"of a `def` action in the event loop of the app, which would"):
                    use()
            await t.mutation(use_thread_ctx)
            await t.query(read_thread_ctx)
            # It blocks only itself in any other thread, and in a loop that such a thread runs.
            await asyncio.to_thread(kept["ctx"].run_mutation, add, {"item": "tea"})
            await asyncio.to_thread(lambda: asyncio.run(blocking()))
        finally:
            kept["door"].set()
            await call
        assert await t.query(items) == ["tea", "cake"]


@mutation
async def call_the_app(ctx: MutationCtx) -> None:
    app: App = kept["app"]
    for use in (
        lambda: app.mutation(add, {"item": "late"}),
        lambda: app.run(add, {"item": "late"}),
        app.pause,
    ):
        with pytest.raises(FunctionError, match="got a call of the app in a query or mutation, expected one of `ctx`"):
            await use()


@pytest.mark.both_engines
async def test_a_mutation_that_calls_the_app_is_told_so_and_nothing_is_done() -> None:
    async with Harness(APP) as t:
        kept["app"] = t.app
        await t.mutation(call_the_app)
        await t.mutation(add, {"item": "tea"})
        assert await t.query(items) == ["tea"]
        assert (await t.app.stats()).paused_since is None


@action
def wait_for_nothing(ctx: SyncActionCtx) -> None:
    closed = ctx._ctx.run_query(items)  # pyright: ignore[reportPrivateUsage]
    closed.close()
    with pytest.raises(FunctionError, match=ENDED):
        ctx.wait(closed)
    with pytest.raises(TypeError, match="is required"):
        ctx.wait(5)  # pyright: ignore


async def test_what_cannot_be_awaited_holds_up_no_thread() -> None:
    async with Harness(APP) as t:
        await t.action(wait_for_nothing)


async def blocking() -> None:
    kept["ctx"].run_mutation(add, {"item": "cake"})


@action
async def use_other_loops(ctx: ActionCtx) -> None:
    loop = asyncio.get_running_loop()
    uses: list[Callable[[], Any]] = [
        lambda: ctx.run_query(items),
        lambda: ctx.run_mutation(add, {"item": "late"}),
        lambda: ctx.run_action(leave_a_task),
        lambda: ctx.scheduler.run_after(0, add, {"item": "late"}),
        lambda: ctx.scheduler.cancel("0" * 32),
        lambda: crons.register(ctx, {"kind": "interval", "ms": 60_000}, add, {"item": "late"}),
    ]
    for use in uses:
        with pytest.raises(FunctionError, match="got a call of `ctx` in another event loop than the app's"):
            await asyncio.to_thread(asyncio.run, awaited(use))
    handed = asyncio.run_coroutine_threadsafe
    await asyncio.to_thread(lambda: handed(ctx.run_mutation(add, {"item": "tea"}), loop).result())


async def awaited(use: Callable[[], Any]) -> Any:
    return await use()


async def test_an_async_ctx_is_refused_in_another_event_loop_and_nothing_is_done() -> None:
    async with Harness(APP) as t:
        await t.action(use_other_loops)
        assert await t.query(items) == ["tea"]
        assert await t.jobs() == []


APP: dict[str, Any] = {"app": SimpleNamespace(**handlers_in(globals()))}
