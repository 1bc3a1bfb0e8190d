"""A machine whose clock shows what cannot be, or was set back: nothing of that lasts, and no restart is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from duly import App, MutationCtx, QueryCtx, StoreError, crons, mutation, query
from duly.clock import SystemClock
from duly.declare.cron_jobs import CronJobs
from duly.model import jobs
from duly.storage.rows import CRONS
from tests.crons.app import OWN, Deployed, calendar, interval, seconds
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

YEAR = 365 * 86_400
YEAR_2086, YEAR_2200 = 3_660_681_600_000.0, 7_258_118_400_000.0


# The clock was ahead, and is set back.


@pytest.mark.parametrize(
    ("declared", "left"), [(interval(60), 10), (calendar("*/5 * * * *"), 250), (calendar("* * * * * *"), 1)]
)
async def test_a_running_node_notices_that_its_clock_was_set_back_and_rights_crons(
    declared: CronJobs, left: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with Deployed(declared) as d:
        await d.t.transaction(lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 7_000}, "app:note", name="r"))
        await d.advance(50)
        await d.leap(10 * YEAR)
        await d.t.run_until_idle()
        d.set_back(10 * YEAR)
        before = len(await d.noted())

        with caplog.at_level(logging.WARNING, "duly.worker"):
            await d.advance(0)

        found = await d.crons()
        assert seconds(found["c"]["nextRunTime"]) == 50 + left
        assert seconds(found["r"]["nextRunTime"]) == 56
        assert len(await d.noted()) == before
        assert f"the clock was set back by {10 * YEAR} s" in caplog.text
        await d.advance(left + 30)
        assert len(await d.noted()) > before + 3


async def test_a_clock_that_is_set_back_a_little_changes_no_cron() -> None:
    for declared in (interval(600), calendar("0 * * * *")):
        async with Deployed(declared) as d:
            await d.advance(3600)
            before = await d.crons(), await d.noted()
            d.set_back(59)
            await d.t.run_until_idle()
            assert (await d.crons(), await d.noted()) == before


async def test_a_cron_whose_next_run_a_clock_explains_that_was_set_back_keeps_it() -> None:
    async with Deployed(calendar("0 0 1 * *")) as d:
        await d.advance(40 * 86_400)
        before = await d.crons()
        d.set_back(86_400)
        await d.advance(0)
        assert await d.crons() == before


async def test_a_cron_that_is_paused_stays_so_when_the_clock_is_set_back() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(50)
        await d.leap(YEAR)
        await d.t.run_until_idle()
        await d.t.transaction(lambda ctx: crons.pause(ctx, "c"))
        d.set_back(YEAR)
        await d.advance(3600)
        assert (await d.crons())["c"]["paused"]
        await d.t.transaction(lambda ctx: crons.resume(ctx, "c"))
        before = len(await d.noted())
        await d.advance(60)
        assert len(await d.noted()) == before + 1


async def test_a_run_that_was_about_to_begin_while_the_clock_was_ahead_begins() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(50)
        await d.leap(YEAR)
        await d.t.app.executor.step()  # the run is there, and has not begun
        assert (await d.crons())["c"]["running"] == 1
        d.set_back(YEAR)
        await d.advance(0)
        assert (await d.noted())[1:] == ["x 50"]
        await d.advance(60)
        assert (await d.noted())[2:] == ["x 60"]


async def test_a_clock_of_a_cron_that_the_store_refused_while_it_was_ahead_ticks() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(50)
        runner, id = d.t.app.runner, (await d.crons())["c"]["_id"]
        decoded = runner.ids.decode(id)
        assert decoded
        assert decoded[0] == CRONS.number
        await d.leap(YEAR)
        await runner.commit(partial(jobs.back_off, id=decoded[1], share=1.0))
        await d.t.app.executor.step()
        d.set_back(YEAR)
        await d.advance(70)
        assert (await d.noted())[1:] == ["x 60", "x 120"]


async def test_crons_are_set_right_while_the_executor_is_paused_too() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(50)
        await d.leap(YEAR)
        await d.t.run_until_idle()
        await d.t.app.pause()
        d.set_back(YEAR)
        await d.advance(0)
        await d.t.app.resume()
        before = len(await d.noted())
        await d.advance(10)
        assert len(await d.noted()) == before + 1


# The clock shows what cannot be.


class Wall(SystemClock):
    """A clock of a machine that anybody may set; it follows no server."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time() + self.ahead_seconds)
        self.ahead_seconds = 0.0

    def show(self, time_ms: float) -> None:
        self.ahead_seconds = time_ms / 1000 - time.time()

    def follow(self, server_ms: float, at: float) -> None: ...


