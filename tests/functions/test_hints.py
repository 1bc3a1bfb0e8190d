"""Hints: an error at what is tried first says what to write instead."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    FunctionError,
    LimitError,
    Limits,
    MutationCtx,
    QueryError,
    SchemaValidationError,
    action,
    cron_jobs,
    crons,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.run.failure import describe
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@dataclass
class Room:
    name: str
    floor: int = 0


ROOMS = define_schema({"rooms": define_table(Room).index("by_floor", ["floor"])})


async def test_the_defaults_of_a_class_are_stored_so_that_indexes_and_filters_see_them() -> None:
    async def act(ctx: MutationCtx) -> Any:
        await ctx.db.insert("rooms", {"name": "a"})
        id = await ctx.db.insert(Room, Room("b", 1))
        await ctx.db.replace(id, Room("c"))
        by_index = await ctx.db.query(Room).with_index("by_floor", lambda q: q.eq("floor", 0)).collect()
        by_filter = await ctx.db.query(Room).filter(lambda q: q.eq(q.field("floor"), 0)).collect()
        return [room.name for room in by_index], [room.name for room in by_filter]

    async with Harness({"schema": ROOMS}) as t:
        assert await t.transaction(act) == (["a", "c"], ["a", "c"])


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"x": v.number()}, "y", "which no document of the table has; instead of 'y' expected one of x"),
        ({"x": v.number()}, "x.y", "instead of 'y' expected no field below it, for it is no object"),
        ({"guest": v.object({"city": v.string()})}, "guest.cty", "instead of 'cty' expected one of city"),
        ({"guest": v.optional(v.object({"city": v.string()}))}, "guest.cty", "instead of 'cty' expected one of city"),
        (Room, "flor", "instead of 'flor' expected one of floor, name"),
        (v.union({"a": v.null()}, {"b": v.null()}), "c", "instead of 'c' expected one of a, b"),
    ],
)
def test_an_index_of_a_field_that_no_document_has_is_refused(document: Any, path: str, message: str) -> None:
    with pytest.raises(SchemaValidationError, match=message):
        define_table(document).index("by_it", [path])


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (v.any(), "a.b"),
        ({"a": v.any()}, "a.b.c"),
        ({"a": v.record(v.string(), v.object({"b": v.string()}))}, "a.x.b"),
        ({"a": v.optional(v.union(v.null(), v.object({"b": v.string()})))}, "a.b"),
    ],
)
def test_an_index_of_a_field_that_some_document_may_have_is_fine(document: Any, path: str) -> None:
    assert define_table(document).index("by_it", [path]).indexes == {"by_it": (path,)}


async def added(ctx: MutationCtx, n: int) -> int:
    return n


def in_range(ctx: Any, reach: Any) -> Any:
    return ctx.db.query("rooms").with_index("by_floor", reach)


@pytest.mark.parametrize(
    ("kind", "reach", "message"),
    [
        (query, lambda ctx: ctx.db.insert, "got ctx.db.insert in a query, which only reads: make it a @mutation"),
        (query, lambda ctx: ctx.scheduler, "got ctx.scheduler in a query, which only reads: schedule from a @mutation"),
        (query, lambda ctx: ctx.run_mutation, "got ctx.run_mutation in a query, which only reads: make it a @mutation"),
        (query, lambda ctx: ctx.run_action, "got ctx.run_action in a query, which only reads: run it from an @action"),
        (query, lambda ctx: ctx.db.system.patch, "got ctx.db.system.patch, but only the system writes its tables"),
        (mutation, lambda ctx: ctx.db.system.delete, "got ctx.db.system.delete, but only the system writes its tables"),
        (
            mutation,
            lambda ctx: ctx.run_action,
            "got ctx.run_action in a mutation, which may run again: schedule it, await ctx.scheduler.run_after(0, …)",
        ),
        (
            mutation,
            lambda ctx: mutation(added).delay,
            "got delay of a function: in a mutation or an action schedule it, await",
        ),
        (
            mutation,
            lambda ctx: in_range(ctx, lambda q: q.field("floor") == 1),
            "got q.field in the range of an index, which",
        ),
        (action, lambda ctx: ctx.db, "got ctx.db in an action: read with ctx.run_query, write with ctx.run_mutation"),
    ],
)
async def test_what_a_ctx_does_not_have_is_told_with_what_to_use_instead(kind: Any, reach: Any, message: str) -> None:
    async def act(ctx: Any) -> None:
        reach(ctx)

    async with Harness({"app": SimpleNamespace(act=kind(act)), "schema": ROOMS}) as t:
        with pytest.raises(AttributeError, match=re.escape(message)) as caught:
            await t.app.run("app:act")
        assert describe(caught.value).startswith(f"AttributeError: {caught.value}\n  at ")


async def test_an_action_in_a_thread_is_told_what_its_ctx_does_not_have() -> None:
    def act(ctx: Any) -> Any:
        return [hasattr(ctx, "db"), hasattr(ctx, "scheduler"), ctx.db]

    async with Harness({"app": SimpleNamespace(act=action(act))}) as t:
        with pytest.raises(AttributeError, match="got ctx.db in an action: read with ctx.run_query, write with"):
            await t.action("app:act")


async def test_one_may_ask_what_a_ctx_has() -> None:
    def told(ctx: Any) -> list[bool]:
        return [hasattr(ctx, name) for name in ("db", "scheduler", "run_mutation", "run_action", "nonsense")]

    async def act(ctx: Any) -> list[bool]:
        return [*told(ctx), hasattr(ctx, "db") and hasattr(ctx.db, "insert")]

    async with Harness({"app": SimpleNamespace(a=query(act), b=mutation(act), c=action(act), d=action(told))}) as t:
        assert await t.query("app:a") == [True, False, False, False, False, False]
        assert await t.mutation("app:b") == [True, True, True, False, False, True]
        assert await t.action("app:c") == [False, True, True, True, False, False]
        assert await t.action("app:d") == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("reach", "message"),
    [
        (lambda: cron_jobs().every, 'got crons.every: write crons.interval("name", {"minutes": 5}, function)'),
        (lambda: cron_jobs().register, "got crons.register of cron_jobs(): functions have `from duly import crons`"),
        (lambda: crons.daily, "got crons.daily of `from duly import crons`: in crons.py write `crons = cron_jobs()`"),
    ],
)
def test_what_crons_do_not_have_is_told_with_what_to_use_instead(reach: Any, message: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(message)):
        reach()


@pytest.mark.parametrize("kind", [query, mutation, action])
async def test_a_coroutine_that_is_returned_is_told(kind: Any) -> None:
    async def one() -> int:
        return 1

    async def reads(ctx: Any) -> Any:
        return ctx.db.query("rooms").first() if kind is not action else one()

    async with Harness({"app": SimpleNamespace(reads=kind(reads))}) as t:
        with pytest.raises(FunctionError, match="forgot `await`|without `await`"):
            await t.app.run("app:reads")


async def test_a_query_without_its_end_is_told() -> None:
    async def waits(ctx: Any) -> None:
        await ctx.db.query("rooms")

    async def loops(ctx: Any) -> None:
        for _ in ctx.db.query("rooms"):
            pass

    async with Harness({"schema": ROOMS}) as t:
        for act, word in ((waits, "await"), (loops, "for")):
            with pytest.raises(QueryError, match=f"got `{word}` of a query of 'rooms', expected its documents: end it"):
                await t.transaction(act)


async def test_a_value_in_the_place_of_a_range_is_told() -> None:
    rooms: Any = "rooms"
    async with Harness({"schema": ROOMS}) as t:
        with pytest.raises(
            QueryError, match=r"rooms.by_floor: got the range 1 \(int\), expected a function such as lambda q"
        ):
            await t.transaction(lambda ctx: ctx.db.query(rooms).with_index("by_floor", 1).collect())


async def test_a_mutation_that_sleeps_is_told_at_which_line() -> None:
    @mutation
    async def sleeps(ctx: MutationCtx) -> None:
        await asyncio.sleep(1)

    async with Harness({"app": SimpleNamespace(sleeps=sleeps)}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:sleeps"))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert "at sleeps (test_hints.py:" in job["state"]["error"]


async def test_a_handler_that_is_stuck_is_not_run_a_second_time_in_development() -> None:
    runs: list[str] = []

    @mutation
    async def stuck(ctx: MutationCtx) -> None:
        runs.append("run")
        while True:
            pass

    modules = {"app": SimpleNamespace(stuck=stuck)}
    async with Harness(modules, development=True, limits=Limits(handler_seconds_max=0.1)) as t:
        with pytest.raises(LimitError, match="handler_seconds_max"):
            await t.mutation("app:stuck")
        assert runs == ["run"]


async def test_the_clock_of_a_harness_takes_milliseconds_as_the_scheduler_does() -> None:
    async with Harness({}) as t:
        await t.advance(1_500)
        assert t.now == datetime(2030, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
        await t.advance(timedelta(seconds=1.5))
        await t.advance_to(1_893_456_010_000)
        assert t.now == datetime(2030, 1, 1, 0, 0, 10, tzinfo=UTC)
        with pytest.raises(ValueError, match="got a delay of -1 ms, expected a finite one that is not negative"):
            await t.advance(-1)
        with pytest.raises(ValueError, match="expected milliseconds or a timedelta"):
            await t.advance("1h")  # pyright: ignore[reportArgumentType]
