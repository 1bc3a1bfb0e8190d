"""Nothing that one call does to what it was given reaches another call."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    AppError,
    MutationCtx,
    QueryCtx,
    StoreError,
    action,
    mutation,
    query,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@query
async def one(ctx: QueryCtx) -> int:
    return 1


async def test_an_id_of_a_table_that_was_not_made_after_all_harms_nobody() -> None:
    @mutation
    async def fail(ctx: MutationCtx) -> None:
        raise AppError(await ctx.db.insert("notes", {}))

    @mutation
    async def add(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", {})

    @mutation
    async def get(ctx: MutationCtx, id: str) -> Any:
        return await ctx.db.get(id)

    async with Harness({"app": SimpleNamespace(fail=fail, add=add, get=get)}) as t:
        with pytest.raises(AppError) as raised:
            await t.mutation("app:fail")
        both = t.mutation("app:add"), t.mutation("app:get", {"id": raised.value.data})
        assert await asyncio.gather(*both) == [None, None]


async def test_a_rehearsal_does_not_change_the_arguments_of_the_run() -> None:
    @mutation
    async def add(ctx: MutationCtx, items: list[str]) -> list[str]:
        items.append("more")
        return items

    async with Harness({"app": SimpleNamespace(add=add)}, development=True) as t:
        assert await t.mutation("app:add", {"items": ["tea"]}) == ["tea", "more"]


async def test_an_identity_that_a_handler_changes_stays_what_it_was() -> None:
    @query
    async def who(ctx: QueryCtx) -> Any:
        identity = await ctx.auth.get_user_identity()
        assert identity is not None
        identity["roles"].append("admin")
        return identity["roles"]

    ada = {"subject": "ada", "roles": ["reader"]}
    async with Harness({"app": SimpleNamespace(who=who)}) as t:
        assert await t.with_identity(ada).query("app:who") == ["reader", "admin"]
        assert await t.with_identity(ada).query("app:who") == ["reader", "admin"]


@pytest.mark.slow
async def test_a_query_of_an_action_that_outlives_the_app_is_told_that_it_is_closed() -> None:
    closed = asyncio.Event()

    @action
    async def late(ctx: ActionCtx) -> int:
        while not closed.is_set():  # whoever interrupts it
            with suppress(asyncio.CancelledError):
                await closed.wait()
        return await ctx.run_query("app:one")

    async with Harness({"app": SimpleNamespace(one=one, late=late)}) as t:
        task = asyncio.create_task(t.action("app:late"))
        await asyncio.sleep(0)
    closed.set()
    with pytest.raises(StoreError, match="after the app was closed"):
        await task


async def test_an_action_takes_the_same_chances_in_every_run_of_a_test() -> None:
    @action
    async def draw(ctx: ActionCtx) -> float:
        return ctx.random.random()

    drawn: list[tuple[float, float]] = []
    for _ in range(2):
        async with Harness({"app": SimpleNamespace(draw=draw)}) as t:
            drawn.append((await t.action("app:draw"), await t.action("app:draw")))

    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]
