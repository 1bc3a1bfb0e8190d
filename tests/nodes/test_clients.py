"""Clients of several nodes that share a store: whichever they reach, they go on where they were."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from duly import App, MutationCtx, QueryCtx, mutation, query
from duly.sync.convex_json import encode_ts
from tests.conftest import ENGINES
from tests.server.support import client_of
from tests.support import app_of

pytestmark = pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.query("rows").count()


@mutation
async def add(ctx: MutationCtx) -> None:
    await ctx.db.insert("rows", {})


APP: dict[str, Any] = app_of(count, add)


async def test_a_client_that_comes_to_another_node_sees_nothing_older_and_nothing_twice(store: str) -> None:
    session, seen = str(uuid4()), 0
    async with App(APP, store) as one, App(APP, store) as other, client_of(one) as here, client_of(other) as there:
        for turn in range(6):
            async with (here, there)[turn % 2].socket() as socket:
                await socket.hello(session, connectionCount=turn, maxObservedTimestamp=encode_ts(seen))
                await socket.add(0, "app:count")
                assert await socket.transition() == {0: turn}
                assert socket.ts >= seen
                if turn:
                    await socket.mutate(turn - 1, "app:add")  # its answer might have been lost
                    assert (await socket.next())["success"]
                    assert await socket.transition() == {}
                await socket.mutate(turn, "app:add")
                assert (await socket.next())["success"]
                assert await socket.transition() == {0: turn + 1}
                seen = socket.ts


async def test_a_commit_of_another_node_is_shown(store: str) -> None:
    async with App(APP, store) as one, App(APP, store) as other, client_of(one) as here, here.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:count")
        assert await socket.transition() == {0: 0}
        await asyncio.gather(*(other.mutation("app:add") for _ in range(5)))
        shown: dict[int, Any] = {}
        while shown.get(0) != 5:
            shown = await socket.transition()
