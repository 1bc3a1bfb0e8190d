"""Development mode: mutations that are not repeatable are reported, and clients learn the text of errors."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    UNSET,
    ActionCtx,
    AppError,
    MutationCtx,
    QueryCtx,
    action,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

numbers = count()


@mutation
async def repeatable(ctx: MutationCtx) -> None:
    id = await ctx.db.insert("notes", {"at": ctx.now, "chance": ctx.random.random()})
    await ctx.db.patch(id, {"twice": ctx.random.random()})
    await ctx.db.insert("log", {"of": id})
    await ctx.run_mutation(nested)
    await ctx.scheduler.run_after(ctx.random.randrange(10), "app:nested")


@mutation
async def nested(ctx: MutationCtx) -> None:
    ctx.log.info("a line")
    await ctx.db.insert("notes", {"nested": ctx.random.random()})


@mutation
async def counts(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"same": 1, "number": next(numbers)})


@mutation
async def sometimes(ctx: MutationCtx) -> None:
    if next(numbers) % 2:
        await ctx.db.insert("notes", {"n": 1})


@mutation
async def fails_sometimes(ctx: MutationCtx) -> None:
    if next(numbers) % 2:
        raise ValueError("odd")


@mutation
async def schedules(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(next(numbers), "app:nested")


@mutation
async def fails(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"lost": True})
    raise ValueError("always")


@query
async def all_notes(ctx: QueryCtx) -> list[Any]:
    return await ctx.db.query("notes").collect()


APP = {
    "app": SimpleNamespace(
        repeatable=repeatable,
        nested=nested,
        counts=counts,
        sometimes=sometimes,
        fails_sometimes=fails_sometimes,
        schedules=schedules,
        fails=fails,
        all_notes=all_notes,
    ),
    "schema": define_schema({"notes": define_table(v.any())}),  # to make a table, a batch is run again
}


@pytest.mark.both_engines
async def test_a_mutation_that_takes_time_and_chance_from_ctx_is_repeatable(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, development=True) as t:
        await t.mutation("app:repeatable")
        await t.mutation("app:repeatable")
        await t.advance(timedelta(seconds=1))
        assert caplog.messages == []
        assert len(await t.query("app:all_notes")) == 6  # what is rehearsed leaves nothing


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("counts", r"one wrote \{'number': \d+\} \(dict\) in 'notes', the other \{'number': \d+\} \(dict\)"),
        ("sometimes", r"one wrote (nothing|\{'n': 1\} \(dict\)) in 'notes', the other (nothing|\{'n': 1\} \(dict\))"),
        ("fails_sometimes", r"one ended with (success|ValueError: odd), the other with (success|ValueError: odd)"),
        (
            "schedules",
            r"one wrote \{'due': .*, 'scheduled_time': .*\} \(dict\) in '_scheduled_functions', the other \{",
        ),
    ],
)
async def test_a_mutation_that_is_not_repeatable_is_reported(
    name: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Harness(APP, development=True) as t:
        with suppress(ValueError):
            await t.mutation(f"app:{name}")
        [message] = caplog.messages
        assert re.match(rf"app:{name} is not repeatable: of two runs, {what}", message)
        assert message.endswith("use ctx.now and ctx.random, and no state of the module")


@pytest.mark.both_engines
async def test_a_scheduled_mutation_is_rehearsed_as_well(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, development=True) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:counts"))
        await t.run_until_idle()
        assert len(caplog.messages) == 1
        [job] = await t.jobs()
        assert job["state"] == {"kind": "success"}


async def test_in_production_a_mutation_runs_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP) as t:
        before = next(numbers)
        await t.mutation("app:counts")
        assert next(numbers) == before + 2
        assert caplog.messages == []


async def test_a_mutation_that_always_fails_is_repeatable(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, development=True) as t:
        with pytest.raises(ValueError, match="always"):
            await t.mutation("app:fails")
        assert caplog.messages == []


async def test_a_rehearsal_writes_no_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, development=True) as t:
        with caplog.at_level(logging.INFO, "duly.app"):
            await t.mutation("app:nested")
            assert [record.message for record in caplog.records if record.name == "duly.app.app:nested"] == ["a line"]


async def test_chance_is_the_same_in_each_run_of_a_test_and_another_in_each_call() -> None:
    @query
    async def throw(ctx: QueryCtx) -> list[float]:
        inner = await ctx.run_query(inner_throw)
        return [ctx.random.random(), inner, await ctx.run_query(inner_throw), ctx.random.random()]

    @query
    async def inner_throw(ctx: QueryCtx) -> float:
        return ctx.random.random()

    modules = {"app": SimpleNamespace(throw=throw, inner_throw=inner_throw)}
    seen: list[list[float]] = []
    for _ in range(2):
        async with Harness(modules) as t:
            seen.append(await t.query("app:throw") + await t.query("app:throw"))
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 8


# What clients learn of errors.


@query
async def plain_error(ctx: QueryCtx) -> None:
    raise ValueError("the password is swordfish")


@query
async def app_error(ctx: QueryCtx) -> None:
    raise AppError({"code": 7})


@query
async def nested_query(ctx: QueryCtx) -> None:
    await ctx.run_query(app_error)


@mutation
async def nested_mutation(ctx: MutationCtx) -> None:
    await ctx.run_query(nested_query)


@action
async def nested_action(ctx: ActionCtx) -> None:
    await ctx.run_mutation(nested_mutation)


@action
async def outer_action(ctx: ActionCtx) -> None:
    await ctx.run_action(nested_action)


ERRORS = {
    "app": SimpleNamespace(
        plain_error=plain_error,
        app_error=app_error,
        nested_query=nested_query,
        nested_mutation=nested_mutation,
        nested_action=nested_action,
        outer_action=outer_action,
    )
}


async def test_in_production_a_client_learns_only_that_there_was_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(ERRORS) as t:
        with pytest.raises(ValueError, match="swordfish") as caught:
            await t.query("app:plain_error")
        told = t.app.client_error(caught.value)
        assert told.message == f"[Request ID: {told.request_id}] Server Error"
        assert told.data is UNSET
        # … and the developer finds the rest in the log.
        [line] = caplog.messages
        assert told.request_id in line and "ValueError: the password is swordfish" in line


async def test_in_development_a_client_learns_the_text_and_the_applications_lines() -> None:
    async with Harness(ERRORS, development=True) as t:
        with pytest.raises(ValueError, match="swordfish") as caught:
            await t.query("app:plain_error")
        told = t.app.client_error(caught.value)
        assert told.message.startswith(f"[Request ID: {told.request_id}] ValueError: the password is swordfish\n")
        assert "\n  at plain_error (test_development.py:" in told.message
        assert told.data is UNSET


@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize("name", ["nested_query", "nested_mutation", "nested_action", "outer_action"])
async def test_an_app_error_keeps_its_data_through_nested_calls_on_its_way_to_the_client(
    name: str, development: bool
) -> None:
    async with Harness(ERRORS, development=development) as t:
        with pytest.raises(AppError) as caught:
            await t.app.run(f"app:{name}")
        told = t.app.client_error(caught.value)
        assert told.data == {"code": 7}
        assert told.message == "{'code': 7}"


async def test_data_that_is_no_value_does_not_reach_a_client() -> None:
    async with Harness({}) as t:
        told = t.app.client_error(AppError({"when": {1, 2}}))
        assert told.data is UNSET
        assert told.message == f"[Request ID: {told.request_id}] Server Error"


@action
async def blocks(ctx: ActionCtx) -> None:
    while not told:
        pass


told: list[str] = []
"""What the log has, at once: the event loop stands still."""


async def test_what_holds_up_the_event_loop_is_reported_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told.clear()
    monkeypatch.setattr(logging.getLogger("duly.loop"), "handle", lambda record: told.append(record.getMessage()))
    async with Harness({"app": SimpleNamespace(blocks=blocks)}, development=True) as t:
        await t.action("app:blocks")
        while len(told) < 2:
            await asyncio.sleep(0.01)
    [first, second] = told
    assert re.fullmatch(
        r"test_development.py:\d+ holds up the event loop: calls and other actions wait; await what it waits for, or"
        r" write the action as `def`, which runs in a thread",
        first,
    )
    assert re.fullmatch(r"test_development.py:\d+ has held up the event loop for [0-9.]+ s", second)
