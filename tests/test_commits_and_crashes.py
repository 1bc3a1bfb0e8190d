"""What one commit holds, and what a crash leaves: calls, scheduled functions, subscriptions."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    Id,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    faults,
    internal,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.database.committer import Phase
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

ran: list[str] = []
gates: dict[str, asyncio.Event] = {}


@mutation
async def order(ctx: MutationCtx, item: str) -> Id:
    order_id = await ctx.db.insert("orders", {"item": item, "packed": 0})
    await ctx.scheduler.run_after(timedelta(minutes=5), internal.shop.pack, {"order_id": order_id})
    return order_id


@internal_mutation
async def pack(ctx: MutationCtx, order_id: Id) -> None:
    order = await ctx.db.get(order_id)
    assert order is not None
    await ctx.db.patch(order_id, {"packed": order["packed"] + 1})
    await ctx.scheduler.run_after(0, internal.shop.note, {"text": f"packed {order['item']}"})


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@internal_mutation
async def fail_after_writing(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "never"})
    await ctx.scheduler.run_after(0, internal.shop.note, {"text": "never either"})
    raise ValueError("no tea left")


@mutation
async def schedule(ctx: MutationCtx, function: str, args: dict[str, Any], delay: float = 0) -> Id:
    return await ctx.scheduler.run_after(delay, function, args)


@mutation
async def cancel(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


@internal_action
async def work(ctx: ActionCtx, name: str) -> None:
    ran.append(name)
    if name in gates:
        await gates[name].wait()
    await ctx.run_mutation(note, {"text": f"worked {name}"})
    await ctx.scheduler.run_after(0, note, {"text": f"after {name}"})


@action
def work_in_a_thread(ctx: SyncActionCtx, name: str) -> int:
    ctx.run_mutation(note, {"text": f"threaded {name}"})
    ctx.scheduler.run_after(0, note, {"text": f"after {name}"})
    return len(ctx.run_query(notes))


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


@query
async def packed(ctx: QueryCtx, order_id: Id) -> int:
    order = await ctx.db.get(order_id)
    return -1 if order is None else order["packed"]


@query
async def states(ctx: QueryCtx) -> list[str]:
    return [job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()]


SHOP = SimpleNamespace(**handlers_in(globals()))


@pytest.fixture
def t() -> Harness:
    ran.clear()
    gates.clear()
    return Harness({"shop": SHOP})


# (a) A mutation that schedules a function.


async def test_a_document_and_the_function_scheduled_with_it_are_one_commit(t: Harness) -> None:
    async with t:
        order_id = await t.mutation("shop:order", {"item": "tea"})
        [job] = await t.jobs()
        assert job == {
            "_id": job["_id"],
            "_creationTime": job["_creationTime"],
            "name": "shop:pack",
            "args": [{"order_id": order_id}],
            "scheduledTime": 1_893_456_300_000.0,
            "state": {"kind": "pending"},
        }
        await t.crash()
        assert [job["state"] for job in await t.jobs()] == [{"kind": "pending"}]
        assert await t.query("shop:packed", {"order_id": order_id}) == 0


async def test_what_a_failed_mutation_scheduled_was_never_scheduled(t: Harness) -> None:
    async with t:
        with pytest.raises(ValueError, match="no tea left"):
            await t.mutation(fail_after_writing)
        assert await t.jobs() == []
        assert await t.query(notes) == []


# (b) A due mutation, exactly once.


async def test_a_due_mutation_its_end_and_what_it_schedules_are_one_commit(t: Harness) -> None:
    async with t:
        order_id = await t.mutation(order, {"item": "tea"})
        await t.advance(timedelta(minutes=4, seconds=59))
        assert await t.query(packed, {"order_id": order_id}) == 0
        await t.advance(timedelta(seconds=1))
        assert await t.query(packed, {"order_id": order_id}) == 1
        assert [(job["name"], job["state"]["kind"]) for job in await t.jobs()] == [
            ("shop:pack", "success"),
            ("shop:note", "success"),
        ]
        assert await t.query(notes) == ["packed tea"]


async def test_a_mutation_whose_process_ends_before_the_commit_runs_again_from_scratch(t: Harness) -> None:
    async with t:
        order_id = await t.mutation(order, {"item": "tea"})
        lost = asyncio.Event()
        loop = asyncio.get_running_loop()

        def lose_the_commit() -> None:
            faults.disarm()
            t.app.database._committer._phase = Phase.ABANDONED  # pyright: ignore[reportPrivateUsage]
            loop.call_soon_threadsafe(lost.set)

        faults.arm("job.ran", lose_the_commit)
        advancing = asyncio.create_task(t.advance(timedelta(minutes=5)))
        await lost.wait()
        await t.crash()
        advancing.cancel()
        await asyncio.gather(advancing, return_exceptions=True)
        assert await t.query(states) == ["pending"]
        await t.advance(timedelta(minutes=5))
        assert await t.query(packed, {"order_id": order_id}) == 1
        assert await t.query(states) == ["success", "success"]


async def test_a_mutation_that_was_committed_does_not_run_again_after_a_crash(t: Harness) -> None:
    async with t:
        order_id = await t.mutation(order, {"item": "tea"})
        await t.advance(timedelta(minutes=5))
        await t.crash()
        await t.advance(timedelta(days=1))
        assert await t.query(packed, {"order_id": order_id}) == 1


async def test_a_mutation_that_raises_leaves_only_its_error(t: Harness) -> None:
    async with t:
        await t.mutation(schedule, {"function": "shop:fail_after_writing", "args": {}})
        await t.run_until_idle()
        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"
        first, second = job["state"]["error"].split("\n")
        assert first == "ValueError: no tea left"
        assert second.startswith("  at fail_after_writing (test_commits_and_crashes.py:")
        assert job["completedTime"] == 1_893_456_000_000.0
        assert await t.query(notes) == []


async def test_a_pending_function_that_is_canceled_never_runs(t: Harness) -> None:
    async with t:
        id = await t.mutation(schedule, {"function": "shop:note", "args": {"text": "x"}, "delay": 1000})
        await t.mutation(cancel, {"id": id})
        await t.mutation(cancel, {"id": id})  # once more changes nothing
        await t.advance(timedelta(days=1))
        assert await t.query(notes) == []
        assert await t.query(states) == ["canceled"]


async def test_a_function_canceled_by_an_earlier_one_of_the_same_batch_does_not_run(t: Harness) -> None:
    async with t:

        async def both(ctx: MutationCtx) -> None:
            first = await ctx.scheduler.run_after(1000, note, {"text": "never"})
            # Due a little earlier, so that it runs first, when the other has been claimed already.
            await ctx.scheduler.run_after(999, cancel, {"id": first})

        await t.transaction(both)
        t._clock.set(t._clock.now() + 2000)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        assert await t.query(notes) == []
        assert await t.query(states) == ["canceled", "success"]


async def test_functions_run_in_the_order_of_their_due_time_then_of_scheduling(t: Harness) -> None:
    async with t:

        async def several(ctx: MutationCtx) -> None:
            for name, delay in (("c", 20), ("a", 10), ("b", 10), ("d", 20)):
                await ctx.scheduler.run_after(delay, note, {"text": name})

        await t.transaction(several)
        t._clock.set(t._clock.now() + 100)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        assert await t.query(notes) == ["a", "b", "c", "d"]


# (c) A due action, at most once.


async def test_an_action_is_in_progress_before_its_first_line_and_ends_with_success(t: Harness) -> None:
    async with t:
        gates["a"] = asyncio.Event()
        await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        running = asyncio.create_task(t.run_until_idle())
        while not ran:
            await asyncio.sleep(0.001)
        assert await t.query(states) == ["inProgress"]
        gates["a"].set()
        await running
        assert await t.query(states) == ["success", "success"]
        assert await t.query(notes) == ["worked a", "after a"]


async def test_an_action_whose_process_ends_is_failed_and_not_run_again(t: Harness) -> None:
    async with t:
        gates["a"] = asyncio.Event()
        await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        running = asyncio.create_task(t.run_until_idle())
        while not ran:
            await asyncio.sleep(0.001)
        await t.crash()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await t.advance(timedelta(days=1))
        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"
        assert job["state"]["error"].startswith("interrupted: the process that ran this action ended")
        assert ran == ["a"]


async def test_a_canceled_action_goes_on_but_its_result_and_its_children_are_dropped(t: Harness) -> None:
    async with t:
        gates["a"] = asyncio.Event()
        id = await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        running = asyncio.create_task(t.run_until_idle())
        while not ran:
            await asyncio.sleep(0.001)
        await t.mutation(cancel, {"id": id})
        gates["a"].set()
        await running
        assert await t.query(states) == ["canceled", "canceled"]
        assert await t.query(notes) == ["worked a"]


async def test_an_action_that_is_canceled_in_the_batch_that_would_have_started_it_does_not_run(t: Harness) -> None:
    async with t:
        id = await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        canceled = threading.Event()

        async def cancel_it(ctx: MutationCtx) -> None:
            await ctx.scheduler.cancel(id)
            # The start of the action may still be under way: then its commit is told first.
            is_second = iter([False, True] if t.app.database._committer._in_flight else [True])
            faults.arm("commit.answered", lambda: next(is_second) and canceled.set())

        starting = asyncio.create_task(t.run_until_idle())
        canceling = asyncio.create_task(t.transaction(cancel_it))
        asyncio.get_running_loop().call_soon(canceled.wait, 5)  # until both have happened
        await asyncio.gather(starting, canceling)
        faults.disarm()
        assert await t.query(states) == ["canceled"]
        assert ran == []


async def test_an_action_that_is_canceled_before_its_first_line_does_not_run(t: Harness) -> None:
    async with t:
        id = await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        loop = asyncio.get_running_loop()
        canceling = list[asyncio.Task[None]]()
        held_up, canceled = threading.Event(), threading.Event()

        def hold_up_the_loop() -> None:
            held_up.set()
            assert canceled.wait(5)

        def cancel_it() -> None:
            canceling.append(loop.create_task(t.mutation(cancel, {"id": id})))
            loop.call_soon(hold_up_the_loop)

        def let_a_cancel_follow() -> None:
            faults.disarm()
            faults.arm("commit.answered", canceled.set, passing=2)
            loop.call_soon_threadsafe(cancel_it)
            assert held_up.wait(5)

        faults.arm("commit.durable", let_a_cancel_follow)
        await t.run_until_idle()
        faults.disarm()
        await asyncio.gather(*canceling)
        assert await t.query(states) == ["canceled"]
        assert ran == []


async def test_an_action_in_a_thread_calls_and_schedules_like_another(t: Harness) -> None:
    async with t:
        assert await t.action(work_in_a_thread, {"name": "x"}) == 1
        await t.run_until_idle()
        assert await t.query(notes) == ["threaded x", "after x"]


async def test_closing_the_app_records_running_actions_as_interrupted(t: Harness) -> None:
    async with t:
        gates["a"] = asyncio.Event()
        await t.mutation(schedule, {"function": "shop:work", "args": {"name": "a"}})
        running = asyncio.create_task(t.run_until_idle())
        while not ran:
            await asyncio.sleep(0.001)
        await t.app.close(grace_seconds=0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await t.crash()  # opens it again
        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"


# (e) A live subscription.


async def test_a_subscription_sees_each_change_once(t: Harness) -> None:
    async with t:
        order_id = await t.mutation(order, {"item": "tea"})
        values = t.subscribe(packed, {"order_id": order_id})
        assert await anext(values) == 0
        waiting = asyncio.create_task(anext(values))
        await t.mutation(order, {"item": "coffee"})  # another document: wakes nobody
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await t.advance(timedelta(minutes=5))
        assert await waiting == 1


async def test_a_subscription_follows_the_states_of_scheduled_functions(t: Harness) -> None:
    async with t:
        values = t.subscribe(states)
        assert await anext(values) == []
        await t.mutation(schedule, {"function": "shop:note", "args": {"text": "x"}})
        assert await anext(values) == ["pending"]
        await t.run_until_idle()
        assert await anext(values) == ["success"]


async def test_a_subscription_to_a_table_that_does_not_exist_sees_its_first_document(t: Harness) -> None:
    async with t:
        values = t.subscribe(notes)
        assert await anext(values) == []
        await t.mutation(note, {"text": "first"})
        assert await anext(values) == ["first"]


# Endless rescheduling.


@internal_mutation
async def again(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, "shop:again")


async def test_functions_that_schedule_themselves_without_end_are_told() -> None:
    async with Harness({"shop": SimpleNamespace(again=again)}) as t:
        await t.mutation("shop:again")
        with pytest.raises(
            Exception, match="got more than 50 functions that ran at one time .* expected them to come to rest"
        ):
            await t.run_until_idle(max_functions=50)
