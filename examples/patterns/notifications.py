"""A delayed notification: it reads what it is about when it runs, and copes if that is gone."""

from duly import Id, MutationCtx, internal, internal_mutation, mutation, v


@mutation
async def create_reminder(ctx: MutationCtx, text: str, delay_minutes: float) -> Id:
    reminder_id = await ctx.db.insert("reminders", {"text": text})

    # Schedule the notification
    await ctx.scheduler.run_after(
        delay_minutes * 60 * 1000, internal.notifications.send_reminder, {"reminder_id": reminder_id}
    )

    return reminder_id


@internal_mutation(args={"reminder_id": v.id("reminders")})
async def send_reminder(ctx: MutationCtx, reminder_id: Id) -> None:
    reminder = await ctx.db.get(reminder_id)
    if reminder is None:
        return

    # Send the notification, which depends on how you notify: by an action, if it reaches outside
    ctx.log.info("Reminder: %s", reminder["text"])
