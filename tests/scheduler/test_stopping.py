"""An app that is closed starts nothing more; what runs gets time to end, else it is recorded as interrupted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from duly import (
    ActionCtx,
    App,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    internal_action,
    internal_mutation,
    mutation,
    query,
)

gates: list[asyncio.Event] = []
"""The last one holds up actions."""
doors: list[threading.Event] = []
"""The last one holds up those in threads."""


@mutation
async def schedule(ctx: MutationCtx, names: list[str]) -> None:
    for name in names:
        await ctx.scheduler.run_after(0, f"app:{name}")


@internal_mutation
async def note(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {})


@internal_action
async def wait(ctx: ActionCtx) -> None:
    await gates[-1].wait()
    await ctx.run_mutation(note)
    await ctx.scheduler.run_after(0, note)


@internal_action
def wait_in_a_thread(ctx: SyncActionCtx) -> None:
    doors[-1].wait(20)
    ctx.run_mutation(note)


@internal_action
async def hang(ctx: ActionCtx) -> None:
    await asyncio.Event().wait()


@query
async def states(ctx: QueryCtx) -> list[str]:
    return [job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()]


@query
async def errors(ctx: QueryCtx) -> list[str]:
    jobs = await ctx.db.system.query("_scheduled_functions").collect()
    return [job["state"]["error"] for job in jobs if "error" in job["state"]]


APP = SimpleNamespace(**{name: value for name, value in globals().items() if hasattr(value, "handler")})
MODULES = {"app": APP}


@pytest.fixture(autouse=True)
def closed_gates() -> None:
    gates.append(asyncio.Event())
    doors.append(threading.Event())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def running(store: str, *names: str) -> App:
    """An app in which these actions run."""
    app = await App(MODULES, store).__aenter__()
    await app.mutation(schedule, {"names": list(names)})
    await until(lambda: app.executor.running == len(names))
    return app


async def looked_up(store: str) -> tuple[list[str], list[str]]:
    async with App(MODULES, store, executor=False) as app:
        return await app.query(states), await app.query(errors)


@pytest.mark.parametrize("name", ["wait", "wait_in_a_thread"])
async def test_an_action_that_ends_in_time_is_a_success_and_what_it_schedules_waits(store: str, name: str) -> None:
    app = await running(store, name)
    closing = asyncio.create_task(app.close(grace_seconds=60))
    await asyncio.sleep(0)
    gates[-1].set()
    doors[-1].set()
    await closing
    found, _ = await looked_up(store)
    assert found == {"wait": ["success", "pending"], "wait_in_a_thread": ["success"]}[name]


async def test_an_action_that_takes_longer_is_interrupted_and_says_so(store: str) -> None:
    app = await running(store, "hang", "wait")
    closing = asyncio.create_task(app.close(grace_seconds=0.3))
    gates[-1].set()
    await closing
    found, [error] = await looked_up(store)
    assert found == ["failed", "success", "pending"]
    assert error.startswith("interrupted: the process that ran this action ended before the action did.")


@pytest.mark.parametrize("seconds", [0, 0.05])  # the executor and the sweeper are about to stop, or have stopped
async def test_a_closing_that_is_cancelled_interrupts_at_once(store: str, seconds: float) -> None:
    app = await running(store, "hang")
    executor = app.executor
    closing = asyncio.create_task(app.close(grace_seconds=60))
    await asyncio.sleep(seconds)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(closing), 10)
    assert executor.running == 0
    found, [error] = await looked_up(store)
    assert found == ["failed"]
    assert error.startswith("interrupted")
