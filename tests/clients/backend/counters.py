"""What many clients count at once."""

from __future__ import annotations

from duly import MutationCtx, QueryCtx, mutation, query


@mutation
async def add(ctx: MutationCtx, who: int) -> int:
    """Count one more, for all and for one client: on two nodes, nearly all of these conflict."""
    total = await ctx.db.query("totals").first()
    if total is None:
        await ctx.db.insert("totals", {"n": 1})
    else:
        await ctx.db.patch(total["_id"], {"n": total["n"] + 1})
    await ctx.db.insert("counted", {"who": who})
    return 1 if total is None else total["n"] + 1


@query
async def total(ctx: QueryCtx) -> int:
    found = await ctx.db.query("totals").first()
    return 0 if found is None else found["n"]


@query
async def of_each(ctx: QueryCtx) -> list[int]:
    """How often each client was counted, in the order of their numbers."""
    counts: dict[int, int] = {}
    async for row in ctx.db.query("counted"):
        counts[row["who"]] = counts.get(row["who"], 0) + 1
    return [count for _, count in sorted(counts.items())]
