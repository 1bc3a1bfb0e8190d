"""Tasks, and a reminder of each: a scheduled function, which is canceled if the task is done before."""

from datetime import timedelta
from typing import Any

from duly import (
    ActionCtx,
    AppError,
    Id,
    MutationCtx,
    Page,
    PaginationOpts,
    QueryCtx,
    id_of,
    internal_action,
    internal_mutation,
    mutation,
    query,
)

from .schema import Task

DELETED_AT_ONCE = 500


@mutation
async def add(ctx: MutationCtx, text: str, remind_after: float = 60) -> Id[Task]:
    """Add a task, and schedule its reminder in as many seconds: one transaction, both or neither."""
    if not text.strip():
        raise AppError({"code": "EMPTY", "message": "A task needs a text"})
    task: Task = {"text": text.strip(), "done": False, "reminded": False}
    task_id = await ctx.db.insert(Task, task)
    reminder = await ctx.scheduler.run_after(timedelta(seconds=remind_after), remind, {"task_id": task_id})
    await ctx.db.patch(task_id, {"reminder": reminder})
    return task_id


@mutation
async def finish(ctx: MutationCtx, task_id: Id[Task]) -> None:
    task = await ctx.db.get(task_id)
    if task is None or task["done"]:
        return
    await ctx.db.patch(task_id, {"done": True})
    if "reminder" in task:
        await ctx.scheduler.cancel(task["reminder"], missing_ok=True)  # it may have run already


@query
async def page(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[dict[str, Any]]:
    """The tasks, the newest first, each with the state of its reminder. The name of the argument is that of clients."""
    found = await ctx.db.query(Task).order("desc").paginate(paginationOpts)
    return {**found, "page": [{**task, "reminder_state": await _reminder_state(ctx, task)} for task in found["page"]]}


async def _reminder_state(ctx: QueryCtx, task: Task) -> str | None:
    """Return pending, inProgress, success, failed or canceled; None once the scheduled function is forgotten."""
    job = await ctx.db.system.get(task["reminder"]) if "reminder" in task else None
    return None if job is None else job["state"]["kind"]


@query
async def count_open(ctx: QueryCtx) -> int:
    return await ctx.db.query(Task).with_index("by_done", lambda q: q.eq("done", False)).count()


@query
async def scheduled(ctx: QueryCtx) -> list[dict[str, Any]]:
    """The newest scheduled functions: what waits, what has run, what was canceled."""
    return await ctx.db.system.query("_scheduled_functions").order("desc").take(8)


# Internal functions are for schedules, crons and other functions: no client reaches them.


@internal_mutation
async def remind(ctx: MutationCtx, task_id: Id[Task]) -> None:
    """Runs exactly once. If it fails, nothing that it has written is kept."""
    task = await ctx.db.get(task_id)
    if task is None:
        return
    await ctx.db.patch(task_id, {"reminded": True})
    await ctx.scheduler.run_after(0, notify, {"text": task["text"]})


@internal_action
async def notify(ctx: ActionCtx, text: str) -> None:
    """Runs at most once. An action may do anything: send an email, call an API, write a file."""
    ctx.log.info("do not forget: %s", text)


@internal_mutation
async def delete_done(ctx: MutationCtx) -> None:
    done = await ctx.db.query(Task).with_index("by_done", lambda q: q.eq("done", True)).take(DELETED_AT_ONCE)
    for task in done:
        await ctx.db.delete(id_of(task))
    if len(done) == DELETED_AT_ONCE:
        await ctx.scheduler.run_after(0, delete_done)  # the rest, in a transaction of its own
