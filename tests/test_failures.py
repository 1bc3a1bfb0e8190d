"""Failures stay where they are: odd errors, full disks, timeouts, closing at the wrong moment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from duly import (
    ActionCtx,
    App,
    FunctionError,
    MutationCtx,
    QueryCtx,
    StoreError,
    SyncActionCtx,
    action,
    internal_action,
    mutation,
    query,
)
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.support import handlers_in, until

pytestmark = pytest.mark.usefixtures("engine")


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("rows", {"n": n, "m": -n})


@query
async def rows(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").collect()]


@mutation
async def fails_oddly(ctx: MutationCtx) -> None:
    raise ValueError("caf\udce9 \0")  # as in the name of a file that is not UTF-8


@internal_action
async def acts_oddly(ctx: ActionCtx) -> None:
    raise ValueError("caf\udce9 \0")


@mutation
async def slow(ctx: MutationCtx) -> None:
    time.sleep(0.05)  # noqa: ASYNC251  it holds up the batch


@mutation
async def tidies_up(ctx: MutationCtx) -> None:
    try:
        await ctx.db.insert("rows", {"n": 99, "text": "x" * 900_000})
        await ctx.db.query("rows").collect()  # has the rows of the batch written: there the disk is full
    finally:
        await ctx.db.query("rows").first()


@mutation
async def raises_a_store_error(ctx: MutationCtx) -> None:
    raise StoreError("the tea store is closed")


@mutation
async def several(ctx: MutationCtx, names: list[str]) -> None:
    for name in names:
        await ctx.scheduler.run_after(0, f"app:{name}", {"n": 1} if name == "put" else None)


@query
async def states(ctx: QueryCtx) -> list[str]:
    return [job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()]


@query
async def errors(ctx: QueryCtx) -> list[str]:
    found = await ctx.db.system.query("_scheduled_functions").collect()
    return [job["state"]["error"] for job in found if "error" in job["state"]]


@action
def stops_iterating(ctx: SyncActionCtx) -> object:
    return next(iter([]))


@action
def exits_in_a_thread(ctx: SyncActionCtx) -> None:
    raise SystemExit(3)


@action
async def exits(ctx: ActionCtx) -> None:
    raise SystemExit(3)


@internal_action
async def cancels_its_own_task(ctx: ActionCtx) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


@mutation
async def gathers(ctx: MutationCtx) -> list[Any]:
    return await ctx.gather(ctx.run_query(rows), ctx.db.insert("rows", {"n": 5}), ctx.run_query(rows))


@mutation
async def gathers_and_catches(ctx: MutationCtx) -> str:
    try:
        await ctx.gather(ctx.db.insert("no table", {}), ctx.db.insert("rows", {"n": 6}))
    except Exception:
        return "caught"
    return "fine"


@internal_action
async def naps(ctx: ActionCtx) -> None:
    await asyncio.sleep(0.02)


@internal_action
async def cleans_up_slowly(ctx: ActionCtx) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.5)


@mutation
async def about_the_fair(ctx: MutationCtx) -> None:
    raise RuntimeError("the event loop of the fair is closed")


APP = SimpleNamespace(**handlers_in(globals()))
MODULES = {"app": APP}


def writer(app: App) -> apsw.Connection:
    return app.database._engine._writer  # pyright: ignore


async def wait_for_states(app: App, wanted: list[str]) -> None:
    async for found in app.subscribe(states):
        if found == wanted:
            return


async def test_an_error_with_any_text_is_recorded_and_its_neighbours_run_once(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.mutation(several, {"names": ["fails_oddly", "put", "acts_oddly"]})
        await asyncio.wait_for(wait_for_states(app, ["failed", "success", "failed"]), 20)
        assert await app.query(rows) == [1]
        assert [error.partition("\n")[0] for error in await app.query(errors)] == ["ValueError: caf\\udce9 ?"] * 2


@only_on_sqlite
async def test_a_full_disk_fails_the_whole_batch_whatever_a_handler_does_about_it(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.mutation(put, {"n": 0})
        pages = writer(app).execute("PRAGMA page_count").get
        writer(app).execute(f"PRAGMA max_page_count={pages}")
        calls = [app.mutation(slow), app.mutation(put, {"n": 1}), app.mutation(tidies_up), app.mutation(put, {"n": 2})]
        told = await asyncio.gather(*calls, return_exceptions=True)
        stored = await app.query(rows)
        for n, outcome in ((1, told[1]), (2, told[3])):
            assert (n in stored) == (not isinstance(outcome, Exception))
        assert isinstance(told[2], Exception)


async def test_an_applications_own_store_error_fails_only_itself(store: str) -> None:
    async with App(MODULES, store) as app:
        calls = [app.mutation(slow), app.mutation(put, {"n": 1}), app.mutation(raises_a_store_error)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert told[:2] == [None, None]
        await app.mutation(several, {"names": ["raises_a_store_error"]})
        await asyncio.wait_for(wait_for_states(app, ["failed"]), 20)


async def test_the_end_of_an_action_is_recorded_when_the_disk_has_recovered(store: str) -> None:
    async with App(MODULES, store) as app:
        engine = app.database._engine
        refusals = [StoreError("disk full")]

        def refusing_once(commit: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def commit_or_refuse(changes: Any) -> Any:
                if app.executor.running and refusals:
                    raise refusals.pop()
                return commit(changes)

            return commit_or_refuse

        engine.commit = refusing_once(engine.commit)
        if engine.shared is not None:  # while calls wait, a batch is sent and the next one begins
            engine.send_commit = refusing_once(engine.send_commit)
        await app.mutation(several, {"names": ["naps"]})
        await asyncio.wait_for(wait_for_states(app, ["success"]), 20)
        assert not refusals


async def test_closing_ends_though_the_last_batch_is_refused(store: str) -> None:
    app = await App(MODULES, store, executor=False).__aenter__()

    def refuse(changes: Any) -> int:
        raise StoreError("disk full")

    app.database._engine.commit = refuse
    call = asyncio.ensure_future(app.mutation(put, {"n": 1}))
    await asyncio.sleep(0)
    await asyncio.wait_for(app.close(), 30)
    with pytest.raises(StoreError, match="disk full"):
        await call


async def test_a_closing_that_is_given_up_leaves_nothing_owned(store: str) -> None:
    app = await App(MODULES, store).__aenter__()
    await app.mutation(several, {"names": ["cleans_up_slowly"]})
    await until(lambda: app.executor.running == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(app.close(), 0.05)
    async with App(MODULES, store) as again:
        assert await again.query(rows) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "duly-committer"]


async def test_callers_of_a_lost_process_are_told(store: str) -> None:
    app = await App(MODULES, store).__aenter__()
    calls = [asyncio.ensure_future(app.mutation(slow)), asyncio.ensure_future(app.mutation(put, {"n": 1}))]
    await asyncio.sleep(0.01)
    await app.crash()
    told = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert all(isinstance(outcome, StoreError) for outcome in told)


@pytest.mark.parametrize("function", [stops_iterating, exits_in_a_thread, exits])
async def test_an_action_that_would_end_the_program_only_fails(store: str, function: Any) -> None:
    async with App(MODULES, store) as app:
        with pytest.raises(FunctionError, match="got (StopIteration|SystemExit) from a function"):
            await asyncio.wait_for(app.action(function), 30)
        await app.mutation(several, {"names": [function.__name__]})
        await asyncio.wait_for(wait_for_states(app, ["failed"]), 20)


async def test_an_action_that_cancels_a_task_of_its_own_is_not_called_interrupted() -> None:
    async with Harness(MODULES) as t:
        await t.mutation(several, {"names": ["cancels_its_own_task"]})
        await t.run_until_idle()
        [job] = await t.jobs()
        assert job["state"]["error"].startswith("FunctionError: got CancelledError from a function")


async def test_a_function_that_became_an_action_waits_for_its_turn_like_one(store: str) -> None:
    async with App(MODULES, store, executor=False) as app:
        await app.mutation(several, {"names": ["put"] * 200})
    changed = SimpleNamespace(**vars(APP))
    most = 0

    @internal_action
    async def put_now(ctx: ActionCtx, n: int) -> None:
        nonlocal most
        most = max(most, app.executor.running)
        await asyncio.sleep(0.002)

    changed.put = put_now
    async with App({"app": changed}, store) as app:
        await asyncio.wait_for(wait_for_states(app, ["success"] * 200), 30)
        assert 1 < most <= 64


async def test_gather_may_hold_queries_writes_and_errors() -> None:
    async with Harness(MODULES) as t:
        before, id, after = await t.mutation(gathers)
        assert (before, len(id), after) == ([], 32, [5])
        assert await t.mutation(gathers_and_catches) == "caught"
        assert await t.query(rows) == [5]


async def test_the_handlers_own_error_is_not_mistaken_for_asyncios() -> None:
    async with Harness(MODULES) as t:
        with pytest.raises(RuntimeError, match="the event loop of the fair is closed"):
            await t.mutation(about_the_fair)


@mutation
async def again(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, "app:again")


@only_on_sqlite
async def test_a_file_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the file cannot be made"):
        await App({}, f"sqlite:///{tmp_path}/file/app.db").__aenter__()
