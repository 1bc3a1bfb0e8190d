"""An application whose indexes change while it runs: the same functions under one schema and another."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from duly import App, MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("rows", {"n": n, "m": -n})


@query
async def rows(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").collect()]


@mutation
async def slow(ctx: MutationCtx) -> None:
    time.sleep(0.05)  # noqa: ASYNC251  it holds up the batch


def schema(*indexes: tuple[str, list[str]]) -> Any:
    table = define_table(v.any())
    for name, fields in indexes:
        table = table.index(name, fields)
    return define_schema({"rows": table})


BOTH = schema(("by_n", ["n"]), ("by_m", ["m"]))


ONE = schema(("by_m", ["m"]))


SWAPPED = schema(("by_n", ["m"]), ("by_m", ["m", "n"]))


@query
async def ordered(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").with_index("by_n").collect()]


@query
async def with_m(ctx: QueryCtx, m: int) -> list[int]:
    found = ctx.db.query("rows").with_index("by_m", lambda q: q.eq("m", m))
    return [row["n"] for row in await found.collect()]


async def reload(app: App, modules: dict[str, Any]) -> None:
    app._source = modules  # pyright: ignore[reportPrivateUsage]
    await app.reload()


LIVE = SimpleNamespace(put=put, slow=slow, ordered=ordered, with_m=with_m, rows=rows)
