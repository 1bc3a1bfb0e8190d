"""What random programs found in queries, one test each."""

from __future__ import annotations

from typing import Any

import pytest

from duly import MutationCtx, define_schema, define_table, v
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"])})


async def test_a_cursor_of_a_table_that_did_not_exist_holds_when_it_does() -> None:
    async def read(ctx: MutationCtx) -> Any:
        scraps = ctx.db.query("scraps")
        before = await scraps.paginate(num_items=1)
        await ctx.db.insert("scraps", {})
        behind = await scraps.paginate(num_items=1, cursor=before["continueCursor"])
        up_to = await scraps.paginate(num_items=1, end_cursor=before["continueCursor"])
        return before["page"], behind["page"], len(up_to["page"])

    async with Harness({"schema": SCHEMA}) as t:
        assert await t.transaction(read) == ([], [], 1)


async def test_an_iteration_meets_what_passes_its_filter_by_the_time_it_comes_by_again() -> None:
    async def read(ctx: MutationCtx) -> list[int]:
        hidden = await ctx.db.insert("notes", {"rank": 1, "open": False})
        await ctx.db.insert("notes", {"rank": 2, "open": True})
        met: list[int] = []
        async for note in ctx.db.query("notes").with_index("by_rank").filter(lambda q: q.eq(q.field("open"), True)):
            met.append(note["rank"])
            await ctx.db.patch(hidden, {"rank": 3, "open": True})  # it was left out, and is now ahead
        return met

    async with Harness({"schema": SCHEMA}) as t:
        assert await t.transaction(read) == [2, 3]
