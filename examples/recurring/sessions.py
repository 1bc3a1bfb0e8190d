"""Sessions, which expire."""

from duly import MutationCtx, QueryCtx, internal, internal_mutation, mutation, query

AT_ONCE = 500


@mutation
async def begin(ctx: MutationCtx, user: str, milliseconds: float) -> None:
    await ctx.db.insert("sessions", {"user": user, "expires": ctx.now + milliseconds})


@internal_mutation
async def delete_expired(ctx: MutationCtx) -> None:
    """Some at a time, for a call has limits; it goes on until none is left."""
    query = ctx.db.query("sessions").with_index("by_expiry", lambda q: q.lt("expires", ctx.now))
    expired = await query.take(AT_ONCE)
    for session in expired:
        await ctx.db.delete(session["_id"])
    if len(expired) == AT_ONCE:
        await ctx.scheduler.run_after(0, internal.sessions.delete_expired)


@query
async def of(ctx: QueryCtx) -> list[str]:
    return [session["user"] async for session in ctx.db.query("sessions")]
