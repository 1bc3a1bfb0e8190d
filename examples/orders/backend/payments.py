"""Payments: an action charges the card, and tries again ever later while the gateway fails."""

from datetime import timedelta
from typing import Any

from duly import (
    ActionCtx,
    Id,
    MutationCtx,
    QueryCtx,
    internal,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

from . import gateway
from .schema import Order, Payment, PaymentStatus

ATTEMPTS_MAX = 3


@mutation
async def pay(ctx: MutationCtx, order_id: Id[Order], pence: int, card: str) -> Id[Payment]:
    payment = {"order_id": order_id, "pence": pence, "card": card, "status": "processing", "attempts": 0}
    payment_id = await ctx.db.insert("payments", payment)
    await ctx.scheduler.run_after(0, internal.payments.charge, {"payment_id": payment_id})
    return payment_id


@internal_action
async def charge(ctx: ActionCtx, payment_id: Id[Payment], attempt: int = 1) -> None:
    """Charge the card; if that fails, schedule this function again in 2 s, then in 4 s, then give up."""
    payment = await ctx.run_query(internal.payments.get, {"payment_id": payment_id})
    if payment is None or payment["status"] != "processing":
        return
    outcome = {"payment_id": payment_id, "attempts": attempt}
    try:
        await gateway.charge(payment_id, payment["card"], payment["pence"], attempt)
    except gateway.GatewayError as error:
        if attempt < ATTEMPTS_MAX:
            delay = timedelta(seconds=2**attempt)
            ctx.log.warning("%s, trying again in %d s", error, delay.seconds)
            again = {"payment_id": payment_id, "attempt": attempt + 1}
            await ctx.scheduler.run_after(delay, internal.payments.charge, again)
        else:
            ctx.log.error("%s, giving up after %d attempts", error, attempt)
            await ctx.run_mutation(internal.payments.settle, {**outcome, "status": "failed"})
    else:
        await ctx.run_mutation(internal.payments.settle, {**outcome, "status": "succeeded"})


@internal_mutation
async def settle(ctx: MutationCtx, payment_id: Id[Payment], status: PaymentStatus, attempts: int) -> None:
    await ctx.db.patch(payment_id, {"status": status, "attempts": attempts})


@internal_query
async def get(ctx: QueryCtx, payment_id: Id[Payment]) -> Payment | None:
    return await ctx.db.get(payment_id)


@query
async def of_order(ctx: QueryCtx, order_id: Id[Order]) -> list[dict[str, Any]]:
    return await ctx.db.query("payments").with_index("by_order", lambda q: q.eq("order_id", order_id)).collect()
