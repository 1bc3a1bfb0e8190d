"""The application changed while a function waited: it runs as what it is by then, or fails and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    define_schema,
    define_table,
    faults,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
    v,
)
from duly.declare.registry import Registry
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"notes": define_table({"text": v.string()})})
gates: dict[str, asyncio.Event] = {}


@internal_mutation
async def as_mutation(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": f"mutation {text}"})


@internal_action
async def as_action(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation("app:note", {"text": f"action {text}"})


@internal_action
def as_thread(ctx: SyncActionCtx, text: str) -> None:
    ctx.run_mutation("app:note", {"text": f"thread {text}"})


@internal_query
async def as_query(ctx: QueryCtx, text: str) -> None: ...


@mutation
async def as_public(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": f"public {text}"})


@internal_mutation
async def with_other_arguments(ctx: MutationCtx, number: int) -> None: ...


@internal_action
async def action_with_other_arguments(ctx: ActionCtx, number: int) -> None: ...


@internal_mutation
async def with_more_arguments(ctx: MutationCtx, text: str, more: str = "by default") -> None:
    await ctx.db.insert("notes", {"text": f"{text} {more}"})


@internal_action
async def waits(ctx: ActionCtx, text: str) -> None:
    gates["begun"].set()
    await gates["go on"].wait()
    await ctx.run_mutation("app:note", {"text": f"action {text}"})
    await ctx.scheduler.run_after(0, "app:note", {"text": "its child"})


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


class Deployed:
    """An app whose functions are replaced while it runs."""

    def __init__(self, changing: object) -> None:
        self.app = SimpleNamespace(note=note, notes=notes, changing=changing)
        self.modules: dict[str, Any] = {"app": self.app, "schema": SCHEMA}
        self.t = Harness(self.modules)

    async def schedule(self, name: str = "app:changing", text: str = "x", delay: float = 1_000) -> str:
        return await self.t.transaction(lambda ctx: ctx.scheduler.run_after(delay, name, {"text": text}))

    async def deploy(self, changing: object) -> None:
        if changing is None:
            del self.app.changing
        else:
            self.app.changing = changing
        await self.t.app.reload()

    async def states(self) -> list[dict[str, Any]]:
        return [job["state"] for job in await self.t.jobs()]


@asynccontextmanager
async def deployed(changing: object) -> AsyncGenerator[Deployed, None]:
    gates.update({"begun": asyncio.Event(), "go on": asyncio.Event()})
    app = Deployed(changing)
    try:
        async with app.t:
            yield app
    finally:
        faults.disarm()


SUCCESS = {"kind": "success"}
GONE = (
    "FunctionNotFoundError: app:changing does not exist (any more), expected the mutation or action that was scheduled"
)
QUERY = "FunctionNotFoundError: app:changing is a query now, expected the mutation or action that was scheduled"
MISFIT = "ArgumentValidationError: app:changing: at .number: missing required field of type integer"

CHANGES: list[tuple[str, Any, Any, dict[str, Any], list[str]]] = [
    ("a mutation is gone", as_mutation, None, {"kind": "failed", "error": GONE}, []),
    ("an action is gone", as_action, None, {"kind": "failed", "error": GONE}, []),
    ("a mutation became a query", as_mutation, as_query, {"kind": "failed", "error": QUERY}, []),
    ("an action became a query", as_action, as_query, {"kind": "failed", "error": QUERY}, []),
    ("a mutation became an action", as_mutation, as_action, SUCCESS, ["action x"]),
    ("a mutation became an action in a thread", as_mutation, as_thread, SUCCESS, ["thread x"]),
    ("an action became a mutation", as_action, as_mutation, SUCCESS, ["mutation x"]),
    ("an action moved into a thread", as_action, as_thread, SUCCESS, ["thread x"]),
    ("a mutation became public", as_mutation, as_public, SUCCESS, ["public x"]),
    ("a mutation became internal", as_public, as_mutation, SUCCESS, ["mutation x"]),
    ("a mutation takes other arguments", as_mutation, with_other_arguments, {"kind": "failed", "error": MISFIT}, []),
    ("an action takes others", as_action, action_with_other_arguments, {"kind": "failed", "error": MISFIT}, []),
    (
        "it became an action of others",
        as_mutation,
        action_with_other_arguments,
        {"kind": "failed", "error": MISFIT},
        [],
    ),
    ("a mutation takes more", as_mutation, with_more_arguments, SUCCESS, ["x by default"]),
    ("nothing changed", as_mutation, as_mutation, SUCCESS, ["mutation x"]),
]


@pytest.mark.parametrize(("before", "after", "end", "left"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
async def test_a_function_that_changed_runs_as_what_it_is_or_fails_and_its_neighbours_run(
    before: Any, after: Any, end: dict[str, Any], left: list[str]
) -> None:
    async with deployed(before) as app:
        await app.schedule("app:note", "first")
        await app.schedule()
        await app.schedule("app:note", "last")
        await app.deploy(after)
        assert await app.states() == [{"kind": "pending"}] * 3
        await app.t.advance(timedelta(seconds=1))
        first, found, last = await app.states()
        message, _, _ = found.get("error", "").partition("; ")  # after which it may guess what was meant
        assert found | ({"error": message} if message else {}) == end
        assert [first, last] == [SUCCESS, SUCCESS]
        assert sorted(await app.t.query(notes)) == sorted(["first", "last", *left])


async def test_a_function_that_is_back_in_time_runs() -> None:
    async with deployed(as_mutation) as app:
        await app.schedule()
        await app.deploy(None)
        await app.deploy(as_mutation)
        await app.t.advance(timedelta(seconds=1))
        assert await app.states() == [SUCCESS]


async def test_a_function_whose_whole_module_is_gone_fails() -> None:
    async with deployed(as_mutation) as app:
        await app.schedule()
        app.modules["elsewhere"] = app.modules.pop("app")
        await app.t.app.reload()
        await app.t.advance(timedelta(seconds=1))
        moved = f"{GONE}; did you mean 'elsewhere:changing'?"
        assert await app.states() == [{"kind": "failed", "error": moved}]


async def test_a_function_that_is_gone_after_a_restart_fails_too() -> None:
    async with deployed(as_mutation) as app:
        await app.schedule()
        del app.app.changing
        await app.t.crash()
        await app.t.advance(timedelta(seconds=1))
        assert await app.states() == [{"kind": "failed", "error": GONE}]


async def test_an_action_that_runs_goes_on_when_its_function_is_gone() -> None:
    async with deployed(waits) as app:
        await app.schedule(delay=0)
        running = asyncio.create_task(app.t.run_until_idle())
        await gates["begun"].wait()
        await app.deploy(None)
        gates["go on"].set()
        await running
        assert await app.states() == [SUCCESS, SUCCESS]
        assert await app.t.query(notes) == ["action x", "its child"]


async def test_an_action_whose_function_is_gone_between_its_start_and_its_first_line_fails() -> None:
    async with deployed(as_action) as app:
        await app.schedule(delay=0)

        def take_it_away() -> None:
            faults.disarm()
            del app.app.changing
            app.t.app.runner.use(Registry.load(app.modules))

        faults.arm("action.marked", take_it_away)
        await app.t.run_until_idle()
        [state] = await app.states()
        assert state["kind"] == "failed"
        assert state["error"].startswith("FunctionNotFoundError: got the function 'app:changing'")


async def test_the_row_keeps_its_name_and_time_when_its_function_becomes_another_kind() -> None:
    async with deployed(as_mutation) as app:
        id = await app.schedule()
        [before] = await app.t.jobs()
        await app.deploy(as_action)
        await app.t.advance(timedelta(seconds=1))
        [after] = await app.t.jobs()
        assert after["_id"] == id
        assert {name: after[name] for name in before if name != "state"} == {
            name: before[name] for name in before if name != "state"
        }


async def test_a_function_that_changed_its_kind_can_be_canceled_like_another() -> None:
    async with deployed(as_mutation) as app:
        id = await app.schedule()
        await app.deploy(as_action)
        await app.t.transaction(lambda ctx: ctx.scheduler.cancel(id))
        await app.t.advance(timedelta(seconds=1))
        assert await app.states() == [{"kind": "canceled"}]
        assert await app.t.query(notes) == []
