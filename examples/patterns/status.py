"""What became of scheduled functions: a system table that is read like any other."""

from typing import Any

from duly import QueryCtx, query


@query
async def every(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@query
async def of(ctx: QueryCtx, scheduled_id: str) -> dict[str, Any] | None:
    """Its `state`, `scheduledTime`, `completedTime`, `name` and `args`; None if it is not known any more."""
    return await ctx.db.system.get(scheduled_id)
