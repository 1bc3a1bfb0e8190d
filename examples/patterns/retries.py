"""Actions run at most once; two ways to try again: ever later with arguments that count, or counted in a document."""

from typing import Any

from duly import ActionCtx, Id, MutationCtx, internal, internal_action, internal_mutation

from . import external
from .schema import Task


@internal_action
async def retryable_action(ctx: ActionCtx, data: Any, attempts: int = 0, max_attempts: int = 3) -> None:
    try:
        await external.call_external_api(data)
    except Exception as error:
        if attempts < max_attempts:
            # Exponential backoff: 1 s, 2 s, 4 s, …
            delay = 2**attempts * 1000
            await ctx.scheduler.run_after(
                delay,
                internal.retries.retryable_action,
                {"data": data, "attempts": attempts + 1, "max_attempts": max_attempts},
            )
        else:
            # Log the final failure
            await ctx.run_mutation(internal.retries.log_failure, {"error": str(error), "data": data})


@internal_mutation
async def log_failure(ctx: MutationCtx, error: str, data: Any) -> None:
    await ctx.db.insert("errors", {"error": error, "data": data, "at": ctx.now})


@internal_action
async def reliable_action(ctx: ActionCtx, task_id: Id[Task]) -> None:
    try:
        await external.call_external_api(task_id)
        await ctx.run_mutation(internal.retries.mark_complete, {"task_id": task_id})
    except Exception:
        # Retry through a mutation, which reads and raises the count in one transaction
        await ctx.scheduler.run_after(60_000, internal.retries.retry_action, {"task_id": task_id})


@internal_mutation
async def mark_complete(ctx: MutationCtx, task_id: Id[Task]) -> None:
    await ctx.db.patch(task_id, {"completed": True})


@internal_mutation
async def retry_action(ctx: MutationCtx, task_id: Id[Task]) -> None:
    task = await ctx.db.get(task_id)
    if task is None or task.get("completed"):
        return
    retries = task.get("retries", 0)
    if retries >= 3:
        await ctx.db.patch(task_id, {"status": "failed"})
        return
    await ctx.db.patch(task_id, {"retries": retries + 1})
    await ctx.scheduler.run_after(0, internal.retries.reliable_action, {"task_id": task_id})
