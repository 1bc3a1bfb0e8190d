"""What a mutation schedules runs only if it commits, and runs as nobody: the user is passed as an argument."""

from typing import Any

from duly import ActionCtx, AppError, Id, MutationCtx, internal, internal_action, internal_mutation, mutation

from . import external
from .schema import User


@mutation
async def create_user(ctx: MutationCtx, name: str, email: str) -> Id[User]:
    user_id = await ctx.db.insert("users", {"name": name, "email": email})
    # Runs only if this mutation commits
    await ctx.scheduler.run_after(0, internal.users.generate_ai_profile, {"user_id": user_id, "name": name})
    return user_id


@internal_action
async def generate_ai_profile(ctx: ActionCtx, user_id: Id[User], name: str) -> None:
    profile = await external.call_external_api(name)
    await ctx.run_mutation(internal.users.set_profile, {"user_id": user_id, "profile": profile})


@internal_mutation
async def set_profile(ctx: MutationCtx, user_id: Id[User], profile: str) -> None:
    await ctx.db.patch(user_id, {"profile": profile})


@mutation
async def schedule_user_task(ctx: MutationCtx, task_data: Any) -> None:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        raise AppError("Not authenticated")
    await ctx.scheduler.run_after(
        5000,
        internal.tasks.process,
        {"user_id": identity["subject"], "task_data": task_data},  # passed explicitly
    )
