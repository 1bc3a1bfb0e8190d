"""Arguments are checked when a function is scheduled: an error in development, a warning in production."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    ArgumentValidationError,
    Id,
    LoadError,
    MutationCtx,
    SyncActionCtx,
    action,
    cron_jobs,
    crons,
    internal_action,
    internal_mutation,
    mutation,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@dataclass
class Line:
    item: str
    count: int = 1


@internal_mutation
async def pack(ctx: MutationCtx, lines: list[Line], note: str | None = None) -> None:
    assert all(isinstance(line, Line) for line in lines)


@internal_mutation(args={"order": v.id("orders")})
async def close(ctx: MutationCtx, order: Id) -> None: ...


@internal_action
async def send(ctx: ActionCtx, to: str) -> None: ...


FUNCTIONS: dict[str, Any] = {"pack": pack, "close": close, "send": send}


def harness(development: bool = False, **more: Any) -> Harness:
    modules = {name: module for name, module in more.items() if name == "crons"}
    functions = {name: function for name, function in more.items() if name != "crons"}
    return Harness({"app": SimpleNamespace(**FUNCTIONS, **functions), **modules}, development=development)


UNFIT: dict[str, tuple[str, Any, str]] = {
    "missing": ("app:send", None, "app:send: at .to: missing required field"),
    "another type": ("app:send", {"to": 5}, "app:send: at .to: expected a string, got 5"),
    "misspelled": ("app:send", {"to": "a", "too": "b"}, "app:send: at .too: not a declared field"),
    "nested": ("app:pack", {"lines": [{"item": "tea"}, {"itme": "tea"}]}, r"app:pack: at .lines\[1\]"),
    "no id": ("app:close", {"order": "0123"}, "app:close: at .order: expected an id"),
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if (one.name, one.levelno) == ("duly.run", logging.WARNING)]


@action
async def schedules(ctx: ActionCtx, name: str, args: Any = None) -> str:
    return await ctx.scheduler.run_after(1_000, name, args)


@action
def schedules_in_a_thread(ctx: SyncActionCtx, name: str, args: Any = None) -> str:
    return ctx.scheduler.run_at(ctx.now + 1_000, name, args)


@mutation
async def registers(ctx: MutationCtx, name: str, args: Any = None) -> str:
    return await crons.register(ctx, {"kind": "interval", "ms": 60_000}, name, args, name="it")


@mutation
async def schedules_for_a_time(ctx: MutationCtx, name: str, args: Any = None) -> str:
    return await ctx.scheduler.run_at(ctx.now + 1_000, name, args)


@mutation
async def schedules_in_a_part(ctx: MutationCtx, name: str, args: Any = None) -> str:
    return await ctx.run_mutation(schedules_for_a_time, {"name": name, "args": args})


WAYS = (schedules, schedules_in_a_thread, registers, schedules_for_a_time, schedules_in_a_part)


@pytest.mark.parametrize(("name", "args", "problem"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_in_development_arguments_that_do_not_fit_are_refused_where_they_are_scheduled(
    way: Any, name: str, args: Any, problem: str
) -> None:
    async with harness(True, way=way, schedules_for_a_time=schedules_for_a_time) as t:
        with pytest.raises(ArgumentValidationError, match=problem):
            await t.app.run("app:way", {"name": name, "args": args})
        assert await t.jobs() == []
        assert await t.transaction(lambda ctx: crons.list(ctx)) == []


@pytest.mark.parametrize(("name", "args", "problem"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("way", [schedules, schedules_for_a_time], ids=lambda way: way.__name__)
async def test_in_production_they_are_a_warning_for_a_later_version_may_take_them(
    way: Any, name: str, args: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(way=way) as t:
        for _ in range(3):
            await t.app.run("app:way", {"name": name, "args": args})
        [warning] = warnings(caplog)  # one in a minute says as much
        prefix = "scheduled with arguments that fail unless a later version takes them: "
        assert re.match(prefix + problem, warning)
        await t.advance(1_000)
        assert [job["state"]["kind"] for job in await t.jobs()] == ["failed"] * 3


async def test_what_fits_is_scheduled_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    for development in (False, True):
        async with harness(development) as t:

            async def schedule(ctx: MutationCtx) -> None:
                order = await ctx.db.insert("orders", {})  # in a table that this very mutation has made
                await ctx.scheduler.run_after(0, close, {"order": order})
                await ctx.scheduler.run_after(0, send, {"to": "ada"})
                await ctx.scheduler.run_after(0, pack, {"lines": [{"item": "tea", "count": 2.0}]})
                await ctx.scheduler.run_after(0, pack, {"lines": [Line("tea")], "note": None})
                await crons.register(ctx, {"kind": "interval", "ms": 60_000}, pack, {"lines": []}, name="pack")

            await t.transaction(schedule)
            await t.advance(60_000)
            assert await t.failures() == []
    assert warnings(caplog) == []


async def test_other_arguments_of_a_cron_are_checked_too(caplog: pytest.LogCaptureFixture) -> None:
    def update(args: Any) -> Any:
        return lambda ctx: crons.update(ctx, "it", args=args)  # pyright: ignore[reportUnknownLambdaType]

    async with harness(True) as t:
        await t.transaction(
            lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 60_000}, send, {"to": "ada"}, name="it")
        )
        with pytest.raises(ArgumentValidationError, match=r"app:send: at \.to: expected a string"):
            await t.transaction(update({"to": 5}))
        await t.transaction(update({"to": "bob"}))
        [cron] = await t.transaction(lambda ctx: crons.list(ctx))
        assert cron["args"] == {"to": "bob"}
    async with harness() as t:
        await t.transaction(
            lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 60_000}, send, {"to": "ada"}, name="it")
        )
        await t.transaction(update({"to": 5}))
    assert len(warnings(caplog)) == 1


def declared(args: Any) -> Any:
    jobs = cron_jobs()
    jobs.daily("a letter", {"hour_utc": 5}, send, args)
    return jobs


async def test_a_cron_declared_with_arguments_that_do_not_fit_does_not_load_in_development() -> None:
    with pytest.raises(LoadError, match=r"crons: a letter: app:send: at \.to: expected a string"):
        async with harness(True, crons=declared({"to": 5})):
            pass
    async with harness(True, crons=declared({"to": "ada"})):
        pass


async def test_a_cron_declared_with_arguments_that_do_not_fit_is_a_warning_in_production(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with harness(crons=declared({"to": 5})) as t:
        assert len(await t.transaction(lambda ctx: crons.list(ctx))) == 1
    [warning] = warnings(caplog)
    assert warning.startswith("the cron 'a letter' fails whenever it runs: app:send: at .to: expected a string")


async def test_what_is_reloaded_in_development_is_checked_and_changes_nothing_if_it_does_not_fit(store: str) -> None:
    modules: dict[str, Any] = {"app": SimpleNamespace(**FUNCTIONS), "crons": declared({"to": "ada"})}
    app = App(modules, store, development=True, executor=False)
    async with app:
        modules["crons"] = declared({"to": 5})
        with pytest.raises(LoadError, match="crons: a letter: app:send"):
            await app.reload()
        modules["crons"] = declared({"to": "bob"})
        await app.reload()


@internal_mutation
async def takes_what_a_class_takes(ctx: MutationCtx, fussy: Fussy) -> None: ...


@dataclass
class Fussy:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("negative")


async def test_whatever_a_class_of_the_application_raises_is_logged_as_arguments_that_do_not_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with harness(True, fussy=takes_what_a_class_takes) as t:
        with pytest.raises(ArgumentValidationError, match="app:fussy: KeyError: 'negative'"):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:fussy", {"fussy": {"n": -1}}))
    async with harness(fussy=takes_what_a_class_takes) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:fussy", {"fussy": {"n": -1}}))
        assert len(await t.jobs()) == 1
    assert len(warnings(caplog)) == 1
