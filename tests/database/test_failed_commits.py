"""A commit that fails leaves nothing behind, in the store or in the process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from duly import App, MutationCtx, QueryCtx, StoreError, faults, mutation, query


@mutation
async def put(ctx: MutationCtx, table: str) -> None:
    await ctx.db.insert(table, {})


@query
async def count(ctx: QueryCtx, table: str) -> int:
    return await ctx.db.query(table).count()


SOURCE = {"app": SimpleNamespace(put=put, count=count)}


def fail() -> None:
    raise RuntimeError("on purpose")


async def test_a_table_whose_commit_failed_does_not_exist_after_the_next_commit_either(store: str) -> None:
    async with App(SOURCE, store, executor=False) as app:
        await app.mutation("app:put", {"table": "old"})
        faults.arm("commit.flushed", fail)
        try:
            with pytest.raises(StoreError, match="a batch could not be stored: RuntimeError: on purpose"):
                await app.mutation("app:put", {"table": "new"})
        finally:
            faults.disarm()
        await app.mutation("app:put", {"table": "old"})  # the version that the failed one would have made
        assert await app.query("app:count", {"table": "old"}) == 2
        assert await app.query("app:count", {"table": "new"}) == 0
        await app.mutation("app:put", {"table": "new"})
        assert await app.query("app:count", {"table": "new"}) == 1
