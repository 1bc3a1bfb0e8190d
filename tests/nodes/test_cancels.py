"""Two nodes at one scheduled function: what one has read and the other changes before the commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    AlreadyCompletedError,
    App,
    MutationCtx,
    action,
    define_schema,
    define_table,
    faults,
    mutation,
    v,
)
from duly.testing import Harness
from tests import postgres
from tests.scheduler.held import Held

asyncpg = pytest.importorskip("asyncpg")

from duly.storage.postgres.address import parse  # noqa: E402  (it needs the driver)

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))

began: list[str] = []
ran: list[str] = []
"""Runs of handlers, also of those that were undone."""
within: list[Callable[[], None]] = []
gates: dict[str, asyncio.Event] = {}


def hold_once() -> None:
    if within:
        within.pop()()


@mutation
async def runs(ctx: MutationCtx) -> None:
    ran.append("runs")
    await ctx.db.insert("notes", {"n": 1})
    hold_once()


@action
async def acts(ctx: ActionCtx) -> None:
    began.append("acts")
    if "acts" in gates:
        await gates["acts"].wait()
        await ctx.run_mutation(schedules)


@mutation
async def schedules(ctx: MutationCtx) -> None:
    ran.append("schedules")
    note = await ctx.db.query("notes").first()
    await ctx.scheduler.run_after(0, add, {"n": 0 if note is None else note["n"]})
    hold_once()


@mutation
async def add(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("notes", {"n": n})


@mutation
async def cancels(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


MODULES: dict[str, Any] = {
    "app": SimpleNamespace(runs=runs, acts=acts, schedules=schedules, add=add, cancels=cancels),
    "schema": define_schema({"notes": define_table({"n": v.int64()})}),
}


@pytest.fixture
def store(store_of: Callable[[str], str]) -> Iterator[str]:
    began.clear()
    ran.clear()
    within.clear()
    gates.clear()
    yield store_of("postgres")
    faults.disarm()


@asynccontextmanager
async def commits_waiting(store: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Commits wait in PostgreSQL, in the order in which they came: until so many do, and then for the end of this."""
    address = parse(store)
    connection = await asyncpg.connect(address.dsn)

    async def waiting(commits: int) -> None:
        sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid::bigint = $1"
        async with asyncio.timeout(20):
            while await connection.fetchval(sql, address.lock & 0xFFFFFFFF) < commits:
                await asyncio.sleep(0.001)

    try:
        await connection.execute(f"BEGIN; SELECT pg_advisory_xact_lock({address.lock})")
        yield waiting
    finally:
        await connection.close()


async def numbers(t: Harness) -> list[int]:
    return [note["n"] for note in await t.transaction(lambda ctx: ctx.db.query("notes").collect())]


async def kinds(t: Harness) -> list[str]:
    return [job["state"]["kind"] for job in await t.jobs()]


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("runs", "job.claimed"),
        ("runs", "in its handler"),
        ("runs", "job.ran"),
        ("runs", "batch.ran"),
        ("acts", "job.claimed"),
        ("acts", "batch.ran"),
    ],
)
async def test_a_function_that_another_node_cancels_before_its_commit_leaves_nothing(
    store: str, name: str, point: str
) -> None:
    async with Harness(MODULES, store=store) as t, App(MODULES, store, executor=False) as other:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, f"app:{name}"))
        async with Held(t.app, None if point == "in its handler" else point) as held:
            if point == "in its handler":
                within.append(held.stand)
            running = asyncio.create_task(t.run_until_idle())
            await held.arrived()
            await other.mutation("app:cancels", {"id": id})
        await running
        assert await kinds(t) == ["canceled"]
        assert await numbers(t) == []
        assert began == []


@pytest.mark.parametrize(("name", "outcome"), [("runs", "success"), ("acts", "canceled")])
async def test_a_cancel_of_another_node_that_comes_during_the_commit_comes_after_it(
    store: str, name: str, outcome: str
) -> None:
    async with Harness(MODULES, store=store) as t, App(MODULES, store, executor=False) as other:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, f"app:{name}"))
        gates["acts"] = asyncio.Event()
        async with commits_waiting(store) as waiting:
            running = asyncio.create_task(t.run_until_idle())
            await waiting(1)
            canceling = asyncio.create_task(other.mutation("app:cancels", {"id": id}))
            await waiting(2)
        [told] = await asyncio.gather(canceling, return_exceptions=True)
        gates["acts"].set()
        await running
        assert isinstance(told, AlreadyCompletedError) == (outcome == "success")
        assert (await kinds(t))[0] == outcome
        assert began in ([], [name] if name == "acts" else [])  # the cancel may be faster than its first line


async def test_no_child_slips_through_while_another_node_cancels_its_parent(store: str) -> None:
    gates["acts"] = asyncio.Event()
    async with Harness(MODULES, store=store) as t, App(MODULES, store, executor=False) as other:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, acts))
        running = asyncio.create_task(t.run_until_idle())
        while not began:
            await asyncio.sleep(0.001)
        async with Held(t.app) as held:
            within.append(held.stand)  # when it has scheduled, and so has read that its parent was not canceled
            gates["acts"].set()
            await held.arrived()
            await other.mutation("app:cancels", {"id": id})
        await running
        assert ran == ["schedules", "schedules"]
        assert await kinds(t) == ["canceled", "canceled"]
        assert await numbers(t) == []


async def test_a_mutation_that_is_run_again_after_a_conflict_has_scheduled_once(store: str) -> None:
    async with Harness(MODULES, store=store) as t, App(MODULES, store, executor=False) as other:
        async with Held(t.app) as held:
            within.append(held.stand)
            scheduling = asyncio.create_task(t.mutation(schedules))
            await held.arrived()
            await other.mutation("app:add", {"n": 7})
        await scheduling
        assert ran == ["schedules", "schedules"]
        assert [job["args"] for job in await t.jobs()] == [[{"n": 7}]]
        await t.run_until_idle()
        assert await numbers(t) == [7, 7]


async def test_a_scheduled_mutation_that_is_run_again_after_a_conflict_happens_once(store: str) -> None:
    async with Harness(MODULES, store=store) as t, App(MODULES, store, executor=False) as other:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, schedules))
        async with Held(t.app) as held:
            within.append(held.stand)
            running = asyncio.create_task(t.run_until_idle())
            await held.arrived()
            await other.mutation("app:add", {"n": 7})
        await running
        assert ran == ["schedules", "schedules"]
        assert await kinds(t) == ["success", "success"]
        assert await numbers(t) == [7, 7]
