"""An app that is closed starts nothing more; what runs gets time to end, else it is recorded as interrupted."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from duly import (
    ActionCtx,
    App,
    FunctionError,
    MutationCtx,
    QueryCtx,
    StoreError,
    SyncActionCtx,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from tests.support import handlers_in, until

gates: list[asyncio.Event] = []
"""The last one holds up actions."""
doors: list[threading.Event] = []
"""The last one holds up those in threads."""
refused: list[str] = []
answered = threading.Event()


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
def ask_in_a_thread(ctx: SyncActionCtx) -> None:
    try:
        ctx.run_action(hang)
    except StoreError as error:
        refused.append(str(error))
        answered.set()
        doors[-1].wait(20)
        ctx.run_mutation(note)


@internal_action
async def ignore(ctx: ActionCtx) -> None:
    while not gates[-1].is_set():
        with suppress(asyncio.CancelledError):
            await gates[-1].wait()


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


APP = SimpleNamespace(**handlers_in(globals()))
MODULES = {"app": APP}


@pytest.fixture(autouse=True)
def closed_gates() -> None:
    gates.append(asyncio.Event())
    doors.append(threading.Event())


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


async def test_a_closing_that_waits_says_for_what(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("duly.workers.running_actions.CLOSING_NOTICE_SECONDS", 0.05)
    app = await running(store, "hang")
    executor, call = app.executor, asyncio.create_task(app.action("app:wait"))
    await until(lambda: len(executor.called_actions) == 1)
    closing = asyncio.create_task(app.close(grace_seconds=60))
    await until(lambda: len(caplog.records) == 1)
    assert caplog.records[0].message.startswith(
        "closing waits up to 60 s more for 2 running actions: app:hang, app:wait;"
    )
    gates[-1].set()
    await call
    closing.cancel()
    await asyncio.wait((closing,))


@pytest.mark.parametrize("seconds", [0, 0.05])  # the executor and the sweeper are about to stop, or have stopped
async def test_a_closing_that_is_cancelled_interrupts_at_once(store: str, seconds: float) -> None:
    app = await running(store, "hang")
    executor = app.executor
    closing = asyncio.create_task(app.close(grace_seconds=60))
    await asyncio.sleep(seconds)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(closing), 30)
    assert executor.running == 0
    found, [error] = await looked_up(store)
    assert found == ["failed"]
    assert error.startswith("interrupted")


@pytest.mark.parametrize("name", ["wait", "wait_in_a_thread"])
async def test_an_action_that_was_called_gets_time_to_end(store: str, name: str) -> None:
    app = await App(MODULES, store).__aenter__()
    executor, call = app.executor, asyncio.create_task(app.action(f"app:{name}"))
    await until(lambda: len(executor.called_actions) == 1)
    closing = asyncio.create_task(app.close(grace_seconds=60))
    await asyncio.sleep(0)
    gates[-1].set()
    doors[-1].set()
    await closing
    assert call.done()
    await call
    assert len(executor.called_actions) == 0
    found, _ = await looked_up(store)
    assert found == {"wait": ["pending"], "wait_in_a_thread": []}[name]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_an_action_that_was_called_and_takes_longer_is_interrupted_and_its_caller_gets_an_error(
    store: str, is_cancelled: bool
) -> None:
    app = await App(MODULES, store).__aenter__()
    executor = app.executor
    calls = [asyncio.create_task(app.run("app:hang")), asyncio.create_task(app.action(wait_in_a_thread))]
    await until(lambda: len(executor.called_actions) == 2)
    closing = asyncio.create_task(app.close(grace_seconds=60 if is_cancelled else 0))
    if is_cancelled:
        await asyncio.sleep(0.05)
        closing.cancel()
    await asyncio.wait((closing,), timeout=30)
    assert closing.cancelled() == is_cancelled
    for call in calls:
        assert not call.cancelled()
        with pytest.raises(FunctionError, match="interrupted: the app was closed before this action ended"):
            await call
    doors[-1].set()


async def test_a_caller_that_is_cancelled_is_so_while_the_app_is_open(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "duly.run")
    async with App(MODULES, store) as app:
        call = asyncio.create_task(app.action("app:hang"))
        await until(lambda: len(app.executor.called_actions) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(app.executor.called_actions) == 0
    [record] = caplog.records
    assert "FunctionError: interrupted: the app was closed before this action ended, or its caller" in record.message


async def test_an_action_that_ignores_its_interruption_holds_up_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.workers.running_actions.INTERRUPT_SECONDS", 0.1)
    app = await running(store, "ignore", "hang")
    executor, call = app.executor, asyncio.create_task(app.action("app:ignore"))
    await until(lambda: len(executor.called_actions) == 1)
    await asyncio.wait_for(app.close(grace_seconds=0), 20)
    assert (executor.running, len(executor.called_actions)) == (1, 1)
    found, [one, other] = await looked_up(store)
    assert found == ["failed", "failed"]
    assert one == other
    assert one.startswith("interrupted")
    gates[-1].set()
    await until(lambda: executor.running == 0)
    await call


async def test_a_thread_that_waits_for_the_app_gets_an_error_when_it_is_closed(store: str) -> None:
    refused.clear()
    answered.clear()
    app = await running(store, "ask_in_a_thread")
    await asyncio.sleep(0.05)
    await app.close(grace_seconds=0)
    assert await asyncio.to_thread(answered.wait, 20)
    assert refused == ["got a call after the app was closed, expected it inside `async with app:`"]
    doors[-1].set()  # it asks again


@pytest.mark.slow
def test_a_thread_that_is_stuck_keeps_no_process_alive(store: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", store]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "runs\nclosed\n")
    assert "Traceback" not in ended.stderr
    found, [error] = asyncio.run(looked_up(store))
    assert found == ["failed"]
    assert error.startswith("interrupted")


PROGRAM = """
import asyncio, sys, threading
from types import SimpleNamespace
from duly import App, MutationCtx, SyncActionCtx, internal_action, mutation

begun = threading.Event()

@internal_action
def stuck(ctx: SyncActionCtx) -> None:
    print("runs", flush=True)
    begun.set()
    threading.Event().wait()

@mutation
async def start(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, stuck)

async def main() -> None:
    async with App({"app": SimpleNamespace(stuck=stuck, start=start)}, sys.argv[1]) as app:
        await app.mutation(start)
        await asyncio.to_thread(begun.wait)
        await app.close(grace_seconds=0.1)
    print("closed")

asyncio.run(main())
"""
