"""A mutation that a remote client sends again is not run again: its first answer is found, on every engine."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from duly import AppError, MutationCtx, QueryCtx, mutation, query
from duly.ctx.caller import Caller
from duly.database.transaction import Transaction
from duly.logs import LogLine
from duly.model.client_requests import RequestKey
from duly.storage.requests import Scan
from duly.storage.rows import REQUESTS
from duly.testing import Harness
from duly.values.index_keys import EVERYTHING
from tests.support import app_of

pytestmark = pytest.mark.usefixtures("engine")

ONE = str(UUID(int=1))
OTHER = str(UUID(int=2))


@mutation
async def add(ctx: MutationCtx, n: int) -> dict[str, Any]:
    ctx.log.info("adding %d", n)
    await ctx.db.insert("numbers", {"n": n})
    return {"sum": sum([row["n"] async for row in ctx.db.query("numbers")]), "half": 0.5, "raw": b"\x00"}


@mutation
async def fail_once(ctx: MutationCtx) -> str:
    if not fails:
        return "fine"
    raise AppError(fails.pop())


@mutation
async def logs_what_no_text_can_hold(ctx: MutationCtx) -> None:
    ctx.log.info("half a character: \ud800")


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return [row["n"] async for row in ctx.db.query("numbers")]


fails: list[str] = []
APP = app_of(add, fail_once, logs_what_no_text_can_hold, numbers)


async def send(t: Harness, function: str, session: str, request: int, **args: Any) -> tuple[Any, list[LogLine]]:
    """Send a mutation as a client does. Returns its value and its log lines."""
    runner, lines = t.app.runner, list[LogLine]()
    caller = Caller(lines=lines, wants_plain=True, request=RequestKey(session, request))
    return await runner.mutation(runner.registry.find(function), args, caller), lines


@pytest.mark.parametrize("development", [False, True])
async def test_a_mutation_that_is_sent_again_has_its_first_answer_and_no_effect(development: bool) -> None:
    async with Harness(APP, development=development) as t:
        first = await send(t, "app:add", ONE, 0, n=5)
        await send(t, "app:add", ONE, 1, n=1)

        again = await send(t, "app:add", ONE, 0, n=5)

        assert again == first == ({"sum": 5, "half": 0.5, "raw": b"\x00"}, [("INFO", "adding 5")])
        assert await t.query("app:numbers") == [5, 1]


async def test_what_another_client_sends_is_another_request() -> None:
    async with Harness(APP) as t:
        await send(t, "app:add", ONE, 0, n=1)
        await send(t, "app:add", OTHER, 0, n=2)
        assert await t.query("app:numbers") == [1, 2]


async def test_a_mutation_that_has_failed_may_run_again() -> None:
    async with Harness(APP) as t:
        fails.append("this time")
        with pytest.raises(AppError, match="this time"):
            await send(t, "app:fail_once", ONE, 0)
        assert await send(t, "app:fail_once", ONE, 0) == ("fine", [])


async def test_the_same_request_that_comes_several_times_at_once_runs_once() -> None:
    async with Harness(APP) as t:
        answers = await asyncio.gather(*(send(t, "app:add", ONE, 3, n=7) for _ in range(5)))
        assert answers == [({"sum": 7, "half": 0.5, "raw": b"\x00"}, [("INFO", "adding 7")])] * 5
        assert await t.query("app:numbers") == [7]


async def test_requests_are_known_after_a_crash() -> None:
    async with Harness(APP) as t:
        first = await send(t, "app:add", ONE, 0, n=1)
        await t.crash()
        assert await send(t, "app:add", ONE, 0, n=1) == first
        assert await t.query("app:numbers") == [1]


async def test_a_log_line_that_cannot_be_stored_does_not_keep_a_mutation_from_being() -> None:
    async with Harness(APP) as t:
        for _ in range(2):
            assert (await send(t, "app:logs_what_no_text_can_hold", ONE, 0))[0] is None
        assert (await send(t, "app:logs_what_no_text_can_hold", ONE, 0))[1] == [("INFO", "half a character: ?")]


async def test_a_record_of_an_older_version_has_lines_without_levels() -> None:
    async with Harness(APP) as t:
        value, _ = await send(t, "app:add", ONE, 0, n=1)

        async def rewrite(transaction: Transaction) -> None:
            [(id, row)] = await transaction.scan(Scan(REQUESTS, None, EVERYTHING, False, 2))
            transaction.write(REQUESTS, id, row, str(row).replace('[["INFO","adding 1"]]', '["adding 1"]'))

        await t.app.runner.commit(rewrite)

        assert await send(t, "app:add", ONE, 0, n=1) == (value, [("LOG", "adding 1")])


async def test_requests_are_known_for_fourteen_days() -> None:
    async with Harness(APP) as t:
        await send(t, "app:add", ONE, 0, n=1)
        await t.advance(timedelta(days=13, hours=23))
        await send(t, "app:add", ONE, 0, n=1)
        assert await t.query("app:numbers") == [1]

        await t.advance(timedelta(hours=2))
        rows = await t.transaction(lambda ctx: ctx.db.system.query("_client_requests").collect())
        assert rows == []


async def test_many_old_requests_are_swept_a_few_at_a_time() -> None:
    async with Harness(APP) as t:
        for n in range(450):
            await send(t, "app:fail_once", ONE, n)
        await t.advance(timedelta(days=15))
        rows = await t.transaction(lambda ctx: ctx.db.system.query("_client_requests").collect())
        assert rows == []


async def test_a_call_without_a_request_is_not_recorded() -> None:
    async with Harness(APP) as t:
        await t.mutation("app:add", {"n": 1})
        rows = await t.transaction(lambda ctx: ctx.db.system.query("_client_requests").collect())
        assert rows == []
