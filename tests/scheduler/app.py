"""The application of these tests: functions that note what they were given, and callers of each scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    DulyError,
    Id,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    define_schema,
    define_table,
    internal_action,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.testing import Harness
from tests.support import handlers_in

NOW = 1_893_456_000_000.0
"""2030-01-01, when a harness begins."""

noted: list[Any] = []
"""What actions were given."""


@internal_mutation
async def note(ctx: MutationCtx, value: Any = None) -> None:
    await ctx.db.insert("notes", {"value": value})


@mutation
async def public(ctx: MutationCtx) -> int:
    return 7


@internal_action
async def act(ctx: ActionCtx, value: Any = None) -> str:
    noted.append(value)
    return "a value that nobody gets"


@query
async def notes(ctx: QueryCtx) -> list[Any]:
    return [note["value"] for note in await ctx.db.query("notes").collect()]


@query
async def state(ctx: QueryCtx, id: Id) -> str | None:
    job = await ctx.db.system.get(id)
    return None if job is None else job["state"]["kind"]


@mutation
async def default(ctx: MutationCtx) -> None: ...


SCHEMA = define_schema(
    {
        "notes": define_table({"value": v.any()}),
        "tasks": define_table({"job": v.id("_scheduled_functions")}).index("by_job", ["job"]),
    }
)


# The three schedulers: of a mutation, of an action, of an action in a thread. The test says what to call.

Call = Callable[[Any], Any]
calls: list[Call] = []


@mutation
async def mutation_calls(ctx: MutationCtx) -> Any:
    return await calls[0](ctx.scheduler)


@action
async def action_calls(ctx: ActionCtx) -> Any:
    return await calls[0](ctx.scheduler)


@action
def thread_calls(ctx: SyncActionCtx) -> Any:
    return calls[0](ctx.scheduler)


CALLERS = ("mutation_calls", "action_calls", "thread_calls")


async def call(t: Harness, caller: str, act: Call) -> Any:
    calls[:] = [act]
    return await t.app.run(f"app:{caller}")


async def answer_of(t: Harness, caller: str, act: Call) -> str:
    with pytest.raises(DulyError) as caught:
        await call(t, caller, act)
    return f"{type(caught.value).__name__}: {caught.value}"


def modules(more: Mapping[str, object]) -> dict[str, Any]:
    """The functions here and those among `more`, as one application."""
    noted.clear()
    functions = handlers_in({**globals(), **more})
    return {"app": SimpleNamespace(**functions), "admin/users": SimpleNamespace(ban=note), "schema": SCHEMA}
