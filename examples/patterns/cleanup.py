"""Deleting what has expired, found with a filter."""

from duly import MutationCtx, internal_mutation


@internal_mutation
async def expired_sessions(ctx: MutationCtx) -> dict[str, int]:
    expired = await ctx.db.query("sessions").filter(lambda q: q.lt(q.field("expiresAt"), ctx.now)).collect()

    for session in expired:
        await ctx.db.delete(session["_id"])

    return {"deleted": len(expired)}


@internal_mutation
async def expired_sessions_by_index(ctx: MutationCtx) -> dict[str, int]:
    """The same where sessions are many: a filter looks at every one of them, an index only at the expired."""
    expired = ctx.db.query("sessions").with_index("by_expiry", lambda q: q.lt("expiresAt", ctx.now))

    deleted = 0
    async for session in expired:
        await ctx.db.delete(session["_id"])
        deleted += 1

    return {"deleted": deleted}
