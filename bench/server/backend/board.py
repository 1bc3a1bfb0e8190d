"""What is called and watched in the measurement of a server."""

from duly import MutationCtx, QueryCtx, mutation, query


@mutation
async def post(ctx: MutationCtx, board: str, sent: float) -> None:
    """Change what all watch: the newest post of a board."""
    newest = await ctx.db.query("posts").with_index("by_board", lambda q: q.eq("board", board)).first()
    if newest is None:
        await ctx.db.insert("posts", {"board": board, "sent": sent})
    else:
        await ctx.db.patch(newest["_id"], {"sent": sent})


@mutation
async def note(ctx: MutationCtx, n: int, text: str) -> None:
    """What most mutations do at least: write one document that nobody watches."""
    await ctx.db.insert("notes", {"n": n, "text": text})


@query
async def newest(ctx: QueryCtx, board: str, watcher: int = 0) -> float:
    """The newest post. With a `watcher` of its own, it is another query for each client."""
    found = await ctx.db.query("posts").with_index("by_board", lambda q: q.eq("board", board)).first()
    return 0.0 if found is None else found["sent"]
