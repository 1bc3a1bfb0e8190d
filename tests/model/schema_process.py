"""A process that changes the schema of a store under load: `python -m tests.model.schema_process STORE`, to be killed."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

from duly import MutationCtx, define_schema, define_table, mutation, v
from duly.app import App
from duly.model import schema_change


@mutation
async def put(ctx: MutationCtx, first: int, count: int) -> None:
    for n in range(first, first + count):
        await ctx.db.insert("rows", {"n": n, "m": n % 7, "k": f"k{n % 11}"})


@mutation
async def stir(ctx: MutationCtx, turn: int) -> None:
    """Change the first and the last of the rows, which were reached already and which were not; add one, remove one."""
    rows = ctx.db.query("rows")
    [first, second] = await rows.take(2)
    [last] = await rows.order("desc").take(1)
    await ctx.db.patch(first["_id"], {"n": -turn, "m": turn})
    await ctx.db.patch(last["_id"], {"n": -turn, "k": f"k{turn}"})
    await ctx.db.delete(second["_id"])
    await put(ctx, turn, 1)


LOOSE = define_table({"n": v.number(), "m": v.any(), "k": v.any()})
STRICT = define_table({"n": v.int64(), "m": v.int64(), "k": v.string()})
OLD = define_schema({"rows": LOOSE.index("by_n", ["n"]).index("by_m", ["m"])})
NEW = define_schema(
    {"rows": STRICT.index("by_n", ["m", "n"]).index("by_k", ["k"]), "pets": STRICT.index("by_n", ["n"])}
)


def app(store: str, schema: Any, **more: Any) -> tuple[App, dict[str, Any]]:
    source = {"app": SimpleNamespace(put=put, stir=stir), "schema": schema}
    return App(source, store, executor=False, **more), source


async def change(store: str) -> None:
    schema_change.SCHEMA_STEP_SECONDS = (
        0.0  # so that each step takes one reading of documents, however fast the machine is
    )
    opened, source = app(store, OLD)
    async with opened:
        source["schema"] = NEW
        reloading = asyncio.ensure_future(opened.reload())
        turn = 0
        while not reloading.done():
            turn += 1
            await opened.mutation(stir, {"turn": turn})
        await reloading


if __name__ == "__main__":
    asyncio.run(change(sys.argv[1]))
