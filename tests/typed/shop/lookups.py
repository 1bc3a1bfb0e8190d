"""Looking things up: several at once, with the table first, counted, and in pages that a client asks for."""

from typing import Any, TypedDict, assert_type

from duly import (
    Id,
    MutationCtx,
    Page,
    PaginationOpts,
    QueryCtx,
    internal_mutation,
    internal_query,
    mutation,
    query,
    v,
)

from .schema import Customer, Invoice, Order


class Seen(TypedDict):
    names: list[str | None]
    orders: int
    first: str


@query
async def look(ctx: QueryCtx, customer_ids: list[Id[Customer]], order_id: Id[Order]) -> Seen:
    customers = await ctx.db.get_many(customer_ids)
    assert_type(customers, list[Customer | None])
    same = await ctx.db.get_many(Customer, customer_ids)
    assert_type(same, list[Customer | None])
    assert_type(await ctx.db.get_many("customers", [str(order_id) for _ in ()]), list[Any | None])
    order = await ctx.db.get(Order, order_id)
    assert_type(order, Order | None)
    assert_type(await ctx.db.get("orders", order_id), Any | None)
    orders = ctx.db.query(Order).with_index("by_id", lambda q: q.gte("_id", order_id))
    count = await orders.count()
    assert_type(count, int)
    assert order is not None
    return {
        "names": [None if one is None else one.name for one in customers],
        "orders": count,
        "first": order["status"],
    }


@query
async def page(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[Order]:
    return await ctx.db.query(Order).order("desc").paginate(paginationOpts)


@mutation
async def void(ctx: MutationCtx, order_id: Id[Order]) -> Id[Invoice]:
    order = await ctx.db.get(order_id)
    assert order is not None
    await ctx.db.patch(Order, order_id, {"note": "void"})
    await ctx.db.patch("orders", order_id, {"note": "void"})
    await ctx.db.replace(Order, order_id, order)
    invoice_id = await ctx.db.insert(Invoice(order=order_id, pence=-5))
    assert_type(invoice_id, Id[Invoice])
    customer_id = await ctx.db.insert(Customer("Void", "void@example.com"))
    assert_type(customer_id, Id[Customer])
    await ctx.db.delete(Customer, customer_id)
    job = await ctx.scheduler.run_after(0, note_anything, {"text": "void"})
    canceled = await ctx.scheduler.cancel(job, missing_ok=True)
    assert_type(canceled, bool)
    return invoice_id


@internal_mutation(args=v.any())
async def note_anything(ctx: MutationCtx, **event: Any) -> None:
    await ctx.db.insert("notes", event)


@internal_query(args=v.union({"name": v.string()}, {"email": v.string()}), returns=v.number())
async def visits(ctx: QueryCtx, name: str = "", email: str = "") -> int:
    found = (
        await ctx.db.query(Customer).filter(lambda q: (q.field("name") == name) | (q.field("email") == email)).first()
    )
    return 0 if found is None else found.visits
