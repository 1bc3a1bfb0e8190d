"""Scheduling at a time: an aware datetime, or milliseconds since 1970."""

from datetime import UTC, datetime

from duly import Id, MutationCtx, internal, internal_mutation, mutation


@mutation
async def schedule_new_year(ctx: MutationCtx, year: int) -> Id:
    new_year = datetime(year, 1, 1, tzinfo=UTC)
    return await ctx.scheduler.run_at(new_year, internal.events.trigger_new_year, {"year": year})


@mutation
async def schedule_rehearsal(ctx: MutationCtx, year: int) -> Id:
    """The same in a minute: `ctx.now` is the time of this call."""
    return await ctx.scheduler.run_at(ctx.now + 60_000, internal.events.trigger_new_year, {"year": year})


@internal_mutation
async def trigger_new_year(ctx: MutationCtx, year: int) -> None:
    await ctx.db.insert("years", {"year": year, "begunAt": ctx.now})
