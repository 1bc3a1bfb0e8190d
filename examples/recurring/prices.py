"""Prices from elsewhere: an action asks for them, a mutation stores them."""

from duly import ActionCtx, MutationCtx, QueryCtx, internal, internal_action, internal_mutation, query

from . import outside


@internal_action
async def sync(ctx: ActionCtx) -> int:
    pence = await outside.price_of_tea()
    await ctx.run_mutation(internal.prices.store, {"pence": pence})
    return pence  # the log of the cron has it


@internal_mutation
async def store(ctx: MutationCtx, pence: int) -> None:
    await ctx.db.insert("prices", {"pence": pence})


@query
async def newest(ctx: QueryCtx) -> int | None:
    price = await ctx.db.query("prices").order("desc").first()
    return None if price is None else price["pence"]
