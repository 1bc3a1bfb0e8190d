"""The application under load: every function leaves a trace that says whether it ran.

Numbers name everything: each client call and each scheduled function has one of its own. A negative number is
written only by what then fails, so that none may ever be seen. What is to be scheduled comes as plans, which may
hold plans: chains of mutations and actions.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, ClassVar, Final, NotRequired, TypedDict

from duly import (
    ActionCtx,
    AlreadyCompletedError,
    AppError,
    Id,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    define_schema,
    define_table,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    v,
)

ON_PURPOSE: Final = "fails on purpose"

# Some tables are declared, others are made with their first document: processes die over both.
MARKER: Final = {
    "number": v.int64(),
    "children": v.array(v.int64()),
    "canceled": v.array(v.int64()),
    "late": v.array(v.int64()),
}
COUNTERS: Final = define_table({"name": v.string(), "markers": v.int64()}).index("by_name", ["name"])

schema = define_schema({"markers": define_table(MARKER).index("by_number", ["number"]), "counters": COUNTERS})
other_schema = define_schema(
    {
        "markers": define_table({**MARKER, "note": v.optional(v.string())}).index("by_number", ["number", "children"]),
        "counters": COUNTERS,
    }
)
"""What the schema is changed to and back: markers are checked, and another index takes the place of theirs."""


class Plan(TypedDict):
    """A function that is to be scheduled."""

    name: str
    args: dict[str, Any]
    """Its number is among them, and perhaps plans of its own."""
    delay: float
    rival: NotRequired[int]
    """The position of an earlier plan, whose function it is to cancel: right before that is due."""


class Target(TypedDict):
    """A scheduled function that is to be canceled."""

    id: str
    number: int


class Diary:
    """What one process did, a line for each deed. A line outlives the process from when it is written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, deed: str, number: int) -> None:
        # Not a buffered file: what is in a buffer dies with the process.
        os.write(self._file, f"{deed} {number}\n".encode())

    def close(self) -> None:
        os.close(self._file)


_diaries: list[Diary] = []


def keep_diary(path: Path) -> Diary:
    """Open the diary that the actions of this process write to."""
    _diaries[:] = [Diary(path)]
    Counters.ids.clear()
    return _diaries[0]


class Counters:
    """Which counter a marker is counted in: where several processes work, one that all want, or one's own."""

    own = "all"
    shared_by = 1
    """Every so many markers are counted in the counter of all."""
    ids: ClassVar[dict[str, Id[Any]]] = {}
    """Those that have been met."""

    @classmethod
    def of(cls, number: int) -> str:
        return "all" if number % cls.shared_by == 0 else cls.own

    @classmethod
    async def find(cls, ctx: MutationCtx, number: int) -> Any:
        """The counter for a marker, by its id or by its name: the one is read in another way than the other."""
        name = cls.of(number)
        if number % 2 and name in cls.ids and (counter := await ctx.db.get(cls.ids[name])):
            return counter  # there is none where the mutation that made it has failed
        counter = await ctx.db.query("counters").with_index("by_name", lambda q: q.eq("name", name)).unique()
        if counter is not None:
            cls.ids[name] = counter["_id"]
        return counter


# What clients call.


@mutation
async def place(
    ctx: MutationCtx, number: int, plans: list[dict[str, Any]], withdrawn: list[int], refuse: bool
) -> list[str]:
    """Leave an effect, schedule what the plans say, and cancel at once those at some positions."""
    ids: list[Id[Any]] = []
    numbers = [plan["args"]["number"] for plan in plans]
    for plan in plans:
        if "rival" in plan:
            plan["args"]["target"] = {"id": ids[plan["rival"]], "number": numbers[plan["rival"]]}
        ids.append(await ctx.scheduler.run_after(plan["delay"], f"load:{plan['name']}", plan["args"]))
    for position in withdrawn:
        await ctx.scheduler.cancel(ids[position])
    canceled = [numbers[position] for position in withdrawn]
    await ctx.db.insert("effects", {"number": number, "children": numbers, "canceled": canceled, "late": []})
    if refuse:
        raise AppError(ON_PURPOSE)
    return [str(id) for id in ids]


@mutation
async def cancel(ctx: MutationCtx, id: str, refuse: bool) -> None:
    """Cancel a scheduled function, perhaps in vain, because this fails afterwards."""
    await ctx.scheduler.cancel(id)
    if refuse:
        raise AppError(ON_PURPOSE)


@internal_query
async def first_of(ctx: QueryCtx, state: str) -> Target | None:
    """The function in a state that was scheduled for the earliest time: if pending, about to be claimed."""
    jobs = ctx.db.system.query("_scheduled_functions")
    job = await jobs.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", state)).first()
    # The second run of one that failed has the number of the first.
    return None if job is None or "retryOf" in job else {"id": job["_id"], "number": job["args"][0]["number"]}


