"""The application that is killed: crons that run every second, and leave a trace of having run."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from duly import ActionCtx, MutationCtx, QueryCtx, cron_jobs, crons, internal_action, internal_mutation, mutation, query

ON_PURPOSE: Final = "ValueError: on purpose"
ACTIONS: Final = ("acts", "acts for long", "acts in turn", "acts beside")
"""The crons whose runs are actions: of those that were interrupted, some have left their trace, and some have not."""
BESIDE: Final = "acts beside"
"""The only one of which several runs may go on at once."""


@internal_mutation
async def note(ctx: MutationCtx, cron: str) -> None:
    await ctx.db.insert("notes", {"cron": cron})


@internal_mutation
async def fail(ctx: MutationCtx, cron: str) -> None:
    await ctx.db.insert("notes", {"cron": cron})
    raise ValueError("on purpose")


@internal_action
async def act(ctx: ActionCtx, cron: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await ctx.run_mutation(note, {"cron": cron})


@mutation
async def rest(ctx: MutationCtx) -> list[dict[str, Any]]:
    """Pause all crons. Returns what they were before."""
    before = await crons.list(ctx)
    for cron in before:
        await crons.pause(ctx, cron["_id"])
    return before


@query
async def running(ctx: QueryCtx) -> int:
    return sum(cron["running"] for cron in await crons.list(ctx))


declared: Final = cron_jobs()
declared.interval("notes", {"seconds": 1}, note, {"cron": "notes"})
declared.cron("notes by the clock", "* * * * * *", note, {"cron": "notes by the clock"}, tz="Europe/Berlin")
declared.interval("notes all", {"seconds": 1}, note, {"cron": "notes all"}, missed="all")
declared.cron("notes in time", "* * * * * *", note, {"cron": "notes in time"}, missed="skip")
declared.interval("fails", {"seconds": 1}, fail, {"cron": "fails"})
declared.interval("acts", {"seconds": 1}, act, {"cron": "acts", "seconds": 0.005})
declared.cron("acts for long", "* * * * * *", act, {"cron": "acts for long", "seconds": 0.25})
declared.interval("acts in turn", {"seconds": 1}, act, {"cron": "acts in turn", "seconds": 0.08}, overlap="queue")
declared.interval("acts beside", {"seconds": 1}, act, {"cron": "acts beside", "seconds": 0.15}, overlap="allow")
