"""The application under load: every function leaves a trace that says whether it ran.

Numbers name everything: each client call and each scheduled function has one of its own. A negative number is
written only by what then fails, so that none may ever be seen.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from duly import (
    ActionCtx,
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
MARKER: Final = {"number": v.int64(), "children": v.array(v.int64())}
COUNTERS: Final = define_table({"name": v.string(), "markers": v.int64()}).index("by_name", ["name"])

schema = define_schema({"markers": define_table(MARKER).index("by_number", ["number"]), "counters": COUNTERS})
other_schema = define_schema(
    {
        "markers": define_table({**MARKER, "note": v.optional(v.string())}).index("by_number", ["number", "children"]),
        "counters": COUNTERS,
    }
)
"""What the schema is changed to and back: markers are checked, and another index takes the place of theirs."""


class Diary:
    """What one process did, a line for each deed. A line outlives the process from when it is written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, deed: str, number: int) -> None:
        # Not a buffered file: what is in a buffer dies with the process.
        os.write(self._file, f"{deed} {number}\n".encode())


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
async def place(ctx: MutationCtx, number: int, plans: list[dict[str, Any]], refuse: bool) -> list[str]:
    """Leave an effect, and schedule what the plans say."""
    ids: list[str] = []
    for plan in plans:
        ids.append(await ctx.scheduler.run_after(plan["delay"], f"load:{plan['name']}", plan["args"]))
    await ctx.db.insert("effects", {"number": number, "scheduled": [plan["args"]["number"] for plan in plans]})
    if refuse:
        raise AppError(ON_PURPOSE)
    return ids


@mutation
async def cancel(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


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
async def mark(ctx: MutationCtx, number: int, children: list[int]) -> None:
    """Leave a marker, count it, and schedule a marker for each child."""
    await ctx.db.insert("markers", {"number": number, "children": children})
    counter = await Counters.find(ctx, number)
    if counter is None:
        await ctx.db.insert("counters", {"name": Counters.of(number), "markers": 1})
    else:
        await ctx.db.patch(counter["_id"], {"markers": counter["markers"] + 1})
    for child in children:
        await ctx.scheduler.run_after(0, "load:mark", {"number": child, "children": []})


@internal_mutation
async def fail(ctx: MutationCtx, number: int) -> None:
    """Do what `mark` does, and fail: nothing of it may remain."""
    await mark(ctx, number=number, children=[-abs(number)])
    raise AppError(ON_PURPOSE)


@internal_mutation
async def nest(ctx: MutationCtx, number: int, children: list[int]) -> None:
    """The same as `mark`, beside a sub-transaction that fails."""
    await ctx.run_mutation("load:mark", {"number": number, "children": children})
    try:
        await ctx.run_mutation("load:fail", {"number": -number})
    except AppError:
        return
    raise AssertionError("a mutation that fails on purpose did not")


@internal_action
async def act(ctx: ActionCtx, number: int, pause: float, children: list[int], follow: int) -> None:
    """Tell the diary, mark, schedule, and tell the diary again."""
    _diaries[0].write("start", number)
    await asyncio.sleep(pause)
    await ctx.run_mutation("load:mark", {"number": number, "children": children})
    await ctx.scheduler.run_after(0, "load:mark", {"number": follow, "children": []})
    _diaries[0].write("end", number)


@internal_action
def act_in_thread(ctx: SyncActionCtx, number: int, pause: float, children: list[int], follow: int) -> None:
    """The same in a thread."""
    _diaries[0].write("start", number)
    time.sleep(pause)
    ctx.run_mutation("load:mark", {"number": number, "children": children})
    ctx.scheduler.run_after(0, "load:mark", {"number": follow, "children": []})
    _diaries[0].write("end", number)


@internal_action
async def act_and_fail(ctx: ActionCtx, number: int, pause: float) -> None:
    """Tell the diary, and fail."""
    _diaries[0].write("start", number)
    await asyncio.sleep(pause)
    _diaries[0].write("end", number)
    raise AppError(ON_PURPOSE)
