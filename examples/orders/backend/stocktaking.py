"""Counting the stock: one scheduled mutation for each item, so that each is counted exactly once."""

from collections import Counter
from datetime import timedelta

from duly import Id, MutationCtx, QueryCtx, internal, internal_mutation, mutation, query


@mutation
async def begin(ctx: MutationCtx, items: list[str], minutes_each: int = 1) -> Id:
    """Schedule the counting of every item, one after the other. At most 1,000 fit into one mutation."""
    for position, item in enumerate(items):
        delay = timedelta(minutes=minutes_each * position)
        await ctx.scheduler.run_after(delay, internal.stocktaking.count_item, {"item": item})
    return await ctx.db.insert("stocktakings", {"items": items})


@internal_mutation
async def count_item(ctx: MutationCtx, item: str) -> None:
    """Write down one item. Nothing here looks for an earlier run, since there never is one."""
    await ctx.db.insert("counts", {"item": item, "packets": ctx.random.randint(1, 99)})


@query
async def result(ctx: QueryCtx) -> dict[str, int]:
    """How many items there were to count, and how many were counted, twice, or not at all."""
    expected = {item for stocktaking in await ctx.db.query("stocktakings").collect() for item in stocktaking["items"]}
    counted = Counter(count["item"] for count in await ctx.db.query("counts").collect())
    return {
        "expected": len(expected),
        "counted": counted.total(),
        "doubled": sum(times > 1 for times in counted.values()),
        "missing": len(expected - counted.keys()),
    }
