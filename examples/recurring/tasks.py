"""Crons that users make: registered, paused, resumed and deleted by mutations, in their transactions."""

from typing import Any

from duly import AppError, MutationCtx, QueryCtx, crons, internal, internal_mutation, mutation, query


@mutation
async def repeat(
    ctx: MutationCtx, name: str, interval_ms: float | None = None, cron: str | None = None, tz: str = "UTC"
) -> str:
    """Run a task every so many milliseconds, or by a cron expression. Returns the id of the cron."""
    if interval_ms is not None:
        schedule: dict[str, Any] = {"kind": "interval", "ms": interval_ms}
    elif cron is not None:
        schedule = {"kind": "cron", "cron": cron, "tz": tz}
    else:
        raise AppError("give interval_ms or cron")
    return await crons.register(ctx, schedule, internal.tasks.run, {"name": name}, name=name)


@mutation
async def pause(ctx: MutationCtx, cron: str) -> None:
    await crons.pause(ctx, cron)


@mutation
async def resume(ctx: MutationCtx, cron: str) -> None:
    await crons.resume(ctx, cron)


@mutation
async def delete(ctx: MutationCtx, cron: str) -> None:
    await crons.delete(ctx, cron)


@internal_mutation
async def run(ctx: MutationCtx, name: str) -> None:
    await ctx.db.insert("runs", {"task": name, "at": ctx.now})


@query
async def runs(ctx: QueryCtx, name: str) -> list[float]:
    found = ctx.db.query("runs").with_index("by_task", lambda q: q.eq("task", name))
    return [one["at"] async for one in found]


@query
async def registered(ctx: QueryCtx) -> list[str]:
    return [cron["name"] for cron in await crons.list(ctx) if cron["source"] == "runtime"]
