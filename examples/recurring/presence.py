"""Who is there: everybody says so now and then, and is forgotten after a minute of silence."""

from duly import MutationCtx, QueryCtx, internal, internal_mutation, mutation, query

SILENCE_MS = 60_000
AT_ONCE = 500


@mutation
async def here(ctx: MutationCtx, user: str) -> None:
    known = await ctx.db.query("presence").with_index("by_user", lambda q: q.eq("user", user)).unique()
    if known is None:
        await ctx.db.insert("presence", {"user": user, "seen": ctx.now})
    else:
        await ctx.db.patch(known["_id"], {"seen": ctx.now})


@internal_mutation
async def clear(ctx: MutationCtx) -> None:
    """Some at a time, for a call has limits; it goes on until none is left."""
    query = ctx.db.query("presence").with_index("by_seen", lambda q: q.lte("seen", ctx.now - SILENCE_MS))
    silent = await query.take(AT_ONCE)
    for one in silent:
        await ctx.db.delete(one["_id"])
    if len(silent) == AT_ONCE:
        await ctx.scheduler.run_after(0, internal.presence.clear)


@query
async def who(ctx: QueryCtx) -> list[str]:
    return [one["user"] async for one in ctx.db.query("presence")]
