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
        "open": sum(function["state"]["kind"] in ("pending", "inProgress") for function in functions),
        "stock": await ctx.run_query(internal.stocktaking.result),
    }