@internal_query
async def newest_marker(ctx: QueryCtx) -> float:
    """When a scheduled function last left a marker."""
    newest = await ctx.db.query("markers").order("desc").first()
    return 0.0 if newest is None else newest["_creationTime"]


@internal_query
async def finished(ctx: QueryCtx) -> bool:
    """Whether nothing is pending and nothing in progress."""
    jobs = ctx.db.system.query("_scheduled_functions")
    for state in ("pending", "inProgress"):
        if await jobs.with_index("by_state_scheduled_time", lambda q, state=state: q.eq("state.kind", state)).first():
            return False
    return True


# What is scheduled.


@internal_mutation
async def mark(
    ctx: MutationCtx, number: int, children: list[dict[str, Any]], target: dict[str, Any] | None = None
) -> None:
    """Leave a marker, count it, schedule the children, and cancel the target."""
    counter = await Counters.find(ctx, number)
    if counter is None:
        await ctx.db.insert("counters", {"name": Counters.of(number), "markers": 1})
    else:
        await ctx.db.patch(counter["_id"], {"markers": counter["markers"] + 1})
    for plan in children:
        await ctx.scheduler.run_after(plan["delay"], f"load:{plan['name']}", plan["args"])
    outcome: dict[str, list[int]] = {"canceled": [], "late": []}
    if target is not None:
        try:
            await ctx.scheduler.cancel(target["id"])
        except AlreadyCompletedError:
            outcome["late"].append(target["number"])
        else:
            outcome["canceled"].append(target["number"])
    numbers = [plan["args"]["number"] for plan in children]
    await ctx.db.insert("markers", {"number": number, "children": numbers, **outcome})


@internal_mutation
async def fail(ctx: MutationCtx, number: int, target: dict[str, Any] | None = None) -> None:
    """Do what `mark` does, and fail: nothing of it may remain."""
    child = {"name": "mark", "args": {"number": -abs(number), "children": []}, "delay": 0}
    await mark(ctx, number=number, children=[child], target=target)
    raise AppError(ON_PURPOSE)


@internal_mutation
async def nest(
    ctx: MutationCtx, number: int, children: list[dict[str, Any]], target: dict[str, Any] | None = None
) -> None:
    """The same as `mark`, beside a sub-transaction that cancels the target and fails."""
    await ctx.run_mutation("load:mark", {"number": number, "children": children})
    try:
        await ctx.run_mutation("load:fail", {"number": -number, "target": target})
    except AppError:
        return
    raise AssertionError("a mutation that fails on purpose did not")


@internal_mutation
async def tick(ctx: MutationCtx, number: int, last: int, pause: float) -> None:
    """Leave a marker and schedule itself, with the next number, up to the last."""
    again = {"name": "tick", "args": {"number": number + 1, "last": last, "pause": pause}, "delay": pause}
    await mark(ctx, number=number, children=[again] if number < last else [])


@internal_action
async def act(
    ctx: ActionCtx,
    number: int,
    pause: float,
    children: list[dict[str, Any]],
    follow: dict[str, Any],
    target: dict[str, Any] | None = None,
    gives_up: bool = False,
) -> None:
    """Tell the diary, cancel the target or itself, mark, schedule, and tell the diary again."""
    diary = _diaries[0]
    diary.write("start", number)
    await asyncio.sleep(pause)
    if gives_up:
        target = {"id": ctx.scheduled_function_id, "number": number}
    if target is not None:
        diary.write("cancel", target["number"])
        try:
            await ctx.scheduler.cancel(target["id"])
        except AlreadyCompletedError:
            diary.write("late", target["number"])
        else:
            diary.write("canceled", target["number"])
    await ctx.run_mutation("load:mark", {"number": number, "children": children})
    await ctx.scheduler.run_after(follow["delay"], f"load:{follow['name']}", follow["args"])
    diary.write("end", number)


@internal_action
def act_in_thread(
    ctx: SyncActionCtx, number: int, pause: float, children: list[dict[str, Any]], follow: dict[str, Any]
) -> None:
    """The same in a thread, without a cancel."""
    _diaries[0].write("start", number)
    time.sleep(pause)
    ctx.run_mutation("load:mark", {"number": number, "children": children})
    ctx.scheduler.run_after(follow["delay"], f"load:{follow['name']}", follow["args"])
    _diaries[0].write("end", number)


@internal_action
async def act_and_fail(
    ctx: ActionCtx,
    number: int,
    pause: float,
    children: list[dict[str, Any]],
    follow: dict[str, Any],
    target: dict[str, Any] | None = None,
) -> None:
    """Do what `act` does, and fail: all of it remains."""
    await act(ctx, number=number, pause=pause, children=children, follow=follow, target=target)
    raise AppError(ON_PURPOSE)
