"""Scheduling after a delay: right after this commits, and in a week."""

from duly import Id, MutationCtx, internal, internal_mutation, mutation, v

from .schema import Order


@mutation
async def create_order(ctx: MutationCtx, items: list[str]) -> Id[Order]:
    order_id = await ctx.db.insert("orders", {"items": items})

    # Run immediately after this mutation commits:
    await ctx.scheduler.run_after(0, internal.orders.confirm, {"order_id": order_id})

    # In 7 days. Milliseconds, or timedelta(days=7):
    await ctx.scheduler.run_after(7 * 24 * 60 * 60 * 1000, internal.orders.archive_order, {"order_id": order_id})

    return order_id


@internal_mutation
async def confirm(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "confirmed"})


@internal_mutation
async def archive_order(ctx: MutationCtx, order_id: Id[Order]) -> None:
    order = await ctx.db.get(order_id)
    if order is not None:  # it may have been deleted since
        await ctx.db.patch(order_id, {"status": "archived"})


# Internal: other functions and the scheduler can call it, clients cannot. With validators in place of annotations:
@internal_mutation(args={"order_id": v.id("orders")}, returns=v.null())
async def process_payment(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "paid"})
