"""ContextVars: what a caller has set reaches the functions it calls, and nothing of what those set comes back."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from duly import ActionCtx, App, MutationCtx, QueryCtx, action, mutation, query
from duly.ctx.sync_context import SyncActionCtx
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@query
async def read(ctx: QueryCtx) -> str:
    return tenant.get()


@mutation
async def write(ctx: MutationCtx) -> list[str]:
    ctx.log.info("writes")
    return [tenant.get(), await ctx.run_query(read), await ctx.run_mutation(write_within)]


@mutation
async def write_within(ctx: MutationCtx) -> str:
    return tenant.get()


@action
async def act(ctx: ActionCtx) -> list[Any]:
    return [tenant.get(), await ctx.run_query(read), await ctx.run_mutation(write), await ctx.run_action(act_in_thread)]


@action
def act_in_thread(ctx: SyncActionCtx) -> list[Any]:
    mine = tenant.get()
    tenant.set("thread")
    return [mine, ctx.run_query(read), ctx.run_mutation(write)]


@mutation
async def set_it(ctx: MutationCtx, name: str) -> None:
    before = tenant.get()
    tenant.set(name)
    await ctx.db.insert("tenants", {"before": before, "after": tenant.get()})


@query
async def tenants(ctx: QueryCtx) -> list[list[str]]:
    return [[row["before"], row["after"]] for row in await ctx.db.query("tenants").collect()]


@pytest.mark.parametrize("development", [False, True])
async def test_what_the_caller_has_set_reaches_queries_mutations_and_actions(development: bool) -> None:
    async with Harness(APP, development=development) as t:
        tenant.set("ada")
        assert await t.query(read) == "ada"
        assert await t.mutation(write) == ["ada"] * 3
        assert await t.action(act) == ["ada", "ada", ["ada"] * 3, ["ada", "thread", ["thread"] * 3]]
        assert await t.action(act_in_thread) == ["ada", "thread", ["thread"] * 3]

        async def mine(_: MutationCtx) -> str:
            return tenant.get()

        assert await t.transaction(mine) == "ada"
        async for value in t.subscribe(read):
            assert value == "ada"
            break


async def test_calls_made_at_once_see_each_what_its_own_caller_has_set() -> None:
    async def call(t: Harness, name: str) -> tuple[str, list[str]]:
        tenant.set(name)
        return await t.query(read), await t.mutation(write)

    async with Harness(APP) as t:
        names = [f"tenant {n}" for n in range(50)]
        found = await asyncio.gather(*(call(t, name) for name in names))
        assert found == [(name, [name] * 3) for name in names]


@pytest.mark.parametrize("development", [False, True])
async def test_what_a_mutation_sets_is_seen_neither_by_its_caller_nor_by_those_after_it(development: bool) -> None:
    async with Harness(APP, development=development) as t:
        tenant.set("ada")
        for name in ("one", "two"):
            await t.mutation(set_it, {"name": name})
        for name in ("three", "four"):
            await t.transaction(lambda ctx, name=name: ctx.scheduler.run_after(0, set_it, {"name": name}))
        await t.run_until_idle()
        assert await t.query(tenants) == [
            ["ada", "one"],
            ["ada", "two"],
            ["nobody", "three"],
            ["nobody", "four"],
        ]
        assert tenant.get() == "ada"


async def test_a_call_that_is_run_again_begins_with_what_its_caller_has_set(store: str) -> None:
    async with App(APP, store) as app:
        tenant.set("ada")
        await app.mutation(set_it, {"name": "one"})  # on PostgreSQL it makes a table, so that it is run again
        assert await app.query(tenants) == [["ada", "one"]]


async def test_lines_of_the_log_are_written_in_the_caller_s_context(caplog: pytest.LogCaptureFixture) -> None:
    def note(record: logging.LogRecord) -> bool:
        record.tenant = tenant.get()
        return True

    caplog.set_level("INFO", "duly")
    caplog.handler.addFilter(note)
    try:
        async with Harness(APP) as t:
            tenant.set("ada")
            await t.mutation(write)
            await t.query(read)
    finally:
        caplog.handler.removeFilter(note)
    told = [(record.name, vars(record)["tenant"]) for record in caplog.records]
    assert told == [("duly.app.app:write", "ada"), ("duly.run", "ada"), ("duly.run", "ada")]


APP: dict[str, Any] = {"app": SimpleNamespace(**handlers_in(globals()))}
