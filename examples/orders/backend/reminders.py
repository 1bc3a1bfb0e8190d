"""Reminders that can be called off: who keeps the id of a scheduled function can cancel it."""

from typing import Any

from duly import AppError, Id, MutationCtx, QueryCtx, internal, internal_mutation, mutation, query, v

from .schema import Reminder


@mutation
async def schedule_reminder(ctx: MutationCtx, email: str, text: str, remind_at: float) -> Id[Reminder]:
    """Remind somebody at a time, in milliseconds since 1970."""
    reminder = {"email": email, "text": text, "remind_at": remind_at, "sent": False}
    reminder_id = await ctx.db.insert("reminders", reminder)
    scheduled_id = await ctx.scheduler.run_at(remind_at, internal.reminders.send, {"reminder_id": reminder_id})
    await ctx.db.patch(reminder_id, {"scheduled_id": scheduled_id})
    return reminder_id


# Validators may be given in place of annotations.
@mutation(args={"reminder_id": v.id("reminders")}, returns=v.null())
async def cancel_reminder(ctx: MutationCtx, reminder_id: Id[Reminder]) -> None:
    """Cancel the scheduled function and delete the reminder, in one transaction."""
    reminder = await ctx.db.get(reminder_id)
    if reminder is None:
        raise AppError({"code": "NO_SUCH_REMINDER"})
    if not reminder["sent"] and "scheduled_id" in reminder:
        await ctx.scheduler.cancel(reminder["scheduled_id"])
    await ctx.db.delete(reminder_id)


@internal_mutation
async def send(ctx: MutationCtx, reminder_id: Id[Reminder]) -> None:
    reminder = await ctx.db.get(reminder_id)
    if reminder is None or reminder["sent"]:
        return
    await ctx.db.patch(reminder_id, {"sent": True})
    email = {"to": reminder["email"], "subject": f"Reminder: {reminder['text']}"}
    await ctx.scheduler.run_after(0, internal.emails.send, email)


@query
async def upcoming(ctx: QueryCtx) -> list[dict[str, Any]]:
    """The reminders that are not sent yet."""
    return [reminder for reminder in await ctx.db.query("reminders").collect() if not reminder["sent"]]
