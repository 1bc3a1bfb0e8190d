"""An app embedded in a program: it owns its store, executes in real time, and stays out of the way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from duly import (
    ActionCtx,
    App,
    Id,
    MutationCtx,
    QueryCtx,
    StoreError,
    StoreInUseError,
    SyncActionCtx,
    action,
    internal_action,
    mutation,
    query,
)
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")


@mutation
async def add(ctx: MutationCtx, text: str, delay: float = 0) -> Id:
    return await ctx.scheduler.run_after(delay, "app:insert", {"text": text})


@mutation
async def insert(ctx: MutationCtx, text: str) -> Id:
    return await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


turns: list[None] = []


@mutation
async def blocks(ctx: MutationCtx) -> None:
    end = time.perf_counter() + 30
    while len(turns) < 10 and time.perf_counter() < end:
        pass


@internal_action
async def slow(ctx: ActionCtx) -> None:
    await asyncio.sleep(30)


@mutation
async def start_many(ctx: MutationCtx, count: int) -> None:
    for _ in range(count):
        await ctx.scheduler.run_after(0, slow)
    await ctx.scheduler.run_after(0, "app:insert", {"text": "a mutation"})


@query
async def running(ctx: QueryCtx) -> int:
    jobs = ctx.db.system.query("_scheduled_functions")
    return len(await jobs.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", "inProgress")).collect())


MODULES = {"app": SimpleNamespace(**handlers_in(globals()))}


async def test_what_is_scheduled_runs_by_itself(store: str) -> None:
    async with App(MODULES, store) as app:
        values = app.subscribe("app:notes")
        assert await anext(values) == []
        await app.mutation("app:add", {"text": "now"})
        assert await anext(values) == ["now"]
        await app.mutation("app:add", {"text": "soon", "delay": 50})
        assert await anext(values) == ["now", "soon"]


async def test_an_app_without_executor_schedules_and_the_next_one_runs(store: str) -> None:
    async with App(MODULES, store, executor=False) as app:
        await app.mutation("app:add", {"text": "later"})
        await asyncio.sleep(0.05)
        assert await app.query("app:notes") == []
    async with App(MODULES, store) as app:
        async for value in app.subscribe("app:notes"):
            if value == ["later"]:
                break


@pytest.mark.slow
@only_on_sqlite
async def test_a_file_has_one_owner_and_the_second_is_told_who(store: str) -> None:
    path = store.removeprefix("sqlite:///")
    async with App(MODULES, store):
        with pytest.raises(StoreInUseError, match="is owned by this process, by another App") as caught:
            await App(MODULES, store).__aenter__()
        assert caught.value.pid == os.getpid()
        program = f"import asyncio, duly; asyncio.run(duly.App({{}}, {store!r}).__aenter__())"
        other = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True)
        assert f"{path} is owned by process {os.getpid()}; a SQLite store has one owner at a time" in other.stderr
        assert "Several processes, such as the workers of uvicorn or gunicorn, share a store only in" in other.stderr
        assert "kill" not in other.stderr
    async with App(MODULES, store) as app:  # it was left, so it can be had
        assert await app.query("app:notes") == []


@only_on_sqlite
async def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with apsw.Connection(str(foreign)) as connection:
        connection.execute("CREATE TABLE things (x)")
    with pytest.raises(StoreError, match="got an SQLite database of something else, expected a store of duly"):
        await App(MODULES, f"sqlite:///{foreign}").__aenter__()
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to look at")
    with pytest.raises(StoreError, match="got a file of something else, expected a store of duly or no file"):
        await App(MODULES, f"sqlite:///{text}").__aenter__()
    assert text.read_text() == "no database at all, but long enough to look at"
    with pytest.raises(StoreError, match="got the store 'mysql://x', expected sqlite:///relative/path.db"):
        App(MODULES, "mysql://x")


async def test_a_call_outside_the_app_is_told_what_is_missing(store: str) -> None:
    app = App(MODULES, store)
    with pytest.raises(StoreError, match="expected it inside `async with app:`"):
        await app.mutation("app:insert", {"text": "x"})
    async with app:
        await app.mutation("app:insert", {"text": "x"})
    with pytest.raises(StoreError, match="expected it inside `async with app:`"):
        await app.query("app:notes")


async def test_neither_a_handler_nor_the_disk_stalls_the_event_loop(store: str) -> None:
    async with App(MODULES, store) as app:
        turns.clear()
        busy = asyncio.ensure_future(app.mutation("app:blocks"))
        while not busy.done():
            await asyncio.sleep(0)
            turns.append(None)
        await busy
        assert len(turns) >= 10  # for which a handler has waited that never gives way


async def test_many_callers_share_commits(store: str) -> None:
    async with App(MODULES, store) as app:
        before = app.database.commit_log.version
        await asyncio.gather(*(app.mutation("app:insert", {"text": str(n)}) for n in range(200)))
        assert len(await app.query("app:notes")) == 200
        assert app.database.commit_log.version - before < 100


async def test_waiting_actions_do_not_block_mutations(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.mutation("app:start_many", {"count": 100})
        async for value in app.subscribe("app:notes"):
            if value == ["a mutation"]:
                break
        async for count in app.subscribe("app:running"):
            assert count <= 64
            if count == 64:
                break
        await app.close(grace_seconds=0)


async def test_a_subscription_ends_when_the_app_is_closed(store: str) -> None:
    seen: list[list[str]] = []

    async def follow(app: App) -> None:
        async for value in app.subscribe("app:notes"):
            seen.append(value)

    async with App(MODULES, store) as app:
        following = asyncio.create_task(follow(app))
        while not seen:
            await asyncio.sleep(0.001)
    await asyncio.wait_for(following, 30)
    assert seen == [[]]


@action
def counts_down(ctx: SyncActionCtx, n: int) -> int:
    return 0 if n == 0 else 1 + ctx.run_action(counts_down, {"n": n - 1})


async def test_blocking_actions_that_call_each_other_do_not_wait_for_their_own_threads(store: str) -> None:
    async with App({"app": SimpleNamespace(counts_down=counts_down)}, store) as app:
        results = await asyncio.wait_for(asyncio.gather(*(app.action(counts_down, {"n": 7}) for _ in range(40))), 30)
        assert results == [7] * 40


@internal_action
async def quick(ctx: ActionCtx) -> None: ...


@mutation
async def start_quick(ctx: MutationCtx, count: int) -> None:
    for _ in range(count):
        await ctx.scheduler.run_after(0, quick)


@query
async def pending(ctx: QueryCtx) -> int:
    jobs = ctx.db.system.query("_scheduled_functions")
    return len(
        await jobs.with_index(
            "by_state_scheduled_time", lambda q: q.gt("state.kind", "failed").lt("state.kind", "success")
        ).take(1)
    )


async def test_actions_that_end_while_others_are_claimed_make_room_for_the_next(store: str) -> None:
    modules = {"app": SimpleNamespace(quick=quick, start_quick=start_quick, pending=pending)}
    async with App(modules, store) as app:
        await app.mutation(start_quick, {"count": 1000})

        async def all_done() -> None:
            async for left in app.subscribe(pending):
                if left == 0:
                    break

        await asyncio.wait_for(all_done(), 30)
    async with Harness(modules) as t:
        await t.mutation(start_quick, {"count": 1000})
        await t.run_until_idle(max_functions=2000)
        assert await t.query(pending) == 0


@only_on_sqlite
async def test_a_commit_that_the_disk_refuses_fails_its_calls_and_the_store_goes_on(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.mutation("app:insert", {"text": "before"})
        connection = app.database._engine._writer  # pyright: ignore
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="SQLite refused a write: .*full"):
            await app.mutation("app:insert", {"text": "x" * 1_000_000})
        connection.execute("PRAGMA max_page_count=1000000")
        await app.mutation("app:insert", {"text": "after"})
        assert await app.query("app:notes") == ["before", "after"]
