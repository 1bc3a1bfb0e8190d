"""Everything at a glance, for a screen in the back room that subscribes to it."""

from typing import Any

from duly import QueryCtx, query

COUNTED = "stocktaking:count_item"


@query
async def overview(ctx: QueryCtx) -> dict[str, Any]:
    """One consistent picture of the shop and of what is scheduled.

    The hundreds of scheduled counts are left out, by ranges of an index: they are not even read, so that nothing that
    happens to them makes this query run again for its subscribers.
    """
    functions = ctx.db.system.query("_scheduled_functions")
    before = functions.with_index("by_name_scheduled_time", lambda q: q.lt("name", COUNTED))
    behind = functions.with_index("by_name_scheduled_time", lambda q: q.gt("name", COUNTED))
    return {
        "orders": await ctx.db.query("orders").order("desc").take(100),
        "payments": await ctx.db.query("payments").order("desc").take(100),
        "reminders": await ctx.db.query("reminders").take(100),
        "users": await ctx.db.query("users").take(100),
        "functions": await before.take(500) + await behind.take(500),
    }


@query
async def at_rest(ctx: QueryCtx) -> bool:
    """Whether nothing is scheduled and nothing runs."""
    functions = ctx.db.system.query("_scheduled_functions")
    pending = functions.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", "pending"))
    running = functions.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", "inProgress"))
    return await pending.first() is None and await running.first() is None
