"""A reminder that can be canceled: the id of its scheduled function is stored with it."""

from duly import AppError, Id, MutationCtx, internal, internal_mutation, mutation, v


@mutation
async def create_reminder(ctx: MutationCtx, message: str, delay_ms: float) -> Id:
    scheduled_id = await ctx.scheduler.run_after(delay_ms, internal.reminders.send, {"message": message})
    return await ctx.db.insert(
        "reminders",
        {"message": message, "scheduledFunctionId": scheduled_id, "status": "scheduled"},
    )


@mutation(args={"reminder_id": v.id("reminders")})
async def cancel_reminder(ctx: MutationCtx, reminder_id: Id) -> None:
    reminder = await ctx.db.get(reminder_id)
    if reminder is None:
        raise AppError("Not found")
    await ctx.scheduler.cancel(reminder["scheduledFunctionId"])
    await ctx.db.patch(reminder_id, {"status": "canceled"})


@internal_mutation
async def send(ctx: MutationCtx, message: str) -> None:
    ctx.log.info("Reminder: %s", message)
