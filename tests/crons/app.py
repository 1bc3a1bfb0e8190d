"""The application of these tests: functions for crons to run, and an app whose crons are deployed again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from duly import ActionCtx, MutationCtx, QueryCtx, cron_jobs, internal_action, internal_mutation, mutation, query
from duly.declare.cron_jobs import CronJobs
from duly.testing import Harness
from tests.support import handlers_in

START = datetime(2030, 1, 1, tzinfo=UTC)
"""A Tuesday."""
NOW = START.timestamp() * 1000


class Gate:
    """What an action waits for."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def pass_by(self) -> None:
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


gates: list[Gate] = []
"""Each action waits for the last one there is when it begins."""


def seconds(time_ms: float) -> float:
    """Since a harness began."""
    return (time_ms - NOW) / 1000


@internal_mutation
async def note(ctx: MutationCtx, text: str = "x") -> str:
    await ctx.db.insert("notes", {"text": f"{text} {seconds(ctx.now):g}"})
    return f"noted {text}"


@internal_mutation
async def other(ctx: MutationCtx, text: str = "x") -> None:
    await ctx.run_mutation(note, {"text": f"other {text}"})


@internal_action
async def act(ctx: ActionCtx, text: str = "x") -> int:
    """Notes its text when it ends."""
    if gates:
        await gates[-1].pass_by()
    await ctx.run_mutation(note, {"text": text})
    return 7


@internal_mutation
async def fail(ctx: MutationCtx, text: str = "x") -> None:
    await ctx.run_mutation(note, {"text": "never"})
    raise ValueError("on purpose")


@internal_action
async def act_and_fail(ctx: ActionCtx) -> None:
    await ctx.run_mutation(note, {"text": "stays"})
    raise ValueError("on purpose")


@mutation
async def write(ctx: MutationCtx, text: str) -> None:
    await ctx.run_mutation(note, {"text": text})


@query
async def look(ctx: QueryCtx) -> None: ...


@query
async def noted(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


@query
async def rows(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_cron_jobs").collect()


@query
async def log_rows(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_cron_job_logs").collect()


OWN = handlers_in(globals())


class Deployed:
    """An application with crons, which may be deployed again: `async with Deployed(declared) as d`."""

    def __init__(self, declared: CronJobs | None = None, module: dict[str, Any] | None = None) -> None:
        gates.clear()
        self.functions = SimpleNamespace(**{**OWN, **handlers_in(module or {})})
        self.modules: dict[str, Any] = {"app": self.functions, "crons": declared or cron_jobs()}
        self.t = Harness(self.modules, start=START)

    async def __aenter__(self) -> Deployed:
        await self.t.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.t.__aexit__(*error)

    async def deploy(self, declared: CronJobs) -> None:
        self.modules["crons"] = declared
        await self.t.app.reload()

    async def restart(self, declared: CronJobs) -> None:
        self.modules["crons"] = declared
        await self.t.crash()

    async def advance(self, seconds: float) -> None:
        await self.t.advance(seconds * 1000)

    async def elapse(self, seconds: float) -> None:
        """Let time pass and do what falls due, without waiting for the actions that run to end."""
        clock = self.t._clock  # pyright: ignore[reportPrivateUsage]
        end = clock.now() + seconds * 1000
        while (due := (await self.t.app.executor.run_batch()).next_due) is not None and due <= end:
            clock.set(max(due, clock.now()))
        clock.set(end)

    async def until_one_runs(self, seconds: float) -> Gate:
        """Let time pass, in which one action begins that goes on until the gate is opened; none that follow wait."""
        gates.append(Gate())
        await self.elapse(seconds)
        await gates[-1].reached.wait()
        assert self.t.app.executor.running == 1
        return gates.pop()

    async def only_one_runs(self) -> None:
        """Wait until all actions have ended but that one."""
        while self.t.app.executor.running > 1:
            await asyncio.sleep(0)

    async def leap(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as while no process is there."""
        clock = self.t._clock  # pyright: ignore[reportPrivateUsage]
        clock.set(clock.now() + seconds * 1000)

    def set_back(self, seconds: float) -> None:
        """Have the clock of the machine show less."""
        clock = self.t._clock  # pyright: ignore[reportPrivateUsage]
        clock._now -= seconds * 1000  # pyright: ignore[reportPrivateUsage]

    async def noted(self) -> list[str]:
        """What ran and when, in seconds since the start: `x 30`."""
        return await self.t.query(noted)

    async def crons(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in await self.t.query(rows)}

    async def logs(self) -> list[str]:
        """What the log tells, with slots in seconds since the start: `c success 0`, `c skipped 60 count 3`."""
        return [_line(row) for row in await self.t.query(log_rows)]

    async def log_rows(self) -> list[dict[str, Any]]:
        return await self.t.query(log_rows)


def _line(row: dict[str, Any]) -> str:
    status = row["status"]
    count = f" count {status['count']}" if status["kind"] == "skipped" else ""
    return f"{row['name']} {status['kind']} {seconds(row['scheduledTime']):g}{count}"


def interval(seconds: float = 60, ref: Any = "app:note", args: Any = None, name: str = "c", **options: Any) -> CronJobs:
    """One cron, of an interval."""
    declared = cron_jobs()
    declared.interval(name, {"seconds": int(seconds)}, ref, args, **options)
    return declared


def calendar(cron: str, ref: Any = "app:note", args: Any = None, name: str = "c", **options: Any) -> CronJobs:
    """One cron, of an expression."""
    declared = cron_jobs()
    declared.cron(name, cron, ref, args, **options)
    return declared