@mutation
async def put(ctx: MutationCtx) -> str:
    await ctx.scheduler.run_after(0, "app:note", {"text": "scheduled"})
    return await ctx.db.insert("rows", {})


@query
async def created(ctx: QueryCtx) -> list[float]:
    return [row["_creationTime"] for row in await ctx.db.query("rows").collect()]


APP = {**OWN, **handlers_in({"put": put, "created": created})}


async def until(app: App, ref: str, true: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(20):
        async for value in app.subscribe(ref):
            if true(value):
                break


@pytest.mark.parametrize("wrong", [YEAR_2086, YEAR_2200, 1e18], ids=["2086", "2200", "beyond all dates"])
async def test_a_clock_that_once_shows_what_cannot_be_stops_writes_until_it_is_right_and_leaves_nothing(
    store: str, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.workers.loop.TIMER_CHECK_SECONDS", 0.01)
    monkeypatch.setattr("duly.workers.loop._BACKOFF_SECONDS", (0.05, 0.1))
    wall = Wall()
    modules: dict[str, Any] = {"app": type("app", (), APP), "crons": interval(1)}
    async with App(modules, store, clock=wall) as app:
        await app.mutation(put)
        wall.show(wrong)
        with suppress(StoreError):
            await app.mutation(put)  # in the batch of a cron perhaps, which began when the clock was right
        right = len(await app.query("app:created"))  # who only reads is not concerned
        for _ in range(2):
            with pytest.raises(StoreError, match="got a clock that shows .*, expected at most 20.*; nothing is stored"):
                await app.mutation(put)
        assert len(await app.query("app:created")) == right
        await asyncio.sleep(0.3)  # in which the executor has tried, too
        [cron] = await app.query("app:rows")
        assert not cron["paused"]
        wall.ahead_seconds = 0.0

        await app.mutation(put)

        assert all(abs(at - time.time() * 1000) < 60_000 for at in await app.query("app:created"))
        before = len(await app.query("app:noted"))
        await until(app, "app:noted", lambda noted: len(noted) > before + 2)


async def test_a_store_is_not_opened_while_the_clock_shows_what_cannot_be(store: str) -> None:
    wall = Wall()
    modules: dict[str, Any] = {"app": type("app", (), APP)}
    async with App(modules, store, clock=wall) as app:
        await app.mutation(put)
    wall.show(YEAR_2086)
    with pytest.raises(StoreError, match="got a clock that shows 2086-01-01"):
        await App(modules, store, clock=wall).__aenter__()
    wall.ahead_seconds = 0.0
    async with App(modules, store, clock=wall) as app:
        assert abs((await app.query("app:created"))[0] - time.time() * 1000) < 60_000


async def test_a_clock_that_follows_a_server_does_not_believe_all_either(store: str) -> None:
    modules: dict[str, Any] = {"app": type("app", (), APP)}
    clock = SystemClock()
    async with App(modules, store, clock=clock, executor=False) as app:
        await app.mutation(put)
        clock.follow(YEAR_2200, clock._steady())  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StoreError, match="got a clock that shows 2200-01-01"):
            await app.mutation(put)
        clock.follow(time.time() * 1000, clock._steady())  # pyright: ignore[reportPrivateUsage]
        await app.mutation(put)
        assert all(abs(at - time.time() * 1000) < 60_000 for at in await app.query("app:created"))


async def test_a_running_app_notices_by_itself_that_its_clock_was_set_back(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.workers.loop.TIMER_CHECK_SECONDS", 0.01)
    wall = Wall()
    modules: dict[str, Any] = {"app": type("app", (), APP), "crons": interval(1)}
    async with App(modules, store, clock=wall) as app:
        wall.ahead_seconds = YEAR
        await until(app, "app:rows", lambda rows: rows[0]["nextRunTime"] > (time.time() + YEAR / 2) * 1000)
        wall.ahead_seconds = 0.0
        await until(app, "app:rows", lambda rows: rows[0]["nextRunTime"] < (time.time() + 60) * 1000)
        before = len(await app.query("app:noted"))
        await until(app, "app:noted", lambda noted: len(noted) > before + 1)
