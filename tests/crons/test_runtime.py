"""`crons`: what functions register, look up and change while the application runs, within their transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from duly import (
    ActionCtx,
    ArgumentValidationError,
    FunctionError,
    FunctionNotFoundError,
    InvalidScheduleError,
    LimitError,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    crons,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.limits import Limits
from duly.testing import Harness
from tests.crons.app import NOW, Deployed, Gate, calendar, interval, note, seconds
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

MINUTE = {"kind": "interval", "ms": 60_000}
Steps = Callable[[Any], Awaitable[Any]]
steps: list[Steps] = []
"""What the functions below are to do."""


@mutation
async def does(ctx: MutationCtx) -> Any:
    return await steps[-1](ctx)


@mutation
async def does_and_fails(ctx: MutationCtx) -> None:
    await steps[-1](ctx)
    raise ValueError("on purpose")


@mutation
async def calls_one_that_fails(ctx: MutationCtx) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        await ctx.run_mutation(does_and_fails)


@internal_mutation
async def does_later(ctx: MutationCtx) -> None:
    await note.handler(ctx, "did")
    await steps[-1](ctx)


@internal_action
async def acts(ctx: ActionCtx) -> Any:
    return await steps[-1](ctx)


@action
def acts_in_a_thread(ctx: SyncActionCtx) -> Any:
    steps[-1](ctx)


@query
async def reads(ctx: QueryCtx) -> Any:
    return await steps[-1](ctx)


def deployed(declared: Any = None) -> Deployed:
    steps.clear()
    return Deployed(declared, handlers_in(globals()))


async def do(d: Deployed, what: Steps, function: str = "app:does") -> Any:
    steps.append(what)
    return await d.t.app.run(function)


def register(name: str | None = "r", schedule: Any = MINUTE, ref: Any = "app:note", args: Any = None) -> Steps:
    return lambda ctx: crons.register(ctx, schedule, ref, args, name=name)


# Registering.


async def test_an_interval_runs_first_after_one_interval_and_keeps_its_phase() -> None:
    async with deployed() as d:
        await d.advance(7)
        await do(d, register())
        await d.advance(180)
        assert await d.noted() == ["x 67", "x 127", "x 187"]
        assert await d.logs() == ["r success 67", "r success 127", "r success 187"]


async def test_an_interval_may_be_a_timedelta() -> None:
    async with deployed() as d:
        id = await do(d, register(schedule={"kind": "interval", "ms": timedelta(minutes=1)}))
        assert (await d.crons())["r"]["schedule"] == MINUTE
        await do(d, lambda ctx: crons.update(ctx, id, {"kind": "interval", "ms": timedelta(minutes=2)}))
        assert (await d.crons())["r"]["schedule"] == {"kind": "interval", "ms": 120_000}


@pytest.mark.parametrize("field", ["cron", "cronspec"])
async def test_a_cron_expression_goes_by_the_clock_of_its_zone(field: str) -> None:
    async with deployed() as d:
        await do(d, register(schedule={"kind": "cron", field: "0 9 * * 3", "tz": "Europe/Berlin"}))
        await d.advance(8 * 86_400)
        assert await d.noted() == [f"x {(24 + 8) * 3600}"]  # Wednesday, 9:00 in winter
        assert (await d.crons())["r"]["schedule"] == {"kind": "cron", "cron": "0 9 * * 3", "tz": "Europe/Berlin"}


async def test_a_row_has_all_of_it() -> None:
    async with deployed() as d:
        id = await do(d, register(args={"text": "hello"}))
        row = (await d.crons())["r"]
        shown = ("_id", "name", "function", "args", "schedule", "source", "paused", "nextRunTime")
        assert {field: row[field] for field in shown} == {
            "_id": id,
            "name": "r",
            "function": "app:note",
            "args": {"text": "hello"},
            "schedule": MINUTE,
            "source": "runtime",
            "paused": False,
            "nextRunTime": NOW + 60_000,
        }


@pytest.mark.parametrize("name", [None, ""])
async def test_one_without_a_name_gets_one_that_no_other_has(name: str | None) -> None:
    async with deployed() as d:
        ids = [await do(d, register(name)) for _ in range(3)]
        found = await d.crons()
        assert [row["_id"] for row in found.values()] == ids
        assert len(found) == 3
        assert all(given.startswith("cron ") for given in found)
        await d.advance(60)
        assert await d.noted() == ["x 60"] * 3


async def test_options_are_those_of_a_declared_one() -> None:
    async with deployed() as d:
        await do(
            d,
            lambda ctx: crons.register(
                ctx, MINUTE, "app:note", name="r", missed="all", overlap="queue", jitter=10, paused=True
            ),
        )
        row = (await d.crons())["r"]
        assert [row[field] for field in ("missed", "overlap", "jitter", "paused")] == ["all", "queue", 10, True]
        await d.advance(100)
        assert await d.noted() == []
        await do(d, lambda ctx: crons.resume(ctx, "r"))
        await d.advance(61)
        assert len(await d.noted()) == 1


@pytest.mark.both_engines
async def test_a_name_in_use_is_refused_and_can_be_had_when_it_is_free() -> None:
    async with deployed(interval(60, name="declared")) as d:
        await do(d, register())
        for name in ("r", "declared"):
            with pytest.raises(InvalidScheduleError, match=f"got the cron '{name}', expected another name"):
                await do(d, register(name))

        async def twice(ctx: MutationCtx) -> None:
            await register("new")(ctx)
            with pytest.raises(InvalidScheduleError, match="there is one already"):
                await register("new")(ctx)
            await crons.delete(ctx, "new")
            await crons.delete(ctx, "r")
            await register("r", args={"text": "second"})(ctx)

        await do(d, twice)
        assert sorted(await d.crons()) == ["declared", "r"]
        await d.advance(60)
        assert sorted(await d.noted()) == ["second 60", "x 0", "x 60"]


@pytest.mark.both_engines
async def test_of_two_that_register_a_name_at_once_one_gets_it() -> None:
    async with deployed() as d:
        steps.append(register())
        ended = await asyncio.gather(*(d.t.app.run("app:does") for _ in range(8)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["InvalidScheduleError"] * 7 + ["str"]
        assert list(await d.crons()) == ["r"]


async def test_a_function_that_registers_a_cron_if_there_is_none_may_run_often() -> None:
    async def ensure(ctx: MutationCtx) -> None:
        if await crons.get(ctx, "daily") is None:
            await crons.register(ctx, MINUTE, "app:note", name="daily")

    async with deployed() as d:
        for _ in range(3):
            await do(d, ensure)
            await d.advance(25)
        assert await d.logs() == ["daily success 60"]


# Looking.


@pytest.mark.both_engines
async def test_get_finds_by_id_and_by_name_what_the_table_has() -> None:
    async with deployed(interval(60, name="declared")) as d:
        id = await do(d, register())
        for function in ("app:does", "app:acts", "app:reads"):
            row = (await d.crons())["r"]
            assert await do(d, lambda ctx: crons.get(ctx, id), function) == row
            assert await do(d, lambda ctx: crons.get(ctx, "r"), function) == row
            assert (await do(d, lambda ctx: crons.get(ctx, "declared"), function))["source"] == "code"


async def test_get_of_what_is_none_is_none() -> None:
    async with deployed() as d:
        id = await do(d, register())
        other = await d.t.transaction(lambda ctx: ctx.scheduler.run_after(0, note))
        await do(d, lambda ctx: crons.delete(ctx, id))
        for wrong in (id, "r", other, "", "x" * 1_000, cast("str", None), cast("str", 5)):
            assert await do(d, lambda ctx, wrong=wrong: crons.get(ctx, wrong)) is None


async def test_list_has_all_in_the_order_of_their_creation() -> None:
    async with deployed(interval(60, name="declared")) as d:
        for name in ("z", "a", "m"):
            await do(d, register(name))
        expected = list((await d.crons()).values())
        assert [row["name"] for row in expected] == ["declared", "z", "a", "m"]
        for function in ("app:does", "app:acts", "app:reads"):
            assert await do(d, crons.list, function) == expected


@pytest.mark.both_engines
async def test_list_is_live_in_subscriptions() -> None:
    async def names_of_those_that_go_on(ctx: QueryCtx) -> list[str]:
        return [row["name"] for row in await crons.list(ctx) if not row["paused"]]

    async with deployed(interval(3_600, name="declared")) as d, asyncio.timeout(20):
        steps.append(names_of_those_that_go_on)
        live = d.t.subscribe(reads)
        assert await anext(live) == ["declared"]
        await d.t.transaction(register())
        assert await anext(live) == ["declared", "r"]
        await d.t.transaction(lambda ctx: crons.pause(ctx, "declared"))
        assert await anext(live) == ["r"]
        await d.t.transaction(lambda ctx: crons.delete(ctx, "r"))
        assert await anext(live) == []


async def test_get_and_list_see_what_their_transaction_has_done() -> None:
    async def steps_of_one(ctx: MutationCtx) -> list[Any]:
        id = await crons.register(ctx, MINUTE, "app:note", name="r")
        seen: list[Any] = [[row["name"] for row in await crons.list(ctx)]]
        await crons.pause(ctx, id)
        seen.append((await crons.get(ctx, "r") or {})["paused"])
        await crons.delete(ctx, "r")
        return [*seen, await crons.get(ctx, id), await crons.list(ctx)]

    async with deployed() as d:
        assert await do(d, steps_of_one) == [["r"], True, None, []]
        await d.advance(100)
        assert await d.noted() == []


@pytest.mark.both_engines
async def test_what_comes_and_goes_in_one_batch_ends_no_other() -> None:
    async with deployed() as d:
        steps.append(register())
        coming = d.t.app.run("app:does")
        going = d.t.transaction(lambda ctx: crons.delete(ctx, "r"))
        others = [d.t.mutation("app:write", {"text": str(n)}) for n in range(3)]
        await asyncio.gather(coming, going, *others)
        assert await d.noted() == ["0 0", "1 0", "2 0"]
        await d.advance(100)
        assert (await d.crons(), await d.logs()) == ({}, [])


# Changing, by id and by name.

by = pytest.mark.parametrize("by", ["id", "name"])


async def registered(d: Deployed, by: str, **more: Any) -> str:
    id = await do(d, register("r", **more))
    return id if by == "id" else "r"


@by
async def test_pause_and_resume_count_from_now_and_make_nothing_up(by: str) -> None:
    async with deployed() as d:
        cron = await registered(d, by)
        await d.advance(90)
        await do(d, lambda ctx: crons.pause(ctx, cron))
        assert "nextRunTime" not in (await d.crons())["r"]
        await d.advance(1_000)
        assert await d.noted() == ["x 60"]
        await do(d, lambda ctx: crons.resume(ctx, cron))
        assert seconds((await d.crons())["r"]["nextRunTime"]) == 1_150
        await d.advance(120)
        assert await d.noted() == ["x 60", "x 1150", "x 1210"]
        assert await d.logs() == ["r success 60", "r success 1150", "r success 1210"]


async def test_a_calendar_that_is_resumed_runs_at_its_next_slot() -> None:
    async with deployed(calendar("0 * * * *")) as d:
        await do(d, lambda ctx: crons.pause(ctx, "c"))
        await d.advance(3 * 3600 + 1800)
        await do(d, lambda ctx: crons.resume(ctx, "c"))
        await d.advance(3600)
        assert await d.noted() == [f"x {4 * 3600}"]


async def test_pausing_and_resuming_twice_does_no_more_than_once() -> None:
    async with deployed() as d:
        await do(d, register())
        await d.advance(30)
        await do(d, lambda ctx: crons.resume(ctx, "r"))  # it is not paused: its clock goes on
        await d.advance(30)
        for _ in range(2):
            await do(d, lambda ctx: crons.pause(ctx, "r"))
        for _ in range(2):
            await do(d, lambda ctx: crons.resume(ctx, "r"))
            await d.advance(20)
        await d.advance(20)
        assert await d.noted() == ["x 60", "x 120"]


@pytest.mark.both_engines
@by
async def test_update_changes_the_schedule_from_now_on(by: str) -> None:
    async with deployed() as d:
        cron = await registered(d, by)
        await d.advance(50)
        await do(d, lambda ctx: crons.update(ctx, cron, schedule={"kind": "interval", "ms": 30_000}))
        await d.advance(60)
        assert await d.noted() == ["x 80", "x 110"]
        await do(d, lambda ctx: crons.update(ctx, cron, schedule={"kind": "cron", "cronspec": "*/5 * * * *"}))
        await d.advance(200)
        assert await d.noted() == ["x 80", "x 110", "x 300"]


@by
async def test_update_changes_the_arguments_and_keeps_the_clock(by: str) -> None:
    async with deployed() as d:
        cron = await registered(d, by)
        await d.advance(50)
        await do(d, lambda ctx: crons.update(ctx, cron, args={"text": "new"}))
        await d.advance(10)
        assert await d.noted() == ["new 60"]


async def test_update_to_what_it_is_keeps_the_clock() -> None:
    async with deployed() as d:
        await do(d, register())
        await d.advance(50)
        await do(d, lambda ctx: crons.update(ctx, "r", schedule=MINUTE, args={}))
        await do(d, lambda ctx: crons.update(ctx, "r"))
        await d.advance(10)
        assert await d.noted() == ["x 60"]


async def test_update_of_a_paused_one_counts_when_it_is_resumed() -> None:
    async with deployed() as d:
        await do(d, register())
        await do(d, lambda ctx: crons.pause(ctx, "r"))
        await do(d, lambda ctx: crons.update(ctx, "r", schedule={"kind": "interval", "ms": 10_000}))
        await d.advance(60)
        assert await d.noted() == []
        await do(d, lambda ctx: crons.resume(ctx, "r"))
        await d.advance(10)
        assert await d.noted() == ["x 70"]


@pytest.mark.both_engines
@by
async def test_delete_ends_it_and_its_log(by: str) -> None:
    async with deployed() as d:
        cron = await registered(d, by)
        await d.advance(60)
        await do(d, lambda ctx: crons.delete(ctx, cron))
        await d.advance(120)
        assert (await d.noted(), await d.crons(), await d.logs()) == (["x 60"], {}, [])


async def test_a_paused_one_can_be_deleted() -> None:
    async with deployed() as d:
        await do(d, register())
        await do(d, lambda ctx: crons.pause(ctx, "r"))
        await do(d, lambda ctx: crons.delete(ctx, "r"))
        assert await d.crons() == {}


async def test_an_id_goes_before_a_name_that_reads_the_same() -> None:
    async with deployed() as d:
        id = await do(d, register("r"))
        await do(d, register(id))
        await do(d, lambda ctx: crons.delete(ctx, id))
        assert list(await d.crons()) == [id]


# While a run goes on, waits to begin, or waits in the queue.


async def running(d: Deployed, **options: Any) -> Gate:
    """A cron `r` of an action, whose first run, of second 60, goes on at second 70."""
    await do(d, lambda ctx: crons.register(ctx, MINUTE, "app:act", name="r", **options))
    return await d.until_one_runs(70)


async def test_a_run_that_goes_on_when_it_is_paused_ends_as_ever_and_is_logged() -> None:
    async with deployed() as d:
        gate = await running(d)
        await do(d, lambda ctx: crons.pause(ctx, "r"))
        gate.open()
        await d.advance(200)
        assert (await d.noted(), await d.logs()) == (["x 70"], ["r success 60"])
        await do(d, lambda ctx: crons.resume(ctx, "r"))
        await d.advance(60)
        assert await d.noted() == ["x 70", "x 330"]


async def test_a_run_that_still_goes_on_when_it_is_resumed_is_the_only_one() -> None:
    async with deployed() as d:
        gate = await running(d)
        await do(d, lambda ctx: crons.pause(ctx, "r"))
        await do(d, lambda ctx: crons.resume(ctx, "r"))
        await d.elapse(65)
        assert await d.logs() == ["r skipped 130 count 1"]
        gate.open()
        await d.advance(60)
        assert await d.noted() == ["x 135", "x 190"]


async def test_an_update_leaves_a_run_that_goes_on_what_it_is() -> None:
    async with deployed() as d:
        gate = await running(d)
        await do(d, lambda ctx: crons.update(ctx, "r", {"kind": "interval", "ms": 100_000}, {"text": "new"}))
        gate.open()
        await d.advance(100)
        assert await d.noted() == ["x 70", "new 170"]
        assert await d.logs() == ["r success 60", "r success 170"]


async def test_a_run_that_goes_on_when_it_is_deleted_goes_on_and_leaves_no_trace() -> None:
    async with deployed() as d:
        gate = await running(d)
        await do(d, lambda ctx: crons.delete(ctx, "r"))
        gate.open()
        await d.advance(100)
        assert (await d.noted(), await d.logs(), await d.crons()) == (["x 70"], [], {})


@pytest.mark.both_engines
async def test_a_run_of_a_deleted_cron_does_not_count_for_the_next_one_of_that_name() -> None:
    async with deployed() as d:
        gate = await running(d)
        await do(d, lambda ctx: crons.delete(ctx, "r"))
        await do(d, lambda ctx: crons.register(ctx, MINUTE, "app:note", {"text": "second"}, name="r"))
        await d.elapse(65)
        assert await d.logs() == ["r success 130"]
        gate.open()
        await d.advance(60)
        assert await d.noted() == ["second 130", "x 135", "second 190"]
        assert await d.logs() == ["r success 130", "r success 190"]


async def test_a_run_that_waits_to_begin_does_not_when_it_is_deleted_and_does_when_it_is_paused() -> None:
    async with deployed() as d:
        for name in ("deleted", "paused"):
            await do(d, register(name, args={"text": name}))
        await d.leap(60)
        await d.t.app.executor.run_batch()  # which ticks
        assert [row["running"] for row in (await d.crons()).values()] == [1, 1]
        await do(d, lambda ctx: crons.delete(ctx, "deleted"))
        await do(d, lambda ctx: crons.pause(ctx, "paused"))
        await d.advance(100)
        assert (await d.noted(), await d.logs()) == (["paused 60"], ["paused success 60"])


@pytest.mark.parametrize("act", ["pause", "delete"])
async def test_what_waits_in_the_queue_is_dropped_when_it_is_paused_or_deleted(act: str) -> None:
    async with deployed() as d:
        gate = await running(d, overlap="queue")
        await d.elapse(120)
        assert [seconds(slot) for slot in (await d.crons())["r"]["queue"]] == [120, 180]
        await do(d, lambda ctx: getattr(crons, act)(ctx, "r"))
        gate.open()
        await d.advance(200)
        assert await d.noted() == ["x 190"]
        assert await d.logs() == (["r skipped 120 count 2", "r success 60"] if act == "pause" else [])


async def test_what_waits_in_the_queue_is_dropped_when_its_schedule_is_another() -> None:
    async with deployed() as d:
        gate = await running(d, overlap="queue")
        await d.elapse(120)
        await do(d, lambda ctx: crons.update(ctx, "r", MINUTE, {"text": "y"}))
        assert len((await d.crons())["r"]["queue"]) == 2
        await do(d, lambda ctx: crons.update(ctx, "r", {"kind": "cron", "cron": "0 0 1 1 *"}))
        gate.open()
        await d.advance(200)
        assert await d.noted() == ["x 190"]
        assert await d.logs() == ["r skipped 120 count 2", "r success 60"]


@pytest.mark.both_engines
async def test_a_cron_may_delete_itself() -> None:
    async def until_third(ctx: MutationCtx) -> None:
        if len(await ctx.db.query("notes").collect()) == 3:
            await crons.delete(ctx, "r")

    async with deployed() as d:
        await do(d, register(ref="app:does_later"))
        steps.append(until_third)
        await d.advance(600)
        assert await d.noted() == ["did 60", "did 120", "did 180"]
        assert (await d.crons(), await d.logs()) == ({}, [])


async def test_an_action_of_a_cron_may_delete_it() -> None:
    async with deployed() as d:
        await do(d, register(ref="app:acts"))
        steps.append(lambda ctx: crons.delete(ctx, "r"))
        await d.advance(600)
        assert (await d.crons(), await d.logs()) == ({}, [])


async def test_a_run_that_deletes_its_cron_and_fails_has_not_deleted_it() -> None:
    async with deployed() as d:
        await do(d, register(ref="app:does_and_fails"))
        steps.append(lambda ctx: crons.delete(ctx, "r"))
        await d.advance(120)
        assert await d.logs() == ["r failed 60", "r failed 120"]


@pytest.mark.parametrize("act", ["pause", "update"])
async def test_a_run_may_pause_or_change_its_own_cron(act: str) -> None:
    async with deployed() as d:
        await do(d, register(ref="app:does_later"))
        steps.append(
            (lambda ctx: crons.pause(ctx, "r"))
            if act == "pause"
            else lambda ctx: crons.update(ctx, "r", {"kind": "interval", "ms": 150_000})
        )
        await d.advance(240)
        assert await d.logs() == (["r success 60"] if act == "pause" else ["r success 60", "r success 210"])
        assert (await d.crons())["r"]["running"] == 0


@pytest.mark.both_engines
@pytest.mark.parametrize("act", ["pause", "delete", "update"])
async def test_a_cron_may_end_another_in_the_batch_in_which_that_one_ticks(act: str) -> None:
    async with deployed() as d:
        await do(d, register("a", ref="app:does_later"))
        await d.advance(5)
        await do(d, register("b", args={"text": "b"}))
        steps.append(
            (lambda ctx: crons.update(ctx, "b", {"kind": "interval", "ms": 600_000}))
            if act == "update"
            else lambda ctx: getattr(crons, act)(ctx, "b")
        )
        await d.advance(54)
        await d.leap(1)
        await d.t.app.executor.run_batch()  # a ticks
        await d.leap(5)
        await d.t.app.executor.run_batch()  # a runs, and b is due as well
        assert await d.noted() == ["did 65"]
        await d.elapse(30)
        assert await d.noted() == ["did 65"]
        assert await d.logs() == ["a success 60"]


# Transactions.

ACTS: dict[str, Steps] = {
    "register": lambda ctx: crons.register(ctx, MINUTE, "app:note", name="new"),
    "pause": lambda ctx: crons.pause(ctx, "running"),
    "resume": lambda ctx: crons.resume(ctx, "paused"),
    "update": lambda ctx: crons.update(ctx, "running", {"kind": "interval", "ms": 1_000}, {"text": "changed"}),
    "delete": lambda ctx: crons.delete(ctx, "running"),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("function", ["app:does_and_fails", "app:calls_one_that_fails"])
async def test_what_a_failed_mutation_or_a_failed_part_of_one_did_is_undone(act: str, function: str) -> None:
    async with deployed() as d:
        await do(d, register("running"))
        await do(d, register("paused"))
        await do(d, lambda ctx: crons.pause(ctx, "paused"))
        before = await d.crons()
        steps.append(ACTS[act])
        if function == "app:does_and_fails":
            with pytest.raises(ValueError, match="on purpose"):
                await d.t.app.run(function)
        else:
            await d.t.app.run(function)
        assert await d.crons() == before
        await d.advance(60)
        assert await d.logs() == ["running success 60"]


async def test_in_an_action_each_call_is_a_commit_that_stays_when_the_action_fails() -> None:
    async def acting(ctx: ActionCtx) -> None:
        id = await crons.register(ctx, MINUTE, "app:note", name="r")
        await crons.pause(ctx, id)
        assert (await d.crons())["r"]["paused"] is True
        await crons.resume(ctx, id)
        await crons.update(ctx, id, args={"text": "changed"})
        raise ValueError("on purpose")

    async with deployed() as d:
        with pytest.raises(ValueError, match="on purpose"):
            await do(d, acting, "app:acts")
        await d.advance(60)
        assert await d.noted() == ["changed 60"]
        await do(d, lambda ctx: crons.delete(ctx, "r"), "app:acts")
        assert await d.crons() == {}


@pytest.mark.both_engines
async def test_what_is_registered_survives_a_crash() -> None:
    async with deployed() as d:
        await do(d, register())
        await d.advance(30)
        await d.t.crash()
        await d.advance(30)
        assert await d.noted() == ["x 60"]


# Errors.


@pytest.mark.parametrize("function", ["app:does", "app:acts"])
@pytest.mark.parametrize("act", ["pause", "resume", "delete", "update"])
async def test_there_must_be_one_of_that_id_or_name(act: str, function: str) -> None:
    async with deployed() as d:
        gone = await do(d, register())
        await do(d, lambda ctx: crons.delete(ctx, gone))
        for wrong in (gone, "nobody", cast("str", None)):
            with pytest.raises(InvalidScheduleError, match="expected the id or the name of an existing cron"):
                await do(d, lambda ctx, wrong=wrong: getattr(crons, act)(ctx, wrong), function)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"schedule": {"kind": "interval", "ms": 999}}, InvalidScheduleError, "expected at least 1,000"),
    ({"schedule": {"kind": "interval", "ms": float("nan")}}, InvalidScheduleError, "expected milliseconds"),
    ({"schedule": {"kind": "interval"}}, InvalidScheduleError, "got the schedule {'kind': 'interval'}"),
    ({"schedule": {"kind": "cron", "cron": "x"}}, InvalidScheduleError, "with 1 field,"),
    ({"schedule": {"kind": "cron", "cron": "0 0 31 2 *"}}, InvalidScheduleError, "never matches"),
    ({"schedule": {"kind": "cron", "cron": "0 0 * * *", "tz": "?"}}, InvalidScheduleError, "time zone '?'"),
    ({"schedule": {"kind": "cron", "cron": "* * * * *", "cronspec": "* * * * *"}}, InvalidScheduleError, "expected"),
    ({"schedule": {"hours": 1}}, InvalidScheduleError, "expected {'kind': 'interval', 'ms': 60_000}"),
    ({"schedule": None}, InvalidScheduleError, "got the schedule None"),
    ({"ref": "app:gone"}, FunctionNotFoundError, "got the function 'app:gone'"),
    ({"ref": "app:reads"}, InvalidScheduleError, "app:reads is a query, expected a mutation or an action"),
    ({"args": ["x"]}, ArgumentValidationError, "expected the arguments as a dict"),
    ({"args": {"text": object()}}, ArgumentValidationError, "app:note"),
    ({"args": {"text": "x" * 20_000_000}}, Exception, "arguments"),
    ({"name": "line\nbreak"}, InvalidScheduleError, "printable ASCII"),
    ({"name": 5}, InvalidScheduleError, "printable ASCII"),
]


@pytest.mark.parametrize(("wrong", "error", "problem"), WRONG)
async def test_what_cannot_be_registered_is_an_error_of_the_caller(
    wrong: dict[str, Any], error: type[Exception], problem: str
) -> None:
    async with deployed() as d:
        with pytest.raises(error) as refused:
            await do(d, register(**{"name": "r", **wrong}))
        assert problem in str(refused.value)
        assert await d.crons() == {}


@pytest.mark.parametrize("wrong", [{"missed": "x"}, {"overlap": "x"}, {"jitter": -1}, {"paused": "x"}, {"tz": "UTC"}])
async def test_wrong_options_are_errors(wrong: dict[str, Any]) -> None:
    async with deployed() as d:
        with pytest.raises(InvalidScheduleError, match="expected"):
            await do(d, lambda ctx: crons.register(ctx, MINUTE, "app:note", **wrong))


UPDATES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"schedule": {"kind": "interval", "ms": 1}}, InvalidScheduleError, "expected at least 1,000"),
    ({"schedule": {}}, InvalidScheduleError, "got the schedule {}"),
    ({"args": ["x"]}, ArgumentValidationError, "got ['x'] (list), expected the arguments as a dict"),
    ({"args": {"text": object()}}, ArgumentValidationError, "app:note"),
    ({"args": {"text": "x" * 20_000_000}}, Exception, "arguments"),
]


@pytest.mark.parametrize(("wrong", "error", "problem"), UPDATES)
async def test_what_it_cannot_be_changed_to_is_an_error_and_changes_nothing(
    wrong: dict[str, Any], error: type[Exception], problem: str
) -> None:
    async with deployed() as d:
        await do(d, register())
        before = await d.crons()
        with pytest.raises(error) as refused:
            await do(d, lambda ctx: crons.update(ctx, "r", **wrong))
        assert problem in str(refused.value)
        assert await d.crons() == before


@pytest.mark.parametrize("act", ACTS)
async def test_a_query_changes_nothing_and_gets_an_error(act: str) -> None:
    async with deployed() as d:
        await do(d, register("running"))
        await do(d, register("paused"))
        await do(d, lambda ctx: crons.pause(ctx, "paused"))
        before = await d.crons()
        with pytest.raises(FunctionError, match="got QueryCtx as ctx, expected that of a mutation or of an"):
            await do(d, ACTS[act], "app:reads")
        assert await d.crons() == before


async def test_an_action_in_a_thread_is_advised_to_call_a_mutation() -> None:
    async with deployed() as d:
        with pytest.raises(FunctionError, match="got SyncActionCtx as ctx, expected that of a mutation"):
            await do(d, register(), "app:acts_in_a_thread")
        assert await d.crons() == {}


async def test_a_call_that_is_not_awaited_is_reported() -> None:
    async def forgets(ctx: MutationCtx) -> None:
        crons.register(ctx, MINUTE, "app:note")  # pyright: ignore[reportUnusedCoroutine]

    async with deployed() as d:
        with pytest.raises(FunctionError, match=r"\(register\) without `await`"):
            await do(d, forgets)
        assert await d.crons() == {}


async def test_the_context_may_be_given_by_name() -> None:
    async with deployed() as d:
        by_name: Any = crons.register
        await do(d, lambda ctx: by_name(ctx=ctx, schedule=MINUTE, ref="app:note", name="r"))
        assert list(await d.crons()) == ["r"]


# Names that are none, and limits.


@pytest.mark.parametrize("name", ["\ud800", "ä" * 1000, "", "x" * 257, 5, None, b"x", ["r"], object()])
async def test_what_no_cron_can_be_called_is_not_found_and_harms_no_other(name: Any) -> None:
    async with deployed() as d:
        await do(d, register())

        async def look_up(ctx: MutationCtx) -> None:
            assert await crons.get(ctx, name) is None
            for act in (crons.pause, crons.resume, crons.delete, crons.update):
                with pytest.raises(InvalidScheduleError, match="expected the id or the name of an existing cron"):
                    await act(ctx, name)
            await note.handler(ctx, "looked")

        steps.append(look_up)
        calls = ("app:does", {}), ("app:write", {"text": "neighbour"}), ("app:does", {})
        await asyncio.gather(*(d.t.mutation(*call) for call in calls))
        assert sorted(await d.noted()) == ["looked 0", "looked 0", "neighbour 0"]


@pytest.mark.parametrize("name", [0, False, [], "\ud800", "é", "x" * 257])
async def test_what_is_no_name_is_refused(name: Any) -> None:
    async with deployed() as d:
        with pytest.raises(InvalidScheduleError, match="expected 1 to 256 printable ASCII characters"):
            await do(d, register(name))


@pytest.mark.parametrize(("length", "most"), [(1, 10), (300, 3)])
async def test_a_mutation_registers_as_many_as_it_may_schedule(length: int, most: int) -> None:
    limits = Limits(scheduled_functions_max=10, scheduled_arguments_bytes_max=1_000)
    async with Harness({"app": SimpleNamespace(**handlers_in(globals()))}, limits=limits) as t:

        async def register_all(ctx: MutationCtx) -> None:
            for _ in range(most + len(await crons.list(ctx))):
                await crons.register(ctx, MINUTE, anything, {"value": "x" * length})

        steps.append(register_all)
        await t.mutation("app:does")
        limit = "scheduled_functions_max" if most == 10 else "scheduled_arguments_bytes_max"
        with pytest.raises(LimitError, match=limit):
            await t.mutation("app:does")
        assert len(await t.transaction(lambda ctx: crons.list(ctx))) == most


async def test_arguments_that_fit_a_scheduled_function_fit_a_cron() -> None:
    deep: Any = "x"
    for _ in range(63):
        deep = [deep]
    modules = {"app": SimpleNamespace(**handlers_in(globals()))}
    async with Harness(modules, limits=Limits(value_depth_max=64)) as t:
        steps.append(lambda ctx: ctx.scheduler.run_after(0, anything, {"value": deep}))
        await t.mutation("app:does")
        steps.append(lambda ctx: crons.register(ctx, MINUTE, anything, {"value": deep}, name="r"))
        await t.mutation("app:does")
        steps.append(lambda ctx: crons.update(ctx, "r", args={"value": deep}))
        await t.mutation("app:does")
        await t.advance(60_000)
        rows = await t.transaction(lambda ctx: ctx.db.system.query("_cron_job_logs").collect())
        assert [row["status"] for row in rows] == [{"kind": "success"}]


@internal_mutation
async def anything(ctx: MutationCtx, value: Any) -> None: ...


async def test_jitter_is_at_most_the_interval_also_when_that_changes() -> None:
    async with deployed() as d:
        for ms in (60_000, 60_001):
            made = do(d, lambda ctx, ms=ms: crons.register(ctx, MINUTE, "app:note", name="r", jitter=ms))
            if ms == 60_000:
                await made
                continue
            with pytest.raises(
                InvalidScheduleError, match="got jitter=60,001 of an interval of 60,000 ms, expected at"
            ):
                await made
        with pytest.raises(InvalidScheduleError, match="of an interval of 59,999 ms"):
            await do(d, lambda ctx: crons.update(ctx, "r", {"kind": "interval", "ms": 59_999}))


async def test_a_row_shows_what_is_for_others_to_see() -> None:
    async with deployed() as d:
        await do(d, register(args={"text": "y"}))
        shown = set((await d.crons())["r"])
        assert shown == {
            *("_id", "_creationTime", "name", "function", "args", "schedule", "source", "paused", "nextRunTime"),
            *("missed", "overlap", "jitter", "running", "queue"),
        }
        assert (await do(d, lambda ctx: crons.get(ctx, "r"))) == (await d.crons())["r"]
