"""Orders are dicts that a TypedDict describes. They are closed a month after they were made."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from duly import (
    AppError,
    Id,
    MutationCtx,
    QueryCtx,
    api,
    id_of,
    internal,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

from .customers import note, welcome
from .schema import Customer, Line, Order


@mutation
async def create(ctx: MutationCtx, customer_id: Id[Customer], lines: list[Line]) -> Id[Order]:
    order_id = await ctx.db.insert(Order, {"customer": customer_id, "lines": lines, "status": "open"})
    assert_type(order_id, Id[Order])
    await ctx.run_mutation(welcome, {"customer_id": customer_id})
    job = await ctx.scheduler.run_after(timedelta(days=30), close, {"order_id": order_id})
    await ctx.scheduler.cancel(job)
    await ctx.scheduler.run_at(datetime(2031, 1, 1, tzinfo=UTC), internal.orders.close, {"order_id": order_id})
    await ctx.scheduler.run_after(30 * 86_400_000, "orders:close", {"order_id": order_id})
    return order_id


@internal_mutation
async def close(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.delete(order_id)
    event_id = await ctx.run_mutation(note, {"what": "closed"})
    assert_type(event_id, Id)


@internal_mutation
async def mark_paid(ctx: MutationCtx, order_id: Id[Order]) -> None:
    order = await ctx.db.get(order_id)
    if order is None or order["status"] == "paid":
        raise AppError({"code": "NOTHING_TO_PAY"})
    await ctx.db.replace(order_id, {"customer": order["customer"], "lines": order["lines"], "status": "paid"})


@query
async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None:
    order = await ctx.db.get(order_id)
    assert_type(order, Order | None)
    return order


@query
async def total(ctx: QueryCtx, order_id: Id[Order]) -> int:
    order = await get(ctx, order_id=order_id)
    return 0 if order is None else sum(line["pence"] for line in order["lines"])


@internal_query
async def summary(ctx: QueryCtx, text: str) -> dict[str, str | int]:
    order_id = ctx.db.normalize_id(Order, text)
    if order_id is None:
        return {}
    order, pence, first = await ctx.gather(
        ctx.db.get(order_id), ctx.run_query(total, {"order_id": order_id}), ctx.db.query(Customer).first()
    )
    assert_type((order, pence, first), tuple[Order | None, int, Customer | None])
    assert order is not None and first is not None
    by_path = await ctx.run_query(api.orders.total, {"order_id": order_id})
    same: bool = pence == by_path == await ctx.run_query("orders:total", {"order_id": id_of(order)})
    jobs = await ctx.db.system.query("_scheduled_functions").take(10)
    return {"note": order.get("note", ""), "pence": pence if same else 0, "first": first.name, "jobs": len(jobs)}


@query
async def of_customer(ctx: QueryCtx, customer_id: Id[Customer], cursor: str | None = None) -> list[Order]:
    """The newest orders. A page of them may hold fewer than were asked for."""
    orders = ctx.db.query(Order).with_index(
        "by_customer", lambda q: q.eq("customer", customer_id).gte("status", "open")
    )
    page = await orders.order("desc").paginate(num_items=10, cursor=cursor)
    assert_type(page["page"], list[Order])
    assert_type(page["isDone"], bool)
    return page["page"]
