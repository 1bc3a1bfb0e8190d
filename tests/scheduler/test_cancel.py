"""The cancel table, cell by cell: what becomes of a scheduled function, and what its canceler gets."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    AlreadyCompletedError,
    Id,
    InvalidIdError,
    InvalidScheduleError,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    define_schema,
    define_table,
    faults,
    internal_action,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.declare.function import MUTATION
from duly.limits import BATCH_SECONDS_MAX
from duly.testing import Harness
from tests.scheduler.held import Held
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.timed_batches]

began: list[str] = []
"""Actions whose first line has run."""
within: list[Callable[[], None]] = []
"""What the handler `runs` calls."""
gates: dict[str, asyncio.Event] = {}


class ChangedMind(Exception):
    pass


# What is canceled.


@internal_mutation
async def runs(ctx: MutationCtx) -> None:
    await ctx.db.insert("marks", {"by": "runs"})
    for act in within:
        act()


@internal_mutation
async def fails(ctx: MutationCtx) -> None:
    await ctx.db.insert("marks", {"by": "fails"})
    raise ValueError("no tea left")


@internal_action
async def acts(ctx: ActionCtx) -> None:
    began.append("acts")
    if "acts" in gates:
        await gates["acts"].wait()
    await ctx.scheduler.run_after(0, "app:marks_child")


@internal_action
async def acts_and_fails(ctx: ActionCtx) -> None:
    raise ValueError("no tea left")


@internal_mutation
async def marks_child(ctx: MutationCtx) -> None:
    await ctx.db.insert("marks", {"by": "child"})


# Who cancels.


@internal_mutation
async def cancels(ctx: MutationCtx, id: Any) -> None:
    await ctx.scheduler.cancel(id)


@internal_mutation
async def cancels_in_a_nested_one(ctx: MutationCtx, id: Any) -> None:
    await ctx.run_mutation(cancels, {"id": id})


@internal_mutation
async def cancels_and_fails(ctx: MutationCtx, id: Any) -> None:
    await ctx.scheduler.cancel(id)
    raise ChangedMind


@internal_mutation
async def catches_a_nested_one_that_fails(ctx: MutationCtx, id: Any) -> None:
    try:
        await ctx.run_mutation(cancels_and_fails, {"id": id})
    except ChangedMind:
        await ctx.db.insert("marks", {"by": "canceler"})


@internal_action
async def action_cancels(ctx: ActionCtx, id: Any) -> None:
    await ctx.scheduler.cancel(id)


@internal_action
def thread_cancels(ctx: SyncActionCtx, id: Any) -> None:
    ctx.scheduler.cancel(id)


@query
async def nothing(ctx: QueryCtx) -> None: ...


SCHEMA = define_schema({"marks": define_table({"by": v.string()}), "others": define_table({})})


def modules() -> dict[str, Any]:
    return {
        "app": SimpleNamespace(**handlers_in(globals())),
        "schema": SCHEMA,
    }


@pytest.fixture
def t() -> Iterator[Harness]:
    began.clear()
    within.clear()
    gates.clear()
    yield Harness(modules())
    faults.disarm()


async def schedule(t: Harness, name: str, delay: float = 0) -> str:
    return await t.transaction(lambda ctx: ctx.scheduler.run_after(delay, f"app:{name}"))


async def state(t: Harness, id: str) -> str:
    job = await t.transaction(lambda ctx: ctx.db.system.get(id))
    return "no row" if job is None else job["state"]["kind"]


async def marks(t: Harness) -> list[str]:
    return [mark["by"] for mark in await t.transaction(lambda ctx: ctx.db.query("marks").collect())]


# The states, each as a context: it is entered when the function is in that state, which lasts until it is left if
# the canceler can only be `queued` meanwhile. The value is the id, and what waits until the cancel is under way.

Queued = Callable[[], Awaitable[None]]
InState = tuple[str, Queued | None]


@asynccontextmanager
async def at_rest(t: Harness, name: str, delay: float = 0, canceled: bool = False) -> AsyncGenerator[InState, None]:
    id = await schedule(t, name, delay)
    if canceled:
        await t.mutation(cancels, {"id": id})
    await t.run_until_idle()
    yield id, None


@asynccontextmanager
async def at(t: Harness, name: str, point: str) -> AsyncGenerator[InState, None]:
    """The thread that commits passes a point with it."""
    id = await schedule(t, name)
    async with Held(t.app, point) as held:
        running = asyncio.create_task(t.run_until_idle())
        await held.arrived()
        yield id, lambda: held.queued(1)
    await running


@asynccontextmanager
async def in_its_handler(t: Harness) -> AsyncGenerator[InState, None]:
    id = await schedule(t, "runs")
    async with Held(t.app) as held:
        within.append(held.stand)
        running = asyncio.create_task(t.run_until_idle())
        await held.arrived()
        yield id, lambda: held.queued(1)
    await running


@asynccontextmanager
async def in_one_batch(t: Harness, name: str, cancel_first: bool) -> AsyncGenerator[InState, None]:
    """Due, and in the batch in which it is claimed the cancel comes before that, or after."""
    id, running = await schedule(t, name), list[asyncio.Task[None]]()
    async with Held(t.app) as held:

        async def fills_a_batch(ctx: MutationCtx) -> None:
            held.stand()
            time.sleep(2 * BATCH_SECONDS_MAX)  # noqa: ASYNC251  what waits then goes into the next one, together

        before = asyncio.create_task(t.transaction(fills_a_batch))
        await held.arrived()
        if not cancel_first:
            running.append(asyncio.create_task(t.run_until_idle()))
            await held.queued(1)

        async def queued() -> None:
            await held.queued(1 if cancel_first else 2)
            if cancel_first:
                running.append(asyncio.create_task(t.run_until_idle()))
                await held.queued(2)

        yield id, queued
    await asyncio.gather(before, *running)


@asynccontextmanager
async def running_action(t: Harness) -> AsyncGenerator[InState, None]:
    gates["acts"] = asyncio.Event()
    id = await schedule(t, "acts")
    running = asyncio.create_task(t.run_until_idle())
    while not began:
        await asyncio.sleep(0.0005)
    yield id, None
    gates["acts"].set()
    await running


@asynccontextmanager
async def only_an_id(t: Harness, kind: str) -> AsyncGenerator[InState, None]:
    if kind == "expired":
        id = await schedule(t, "fails")
        await t.advance(timedelta(days=7))
        yield id, None
    elif kind == "another table":
        yield await t.transaction(lambda ctx: ctx.db.insert("others", {})), None
    else:
        yield "abc", None


STATES: dict[str, Callable[[Harness], Any]] = {
    "pending mutation": lambda t: at_rest(t, "runs", 1_000),
    "pending action": lambda t: at_rest(t, "acts", 1_000),
    "due mutation, cancel first": lambda t: in_one_batch(t, "runs", cancel_first=True),
    "due mutation, cancel second": lambda t: in_one_batch(t, "runs", cancel_first=False),
    "due action, cancel first": lambda t: in_one_batch(t, "acts", cancel_first=True),
    "due action, cancel second": lambda t: in_one_batch(t, "acts", cancel_first=False),
    "mutation being claimed": lambda t: at(t, "runs", "job.claimed"),
    "mutation in its handler": in_its_handler,
    "mutation that has run": lambda t: at(t, "runs", "job.ran"),
    "mutation whose batch has run": lambda t: at(t, "runs", "batch.ran"),
    "mutation being committed": lambda t: at(t, "runs", "commit.flushed"),
    "mutation just committed": lambda t: at(t, "runs", "commit.durable"),
    "failing mutation being claimed": lambda t: at(t, "fails", "job.claimed"),
    "failing mutation being committed": lambda t: at(t, "fails", "commit.flushed"),
    "action being claimed": lambda t: at(t, "acts", "job.claimed"),
    "action whose start is committed": lambda t: at(t, "acts", "commit.flushed"),
    "running action": running_action,
    "successful mutation": lambda t: at_rest(t, "runs"),
    "successful action": lambda t: at_rest(t, "acts"),
    "failed mutation": lambda t: at_rest(t, "fails"),
    "failed action": lambda t: at_rest(t, "acts_and_fails"),
    "canceled mutation": lambda t: at_rest(t, "runs", canceled=True),
    "canceled action": lambda t: at_rest(t, "acts", canceled=True),
    "expired row": lambda t: only_an_id(t, "expired"),
    "id of another table": lambda t: only_an_id(t, "another table"),
    "not an id": lambda t: only_an_id(t, "none"),
}
NEVER_RAN = ("pending", "due", "canceled")
"""Where an action that is canceled was not begun."""
MAY_HAVE_RUN = ("due action, cancel second", "action being claimed", "action whose start is committed")
"""Where it was only if its first line came before the answer to the cancel."""

CANCELERS = {
    "mutation": "cancels",
    "nested": "cancels_in_a_nested_one",
    "fails": "cancels_and_fails",
    "caught": "catches_a_nested_one_that_fails",
    "action": "action_cancels",
    "thread": "thread_cancels",
}
"""A client's mutation; one nested in it; one that fails after it; one nested in it that fails after it and is caught;
an action; an action in a thread."""

# The state in which the function ends; with an exclamation mark where the canceler got an AlreadyCompletedError.
# The canceler that changes its mind changes nothing: the function ends as if nobody had canceled it.
TABLE = """
                                 | mutation | nested   | fails    | caught   | action   | thread
