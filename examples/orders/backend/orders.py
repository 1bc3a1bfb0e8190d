"""Orders: confirmed by email right away, archived after 30 days."""

from datetime import timedelta
from typing import Any

from duly import AppError, Id, MutationCtx, QueryCtx, internal, internal_mutation, mutation, query

from .schema import Order, OrderStatus

ARCHIVED_AFTER = timedelta(days=30)


@mutation
async def create_order(ctx: MutationCtx, items: list[str], customer: str = "guest@example.com") -> Id[Order]:
    """Store an order, and schedule everything that is to happen to it: one transaction, all or nothing."""
    if not items:
        raise AppError({"code": "EMPTY_ORDER"})
    order_id = await ctx.db.insert("orders", {"items": items, "customer": customer, "status": "pending"})
    await ctx.scheduler.run_after(0, internal.emails.send_confirmation, {"order_id": order_id})
    await ctx.scheduler.run_after(ARCHIVED_AFTER, internal.orders.archive, {"order_id": order_id})
    return order_id


@internal_mutation
async def mark_confirmed(ctx: MutationCtx, order_id: Id[Order]) -> None:
    order = await ctx.db.get(order_id)
    if order is not None and order["status"] == "pending":
        await ctx.db.patch(order_id, {"status": "confirmed"})


@internal_mutation
async def archive(ctx: MutationCtx, order_id: Id[Order]) -> None:
    order = await ctx.db.get(order_id)
    if order is not None:  # much can happen in 30 days
        await ctx.db.patch(order_id, {"status": "archived"})


@query
async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None:
    return await ctx.db.get(order_id)


@query
async def by_status(ctx: QueryCtx, status: OrderStatus) -> list[dict[str, Any]]:
    """The newest hundred orders of a status."""
    orders = ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", status))
    return await orders.order("desc").take(100)


@query
async def overview(ctx: QueryCtx) -> dict[str, int]:
    """How many orders there are of each status."""
    counted: dict[str, int] = {}
    for order in await ctx.db.query("orders").collect():
        counted[order["status"]] = counted.get(order["status"], 0) + 1
    return counted
