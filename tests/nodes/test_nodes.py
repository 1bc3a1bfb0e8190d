"""Nodes of one store in one process: what one does while another is about to do the same, or has been lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    MutationCtx,
    QueryCtx,
    StoreError,
    action,
    define_schema,
    define_table,
    faults,
    mutation,
    query,
    v,
)
from duly.clock import ManualClock, SystemClock
from duly.limits import Limits
from duly.storage.engine import PeerUpdate
from tests import postgres
from tests.model.soundness import look
from tests.support import until

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


@mutation
async def add(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("notes", {"n": n})


@query
async def notes(ctx: QueryCtx) -> list[int]:
    return [note["n"] for note in await ctx.db.query("notes").collect()]


@mutation
async def schedule(ctx: MutationCtx, name: str, args: dict[str, Any]) -> str:
    return await ctx.scheduler.run_after(0, name, args)


@mutation
async def cancel(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


@query
async def state(ctx: QueryCtx, id: str) -> str:
    job = await ctx.db.system.get(id)
    assert job
    return job["state"]["kind"]


SCHEMA = define_schema({"notes": define_table({"n": v.int64()})})


def source(**more: Any) -> dict[str, Any]:
    functions = {"add": add, "notes": notes, "schedule": schedule, "cancel": cancel, "state": state}
    return {"app": SimpleNamespace(**functions, **more), "schema": SCHEMA}


async def test_a_function_that_another_node_cancels_as_it_is_claimed_does_not_run(store: str) -> None:
    loop, told = asyncio.get_running_loop(), list[str]()
    async with App(source(), store) as runs, App(source(), store, executor=False) as cancels:

        def cancel_it() -> None:  # in the thread that commits, which has claimed it
            faults.disarm()
            asyncio.run_coroutine_threadsafe(cancels.mutation("app:cancel", {"id": told[0]}), loop).result()

        # Both at once: it is claimed only once it is known here.
        faults.arm("job.claimed", lambda: cancel_it() if told else None)
        try:
            await runs.pause()
            id = await runs.runner.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:add", {"n": 1}))
            told.append(id)
            await runs.resume()
            async for now in runs.subscribe("app:state", {"id": id}):
                if now != "pending":
                    break
        finally:
            faults.disarm()
        assert now == "canceled"
        assert await runs.query("app:notes") == []


async def test_a_mutation_that_only_reads_sees_a_table_that_another_node_has_just_made(store: str) -> None:
    @mutation
    async def find(ctx: MutationCtx, id: str) -> list[Any]:
        await ctx.db.get(id)
        return await ctx.db.query("new").collect()

    @mutation
    async def make(ctx: MutationCtx) -> str:
        return await ctx.db.insert("new", {})

    functions = source(find=find, make=make)
    async with App(functions, store, executor=False) as one, App(functions, store, executor=False) as other:
        await other.mutation("app:add", {"n": 1})
        id = await one.mutation("app:make")
        assert [document["_id"] for document in await other.mutation("app:find", {"id": id})] == [id]


async def test_of_a_run_that_is_undone_by_a_conflict_the_log_tells_nothing(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    @mutation
    async def need(ctx: MutationCtx) -> None:
        runs.append("one")
        if not await ctx.db.query("notes").collect():
            raise ValueError("there is no note yet")

    loop, functions = asyncio.get_running_loop(), source(need=need)
    async with App(functions, store, executor=False) as app, App(functions, store, executor=False) as other:
        id = await app.mutation("app:schedule", {"name": "app:need", "args": {}})
        committer = app.database._committer._thread

        def put_one() -> None:
            if runs and threading.current_thread() is committer:  # nodes also have batches of their own
                faults.disarm()
                asyncio.run_coroutine_threadsafe(other.mutation("app:add", {"n": 1}), loop).result(20)

        faults.arm("batch.ran", put_one)
        try:
            with caplog.at_level("INFO", "duly.run"):
                await app.executor.run_batch()
        finally:
            faults.disarm()
        assert await app.query("app:state", {"id": id}) == "success"
        told = [record.getMessage() for record in caplog.records if "app:need" in record.getMessage()]
        assert len(runs) == 2
        assert len(told) == 1
        assert told[0].endswith(" ok")


async def test_a_lost_node_stops_the_actions_it_ran_and_goes_on_as_another(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []

    @action
    async def wait(ctx: ActionCtx) -> None:
        ends.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("stopped")
            raise

    def fall_silent(is_responsive: bool) -> PeerUpdate:
        time.sleep(0.02)
        return PeerUpdate(False, False)

    async with App(source(wait=wait), store, limits=Limits(node_lost_seconds=0.6)) as app:
        epoch = app.database.epoch
        id = await app.mutation("app:schedule", {"name": "app:wait", "args": {}})
        await until(lambda: ends == ["begun"])
        async with App(source(wait=wait), store) as other:
            with monkeypatch.context() as silent:
                silent.setattr(app.database._engine, "wait_for_peers", fall_silent)  # pyright: ignore[reportPrivateUsage]
                async for now in other.subscribe("app:state", {"id": id}):
                    if now != "inProgress":
                        break
                assert now == "failed"
            await app.mutation("app:add", {"n": 1})
            await until(lambda: ends == ["begun", "stopped"])
            assert app.database.epoch > epoch
            assert await other.query("app:notes") == [1]
            assert await app.query("app:state", {"id": id}) == "failed"


async def test_a_clock_that_is_off_is_set_by_the_server_and_a_manual_one_is_not(store: str) -> None:
    late = SystemClock()
    late.follow(late.now() - 3_600_000, time.perf_counter())
    assert late.now() < time.time() * 1000 - 3_500_000
    manual = ManualClock(5_000.0)
    async with App(source(), store, clock=late), App(source(), store, clock=manual):
        assert abs(late.now() - time.time() * 1000) < 1_000
        assert manual.now() == 5_000.0


class Machine:
    """What a system clock looks at."""

    def __init__(self, wall: float = 1_000.0, uptime: float = 50.0) -> None:
        self.wall = wall
        self.uptime = uptime
        self.clock = SystemClock(lambda: self.wall, lambda: self.uptime)

    def work(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds

    def is_suspended(self, seconds: float) -> None:
        self.wall += seconds


@pytest.mark.parametrize("off_ms", [-60_000.0, 60_000.0])
def test_a_clock_follows_a_server_but_not_within_the_time_that_an_answer_takes(off_ms: float) -> None:
    machine = Machine()
    machine.work(2.0)
    assert machine.clock.now() == 1_002_000.0
    machine.clock.follow(1_001_000.0 + off_ms, at=51.0)
    assert machine.clock.now() == 1_002_000.0 + off_ms
    machine.clock.follow(1_002_004.0 + off_ms, at=52.0)
    assert machine.clock.now() == 1_002_000.0 + off_ms


@pytest.mark.parametrize("step", [-7_200.0, 7_200.0])
def test_a_clock_that_follows_a_server_does_not_see_that_of_the_machine_being_set(step: float) -> None:
    machine = Machine()
    machine.clock.follow(1_000_000.0, at=50.0)  # they agree
    machine.wall += step
    machine.work(0.5)
    assert machine.clock.now() == 1_000_500.0


def test_a_clock_of_a_machine_that_was_suspended_is_late_until_it_hears_of_the_server_again() -> None:
    machine = Machine()
    machine.clock.follow(1_000_000.0, at=50.0)
    machine.is_suspended(3_600.0)
    assert machine.clock.now() == 1_000_000.0
    machine.clock.follow(4_600_000.0, at=50.0)
    machine.work(1.0)
    assert machine.clock.now() == 4_601_000.0


async def test_nothing_runs_early_on_a_machine_whose_clock_is_set_ahead(store: str) -> None:
    ahead = [0.0]
    async with App(source(), store, clock=SystemClock(lambda: time.time() + ahead[-1])) as app:
        later = await app.runner.transaction(lambda ctx: ctx.scheduler.run_after(3_600_000, "app:add", {"n": 1}))
        ahead.append(7_200.0)
        now = await app.mutation("app:schedule", {"name": "app:add", "args": {"n": 2}})
        async for state in app.subscribe("app:state", {"id": now}):
            if state != "pending":
                break
        assert await app.query("app:state", {"id": later}) == "pending"


async def test_a_lost_message_delays_what_is_scheduled_elsewhere_by_a_beat(store: str) -> None:
    async with App(source(), store) as app, App(source(), store) as other:
        for n in range(20):  # about half are for the other
            await app.mutation("app:schedule", {"name": "app:add", "args": {"n": n}})
        async with asyncio.timeout(30):
            async for found in other.subscribe("app:notes"):
                if sorted(found) == list(range(20)):
                    break


async def test_a_handler_that_may_take_long_may_do_so_while_it_holds_the_lock(store: str) -> None:
    ran = list[int]()
    loop = asyncio.get_running_loop()

    @mutation
    async def slow(ctx: MutationCtx) -> None:
        await ctx.db.query("notes").collect()
        ran.append(len(ran))
        if len(ran) == 1:
            asyncio.run_coroutine_threadsafe(other.mutation("app:add", {"n": 1}), loop).result()
        else:
            time.sleep(3)  # noqa: ASYNC251
        await ctx.db.insert("notes", {"n": 2})

    patient = App(source(slow=slow), store, limits=Limits(handler_seconds_max=10.0))
    async with patient as app, App(source(slow=slow), store) as other:
        await app.mutation("app:slow")
        assert sorted(await app.query("app:notes")) == [1, 2]
    assert len(ran) <= 3  # cut off once, as if it had stalled, and then given its time


async def test_an_unexpected_error_does_not_make_a_node_deaf(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(is_responsive: bool) -> PeerUpdate:
        monkeypatch.undo()
        raise RuntimeError("bound to a different event loop")

    async with App(source(), store) as app, App(source(), store) as other:
        monkeypatch.setattr(app.database._engine, "wait_for_peers", stumble)  # pyright: ignore[reportPrivateUsage]
        async with asyncio.timeout(20):
            while "the store answers again" not in caplog.text:
                await asyncio.sleep(0.01)
        assert "RuntimeError: bound to a different event loop" in caplog.text
        await other.mutation("app:add", {"n": 1})
        async with asyncio.timeout(20):
            async for found in app.subscribe("app:notes"):
                if found == [1]:
                    break


async def test_a_node_that_could_hear_nothing_does_not_start(store: str) -> None:
    async with App(source(), store) as app:
        with pytest.raises(
            StoreError, match=r"no notifications can be received from listen=postgresql://127\.0\.0\.1:1/duly: .*reach"
        ):
            await App(source(), f"{store}&listen=127.0.0.1:1").__aenter__()
        [(nodes,)] = look(store, lambda ask: ask("SELECT count(*) FROM nodes WHERE state = 'live'"))
        assert nodes == 1
        await app.mutation("app:add", {"n": 1})
