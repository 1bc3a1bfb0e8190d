"""Customers are instances of a dataclass; what happens to them is noted in a table that has no class."""

from typing import Any, assert_type

from duly import UNSET, Id, MutationCtx, QueryCtx, id_of, internal_mutation, mutation, query, v

from .schema import Customer


@mutation
async def sign_up(ctx: MutationCtx, name: str, email: str) -> Id[Customer]:
    known = await ctx.db.query(Customer).with_index("by_email", lambda q: q.eq("email", email)).unique()
    if known is not None:
        return id_of(known)
    await note(ctx, "signed up", name=name)
    return await ctx.db.insert(Customer, Customer(name, email))


@internal_mutation
async def note(ctx: MutationCtx, what: str, name: str = "nobody") -> Id:
    event_id = await ctx.db.insert("events", {"what": what, "at": ctx.now, "who": {"name": name}})
    event = await ctx.db.get(event_id)
    assert event is not None and event["who"]["name"] == name
    return event_id


@internal_mutation(args={"customer_id": v.id("customers")}, returns=v.null())
async def welcome(ctx: MutationCtx, customer_id: Id[Customer]) -> None:
    customer = await ctx.db.get(customer_id)
    assert_type(customer, Customer | None)
    if customer is not None:
        customer.visits += 1
        await ctx.db.replace(customer_id, customer)
        await ctx.db.patch(customer_id, {"tags": [*customer.tags, "welcome"]})


@mutation
async def rename(ctx: MutationCtx, email: str, name: str) -> bool:
    async for customer in ctx.db.query(Customer).order("desc"):
        if customer.email == email:
            await ctx.db.patch(id_of(customer), {"name": name, "tags": UNSET})
            return True
    return False


@query
async def names(ctx: QueryCtx, visits: int = 0) -> list[str]:
    customers = await ctx.db.query(Customer).filter(lambda q: q.field("visits") >= visits).collect()
    assert_type(customers, list[Customer])
    return sorted(customer.name for customer in customers)


@query
async def events(ctx: QueryCtx, since: float) -> list[dict[str, Any]]:
    recent = ctx.db.query("events").filter(lambda q: q.and_(q.gte(q.field("at"), since), q.field("who.name") != ""))
    return [event for event in await recent.take(10) if event["what"]]


@query
async def first(ctx: QueryCtx) -> Customer | None:
    return await ctx.db.query(Customer).first()


@query
async def first_name(ctx: QueryCtx) -> str:
    customer = await ctx.run_query(first)
    assert_type(customer, Customer | None)
    return "nobody" if customer is None else customer.name
