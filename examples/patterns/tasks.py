"""Tasks that can be canceled, and tasks that recur for as long as their configuration says so."""

from typing import Any

from duly import UNSET, ActionCtx, Id, MutationCtx, internal, internal_action, internal_mutation, mutation

from . import external
from .schema import Task


@mutation
async def schedule_task(ctx: MutationCtx, task_id: Id[Task], delay_ms: float) -> Id:
    # Schedule the task
    scheduled_id = await ctx.scheduler.run_after(delay_ms, internal.tasks.execute, {"task_id": task_id})

    # Store the id of the scheduled function, to cancel it later
    await ctx.db.patch(task_id, {"scheduledFunctionId": scheduled_id})

    return scheduled_id


@mutation
async def cancel_task(ctx: MutationCtx, task_id: Id[Task]) -> None:
    task = await ctx.db.get(task_id)
    if task is None or "scheduledFunctionId" not in task:
        return

    # Cancel the scheduled function. AlreadyCompletedError if it has run.
    await ctx.scheduler.cancel(task["scheduledFunctionId"])

    # Clear the scheduled id
    await ctx.db.patch(task_id, {"scheduledFunctionId": UNSET})


@internal_action
async def execute(ctx: ActionCtx, task_id: Id[Task]) -> None:
    await external.call_external_api(task_id)


@internal_mutation
async def start_recurring_task(ctx: MutationCtx, task_id: str, interval_ms: float) -> None:
    # Do the work
    await ctx.db.insert("taskRuns", {"taskId": task_id, "at": ctx.now})

    # Check if it should continue
    config = await ctx.db.query("taskConfigs").with_index("taskId", lambda q: q.eq("taskId", task_id)).unique()

    if config is not None and config["enabled"]:
        # Schedule the next run
        await ctx.scheduler.run_after(
            interval_ms, internal.tasks.start_recurring_task, {"task_id": task_id, "interval_ms": interval_ms}
        )


@internal_mutation
async def process(ctx: MutationCtx, user_id: str, task_data: Any) -> None:
    """The task of a user, see users.py. A scheduled function runs as nobody: it knows the user from its arguments."""
    nobody = await ctx.auth.get_user_identity()
    await ctx.db.insert("taskRuns", {"userId": user_id, "taskData": task_data, "identity": nobody, "at": ctx.now})
