"""Rate-limited batches: a walk over a large table, a page at a time, with a pause after each."""

from duly import MutationCtx, internal, internal_mutation


@internal_mutation
async def process_batch(
    ctx: MutationCtx, cursor: str | None = None, batch_size: int = 100, delay_ms: float = 1000
) -> None:
    results = await (
        ctx.db.query("items")
        .filter(lambda q: q.eq(q.field("processed"), False))
        .paginate(num_items=batch_size, cursor=cursor)
    )

    # Process items. The cursor is a place in the table, so that changing, adding or deleting items does not move it.
    # It fits this query only, with this filter: a time to compare with would have to travel in the arguments too.
    for item in results["page"]:
        await ctx.db.insert("results", {"item": item["name"], "at": ctx.now})
        await ctx.db.patch(item["_id"], {"processed": True})

    # Schedule the next batch if there are more items
    if not results["isDone"]:
        await ctx.scheduler.run_after(
            delay_ms,
            internal.batch.process_batch,
            {"cursor": results["continueCursor"], "batch_size": batch_size, "delay_ms": delay_ms},
        )
