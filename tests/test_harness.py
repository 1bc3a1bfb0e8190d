"""What `Harness` does with the store it is given."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    DulyError,
    MutationCtx,
    cron_jobs,
    internal_action,
    internal_mutation,
    mutation,
)
from duly.testing import Harness
from tests import postgres
from tests.conftest import skip_without_postgres
from tests.model.soundness import look


@mutation
async def put(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {})


MODULES = {"app": SimpleNamespace(put=put)}


@pytest.mark.server
async def test_a_store_in_postgresql_is_a_schema_of_its_own_that_is_dropped_at_the_end() -> None:
    skip_without_postgres()
    address = postgres.shared_address()

    def schemas() -> set[str]:
        return {name for (name,) in look(address, lambda ask: ask("SELECT nspname::text FROM pg_namespace"))}

    before = schemas()
    async with Harness(MODULES, store=address) as one, Harness(MODULES, store=address) as other:
        await one.mutation(put)
        assert len(await one.transaction(lambda ctx: ctx.db.query("notes").collect())) == 1
        assert await other.transaction(lambda ctx: ctx.db.query("notes").collect()) == []
        new = schemas() - before
        assert len([name for name in new if name.startswith("duly_test_")]) == 2
    assert not [name for name in schemas() if name.startswith("duly_test_")]


async def test_a_store_that_is_named_is_the_tests_own_affair(store: str) -> None:
    async with Harness(MODULES, store=store) as t:
        await t.mutation(put)
    async with Harness(MODULES, store=store) as t:
        assert len(await t.transaction(lambda ctx: ctx.db.query("notes").collect())) == 1


@pytest.mark.usefixtures("engine")
async def test_a_harness_that_is_given_none_begins_empty_each_time() -> None:
    for _ in range(2):
        async with Harness(MODULES) as t:
            assert await t.jobs() == []
            await t.mutation(put)


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    raise ValueError("no tea")


@internal_action
async def fail_in_an_action(ctx: ActionCtx) -> None:
    raise ValueError("no coffee")


@pytest.mark.usefixtures("engine")
async def test_failures_are_those_of_crons_too() -> None:
    crons = cron_jobs()
    crons.interval("brew tea", {"hours": 1}, fail)
    crons.interval("brew coffee", {"hours": 1}, fail_in_an_action)
    app = SimpleNamespace(fail=fail, fail_in_an_action=fail_in_an_action)
    async with Harness({"app": app, "crons": crons}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, fail))
        await t.run_until_idle()
        job, *runs = await t.failures()
        assert job["state"]["kind"] == "failed"
        said = {run["name"]: run["status"]["error"].partition("\n")[0] for run in runs}
        assert said == {"brew tea": "ValueError: no tea", "brew coffee": "ValueError: no coffee"}
        assert {run["scheduledTime"] for run in runs} == {job["scheduledTime"]}


@internal_mutation
async def again(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, again)


TIME = {"app": SimpleNamespace(put=put, again=again)}
START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.usefixtures("engine")
async def test_calls_that_move_time_at_once_come_one_after_the_other() -> None:
    async with Harness(TIME) as t, asyncio.timeout(20):
        await t.transaction(lambda ctx: ctx.scheduler.run_after(5, put))
        await t.transaction(lambda ctx: ctx.scheduler.run_after(25, put))
        await asyncio.gather(t.advance(10), t.run_until_idle(), t.advance(20))
        assert t.now == START + timedelta(milliseconds=30)
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "success"]


@pytest.mark.parametrize(
    ("move", "by", "message"),
    [
        ("advance", timedelta(days=30_000), "got 2112-.*, expected a time up to 2089-"),
        ("advance", 1e300, "got 1,0.* ms since 1970, expected a time up to 2089-"),
        ("advance_to", START - timedelta(seconds=1), "got 2029-12-31 .* expected a time from 2030-01-01 "),
    ],
)
async def test_time_goes_forward_and_no_further_than_ids(move: str, by: Any, message: str) -> None:
    async with Harness(TIME) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, put))
        with pytest.raises(ValueError, match=message):
            await getattr(t, move)(by)
        assert t.now == START
        assert [job["state"]["kind"] for job in await t.jobs()] == ["pending"]
        await t.advance_to(t.now)
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success"]


async def test_it_starts_when_ids_can_tell() -> None:
    for start in (datetime(2019, 12, 31, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)):
        with pytest.raises(ValueError, match="expected one from 2020 to 2089"):
            Harness(TIME, start=start)


async def test_functions_without_end_are_told_by_the_limit_that_they_exceed() -> None:
    async with Harness(TIME) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, again))
        with pytest.raises(DulyError, match=r"got more than 10 functions that ran at one time \(max_functions\)"):
            await t.run_until_idle(max_functions=10)


@internal_action
async def last(ctx: ActionCtx) -> None:
    await asyncio.Event().wait()


@mutation
async def begin(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, "app:last")


async def test_an_action_that_a_crash_interrupts_is_told_of_once(store: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Harness({"app": SimpleNamespace(last=last, begin=begin)}, store=store) as t:
        await t.mutation(begin)
        running = asyncio.create_task(t.run_until_idle())
        while not t.app.executor.running:
            await asyncio.sleep(0.001)
        await t.crash()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert [job["state"]["kind"] for job in await t.jobs()] == ["failed"]
    told = [(record.name, record.getMessage()[:15]) for record in caplog.records]
    assert told == [("duly.run", "action app:last")]


async def test_advance_tells_of_functions_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.testing.HARNESS_ROUNDS_MAX", 50)
    async with Harness(TIME) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, again))
        with pytest.raises(Exception, match="does a function schedule itself with no delay"):
            await t.advance(timedelta(days=1))
