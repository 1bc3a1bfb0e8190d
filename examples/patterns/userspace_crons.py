"""Crons of your own making: rows of a table that say what runs and how often, and one mutation that runs them."""

from typing import Any

from duly import Id, MutationCtx, internal, internal_mutation

from .schema import Cron


@internal_mutation
async def create_cron(ctx: MutationCtx, name: str, function_name: str, args: dict[str, Any], ms: float) -> Id[Cron]:
    """Run a function every `ms` milliseconds, from now on."""
    cron_id = await ctx.db.insert(
        "crons",
        {
            "name": name,
            "functionName": function_name,
            "args": args,
            "schedule": {"kind": "interval", "ms": ms},
            "nextRunTime": ctx.now,
            "enabled": True,
        },
    )
    job_id = await ctx.scheduler.run_after(0, internal.userspace_crons.execute_cron, {"cron_id": cron_id})
    await ctx.db.patch(cron_id, {"schedulerJobId": job_id})
    return cron_id


@internal_mutation
async def execute_cron(ctx: MutationCtx, cron_id: Id[Cron]) -> None:
    cron = await ctx.db.get(cron_id)
    if cron is None or not cron["enabled"]:
        return

    now = ctx.now
    if now < cron["nextRunTime"]:
        # Not time yet, reschedule
        job_id = await ctx.scheduler.run_after(
            cron["nextRunTime"] - now, internal.userspace_crons.execute_cron, {"cron_id": cron_id}
        )
        await ctx.db.patch(cron_id, {"schedulerJobId": job_id})
        return

    # Execute the function: a string names it as well as internal.module.function does
    await ctx.scheduler.run_after(0, cron["functionName"], cron["args"])

    # Calculate the next run
    next_run_time = now + cron["schedule"]["ms"]

    # Reschedule
    job_id = await ctx.scheduler.run_after(0, internal.userspace_crons.execute_cron, {"cron_id": cron_id})

    await ctx.db.patch(cron_id, {"lastRunTime": now, "nextRunTime": next_run_time, "schedulerJobId": job_id})
