"""Sessions, which expire."""

from duly import MutationCtx, QueryCtx, internal_mutation, mutation, query


@mutation
async def begin(ctx: MutationCtx, user: str, milliseconds: float) -> None:
    await ctx.db.insert("sessions", {"user": user, "expires": ctx.now + milliseconds})


@internal_mutation
async def delete_expired(ctx: MutationCtx) -> None:
    expired = ctx.db.query("sessions").with_index("by_expiry", lambda q: q.lt("expires", ctx.now))
    for session in await expired.collect():
        await ctx.db.delete(session["_id"])


@query
async def of(ctx: QueryCtx) -> list[str]:
    return [session["user"] async for session in ctx.db.query("sessions")]
