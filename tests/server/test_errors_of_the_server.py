"""Errors of the server itself: who waits for what has failed is disconnected and comes back, and no other notices."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from duly import MutationCtx, QueryCtx, mutation, query
from duly.server.calls import ClientCalls
from duly.server.outbox import Texts
from duly.sync.session import Session
from duly.testing import Harness
from tests.server.support import Client, client_of
from tests.support import app_of


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return [row["n"] async for row in ctx.db.query("numbers")]


@query
async def poison(ctx: QueryCtx) -> int:
    ctx.log.info("poison")
    return await ctx.db.query("numbers").count()


@mutation
async def add(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("numbers", {"n": n})


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[Harness, Client]]:
    async with Harness(app_of(numbers, poison, add), development=True) as t, client_of(t.app) as client:
        yield t, client


@pytest.mark.parametrize(
    ("place", "method"), [(Session, "receive"), (ClientCalls, "lines_of"), (Session, "query_ran"), (Texts, "of")]
)
async def test_an_error_of_the_server_ends_the_connection_that_it_concerns_and_no_other(
    place: type, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = getattr(place, method)

    def faulty(*args: Any, **options: Any) -> Any:
        if "poison" in repr(args):
            raise ZeroDivisionError("a bug of the server")
        return right(*args, **options)

    monkeypatch.setattr(place, method, faulty)
    async with served() as (t, client), client.socket() as good, client.socket() as bad:
        await good.hello()
        await bad.hello()
        await good.add(0, "app:numbers")
        await bad.add(0, "app:poison")
        assert await good.transition() == {0: []}
        assert await bad.closed() == (1011, "InternalServerError")
        await t.mutation("app:add", {"n": 1})
        assert await good.transition() == {0: [1]}
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.name == "duly.server"
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


async def test_a_query_that_fails_after_a_commit_ends_the_connections_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(*args: Any) -> Any:
        raise ZeroDivisionError("a bug of the server")

    async with served() as (t, client):
        async with client.socket() as socket:
            await socket.hello()
            await socket.add(0, "app:numbers")
            assert await socket.transition() == {0: []}
            with monkeypatch.context() as patched:
                patched.setattr(ClientCalls, "lines_of", faulty)
                await t.mutation("app:add", {"n": 1})
                assert await socket.closed() == (1011, "InternalServerError")
        async with client.socket() as again:
            await again.hello()
            await again.add(0, "app:numbers")
            assert await again.transition() == {0: [1]}
