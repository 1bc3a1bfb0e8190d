"""How a scheduled function ends: what its error says, what is never run again, and what waits for what."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    AppError,
    Limits,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    define_schema,
    define_table,
    faults,
    internal_action,
    internal_mutation,
    internal_query,
    query,
    v,
)
from duly.limits import ERROR_TEXT_LENGTH_MAX
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.scheduler.held import Held
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

began: list[str] = []
gates: dict[str, asyncio.Event] = {}


class OutOfTea(Exception):
    pass


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


@internal_query
async def raises_in_a_query(ctx: QueryCtx) -> None:
    raise OutOfTea("none left")


@internal_mutation
async def raises_in_a_nested_one(ctx: MutationCtx) -> None:
    await ctx.run_query(raises_in_a_query)


@internal_mutation
async def raises(ctx: MutationCtx, text: str) -> None:
    began.append("raises")
    await ctx.db.insert("notes", {"text": "never"})
    await ctx.scheduler.run_after(0, note, {"text": "never"})
    raise OutOfTea(text)


@internal_mutation
async def raises_an_app_error(ctx: MutationCtx) -> None:
    raise AppError({"code": "OUT_OF_TEA"})


@internal_mutation
async def raises_in_a_library(ctx: MutationCtx) -> None:
    json.loads("{")


@internal_mutation
async def raises_in_duly(ctx: MutationCtx) -> None:
    await ctx.db.insert("no table", {})


@internal_mutation
async def returns_no_value(ctx: MutationCtx) -> Any:
    return {1}


@internal_mutation
async def sleeps(ctx: MutationCtx) -> None:
    await asyncio.sleep(0)


@internal_mutation
async def exits(ctx: MutationCtx) -> None:
    raise SystemExit(3)


@internal_mutation
async def recurses(ctx: MutationCtx) -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    deeper(0)


@internal_action
async def acts_and_raises(ctx: ActionCtx) -> None:
    began.append("acts_and_raises")
    await ctx.run_mutation(note, {"text": "before"})
    await ctx.run_mutation(raises_in_a_nested_one)


@internal_action
async def acts_and_exits(ctx: ActionCtx) -> None:
    raise SystemExit(3)


@internal_action
def exits_in_a_thread(ctx: SyncActionCtx) -> None:
    raise SystemExit(3)


@internal_action
def raises_in_a_thread(ctx: SyncActionCtx) -> None:
    began.append("raises_in_a_thread")
    ctx.run_mutation(raises_in_a_nested_one)


@internal_action
async def raises_a_group(ctx: ActionCtx) -> None:
    async def fail(text: str) -> None:
        raise OutOfTea(text)

    async with asyncio.TaskGroup() as group:
        group.create_task(fail("none left"))
        group.create_task(fail("nor coffee"))


@internal_action
async def acts_and_returns_no_value(ctx: ActionCtx) -> Any:
    return {1}


@internal_action
async def works(ctx: ActionCtx, name: str) -> None:
    began.append(name)
    if name in gates:
        await gates[name].wait()
    await ctx.scheduler.run_after(0, note, {"text": f"after {name}"})


@internal_action
async def takes_its_time(ctx: ActionCtx) -> None:
    await asyncio.sleep(0.02)
    await ctx.scheduler.run_after(0, note, {"text": "after a while"})


@internal_action
async def chain(ctx: ActionCtx, left: int) -> None:
    began.append(str(left))
    if left:
        await ctx.scheduler.run_after(1_000, chain, {"left": left - 1})


@internal_action
async def waits_for_a_mutation(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, note, {"text": "of an action that waits for it"})
    while not await ctx.run_query(notes):
        await asyncio.sleep(0.001)


SCHEMA = define_schema({"notes": define_table({"text": v.string()})})


def modules() -> dict[str, Any]:
    functions = handlers_in(globals())
    return {"shop/app": SimpleNamespace(**functions), "schema": SCHEMA}


@pytest.fixture
def t() -> Iterator[Harness]:
    began.clear()
    gates.clear()
    yield Harness(modules())
    faults.disarm()


async def schedule(t: Harness, name: str, args: dict[str, Any] | None = None, delay: float = 0) -> str:
    return await t.transaction(lambda ctx: ctx.scheduler.run_after(delay, f"shop/app:{name}", args))


async def kinds(t: Harness) -> list[str]:
    return [job["state"]["kind"] for job in await t.jobs()]


# What a developer reads of a function that failed.


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("name", "error", "lines"),
    [
        ("raises_in_a_nested_one", "OutOfTea: none left", ["raises_in_a_nested_one", "raises_in_a_query"]),
        ("raises_an_app_error", "AppError: {'code': 'OUT_OF_TEA'}", ["raises_an_app_error"]),
        ("raises_in_a_library", "json.decoder.JSONDecodeError: Expecting property name", ["raises_in_a_library"]),
        ("raises_in_duly", "SchemaValidationError: table: got the name 'no table'", ["raises_in_duly"]),
        ("returns_no_value", "ReturnsValidationError: shop/app:returns_no_value: its return value: got {1}", []),
        ("sleeps", "FunctionError: a query or mutation awaited a pause, expected only calls of `ctx`", ["sleeps"]),
        ("exits", "FunctionError: got SystemExit from a function, expected a result or an error", ["exits"]),
        ("acts_and_exits", "FunctionError: got SystemExit from a function, expected a", ["acts_and_exits"]),
        ("exits_in_a_thread", "FunctionError: got SystemExit from a function, expected a", ["exits_in_a_thread"]),
        ("recurses", "RecursionError: maximum recursion depth exceeded", ["deeper"] * 8),
        (
            "acts_and_raises",
            "OutOfTea: none left",
            ["acts_and_raises", "raises_in_a_nested_one", "raises_in_a_query"],
        ),
        (
            "raises_in_a_thread",
            "OutOfTea: none left",
            ["raises_in_a_thread", "raises_in_a_nested_one", "raises_in_a_query"],
        ),
        ("acts_and_returns_no_value", "ReturnsValidationError: shop/app:acts_and_returns_no_value: its return", []),
    ],
)
async def test_the_error_is_the_exception_and_the_applications_own_lines(
    t: Harness, name: str, error: str, lines: list[str]
) -> None:
    async with t:
        await schedule(t, name)
        await t.run_until_idle()
        [job] = [job for job in await t.jobs() if job["name"] == f"shop/app:{name}"]
        assert job["state"]["kind"] == "failed"
        first, *others = job["state"]["error"].split("\n")
        assert first.removeprefix("tests.scheduler.test_execution.").startswith(error)
        assert [line.split(" (test_execution.py:")[0] for line in others] == [f"  at {line}" for line in lines]
        assert "/duly/" not in job["state"]["error"]


@pytest.mark.one_engine
async def test_the_error_of_a_group_says_what_is_in_it(t: Harness) -> None:
    async with t:
        await schedule(t, "raises_a_group")
        await t.run_until_idle()
        [job] = await t.jobs()
        lines = [line.split(" (test_execution.py:")[0] for line in job["state"]["error"].split("\n")]
        assert lines == [
            "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)",
            "  at raises_a_group",
            "  | tests.scheduler.test_execution.OutOfTea: none left",
            "  |   at fail",
            "  | tests.scheduler.test_execution.OutOfTea: nor coffee",
            "  |   at fail",
        ]


@pytest.mark.one_engine
async def test_of_a_long_error_the_end_of_the_message_is_left_out_and_the_lines_are_not(t: Harness) -> None:
    async with t:
        for length in (10, 100_000):
            await schedule(t, "raises", {"text": "ß" * length})
        await t.run_until_idle()
        short, long = (job["state"]["error"] for job in await t.jobs())
        line = short.split("\n")[1]
        assert line.startswith("  at raises (test_execution.py:")
        assert short == f"tests.scheduler.test_execution.OutOfTea: {'ß' * 10}\n{line}"
        assert len(long) == ERROR_TEXT_LENGTH_MAX
        assert long.startswith("tests.scheduler.test_execution.OutOfTea: ßßß")
        assert long.endswith(f"ß…\n{line}")


async def test_what_fails_is_not_run_again_and_its_neighbours_run(t: Harness) -> None:
    async with t:
        for name, args in (("raises", {"text": "x"}), ("acts_and_raises", None), ("raises_in_a_thread", None)):
            await schedule(t, "note", {"text": name})
            await schedule(t, name, args)
        await t.run_until_idle()
        await t.advance(timedelta(days=1))
        await t.crash()
        await t.advance(timedelta(days=1))
        assert sorted(began) == ["acts_and_raises", "raises", "raises_in_a_thread"]
        assert await kinds(t) == ["success", "failed"] * 3
        assert sorted(await t.query(notes)) == ["acts_and_raises", "before", "raises", "raises_in_a_thread"]


# Interrupted.


async def run_until_begun(t: Harness, name: str) -> asyncio.Task[None]:
    running = asyncio.create_task(t.run_until_idle())
    while name not in began:
        await asyncio.sleep(0.0005)
    return running


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_canceled_action_whose_process_ends_stays_canceled(t: Harness) -> None:
    async with t:
        gates["a"] = asyncio.Event()
        id = await schedule(t, "works", {"name": "a"})
        running = await run_until_begun(t, "a")
        await t.transaction(lambda ctx: ctx.scheduler.cancel(id))
        await t.crash()
        await end(running)
        await t.run_until_idle()
        assert await kinds(t) == ["canceled"]
        assert began == ["a"]


async def test_all_actions_that_ran_when_the_process_ended_are_failed_and_those_that_waited_run() -> None:
    began.clear()
    gates.clear()
    async with Harness(modules(), limits=Limits(actions_running_max=2)) as t:
        gates["held"] = asyncio.Event()
        for _ in range(3):
            await schedule(t, "works", {"name": "held"})
        running = await run_until_begun(t, "held")
        while len(began) < 2:
            await asyncio.sleep(0.0005)
        await t.crash()
        await end(running)
        assert await kinds(t) == ["failed", "failed", "pending"]
        gates.clear()
        await t.run_until_idle()
        assert await kinds(t) == ["failed", "failed", "success", "success"]
        assert began == ["held", "held", "held"]


# Found otherwise than when it was read.


async def test_a_function_that_was_claimed_and_canceled_meanwhile_does_not_run(t: Harness) -> None:
    """A claim is a list of what is due, and an earlier function of the same list may cancel a later one."""
    async with t:

        async def several(ctx: MutationCtx) -> None:
            ids = [await ctx.scheduler.run_after(5, note, {"text": f"{n}"}) for n in range(3)]
            action = await ctx.scheduler.run_after(5, works, {"name": "a"})
            await ctx.scheduler.run_after(4, "shop/app:cancels", {"ids": [ids[0], ids[2], action]})

        @internal_mutation
        async def cancels(ctx: MutationCtx, ids: list[str]) -> None:
            for id in ids:
                await ctx.scheduler.cancel(id)

        t.app._source["shop/app"].cancels = cancels  # pyright: ignore
        await t.app.reload()
        await t.transaction(several)
        t._clock.set(t._clock.now() + 10)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        assert await kinds(t) == ["canceled", "success", "canceled", "canceled", "success"]
        assert await t.query(notes) == ["1"]
        assert began == []


async def test_two_drains_at_once_run_each_function_once(t: Harness) -> None:
    async with t:
        for n in range(5):
            await schedule(t, "note", {"text": f"{n}"})
            await schedule(t, "works", {"name": f"{n}"})
        async with Held(t.app, "job.claimed") as held:
            first = asyncio.create_task(t.run_until_idle())
            await held.arrived()
            second = asyncio.create_task(t.app.executor.run_batch())
            await held.queued(1)
        await asyncio.gather(first, second)
        assert sorted(await t.query(notes)) == ["0", "1", "2", "3", "4", *(f"after {n}" for n in range(5))]
        assert sorted(began) == ["0", "1", "2", "3", "4"]


# What waits for what.


async def test_run_until_idle_waits_for_an_action_that_takes_real_time_and_for_its_children(t: Harness) -> None:
    async with t:
        await schedule(t, "takes_its_time")
        await t.run_until_idle()
        assert await t.query(notes) == ["after a while"]


async def test_an_action_may_wait_for_a_mutation_that_it_has_scheduled(t: Harness) -> None:
    async with t:
        await schedule(t, "waits_for_a_mutation")
        await asyncio.wait_for(t.run_until_idle(), 20)
        assert await kinds(t) == ["success", "success"]


async def test_a_chain_of_actions_runs_link_by_link_at_its_times(t: Harness) -> None:
    async with t:
        await schedule(t, "chain", {"left": 9})
        await t.advance(timedelta(seconds=4))
        assert began == ["9", "8", "7", "6", "5"]
        await t.advance(timedelta(seconds=5))
        assert began == ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]
        assert [job["completedTime"] - 1_893_456_000_000 for job in await t.jobs()] == [n * 1_000 for n in range(10)]


async def test_what_one_harness_leaves_pending_does_not_touch_the_next(t: Harness) -> None:
    async with t:
        await schedule(t, "note", {"text": "of the first"}, 1_000)
        async with Harness(modules()) as another:
            await another.advance(timedelta(days=1))
            assert await another.jobs() == []
            assert await another.query(notes) == []
        assert await kinds(t) == ["pending"]


async def test_of_many_actions_as_many_run_as_are_allowed_and_the_others_follow_in_order() -> None:
    began.clear()
    gates.clear()
    async with Harness(modules(), limits=Limits(actions_running_max=2)) as t:
        for n in range(5):
            gates[f"{n}"] = asyncio.Event()
            await schedule(t, "works", {"name": f"{n}"})
        running = asyncio.create_task(t.run_until_idle())
        for n in range(5):
            while len(began) < min(n + 2, 5):
                await asyncio.sleep(0.0005)
            assert began == [f"{k}" for k in range(min(n + 2, 5))]
            assert (await kinds(t))[:5].count("inProgress") <= 2
            gates[f"{n}"].set()
        await running
        assert (await kinds(t))[:5] == ["success"] * 5


async def test_an_action_that_is_canceled_keeps_its_place_until_it_ends() -> None:
    """It goes on, so it counts."""
    began.clear()
    gates.clear()
    async with Harness(modules(), limits=Limits(actions_running_max=1)) as t:
        gates["first"] = asyncio.Event()
        first = await schedule(t, "works", {"name": "first"})
        await schedule(t, "works", {"name": "second"})
        running = await run_until_begun(t, "first")
        await t.transaction(lambda ctx: ctx.scheduler.cancel(first))
        await t.transaction(lambda ctx: ctx.db.insert("notes", {"text": "meanwhile"}))
        assert began == ["first"]
        gates["first"].set()
        await running
        assert began == ["first", "second"]


async def test_an_app_runs_what_is_due_in_the_order_of_due_times(store: str) -> None:
    async with App(modules(), store, executor=False) as app:
        now = time.time() * 1000

        async def several(ctx: MutationCtx) -> None:
            for text, ago in (("c", 10), ("a", 30), ("b", 20)):
                await ctx.scheduler.run_at(now - ago, note, {"text": text})
            await ctx.scheduler.run_at(now + 60_000, note, {"text": "later"})

        await app.runner.transaction(several)
    found: list[str] = []
    async with App(modules(), store) as app:
        async for found in app.subscribe(notes):
            if len(found) == 3:
                break
        assert found == ["a", "b", "c"]


@only_on_sqlite
async def test_an_executor_rests_once_it_has_noticed_that_other_nodes_have_changed(t: Harness) -> None:
    async with t:
        executor, recoveries = t.app.executor, list[None]()
        faults.arm("recovery.begun", lambda: recoveries.append(None))
        try:
            t.app.database._membership_changed.set_result(None)  # pyright: ignore[reportPrivateUsage]
            t.app.database._membership_changed = asyncio.get_running_loop().create_future()  # pyright: ignore
            for _ in range(3):
                await executor.step()
        finally:
            faults.disarm()
        assert len(recoveries) == 1
        assert not any(waker.done() for waker in executor.wakers())
