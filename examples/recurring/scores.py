"""High scores of the hour."""

from duly import MutationCtx, QueryCtx, internal_mutation, mutation, query


@mutation
async def add(ctx: MutationCtx, user: str, points: int) -> None:
    await ctx.db.insert("scores", {"user": user, "points": points})


@internal_mutation
async def reset(ctx: MutationCtx) -> None:
    scores = await ctx.db.query("scores").collect()
    if scores:
        best = max(scores, key=lambda score: score["points"])
        await ctx.db.insert("champions", {"user": best["user"], "points": best["points"]})
    for score in scores:
        await ctx.db.delete(score["_id"])


@query
async def champions(ctx: QueryCtx) -> list[str]:
    return [one["user"] async for one in ctx.db.query("champions")]
