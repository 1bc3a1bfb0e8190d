"""Mistakes that only show when the program runs: pyright finds none of them, and docs/typing.md says so."""

import asyncio
from dataclasses import dataclass

from duly import ActionCtx, Id, MutationCtx, QueryCtx, api, internal_action, internal_mutation, internal_query

from .shop.billing import pay
from .shop.orders import create, total
from .shop.schema import Customer, Invoice, Order


@dataclass
class Forgotten:
    """The schema has no table of it."""

    text: str


@internal_query
async def misspells_a_name(ctx: QueryCtx) -> int:
    return await ctx.run_query("orders:totl")


@internal_query
async def misspells_a_path(ctx: QueryCtx) -> int:
    return await ctx.run_query(api.orders.totl)


@internal_query
async def misspells_an_argument(ctx: QueryCtx, order_id: Id[Order]) -> int:
    return await ctx.run_query(total, {"oder_id": order_id})


@internal_query
async def queries_a_mutation(ctx: QueryCtx) -> Id[Order]:
    return await ctx.run_query(create, {"lines": []})


@internal_mutation
async def schedules_a_query(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, total)


@internal_mutation
async def patches_a_misspelled_field(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.patch(order_id, {"staus": "paid"})


@internal_mutation
async def inserts_anything_by_name(ctx: MutationCtx) -> None:
    await ctx.db.insert("orders", {"itmes": []})


@internal_mutation
async def inserts_another_class(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.insert(Customer, Invoice(order=order_id, pence=5))


@internal_query
async def reads_anything_by_name(ctx: QueryCtx) -> str:
    order = await ctx.db.query("orders").first()
    assert order is not None
    return order["staus"]


@internal_query
async def reads_a_table_that_is_not_there(ctx: QueryCtx) -> list[Forgotten]:
    return await ctx.db.query(Forgotten).collect()


@internal_query
async def misspells_an_index(ctx: QueryCtx) -> list[Order]:
    return await ctx.db.query(Order).with_index("by_custmer").collect()


@internal_query
async def misspells_an_index_field(ctx: QueryCtx) -> list[Order]:
    return await ctx.db.query(Order).with_index("by_customer", lambda q: q.eq("custmer", "")).collect()


@internal_query
async def misspells_a_filter_field(ctx: QueryCtx) -> list[Order]:
    return await ctx.db.query(Order).filter(lambda q: q.field("staus") == "open").collect()


@internal_query
async def waits_for_something_else(ctx: QueryCtx) -> None:
    await asyncio.sleep(1)


@internal_action
async def runs_an_action_as_a_query(ctx: ActionCtx, order_id: Id[Order]) -> str:
    return await ctx.run_query(pay, {"order_id": order_id})
