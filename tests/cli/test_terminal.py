"""What `duly dev` prints, also to a terminal that is closed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from duly import ActionCtx, MutationCtx, action, crons, internal_mutation, mutation, query
from duly.cli.printing.terminal import print_runs
from duly.ctx.call_log import APP_LOG
from duly.ctx.context import QueryCtx
from duly.testing import Harness
from tests.server.support import client_of


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The logger of duly, as `duly dev` sets it up, and as it was afterwards."""
    loggers = [logging.getLogger(name) for name in ("duly", APP_LOG, "duly.run")]
    levels = [log.level for log in loggers]
    monkeypatch.setattr(loggers[0], "handlers", [])
    monkeypatch.setattr(loggers[0], "propagate", True)
    print_runs()
    yield loggers[0]
    for log, level in zip(loggers, levels, strict=True):
        log.setLevel(level)


def test_a_line_is_printed_with_its_logger(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.warning("the disk is full")

    assert capsys.readouterr().out.endswith("│ duly: warning the disk is full\n")


def test_a_line_that_is_not_read_any_more_fails_nothing(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("click.echo", broken)

    log.warning("the disk is full")


@mutation
async def order(ctx: MutationCtx, items: list[str], note: str = "") -> str:
    return await ctx.scheduler.run_after(0, pack, {"items": items})


@internal_mutation
async def pack(ctx: MutationCtx, items: list[str]) -> None:
    if not items:
        raise ValueError("nothing to pack")
    ctx.log.info("packs %d", len(items))


@query
async def nothing(ctx: QueryCtx) -> None: ...


@query
async def broken(ctx: QueryCtx) -> None:
    raise ValueError("nothing to see")


@action
async def take(ctx: ActionCtx, any: object) -> None: ...


APP = {"shop": SimpleNamespace(order=order, pack=pack, nothing=nothing, broken=broken, take=take)}


async def test_a_line_has_the_id_of_what_was_scheduled_and_the_arguments(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Harness(APP) as t:
        id = await t.mutation(order, {"items": ["tea", "☕"]})
        await t.run_until_idle()
        failed = await t.mutation(order, {"items": []})
        await t.run_until_idle()
        await t.query(nothing)
        await t.mutation(order, {"items": ["x" * 40] * 1000})
        with pytest.raises(Exception, match="expected a value"):
            await t.action(take, {"any": object()})
        await t.transaction(lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 1000}, pack, {"items": ["a"]}))
        await t.advance(1000)
    lines = [re.sub(r"[0-9.]+ ms", "N ms", line[9:]) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == '✓ mutation shop:order N ms {"items":["tea","☕"]}'
    assert lines[1] == "│ shop:pack: packs 2"
    assert lines[2] == f'✓ mutation shop:pack scheduled N ms {id} {{"items":["tea","☕"]}}'
    assert lines[3] == '✓ mutation shop:order N ms {"items":[]}'
    assert lines[4] == f'✗ mutation shop:pack scheduled N ms {failed} {{"items":[]}}'
    assert lines[5] == "  ValueError: nothing to pack"
    assert lines[7] == "✓ query    shop:nothing N ms"
    assert lines[8] == f'✓ mutation shop:order N ms {{"items":["{"x" * 40}","{"x" * 25}…'
    assert lines[9].startswith("✗ action   shop:take N ms {'any': <object object at 0x")
    assert '✓ mutation shop:pack scheduled N ms {"items":["a"]}' in lines  # a run of a cron has no id that shows one


async def test_an_error_that_a_function_logs_is_printed_with_its_traceback(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    async def tell(ctx: MutationCtx) -> None:
        try:
            raise ValueError("no tea")
        except ValueError:
            ctx.log.exception("cannot go on")

    async with Harness(APP) as t:
        await t.transaction(tell)
    lines = [line[9:] for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["│ transaction: error cannot go on", "│ transaction: Traceback (most recent call last):"]
    assert lines[-1] == "│ transaction: ValueError: no tea"


async def test_an_error_that_a_client_gets_is_printed_once_and_its_id_after_it(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        for body in ({"path": "shop:broken"}, {"path": "shop:nothing", "args": {"a": 1}}, {"path": "shop:missing"}):
            await client.post("/api/query", body)
    first, text, place, id, second, wrong, _, unknown = (line[9:] for line in capsys.readouterr().out.splitlines())
    assert first.startswith("✗ query    shop:broken ")
    assert (text.strip(), place.strip()[:29]) == ("ValueError: nothing to see", "at broken (test_terminal.py:6")
    assert re.fullmatch(r"│ duly.run: error \[Request ID: [0-9a-f]{16}\]", id)
    assert second.startswith("✗ query    shop:nothing ")
    assert wrong.strip().startswith("ArgumentValidationError: shop:nothing: ")
    assert "] FunctionNotFoundError: got the function 'shop:missing'" in unknown
