"""A log that cannot take a line fails no call, no run and no worker."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    StoreError,
    action,
    cron_jobs,
    mutation,
    query,
)
from duly.clock import ManualClock
from duly.logs import log_of
from duly.testing import Harness
from duly.workers.loop import run_worker
from tests.support import until

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


async def test_a_line_of_log_that_cannot_be_formatted_does_not_fail_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @query
    async def talk(ctx: QueryCtx) -> str:
        ctx.log.warning("%d items", "many")
        return "said"

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(caplog.handler, "handleError", lambda _: None)  # pyright: ignore  # pytest's own raises
    async with Harness({"app": SimpleNamespace(talk=talk)}) as t:
        assert await t.query("app:talk") == "said"


class Raises(logging.Handler):
    """A handler of an application that fails on a full disk, some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def emit(self, record: logging.LogRecord) -> None:
        if self.times:
            self.times -= 1
            raise OSError(28, "No space left on device")


async def test_an_action_whose_run_the_log_cannot_take_has_ended_nevertheless(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, handler = logging.getLogger("duly.run"), Raises(2)
    monkeypatch.setattr(log, "handlers", [handler])
    caplog.set_level(logging.INFO, "duly.run")

    @action
    async def act(ctx: ActionCtx) -> None: ...

    async with Harness({"app": SimpleNamespace(act=act)}) as t:
        await t.action("app:act")
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:act"))
        await t.run_until_idle()
        [job] = await t.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").collect())

    assert handler.times == 0
    assert job["state"] == {"kind": "success"}


async def test_a_cron_that_cannot_go_on_is_paused_though_the_log_cannot_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tick(*args: object) -> None:
        raise ValueError("its zone has gone")

    handler, declared = Raises(1), cron_jobs()
    declared.interval("note", {"seconds": 30}, "app:nothing")
    monkeypatch.setattr(logging.getLogger("duly.run"), "handlers", [handler])
    monkeypatch.setattr("duly.model.crons.tick", tick)

    @mutation
    async def nothing(ctx: MutationCtx) -> None: ...

    async with Harness({"app": SimpleNamespace(nothing=nothing), "crons": declared}) as t:
        await t.advance(30_000)
        [cron] = await t.transaction(lambda ctx: ctx.db.system.query("_cron_jobs").collect())

    assert handler.times == 0
    assert cron["paused"] and cron["error"].startswith("ValueError: its zone has gone")


async def test_a_line_of_a_function_that_the_log_cannot_take_does_not_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Raises(1)
    monkeypatch.setattr(logging.getLogger("duly.app"), "handlers", [handler])

    @mutation
    async def says(ctx: MutationCtx) -> str:
        ctx.log.warning("tea")
        return "done"

    async with Harness({"app": SimpleNamespace(says=says)}) as t:
        assert await t.mutation("app:says") == "done"
    assert handler.times == 0


def test_a_line_of_duly_in_the_log_names_where_it_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    log_of("duly.run").warning("%s is full", "the disk", extra={"run": 1})

    [record] = caplog.records
    assert (record.getMessage(), record.funcName, record.__dict__["run"]) == (
        "the disk is full",
        "test_a_line_of_duly_in_the_log_names_where_it_comes_from",
        1,
    )


async def test_work_that_failed_is_tried_again_though_the_log_cannot_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log, handler, clock = logging.getLogger("duly.worker"), Raises(1), ManualClock(0.0)
    monkeypatch.setattr(log, "handlers", [handler])
    stop = asyncio.get_running_loop().create_future()
    steps: list[int] = []

    class Refused:
        async def step(self) -> float | None:
            steps.append(1)
            if len(steps) == 1:
                raise StoreError("full")
            stop.set_result(None)
            return None

        def wakers(self) -> list[asyncio.Future[Any]]:
            return []

    running = asyncio.create_task(run_worker(Refused(), clock, Random(0), stop))
    await asyncio.sleep(0)
    clock.set(10_000.0)
    async with asyncio.timeout(30):
        await running

    assert len(steps) == 2


async def test_work_that_fails_again_and_again_is_tried_ever_less_often(caplog: pytest.LogCaptureFixture) -> None:
    class Longest(Random):
        """The longest pause each time."""

        def random(self) -> float:
            return 1.0

    clock, stop = ManualClock(0.0), asyncio.get_running_loop().create_future()

    class Refused:
        async def step(self) -> float | None:
            raise StoreError("full")

        def wakers(self) -> list[asyncio.Future[Any]]:
            return []

    def pauses() -> list[str]:
        return [record.getMessage().partition("again in ")[2] for record in caplog.records]

    running = asyncio.create_task(run_worker(Refused(), clock, Longest(), stop))
    for tries in range(1, 5):
        await until(lambda tries=tries: len(pauses()) == tries)
        clock.set(clock.now() + 60_000.0)
    stop.set_result(None)
    await running
    seconds = [float(pause.removesuffix(" s")) for pause in pauses()[:4]]
    assert seconds == [seconds[0], 2 * seconds[0], 4 * seconds[0], 8 * seconds[0]]
