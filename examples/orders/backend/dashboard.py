"""Everything at a glance, for a screen in the back room that subscribes to it."""

from typing import Any

from duly import QueryCtx, internal, query

COUNTED_IN_BULK = "stocktaking:count_item"


@query
async def overview(ctx: QueryCtx) -> dict[str, Any]:
    """One consistent picture: the newest orders and payments, all users, and what is scheduled."""
    functions = await ctx.db.system.query("_scheduled_functions").order("desc").take(1_000)
    return {
        "orders": await ctx.db.query("orders").order("desc").take(100),
        "payments": await ctx.db.query("payments").order("desc").take(100),
        "users": await ctx.db.query("users").collect(),
        "functions": [function for function in functions if function["name"] != COUNTED_IN_BULK],
        "stock": await ctx.run_query(internal.stocktaking.result),
    }


@query
async def at_rest(ctx: QueryCtx) -> bool:
    """Whether nothing is scheduled or running."""
    functions = ctx.db.system.query("_scheduled_functions")
    for kind in ("pending", "inProgress"):
        by_state = functions.with_index("by_state_scheduled_time", lambda q, kind=kind: q.eq("state.kind", kind))
        if await by_state.first() is not None:
            return False
    return True
