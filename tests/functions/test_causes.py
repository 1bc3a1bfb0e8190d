"""What is told of an error: also what it was raised from, in the row of a job, in the log, and in development."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duly import ActionCtx, App, MutationCtx, QueryCtx, action, crons, mutation, query
from duly.ctx.sync_context import SyncActionCtx
from duly.limits import ERROR_TEXT_LENGTH_MAX
from duly.run.failure import describe
from duly.testing import Harness
from tests.support import handlers_in


def price_of(item: str) -> int:
    return {"coffee": 3}[item]


def total(item: str) -> int:
    try:
        return price_of(item)
    except KeyError as error:
        raise LookupError(f"no price of {item}") from error


def total_while_handling(item: str) -> int:
    try:
        return price_of(item)
    except KeyError:
        return int(item)


def total_and_no_more(item: str) -> int:
    try:
        return price_of(item)
    except KeyError:
        raise LookupError(f"no price of {item}") from None


def stop(item: str) -> int:
    return next(iter(()))


WAYS: dict[str, Callable[[str], int]] = {
    "from": total,
    "while": total_while_handling,
    "none": total_and_no_more,
    "stop": stop,
}
PLACE = {name: f"at {way.__name__} (test_causes.py:N)" for name, way in WAYS.items()}
PRICE = "at price_of (test_causes.py:N)"
FROM = f"LookupError: no price of tea\n  at HANDLER\n  {PLACE['from']}\ncaused by KeyError: 'tea'\n"
TOLD = {
    "from": f"{FROM}  {PLACE['from']}\n  {PRICE}",
    "while": (
        "ValueError: invalid literal for int() with base 10: 'tea'\n  at HANDLER\n  "
        f"{PLACE['while']}\nraised while handling KeyError: 'tea'\n  {PLACE['while']}\n  {PRICE}"
    ),
    "none": f"LookupError: no price of tea\n  at HANDLER\n  {PLACE['none']}",
    "stop": f"RuntimeError: coroutine raised StopIteration\ncaused by StopIteration\n  at HANDLER\n  {PLACE['stop']}",
}


@mutation
async def fail(ctx: MutationCtx, how: str) -> None:
    WAYS[how]("tea")


@action
async def fail_in_action(ctx: ActionCtx, how: str) -> None:
    WAYS[how]("tea")


@action
def fail_in_thread(ctx: SyncActionCtx, how: str) -> None:
    WAYS[how]("tea")


@query
async def fail_in_query(ctx: QueryCtx, how: str) -> None:
    WAYS[how]("tea")


@mutation
async def make_a_table_and_fail(ctx: MutationCtx) -> None:
    """On PostgreSQL it is run again while a conflict is handled."""
    await ctx.db.insert("attempts", {})
    await ctx.db.query("attempts").collect()
    raise ValueError("no more")


def plain(text: str, handler: str) -> str:
    """The text without what changes with each line of this file."""
    return re.sub(r"(\.py):\d+", r"\1:N", text).replace(f"at {handler} (test_causes.py:N)", "at HANDLER")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.usefixtures("engine")
async def test_the_causes_of_what_a_scheduled_function_has_raised_are_stored_and_logged(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Harness(APP) as t:
        for function in (fail, fail_in_action):
            await t.transaction(lambda ctx, function=function: ctx.scheduler.run_after(0, function, {"how": how}))
            await t.run_until_idle()
        jobs = await t.jobs()
        texts = [plain(job["state"]["error"], name) for job, name in zip(jobs, NAMES, strict=True)]
        assert texts == [TOLD[how]] * 2
        records = [record for record in caplog.records if record.name == "duly.run"]
        lines = [record.getMessage().partition(" ms ")[2] for record in records]
        assert [plain(line, name) for line, name in zip(lines, NAMES, strict=True)] == texts
        for record in records:
            assert record.levelno == logging.ERROR
            assert record.exc_info and record.exc_info[1] is vars(record)["run"].error


NAMES = ("fail", "fail_in_action")


async def test_the_causes_of_what_a_thread_has_raised_are_stored() -> None:
    async with Harness(APP) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, fail_in_thread, {"how": "from"}))
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, fail_in_thread, {"how": "stop"}))
        await t.run_until_idle()
        texts = [plain(job["state"]["error"], "fail_in_thread") for job in await t.jobs()]
        assert texts == [
            TOLD["from"],
            "FunctionError: got StopIteration from a function, expected a result or an error\n  at HANDLER\n"
            f"  {PLACE['stop']}",
        ]


async def test_the_causes_of_what_a_run_of_a_cron_has_raised_are_stored() -> None:
    async with Harness(APP) as t:
        schedule = {"kind": "interval", "ms": 60_000}
        await t.transaction(lambda ctx: crons.register(ctx, schedule, fail, {"how": "from"}))
        await t.advance(60_000)
        [run] = await t.failures()
        assert plain(run["status"]["error"], "fail") == TOLD["from"]


async def test_a_developer_learns_the_causes_of_what_is_called(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "duly.run")
    async with Harness(APP, development=True) as t:
        with pytest.raises(LookupError) as raised:
            await t.query(fail_in_query, {"how": "from"})
        error = t.app.client_error(raised.value)
        assert "caused by KeyError: 'tea'" in error.message
        called, refused = (record for record in caplog.records if record.name == "duly.run")
        assert "caused by KeyError: 'tea'" in called.getMessage()
        assert called.exc_info is None  # whoever has called it has got it
        assert refused.exc_info and refused.exc_info[1] is raised.value


async def test_what_duly_handles_beside_is_no_cause(store: str) -> None:
    async with App(APP, store) as app:
        with pytest.raises(ValueError, match="no more") as raised:
            await app.mutation(make_a_table_and_fail)
        assert re.fullmatch(
            r"ValueError: no more(\n  at test_what_duly_handles_beside_is_no_cause \(test_causes.py:\d+\))?"
            r"\n  at make_a_table_and_fail \(test_causes.py:\d+\)",
            describe(raised.value),
        )


class OddError(Exception):
    """Its text is no Unicode, as that of an error about a file name may be."""


@mutation
async def fail_oddly(ctx: MutationCtx) -> None:
    raise OddError("caf\udce9 ☕")


async def test_a_record_of_an_error_with_any_text_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    handler = logging.FileHandler(file, encoding="utf-8")
    logging.getLogger("duly").addHandler(handler)
    try:
        async with Harness(APP) as t:
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, fail_oddly))
            await t.run_until_idle()
    finally:
        logging.getLogger("duly").removeHandler(handler)
        handler.close()
    message, *_, last = file.read_text(encoding="utf-8").splitlines()
    assert message.endswith("OddError: caf\\udce9 ☕")
    assert last.endswith("OddError: caf\\udce9 ☕")


# Texts.


def chained(count: int, message: str = "no") -> Exception:
    error = ValueError(message)
    for _ in range(count):
        outer = ValueError(message)
        outer.__cause__ = error
        error = outer
    return error


def test_a_chain_of_causes_ends_after_eight() -> None:
    assert describe(chained(100)) == "\ncaused by ".join(["ValueError: no"] * 8)


def test_a_circle_of_causes_is_told_once() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    group = ExceptionGroup("several", [one])
    other.__context__ = group
    assert describe(one) == "ValueError: one\ncaused by ValueError: other"
    assert describe(group).count("ValueError") == 2


def test_members_of_a_group_have_causes_of_their_own() -> None:
    one = ValueError("one")
    one.__cause__ = KeyError("tea")
    error = ExceptionGroup("several", [one, ValueError("two")])
    error.__context__ = OSError("gone")
    assert describe(error) == (
        "ExceptionGroup: several (2 sub-exceptions)\n"
        "  | ValueError: one\n"
        "  | caused by KeyError: 'tea'\n"
        "  | ValueError: two\n"
        "raised while handling OSError: gone"
    )


@pytest.mark.parametrize("length", [1_000, ERROR_TEXT_LENGTH_MAX])
def test_what_is_too_long_loses_the_ends_of_its_messages(length: int) -> None:
    try:
        try:
            raise KeyError("k" * 10_000)
        except KeyError as error:
            raise ValueError("v" * 10_000) from error
    except ValueError as error:
        text = describe(error, length)
    assert len(text) <= length
    assert re.fullmatch(
        r"ValueError: v+…\n  at \w+ \(test_causes.py:\d+\)\ncaused by KeyError: 'k+…\n  at \w+ \(test_causes.py:\d+\)",
        text,
    )


def test_a_text_of_very_many_causes_is_never_too_long() -> None:
    groups = [ExceptionGroup("g" * 500, [chained(8, "e" * 500) for _ in range(8)]) for _ in range(8)]
    assert len(describe(ExceptionGroup("all", groups), ERROR_TEXT_LENGTH_MAX)) <= ERROR_TEXT_LENGTH_MAX
    assert len(describe(ExceptionGroup("all", groups), 50)) <= 50


APP: dict[str, Any] = {"app": SimpleNamespace(**handlers_in(globals()))}
