"""`count()`: how many documents a query has, without reading them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from duly import UNSET, LimitError, Limits, MutationCtx, QueryCtx, QueryError, define_schema, define_table, query, v
from duly.ctx.db.query import Query
from duly.testing import Harness
from duly.values import json

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"orders": define_table(v.any()).index("by_status", ["status", "n"])})


@query
async def open_orders(ctx: QueryCtx) -> int:
    return await ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", "open")).count()


def harness(limits: Limits | None = None) -> Harness:
    modules = {"app": SimpleNamespace(open_orders=open_orders), "schema": SCHEMA}
    return Harness(modules, limits=limits or Limits())


async def with_orders(t: Harness, *statuses: object, **more: Any) -> list[str]:
    async def insert(ctx: MutationCtx) -> list[str]:
        orders = [
            {"n": n, **more} if one is UNSET else {"status": one, "n": n, **more} for n, one in enumerate(statuses)
        ]
        return [await ctx.db.insert("orders", order) for order in orders]

    return await t.transaction(insert)


def of(status: object) -> Any:
    return lambda q: q.eq("status", status)  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]


async def test_a_query_counts_its_documents() -> None:
    async with harness() as t:
        await with_orders(t, "open", "open", "paid", None, UNSET, "open")

        async def count(ctx: MutationCtx) -> list[int]:
            orders = ctx.db.query("orders")
            return [
                await orders.count(),
                await orders.with_index("by_status").count(),
                await orders.with_index("by_status", of("open")).count(),
                await orders.with_index("by_status", lambda q: q.eq("status", "open").gt("n", 0).lt("n", 5)).count(),
                await orders.with_index("by_status", lambda q: q.lte("status", None)).count(),
                await orders.with_index("by_status", lambda q: q.gt("status", "z")).count(),
                await orders.with_index("by_status", lambda q: q.gt("status", "z").lt("status", "a")).count(),
                await orders.with_index("by_creation_time", lambda q: q.gt("_creationTime", 0)).count(),
                await orders.order("desc").count(),
                await ctx.db.query("nothing").count(),
                await ctx.db.system.query("_cron_jobs").count(),
            ]

        assert await t.transaction(count) == [6, 6, 3, 1, 2, 0, 0, 6, 6, 0, 0]


async def test_a_filter_counts_what_it_lets_through() -> None:
    async with harness() as t:
        await with_orders(t, *range(10))

        def some(q: Any) -> Any:
            return q.field("status") % 3 == 0

        assert await t.transaction(lambda ctx: ctx.db.query("orders").filter(some).count()) == 4
        assert await t.transaction(lambda ctx: ctx.db.query("none").filter(some).count()) == 0


async def test_a_count_sees_what_its_own_transaction_and_those_around_it_have_written() -> None:
    async with harness() as t:
        ids = await with_orders(t, "open", "open", "paid")

        async def count(ctx: MutationCtx) -> list[int]:
            orders: Query[Any] = ctx.db.query("orders")
            seen = [await orders.with_index("by_status", of("open")).count()]
            await ctx.db.insert("orders", {"status": "open"})
            seen.append(await orders.with_index("by_status", of("open")).count())
            await ctx.db.patch(ids[0], {"status": "paid"})
            seen.append(await orders.with_index("by_status", of("open")).count())
            seen.append(await orders.with_index("by_status", of("paid")).count())
            await ctx.db.delete(ids[2])
            await ctx.db.patch(ids[1], {"note": "in its place"})
            seen.append(await ctx.run_query(open_orders))
            seen.append(await orders.count())
            await ctx.db.insert("news", {})
            await ctx.db.insert("news", {})
            seen.append(await ctx.db.query("news").count())
            return seen

        assert await t.transaction(count) == [2, 3, 2, 2, 2, 3, 2]
        assert await t.query(open_orders) == 2


async def test_what_calls_of_one_commit_count_is_what_those_before_them_have_left() -> None:
    async with harness() as t:
        await with_orders(t, "open")

        async def count_and_add(ctx: MutationCtx) -> int:
            found = await ctx.db.query("orders").with_index("by_status", of("open")).count()
            await ctx.db.insert("orders", {"status": "open"})
            return found

        assert sorted(await asyncio.gather(*(t.transaction(count_and_add) for _ in range(20)))) == list(range(1, 21))


async def test_no_document_is_decoded_for_a_count_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness() as t:
        await with_orders(t, *["open"] * 300)
        decoded: list[object] = []

        def loads(text: Any) -> Any:
            decoded.append(text)
            return json.loads(text)

        for module in ("duly.ctx.db.document_mapper", "duly.database.indexes.row_keys"):
            monkeypatch.setattr(f"{module}.loads", loads)
        assert await t.query(open_orders) == 300
        assert decoded == []


async def test_each_document_that_is_counted_is_one_that_was_read_but_none_of_its_bytes() -> None:
    limits = Limits(documents_read_max=50, bytes_read_max=10_000)
    async with harness(limits) as t:
        await with_orders(t, *["open"] * 50, text="x" * 1_000)
        assert await t.query(open_orders) == 50
        await with_orders(t, "open")
        with pytest.raises(LimitError, match=r"got more than 50 documents read .* \(documents_read_max\)"):
            await t.query(open_orders)


async def test_a_subscription_to_a_count_hears_of_what_comes_and_goes() -> None:
    async with harness() as t:
        ids = await with_orders(t, "open", "paid")
        counts = t.subscribe(open_orders)
        assert await anext(counts) == 1
        await t.transaction(lambda ctx: ctx.db.patch(ids[1], {"status": "open"}))
        assert await anext(counts) == 2
        await t.transaction(lambda ctx: ctx.db.delete(ids[0]))
        assert await anext(counts) == 1


async def test_the_rows_of_crons_are_not_counted_among_scheduled_functions() -> None:
    from duly import cron_jobs, internal_mutation

    @internal_mutation
    async def nothing(ctx: MutationCtx) -> None: ...

    jobs = cron_jobs()
    jobs.interval("often", {"minutes": 1}, nothing)
    async with Harness({"app": SimpleNamespace(nothing=nothing), "crons": jobs}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(5, nothing))
        assert await t.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").count()) == 1
        assert await t.transaction(lambda ctx: ctx.db.system.query("_cron_jobs").count()) == 1


@pytest.mark.parametrize("ask", [len, bool, list, lambda query: query[0], lambda query: query[:5]])
async def test_a_query_is_no_list_and_says_so(ask: Any) -> None:
    async with harness() as t:

        async def asks(ctx: MutationCtx) -> None:
            ask(ctx.db.query("orders"))

        with pytest.raises(QueryError, match=r"expected its documents: end it with .*\.count\(\)"):
            await t.transaction(asks)
