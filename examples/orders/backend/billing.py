"""Trials: 14 days, with a reminder 3 days before the end; then the user is on the free plan again."""

from duly import UNSET, AppError, Id, MutationCtx, QueryCtx, internal, internal_mutation, mutation, query

from .schema import User

DAY = 24 * 60 * 60 * 1000.0
TRIAL = 14 * DAY
REMINDED_BEFORE = 3 * DAY


@mutation
async def sign_up(ctx: MutationCtx, name: str, email: str) -> Id[User]:
    return await ctx.db.insert("users", {"name": name, "email": email, "plan": "free"})


@mutation
async def start_trial(ctx: MutationCtx, user_id: Id[User]) -> None:
    user = await ctx.db.get(user_id)
    if user is None or user["plan"] == "trial":
        raise AppError({"code": "NO_TRIAL_FOR", "user": user_id})
    ends_at = ctx.now + TRIAL
    await ctx.db.patch(user_id, {"plan": "trial", "trial_ends_at": ends_at})
    await ctx.scheduler.run_at(ends_at - REMINDED_BEFORE, internal.billing.remind_of_end, {"user_id": user_id})
    await ctx.scheduler.run_at(ends_at, internal.billing.expire_trial, {"user_id": user_id})


@internal_mutation
async def remind_of_end(ctx: MutationCtx, user_id: Id[User]) -> None:
    user = await ctx.db.get(user_id)
    if user is None or user["plan"] != "trial":
        return
    email = {"to": user["email"], "subject": "Your trial ends in 3 days"}
    await ctx.scheduler.run_after(0, internal.emails.send, email)


@internal_mutation
async def expire_trial(ctx: MutationCtx, user_id: Id[User]) -> None:
    """Change the plan and send the email: both or, if anything fails, neither."""
    user = await ctx.db.get(user_id)
    if user is None or user["plan"] != "trial":
        return
    await ctx.db.patch(user_id, {"plan": "free", "trial_ends_at": UNSET})
    email = {"to": user["email"], "subject": "Your trial has ended"}
    await ctx.scheduler.run_after(0, internal.emails.send, email)


@query
async def get(ctx: QueryCtx, user_id: Id[User]) -> User | None:
    return await ctx.db.get(user_id)
