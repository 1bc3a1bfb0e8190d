"""`ctx.log` is the logger `duly.app.<function>`: what a program does to loggers, it can do to this one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from duly import ActionCtx, MutationCtx, QueryCtx, action, crons, mutation, query
from duly.ctx.caller import Caller
from duly.ctx.sync_context import SyncActionCtx
from duly.logs import LogLine
from duly.testing import Harness


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(record.name, record.getMessage()) for record in self.records]


@contextmanager
def level_of(name: str, level: int) -> Iterator[None]:
    """A level of a logger, which is as it was before afterwards."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def handler_of(name: str, level: int = logging.NOTSET) -> Iterator[Kept]:
    """A handler of a logger, which is as it was before afterwards."""
    logger, handler = logging.getLogger(name), Kept()
    logger.addHandler(handler)
    try:
        with level_of(name, level):
            yield handler
    finally:
        logger.removeHandler(handler)


@mutation
async def write(ctx: MutationCtx) -> None:
    ctx.log.debug("debug")
    ctx.log.info("info")


@query
async def read(ctx: QueryCtx) -> None:
    ctx.log.info("reads")


@action
async def act(ctx: ActionCtx) -> None:
    ctx.log.info("acts")


@action
def act_in_thread(ctx: SyncActionCtx) -> None:
    try:
        raise ValueError("no tea")
    except ValueError:
        ctx.log.exception("acts in a thread")


SHOP = SimpleNamespace(write=write, read=read, act=act, act_in_thread=act_in_thread)
APP: dict[str, Any] = {"shop": SHOP, "admin/users": SimpleNamespace(write=write)}


async def test_lines_are_those_of_a_logger_below_duly() -> None:
    with handler_of("", logging.INFO) as root:
        root.addFilter(logging.Filter("duly"))
        root.addFilter(logging.Filter("duly.app"))
        async with Harness(APP) as t:
            await t.mutation("shop:write")
            await t.query("shop:read")
            await t.action("shop:act")
            await t.action("shop:act_in_thread")
            await t.mutation("admin/users:write")
        assert root.told == [
            ("duly.app.shop:write", "info"),
            ("duly.app.shop:read", "reads"),
            ("duly.app.shop:act", "acts"),
            ("duly.app.shop:act_in_thread", "acts in a thread"),
            ("duly.app.admin/users:write", "info"),
        ]
        assert root.records[3].exc_info is not None
        assert root.records[0].funcName == "write"


@pytest.mark.parametrize(
    ("name", "level", "count"),
    [
        ("duly", logging.DEBUG, 6),
        ("duly.app", logging.DEBUG, 6),
        ("duly.app.shop", logging.DEBUG, 4),
        ("duly.app.shop", logging.WARNING, 0),
        ("duly.app.admin", logging.INFO, 1),
        ("duly.app.admin.users", logging.DEBUG, 2),
        ("duly.app.shop:write", logging.DEBUG, 4),
        ("duly.app.shop:write", logging.ERROR, 0),
        ("duly.app.shop:read", logging.DEBUG, 0),
        ("duly.app.admin/users:write", logging.INFO, 1),
    ],
)
async def test_levels_and_handlers_may_be_those_of_a_function_or_of_its_module(
    name: str, level: int, count: int
) -> None:
    with handler_of(name, level) as handler:
        async with Harness(APP) as t:
            await t.mutation("shop:write")
            await t.mutation("shop:write")
            await t.mutation("admin/users:write")
        told = [record for record in handler.records if record.name.startswith("duly.app")]
        assert len(told) == count


NUMBERS = (logging.DEBUG, logging.INFO, 25, logging.WARNING, logging.ERROR, logging.CRITICAL)


@query
async def log_at_each_level(ctx: QueryCtx) -> None:
    for number in NUMBERS:
        ctx.log.log(number, "%d", number)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
async def test_lines_are_kept_with_their_levels_and_those_of_debug_only_if_the_program_has_them_logged(
    level: int,
) -> None:
    with level_of("duly.app", level):
        async with Harness({"app": SimpleNamespace(log=log_at_each_level)}) as t:
            runner, lines = t.app.runner, list[LogLine]()
            await runner.query(runner.registry.find("app:log"), {}, Caller(lines=lines))
    debug = [("DEBUG", "10")] if level == logging.DEBUG else []
    assert lines == [*debug, ("INFO", "20"), ("INFO", "25"), ("WARN", "30"), ("ERROR", "40"), ("ERROR", "50")]


async def test_a_function_s_logger_may_filter_and_keep_its_lines_to_itself() -> None:
    logger = logging.getLogger("duly.app.shop:write")

    def shout(record: logging.LogRecord) -> bool:
        record.msg = str(record.msg).upper()
        return record.msg != "DEBUG"

    logger.addFilter(shout)
    logger.propagate = False
    try:
        with handler_of("") as root, handler_of(logger.name, logging.DEBUG) as own:
            async with Harness(APP) as t:
                await t.mutation("shop:write")
                logger.disabled = True
                await t.mutation("shop:write")
        assert own.told == [("duly.app.shop:write", "INFO")]
        assert [name for name, _ in root.told if name != "duly.run"] == []
    finally:
        logger.removeFilter(shout)
        logger.propagate, logger.disabled = True, False


@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
async def test_a_run_of_a_cron_keeps_its_lines_whatever_the_program_wants_to_see(level: int) -> None:
    with handler_of("duly.app", level) as handler:
        async with Harness(APP) as t:
            schedule = {"kind": "interval", "ms": 1000}
            await t.transaction(lambda ctx: crons.register(ctx, schedule, "shop:write"))
            await t.advance(1000)
            [run] = await t.transaction(lambda ctx: ctx.db.system.query("_cron_job_logs").collect())
        assert run["logLines"] == ["info"]
        told = [text for _, text in handler.told]
        assert told == (["debug", "info"] if level == logging.DEBUG else [])


@mutation
async def fail(ctx: MutationCtx, items: list[str]) -> None:
    raise ValueError("no tea")


async def test_a_record_of_a_run_has_what_there_is_to_know_of_it() -> None:
    with handler_of("duly.run", logging.INFO) as handler:
        async with Harness({"shop": SimpleNamespace(fail=fail, read=read)}) as t:
            await t.query("shop:read")
            id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "shop:fail", {"items": ["tea"]}))
            await t.run_until_idle()
            with pytest.raises(ValueError, match="no tea"):
                await t.mutation("shop:fail", {"items": []})
            schedule = {"kind": "interval", "ms": 1000}
            await t.transaction(lambda ctx: crons.register(ctx, schedule, "shop:fail", {"items": []}))
            await t.advance(1000)
    runs = [(record.levelname, vars(record)["run"]) for record in handler.records]
    assert [(level, run.kind, run.function, run.is_scheduled, run.job, run.args) for level, run in runs] == [
        ("INFO", "query", "shop:read", False, None, "{}"),
        ("ERROR", "mutation", "shop:fail", True, id, '{"items":["tea"]}'),
        ("INFO", "mutation", "shop:fail", False, None, '{"items":[]}'),
        ("ERROR", "mutation", "shop:fail", True, None, '{"items":[]}'),
    ]
    assert [None if run.error is None else str(run.error) for _, run in runs] == [None, *["no tea"] * 3]
    assert all(run.milliseconds >= 0 for _, run in runs)
