"""A caller that is cancelled: what has not begun is withdrawn, what has begun counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from duly import ActionCtx, App, Limits, MutationCtx, QueryCtx, action, crons, mutation, query
from duly.testing import Harness
from tests.support import handlers_in

door = threading.Event()
"""Holds up the calls of `hold`, and with them all that are queued behind it."""
holding = threading.Event()


@mutation
async def hold(ctx: MutationCtx) -> None:
    holding.set()
    door.wait()
    await ctx.db.insert("items", {"item": "held"})


@mutation
async def add(ctx: MutationCtx, item: str = "late") -> None:
    await ctx.db.insert("items", {"item": item})


@query
async def items(ctx: QueryCtx) -> list[str]:
    return [row["item"] for row in await ctx.db.query("items").collect()]


@query
async def states(ctx: QueryCtx) -> list[str]:
    return [row["state"]["kind"] for row in await ctx.db.system.query("_scheduled_functions").collect()]


@asynccontextmanager
async def held(app: App) -> AsyncIterator[None]:
    """While a mutation is on, so that all others wait."""
    door.clear()
    holding.clear()
    call = asyncio.create_task(app.mutation(hold))
    try:
        await asyncio.to_thread(holding.wait)
        yield
    finally:
        door.set()
        await call


async def cancelled(call: Awaitable[Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.001)


@action
async def give_up(ctx: ActionCtx, id: str) -> None:
    """Gives up each of the calls that commit."""
    await cancelled(ctx.run_mutation(add))
    await cancelled(ctx.run_action(call_add))
    await cancelled(ctx.scheduler.run_after(60_000, add))
    await cancelled(ctx.scheduler.run_at(ctx.now + 60_000, add))
    await cancelled(ctx.scheduler.cancel(id))
    await cancelled(crons.register(ctx, {"kind": "interval", "ms": 60_000}, add))


@action
async def call_add(ctx: ActionCtx) -> None:
    await ctx.run_mutation(add)


CALLS: dict[str, Callable[[Harness, str], Awaitable[Any]]] = {
    "mutation": lambda t, _: cancelled(t.mutation(add)),
    "run": lambda t, _: cancelled(t.app.run(add)),
    "transaction": lambda t, _: cancelled(t.transaction(lambda ctx: ctx.db.insert("items", {"item": "late"}))),
    "pause": lambda t, _: cancelled(t.app.pause()),
    "action": lambda t, id: t.action(give_up, {"id": id}),
    "cancelled action": lambda t, _: cancelled(t.action(call_add)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("engine")
async def test_a_call_whose_caller_is_cancelled_before_it_has_begun_is_withdrawn(name: str) -> None:
    async with Harness(APP, limits=Limits(handler_seconds_max=60)) as t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(120_000, add))
        async with held(t.app):
            await CALLS[name](t, id)
        assert await t.query(items) == ["held"]
        assert [job["state"]["kind"] for job in await t.jobs()] == ["pending"]
        assert await t.transaction(lambda ctx: crons.list(ctx)) == []
        assert (await t.app.stats()).paused_since is None


@pytest.mark.usefixtures("engine")
async def test_a_call_whose_caller_is_cancelled_after_it_has_begun_counts() -> None:
    door.clear()
    holding.clear()
    async with Harness(APP, limits=Limits(handler_seconds_max=60)) as t:
        call = asyncio.create_task(t.mutation(hold))
        await asyncio.to_thread(holding.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        door.set()
        await t.mutation(add, {"item": "next"})
        assert await t.query(items) == ["held", "next"]


@pytest.mark.usefixtures("engine")
async def test_of_many_calls_only_those_are_withdrawn_whose_callers_are_cancelled() -> None:
    async with Harness(APP, limits=Limits(handler_seconds_max=60)) as t:
        async with held(t.app):
            calls = [asyncio.create_task(t.mutation(add, {"item": str(n)})) for n in range(100)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await t.query(items) == ["held", *(str(n) for n in range(1, 100, 2))]


@action
async def end_when_told(ctx: ActionCtx) -> None:
    await told[-1].wait()


told: list[asyncio.Event] = []


async def test_the_end_of_an_action_is_recorded_also_where_it_is_interrupted_meanwhile(store: str) -> None:
    told.append(asyncio.Event())
    app = App(APP, store, limits=Limits(handler_seconds_max=60))
    await app.__aenter__()
    await app.runner.transaction(lambda ctx: ctx.scheduler.run_after(0, end_when_told))
    async for found in app.subscribe(states):
        if found == ["inProgress"]:
            break
    executor = app.executor
    async with held(app):
        told[-1].set()
        await asyncio.sleep(0)  # it returns, and its end waits to be recorded
        stopping = asyncio.create_task(executor.stop())  # what a close does once the executor has done its step
        while executor.running:
            await asyncio.sleep(0)
    await stopping
    await app.close()
    async with App(APP, store, executor=False) as app:
        assert await app.query(states) == ["success"]


APP: dict[str, Any] = {"app": SimpleNamespace(**handlers_in(globals()))}
