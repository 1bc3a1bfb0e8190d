"""Payment reminders: three of them wait from the day of the invoice on, and whoever pays is not reminded any more."""

from datetime import timedelta

from duly import Id, MutationCtx, internal, internal_mutation, mutation, v

INVOICE = {"invoice_id": v.id("invoices")}
REMIND_AFTER = (timedelta(days=7), timedelta(days=14), timedelta(days=21))


@mutation
async def send(ctx: MutationCtx, customer: str, amount: int) -> Id:
    invoice_id = await ctx.db.insert("invoices", {"customer": customer, "amount": amount, "status": "open"})
    reminders = [
        await ctx.scheduler.run_after(delay, internal.invoices.remind, {"invoice_id": invoice_id, "number": number})
        for number, delay in enumerate(REMIND_AFTER, 1)
    ]
    await ctx.db.patch(invoice_id, {"reminders": reminders})
    return invoice_id


@mutation(args=INVOICE)
async def pay(ctx: MutationCtx, invoice_id: Id) -> None:
    invoice = await ctx.db.get(invoice_id)
    if invoice is None or invoice["status"] == "paid":
        return
    await ctx.db.patch(invoice_id, {"status": "paid"})

    # In one commit with the payment: no reminder can slip in between. Those that were sent cannot be canceled.
    for id in invoice["reminders"]:
        job = await ctx.db.system.get(id)
        if job is not None and job["state"]["kind"] == "pending":
            await ctx.scheduler.cancel(id)


@internal_mutation(args={**INVOICE, "number": v.int64()})
async def remind(ctx: MutationCtx, invoice_id: Id, number: int) -> None:
    invoice = await ctx.db.get(invoice_id)
    if invoice is not None:
        # An e-mail cannot be unsent: it is an action of its own, scheduled by the commit that says so.
        await ctx.db.patch(invoice_id, {"reminded": number})
        text = f"{invoice['customer']}: {invoice['amount']} is due, reminder {number}"
        await ctx.scheduler.run_after(0, internal.emails.deliver, {"text": text})
