"""Invoices are pydantic models. Actions send them: one in the event loop, one in a thread."""

import asyncio
from typing import assert_type

from duly import (
    ActionCtx,
    Id,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    id_of,
    internal_action,
    internal_mutation,
    query,
    v,
)

from .orders import mark_paid, total
from .schema import Invoice, Order


@action
async def pay(ctx: ActionCtx, order_id: Id[Order]) -> str:
    await asyncio.sleep(0)
    pence = await ctx.run_query(total, {"order_id": order_id})
    assert_type(pence, int)
    invoice_id, _ = await ctx.gather(
        ctx.run_mutation(invoice, {"order_id": order_id, "pence": pence}),
        ctx.run_mutation(mark_paid, {"order_id": order_id}),
    )
    assert_type(invoice_id, Id[Invoice])
    share = await ctx.run_action(tax, {"pence": pence})
    assert_type(share, float)
    await ctx.scheduler.run_after(1000, send, {"invoice_id": invoice_id, "copies": 2})
    return f"{pence / 100:.2f}, of that {share / 100:.2f} tax"


@internal_action
def tax(ctx: SyncActionCtx, pence: int) -> float:
    return pence * rate(ctx)


@internal_action(args={}, returns=v.float64())
def rate(ctx: SyncActionCtx) -> float:
    known: dict[str, object] | None = ctx.auth.get_user_identity()
    return 0.2 if known is None else 0.1


@internal_action(args={"invoice_id": v.id("invoices"), "copies": v.optional(v.int64())}, returns=v.boolean())
async def send(ctx: ActionCtx, invoice_id: Id[Invoice], copies: int = 1) -> bool:
    for copy in range(copies):
        ctx.log.info("copy %d of %s", copy, invoice_id)
    return await ctx.run_mutation(mark_sent, {"invoice_id": invoice_id})


@internal_mutation
async def invoice(ctx: MutationCtx, order_id: Id[Order], pence: int) -> Id[Invoice]:
    return await ctx.db.insert(Invoice, Invoice(order=order_id, pence=pence))


@internal_mutation
async def mark_sent(ctx: MutationCtx, invoice_id: Id[Invoice]) -> bool:
    invoice = await ctx.db.get(invoice_id)
    if invoice is None or invoice.sent:
        return False
    invoice.sent = True
    await ctx.db.replace(id_of(invoice), invoice)
    return True


@query
async def unsent(ctx: QueryCtx) -> int:
    invoices = await ctx.db.query(Invoice).filter(lambda q: q.eq(q.field("sent"), False)).collect()
    return sum(invoice.pence for invoice in invoices)
