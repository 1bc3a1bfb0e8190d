"""Subscriptions: their end, new code, a store that cannot be read."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    App,
    FunctionNotFoundError,
    QueryCtx,
    QueryError,
    StoreLostError,
    query,
)
from duly.limits import Limits
from duly.testing import Harness
from tests.live_schema import BOTH, LIVE, ONE, SWAPPED, ordered, put, reload, rows

pytestmark = pytest.mark.usefixtures("engine")


@query
async def one(ctx: QueryCtx) -> int:
    return 1


async def test_a_subscription_to_a_query_that_reads_nothing_ends_with_the_app() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        values = t.subscribe("app:one")
        assert await anext(values) == 1
        ended = asyncio.create_task(anext(values, "the end"))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(ended, 30) == "the end"


async def test_a_subscription_to_a_query_that_reads_nothing_hears_of_new_code() -> None:
    @query
    async def two(ctx: QueryCtx) -> int:
        return 2

    functions = SimpleNamespace(number=one)
    async with Harness({"app": functions}) as t:
        values = t.subscribe("app:number")
        assert await anext(values) == 1
        functions.number = two
        await t.app.reload()
        assert await asyncio.wait_for(anext(values), 30) == 2


async def test_a_subscription_waits_for_a_function_that_is_gone() -> None:
    functions = SimpleNamespace(number=one)
    async with Harness({"app": functions}) as t:
        values = t.subscribe("app:number")
        assert await anext(values) == 1
        del functions.number
        await t.app.reload()
        with pytest.raises(FunctionNotFoundError):
            await anext(values)
        again = asyncio.create_task(anext(values))
        assert await asyncio.wait((again,), timeout=0.05) == (set(), {again})
        functions.number = one
        await t.app.reload()
        assert await asyncio.wait_for(again, 30) == 1


async def test_a_subscription_tells_values_as_large_as_the_limits_of_the_app() -> None:
    @query
    async def many(ctx: QueryCtx) -> list[int]:
        return [0] * 9_000

    async with Harness({"app": SimpleNamespace(many=many)}, limits=Limits(array_length_max=9_000)) as t:
        assert len(await anext(t.subscribe("app:many"))) == 9_000


async def test_a_subscription_that_could_not_read_the_store_reads_again_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        subscription = t.app.subscribe("app:one")
        read = t.app.database.read_together

        async def refused(*args: object) -> Any:
            raise StoreLostError("too many clients")

        monkeypatch.setattr(t.app.database, "read_together", refused)
        with pytest.raises(StoreLostError):
            await anext(subscription)
        monkeypatch.setattr(t.app.database, "read_together", read)

        async with asyncio.timeout(30):
            assert await anext(subscription) == 1


async def test_a_subscription_lives_through_a_reload_that_changes_its_index(store: str) -> None:
    async with App({"app": LIVE, "schema": BOTH}, store) as app:
        values = app.subscribe(ordered)
        assert await anext(values) == []
        await app.mutation(put, {"n": 1})
        await app.mutation(put, {"n": 2})
        assert await anext(values) == [1, 2]
        await reload(app, {"app": LIVE, "schema": SWAPPED})
        assert await asyncio.wait_for(anext(values), 30) == [2, 1]
        await app.mutation(put, {"n": 3})
        assert await asyncio.wait_for(anext(values), 30) == [3, 2, 1]


async def test_a_mutation_returns_though_a_subscriptions_index_is_gone(store: str) -> None:
    async with App({"app": LIVE, "schema": BOTH}, store) as app:
        values = app.subscribe(ordered)
        assert await anext(values) == []
        await reload(app, {"app": LIVE, "schema": ONE})
        await asyncio.wait_for(app.mutation(put, {"n": 1}), 30)
        with pytest.raises(QueryError, match="got the index 'by_n', expected one of"):
            await asyncio.wait_for(anext(values), 30)


async def test_giving_up_on_a_value_leaves_the_subscription_whole() -> None:
    async with Harness({"app": LIVE}) as t:
        values = t.subscribe(rows)
        assert await anext(values) == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(values), 0.01)
        await t.mutation(put, {"n": 1})
        assert await asyncio.wait_for(anext(values), 30) == [1]


async def test_subscriptions_that_are_left_are_forgotten() -> None:
    async with Harness({"app": LIVE}) as t:
        for _ in range(100):
            async for _ in t.subscribe(rows):
                break
        gc.collect()
        await asyncio.sleep(0)
        assert t.app.database.commit_log._watchers.ranges == {}  # pyright: ignore[reportPrivateUsage]
