"""An app that is called, or closed, within one of its own queries or mutations, which would wait for itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from duly import App, FunctionError, Limits, MutationCtx, QueryCtx, mutation, query

here: dict[str, Any] = {}


@mutation
async def add(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("rows", {"n": n})


@query
async def rows(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").collect()]


@mutation
async def closes(ctx: MutationCtx) -> None:
    here["app"].close().send(None)


@mutation
async def crashes(ctx: MutationCtx) -> None:
    here["app"].crash().send(None)


@mutation
async def waits_for_its_app(ctx: MutationCtx) -> None:
    asyncio.run_coroutine_threadsafe(here["app"].mutation("app:add", {"n": 1}), here["loop"]).result()


APP = {"app": SimpleNamespace(add=add, rows=rows, closes=closes, crashes=crashes, waits_for_its_app=waits_for_its_app)}


@pytest.mark.parametrize("name", ["closes", "crashes", "waits_for_its_app"])
async def test_it_is_refused_and_the_app_goes_on(store: str, name: str) -> None:
    async with App(APP, store, limits=Limits(handler_seconds_max=20)) as app:
        here.update(app=app, loop=asyncio.get_running_loop())
        with pytest.raises(FunctionError, match="got a call of the app in a query or mutation"):
            await app.mutation(f"app:{name}")
        await app.mutation("app:add", {"n": 2})
        assert await app.query("app:rows") == [2]
    here.clear()
