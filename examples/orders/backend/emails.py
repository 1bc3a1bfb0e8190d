"""Emails: actions, because sending one reaches outside. Here they end up in a table, the outbox."""

from typing import Any

from duly import ActionCtx, Id, MutationCtx, QueryCtx, internal, internal_action, internal_mutation, query

from .schema import Order


@internal_action
async def send(ctx: ActionCtx, to: str, subject: str) -> None:
    """Send one email. It runs at most once: a crash may lose an email, but nobody gets it twice."""
    # A real shop would talk to its mail provider here.
    await ctx.run_mutation(internal.emails.put_into_outbox, {"to": to, "subject": subject})


@internal_action
async def send_confirmation(ctx: ActionCtx, order_id: Id[Order]) -> None:
    order = await ctx.run_query(internal.orders.get, {"order_id": order_id})
    if order is None:
        return
    subject = f"Your order: {', '.join(order['items'])}"
    await ctx.run_action(internal.emails.send, {"to": order["customer"], "subject": subject})
    await ctx.run_mutation(internal.orders.mark_confirmed, {"order_id": order_id})


@internal_mutation
async def put_into_outbox(ctx: MutationCtx, to: str, subject: str) -> None:
    await ctx.db.insert("outbox", {"to": to, "subject": subject})


@query
async def sent_to(ctx: QueryCtx, to: str) -> list[str]:
    """The subjects of all emails to somebody, the oldest first."""
    emails = await ctx.db.query("outbox").with_index("by_recipient", lambda q: q.eq("to", to)).collect()
    return [email["subject"] for email in emails]


@query
async def outbox(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.query("outbox").collect()