pending mutation                 | canceled | canceled | success  | success  | canceled | canceled
pending action                   | canceled | canceled | success  | success  | canceled | canceled
due mutation, cancel first       | canceled | canceled | success  | success  | canceled | canceled
due mutation, cancel second      | success! | success! | success! | success! | success! | success!
due action, cancel first         | canceled | canceled | success  | success  | canceled | canceled
due action, cancel second        | canceled | canceled | success  | success  | canceled | canceled
mutation being claimed           | success! | success! | success! | success! | success! | success!
mutation in its handler          | success! | success! | success! | success! | success! | success!
mutation that has run            | success! | success! | success! | success! | success! | success!
mutation whose batch has run     | success! | success! | success! | success! | success! | success!
mutation being committed         | success! | success! | success! | success! | success! | success!
mutation just committed          | success! | success! | success! | success! | success! | success!
failing mutation being claimed   | failed!  | failed!  | failed!  | failed!  | failed!  | failed!
failing mutation being committed | failed!  | failed!  | failed!  | failed!  | failed!  | failed!
action being claimed             | canceled | canceled | success  | success  | canceled | canceled
action whose start is committed  | canceled | canceled | success  | success  | canceled | canceled
running action                   | canceled | canceled | success  | success  | canceled | canceled
successful mutation              | success! | success! | success! | success! | success! | success!
successful action                | success! | success! | success! | success! | success! | success!
failed mutation                  | failed!  | failed!  | failed!  | failed!  | failed!  | failed!
failed action                    | failed!  | failed!  | failed!  | failed!  | failed!  | failed!
canceled mutation                | canceled | canceled | canceled | canceled | canceled | canceled
canceled action                  | canceled | canceled | canceled | canceled | canceled | canceled
expired row                      | no row!  | no row!  | no row!  | no row!  | no row!  | no row!
id of another table              | no id    | no id    | no id    | no id    | no id    | no id
not an id                        | no id    | no id    | no id    | no id    | no id    | no id
"""


def cells() -> Iterator[tuple[str, str, str]]:
    head, *rows = TABLE.strip("\n").splitlines()
    cancelers = [name.strip() for name in head.split("|")[1:]]
    for row in rows:
        state_name, *outcomes = (cell.strip() for cell in row.split("|"))
        for canceler, outcome in zip(cancelers, outcomes, strict=True):
            yield state_name, canceler, outcome


AS_COMMITTED = ("due", "being", "batch", "just committed", "start is")
"""Of states: where it matters how an engine commits."""


def cell(state_name: str, canceler: str, outcome: str) -> Any:
    differs = canceler in ("mutation", "fails", "action") and any(word in state_name for word in AS_COMMITTED)
    return pytest.param(state_name, canceler, outcome, marks=() if differs else pytest.mark.one_engine)


async def canceled_by(t: Harness, canceler: str, id: str) -> str:
    """What the canceler is answer, as the table has it."""
    try:
        await t.app.run(f"app:{CANCELERS[canceler]}", {"id": id})
    except ChangedMind:
        assert canceler == "fails"
    except AlreadyCompletedError:
        return "!"
    except InvalidIdError:
        return "no id"
    else:
        assert canceler != "fails"
    return ""


@pytest.mark.parametrize(("state_name", "canceler", "outcome"), [cell(*named) for named in cells()])
async def test_a_function_is_canceled_as_the_table_says(
    t: Harness, state_name: str, canceler: str, outcome: str
) -> None:
    async with t:
        async with STATES[state_name](t) as (id, queued):
            canceling = asyncio.create_task(canceled_by(t, canceler, id))
            if queued is not None:
                await queued()
            else:
                await canceling
        answer = await canceling
        await t.advance(timedelta(seconds=2))
        if answer == "no id":
            assert answer == outcome
            return
        end = await state(t, id)
        assert end + answer == outcome
        # What it did agrees with the state in which it ended.
        left = [mark for mark in await marks(t) if mark in ("runs", "fails")]
        assert left == (["runs"] if end == "success" and "mutation" in state_name else [])
        is_action = "action" in state_name and state_name != "failed action"
        if end == "canceled" and state_name in MAY_HAVE_RUN:
            return
        never = end == "canceled" and state_name.startswith(NEVER_RAN)
        assert began == (["acts"] if is_action and not never else [])


def test_the_table_has_every_state_and_every_canceler() -> None:
    named = list(cells())
    assert {state_name for state_name, _, _ in named} == set(STATES)
    assert {canceler for _, canceler, _ in named} == set(CANCELERS)
    assert len(named) == len(STATES) * len(CANCELERS)


# Where an action passes a fault point, the event loop stands still: only a mutation can be queued there.


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("point", "canceler", "outcome", "child"),
    [
        ("action.marked", "mutation", "canceled", "canceled"),
        ("action.marked", "nested", "canceled", "canceled"),
        ("action.marked", "fails", "success", "success"),
        ("action.marked", "caught", "success", "success"),
        ("action.ran", "mutation", "canceled", "success"),  # what it has scheduled before is its own
        ("action.ran", "nested", "canceled", "success"),
        ("action.ran", "fails", "success", "success"),
        ("action.ran", "caught", "success", "success"),
        ("action.recorded", "mutation", "success!", "success"),
        ("action.recorded", "nested", "success!", "success"),
        ("action.recorded", "fails", "success!", "success"),
        ("action.recorded", "caught", "success!", "success"),
    ],
)
async def test_an_action_is_canceled_between_two_of_its_steps(
    t: Harness, point: str, canceler: str, outcome: str, child: str
) -> None:
    async with t:
        id = await schedule(t, "acts")
        function = t.app.runner.registry.find(f"app:{CANCELERS[canceler]}", (MUTATION,))
        answers: list[asyncio.Future[Any]] = []

        def cancel() -> None:
            faults.disarm()
            answers.append(t.app.runner.mutation(function, {"id": id}))

        faults.arm(point, cancel)
        await t.run_until_idle()
        [answer] = await asyncio.gather(*answers, return_exceptions=True)
        assert isinstance(answer, AlreadyCompletedError) == outcome.endswith("!")
        [_, second] = await t.jobs()
        assert [await state(t, id), second["state"]["kind"]] == [outcome.removesuffix("!"), child]
        assert began == ["acts"]


# By itself, or on the way.


@internal_mutation
async def cancels_itself_and_goes_on(ctx: MutationCtx, nested: bool) -> None:
    assert ctx.scheduled_function_id is not None
    await ctx.db.insert("marks", {"by": "itself"})
    try:
        if nested:
            await ctx.run_mutation(cancels, {"id": ctx.scheduled_function_id})
        else:
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
    except InvalidScheduleError as error:
        await ctx.db.insert("marks", {"by": str(error)[:40]})


@pytest.mark.parametrize("nested", [False, True])
async def test_a_mutation_that_tries_to_cancel_itself_gets_an_error_and_may_go_on(t: Harness, nested: bool) -> None:
    async with t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, cancels_itself_and_goes_on, {"nested": nested}))
        await t.run_until_idle()
        assert await state(t, id) == "success"
        assert await marks(t) == ["itself", "got the id of the running mutation itsel"]


@internal_action
async def cancels_itself(ctx: ActionCtx, how: str, end: str) -> int:
    began.append("cancels_itself")
    id = ctx.scheduled_function_id
    assert id is not None
    before = await ctx.scheduler.run_after(0, marks_child)
    if how == "itself":
        await ctx.scheduler.cancel(id)
    elif how == "in a mutation":
        await ctx.run_mutation(cancels, {"id": id})
    elif how == "in a nested mutation":
        await ctx.run_mutation(cancels_in_a_nested_one, {"id": id})
    else:
        await ctx.run_action(f"app:{how}", {"id": id})
    await ctx.run_mutation(marks_child)  # what it calls still takes effect
    await ctx.scheduler.run_after(0, marks_child)
    assert before != id
    if end == "fails":
        raise ValueError("after all")
    return 5


@internal_action
def cancels_itself_in_a_thread(ctx: SyncActionCtx) -> None:
    assert ctx.scheduled_function_id is not None
    ctx.scheduler.cancel(ctx.scheduled_function_id)
    ctx.scheduler.run_after(0, marks_child)


@pytest.mark.one_engine
@pytest.mark.parametrize("end", ["returns", "fails"])
@pytest.mark.parametrize("how", ["itself", "in a mutation", "in a nested mutation", "action_cancels", "thread_cancels"])
async def test_an_action_that_cancels_itself_goes_on_and_stays_canceled(
    t: Harness, how: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, cancels_itself, {"how": how, "end": end}))
        await t.run_until_idle()
        [job, before, after] = await t.jobs()
        assert job["_id"] == id
        assert [job["state"], before["state"], after["state"]] == [
            {"kind": "canceled"},
            {"kind": "success"},
            {"kind": "canceled"},
        ]
        assert began == ["cancels_itself"]
        assert await marks(t) == ["child", "child"]
    gc.collect()  # a task that had failed would be answer of now
    assert [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name != "duly.run"
    ] == []


async def test_an_action_in_a_thread_that_cancels_itself_stays_canceled(t: Harness) -> None:
    async with t:
        await schedule(t, "cancels_itself_in_a_thread")
        await t.run_until_idle()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["canceled", "canceled"]
        assert await marks(t) == []


@internal_action
async def has_its_child_cancel_it(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, cancels, {"id": ctx.scheduled_function_id})
    await gates["child ran"].wait()


async def test_a_running_action_is_canceled_by_a_function_that_it_has_scheduled(t: Harness) -> None:
    async with t:
        gates["child ran"] = asyncio.Event()
        id = await schedule(t, "has_its_child_cancel_it")
        running = asyncio.create_task(t.run_until_idle())
        async with asyncio.timeout(20):
            while await state(t, id) != "canceled":
                await asyncio.sleep(0.001)
        gates["child ran"].set()
        await running
        assert [job["state"]["kind"] for job in await t.jobs()] == ["canceled", "success"]


async def test_a_function_canceled_by_the_mutation_that_schedules_it_was_never_pending(t: Harness) -> None:
    async with t:

        async def both(ctx: MutationCtx) -> Id:
            id = await ctx.scheduler.run_after(1_000, runs)
            await ctx.scheduler.cancel(id)
            await ctx.scheduler.cancel(id)
            return id

        id = await t.transaction(both)
        [job] = await t.jobs()
        assert job == {
            "_id": id,
            "_creationTime": job["_creationTime"],
            "name": "app:runs",
            "args": [{}],
            "scheduledTime": 1_893_456_001_000.0,
            "completedTime": 1_893_456_000_000.0,
            "state": {"kind": "canceled"},
        }
        await t.advance(timedelta(seconds=2))
        assert await marks(t) == []


async def test_a_parent_may_cancel_what_a_nested_mutation_has_scheduled() -> None:
    @internal_mutation
    async def nested(ctx: MutationCtx) -> Id:
        return await ctx.scheduler.run_after(0, runs)

    source = modules()
    source["app"].nested = nested
    async with Harness(source) as t:

        async def parent(ctx: MutationCtx) -> None:
            await ctx.scheduler.cancel(await ctx.run_mutation(nested))

        await t.transaction(parent)
        await t.run_until_idle()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["canceled"]


async def test_what_a_nested_mutation_that_failed_has_canceled_runs_and_what_it_scheduled_does_not_exist(
    t: Harness,
) -> None:
    async with t:
        leaked: list[Id] = []

        async def parent(ctx: MutationCtx) -> Id:
            id = await ctx.scheduler.run_after(0, runs)
            await ctx.run_mutation(catches_a_nested_one_that_fails, {"id": id})
            return id

        id = await t.transaction(parent)
        assert await state(t, id) == "pending"

        async def nested_schedules_and_fails(ctx: MutationCtx) -> None:
            leaked.append(await ctx.scheduler.run_after(0, runs))
            raise ChangedMind

        with pytest.raises(ChangedMind):
            await t.transaction(nested_schedules_and_fails)
        with pytest.raises(AlreadyCompletedError, match="the scheduled function has expired, expected one that is"):
            await t.mutation(cancels, {"id": leaked[0]})
        await t.run_until_idle()
        assert await state(t, id) == "success"
        assert await marks(t) == ["canceler", "runs"]


@pytest.mark.parametrize("delays", [(0, 1), (1, 0), (0, 0)])
async def test_of_two_functions_due_at_once_the_one_that_runs_first_may_cancel_the_other(
    t: Harness, delays: tuple[int, int]
) -> None:
    async with t:

        async def both(ctx: MutationCtx) -> None:
            first = await ctx.scheduler.run_after(delays[0], runs)
            await ctx.scheduler.run_after(delays[1], cancels, {"id": first})

        await t.transaction(both)
        t._clock.set(t._clock.now() + 5)  # pyright: ignore[reportPrivateUsage]
        await t.run_until_idle()
        [first, second] = await t.jobs()
        if delays == (1, 0):  # the canceler is due first
            assert [first["state"]["kind"], second["state"]["kind"]] == ["canceled", "success"]
        else:
            assert first["state"]["kind"] == "success"
            assert second["state"]["kind"] == "failed"
            assert second["state"]["error"].startswith("AlreadyCompletedError: the scheduled function has completed")


async def test_two_cancels_at_once_are_both_content(t: Harness) -> None:
    async with t:
        id = await schedule(t, "runs", 1_000)
        await asyncio.gather(
            t.mutation(cancels, {"id": id}), t.action(action_cancels, {"id": id}), t.action(thread_cancels, {"id": id})
        )
        assert await state(t, id) == "canceled"


@pytest.mark.one_engine
@pytest.mark.parametrize("id", [None, 5, True, ["x"], "", "0" * 32])
async def test_what_is_no_id_cannot_be_canceled(t: Harness, id: Any) -> None:
    async with t:
        with pytest.raises(InvalidIdError, match="expected an id of '_scheduled_functions'"):
            await t.transaction(lambda ctx: ctx.scheduler.cancel(id))
        with pytest.raises(InvalidIdError, match="expected an id of '_scheduled_functions'"):
            await t.action(action_cancels, {"id": id})


async def test_a_mutation_cancels_the_function_it_had_scheduled_before_and_schedules_another(t: Harness) -> None:
    async with t:
        id = await schedule(t, "runs", 1_000)

        async def postpone(ctx: MutationCtx) -> None:
            await ctx.scheduler.cancel(id)
            await ctx.scheduler.run_after(5_000, runs)

        await t.transaction(postpone)
        await t.advance(timedelta(seconds=4))
        assert await marks(t) == []
        await t.advance(timedelta(seconds=1))
        assert await marks(t) == ["runs"]
        assert [job["state"]["kind"] for job in await t.jobs()] == ["canceled", "success"]


# What a canceled action schedules is born canceled.


@internal_action
async def schedules_when_told(ctx: ActionCtx) -> None:
    began.append("schedules_when_told")
    await gates["go"].wait()
    await ctx.scheduler.run_after(7_000, marks_child)
    await ctx.scheduler.run_after(8_000, acts)
    await ctx.run_mutation("app:schedules_a_child")
    await ctx.run_action("app:has_a_child")


@internal_mutation
async def schedules_a_child(ctx: MutationCtx) -> None:
    id = await ctx.scheduler.run_after(9_000, marks_child)
    job = await ctx.db.system.get(id)
    assert job is not None
    await ctx.db.insert("marks", {"by": f"a child that is {job['state']['kind']}"})
    await ctx.scheduler.cancel(id)  # which is no error, whatever it is by now


@internal_action
async def has_a_child(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(10_000, marks_child)


async def run_until_it_waits(t: Harness, name: str) -> tuple[str, asyncio.Task[None]]:
    gates["go"] = asyncio.Event()
    id = await schedule(t, name)
    running = asyncio.create_task(t.run_until_idle())
    while not began:
        await asyncio.sleep(0.0005)
    return id, running


async def test_whatever_a_canceled_action_schedules_in_whatever_way_is_born_canceled(t: Harness) -> None:
    async with t:
        id, running = await run_until_it_waits(t, "schedules_when_told")
        await t.mutation(cancels, {"id": id})
        gates["go"].set()
        await running
        [_, *children] = await t.jobs()
        assert [
            (child["name"], child["scheduledTime"] - 1_893_456_000_000, child["state"], child["completedTime"])
            for child in children
        ] == [
            ("app:marks_child", 7_000, {"kind": "canceled"}, 1_893_456_000_000.0),
            ("app:acts", 8_000, {"kind": "canceled"}, 1_893_456_000_000.0),
            ("app:marks_child", 9_000, {"kind": "canceled"}, 1_893_456_000_000.0),
            ("app:marks_child", 10_000, {"kind": "canceled"}, 1_893_456_000_000.0),
        ]
        await t.advance(timedelta(minutes=1))
        assert await marks(t) == ["a child that is canceled"]
        assert began == ["schedules_when_told"]


async def test_what_an_action_schedules_after_a_cancel_that_was_undone_runs(t: Harness) -> None:
    async with t:
        id, running = await run_until_it_waits(t, "schedules_when_told")
        await t.mutation(catches_a_nested_one_that_fails, {"id": id})
        gates["go"].set()
        await running
        [job, *children] = await t.jobs()
        assert job["state"] == {"kind": "success"}
        assert [child["state"]["kind"] for child in children] == ["pending", "pending", "canceled", "pending"]


@internal_mutation
async def schedules_and_fails(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, marks_child)
    raise ValueError("no tea left")


@internal_action
async def schedules_then_fails(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, marks_child)
    raise ValueError("no tea left")


async def test_what_an_action_has_scheduled_runs_though_it_fails_and_of_a_mutation_nothing_stays(t: Harness) -> None:
    async with t:
        await schedule(t, "schedules_and_fails")
        await schedule(t, "schedules_then_fails")
        await t.run_until_idle()
        assert [(job["name"], job["state"]["kind"]) for job in await t.jobs()] == [
            ("app:schedules_and_fails", "failed"),
            ("app:schedules_then_fails", "failed"),
            ("app:marks_child", "success"),
        ]


# What is gone.


@action
async def action_tries(ctx: ActionCtx, id: str) -> bool:
    return await ctx.scheduler.cancel(id, missing_ok=True)


@action
def thread_tries(ctx: SyncActionCtx, id: str) -> bool:
    return ctx.scheduler.cancel(id, missing_ok=True)


@mutation
async def mutation_tries(ctx: MutationCtx, id: str) -> bool:
    return await ctx.scheduler.cancel(id, missing_ok=True)


@pytest.mark.parametrize("tries", [mutation_tries, action_tries, thread_tries])
async def test_with_missing_ok_a_cancel_says_whether_it_canceled_and_never_raises_for_what_is_gone(tries: Any) -> None:
    async with Harness({"app": SimpleNamespace(runs=runs, tries=tries, boom=boom)}) as t:

        async def ask(id: str) -> Any:
            return await t.app.run("app:tries", {"id": id})

        pending = await t.transaction(lambda ctx: ctx.scheduler.run_after(60_000, runs))
        assert [await ask(pending), await ask(pending)] == [True, False]
        done = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, runs))
        failed = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, boom))
        await t.run_until_idle()
        assert [await ask(done), await ask(failed)] == [False, False]
        await t.advance(timedelta(days=7))
        assert [job["_id"] for job in await t.jobs()] == []
        assert [await ask(one) for one in (pending, done, failed)] == [False, False, False]
        with pytest.raises(InvalidIdError):
            await ask("no id")


async def test_without_it_a_cancel_says_as_much_where_it_does_not_raise(t: Harness) -> None:
    async with t:

        async def twice(ctx: MutationCtx) -> list[bool]:
            id = await ctx.scheduler.run_after(60_000, runs)
            return [await ctx.scheduler.cancel(id), await ctx.scheduler.cancel(id)]

        assert await t.transaction(twice) == [True, False]


@internal_mutation
async def boom(ctx: MutationCtx) -> None:
    raise ChangedMind


@internal_mutation
async def cancels_itself_if_it_can(ctx: MutationCtx) -> None:
    assert ctx.scheduled_function_id is not None
    await ctx.scheduler.cancel(ctx.scheduled_function_id, missing_ok=True)


async def test_a_mutation_cannot_cancel_itself_with_missing_ok_either() -> None:
    async with Harness({"app": SimpleNamespace(itself=cancels_itself_if_it_can)}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, cancels_itself_if_it_can))
        await t.run_until_idle()
        [failed] = await t.failures()
        assert failed["state"]["error"].startswith("InvalidScheduleError: got the id of the running mutation itself")
