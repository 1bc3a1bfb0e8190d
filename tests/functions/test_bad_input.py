"""Bad input names what was got and what was expected, and changes nothing."""

from __future__ import annotations

import asyncio
import gc
import urllib.request
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    AlreadyCompletedError,
    ArgumentValidationError,
    DocumentNotFoundError,
    FunctionError,
    FunctionNotFoundError,
    Id,
    InvalidIdError,
    InvalidScheduleError,
    LimitError,
    MutationCtx,
    QueryCtx,
    QueryError,
    ReturnsValidationError,
    SchemaValidationError,
    action,
    define_schema,
    define_table,
    internal_action,
    mutation,
    query,
    v,
)
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@query
async def reads(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("notes").collect())


@mutation
async def note(ctx: MutationCtx, text: str, priority: int = 0) -> Id:
    return await ctx.db.insert("notes", {"text": text, "priority": priority})


@mutation(args={"id": v.id("notes")})
async def touch(ctx: MutationCtx, id: str) -> None:
    await ctx.db.patch(id, {"touched": True})


@mutation
async def other(ctx: MutationCtx) -> Id:
    return await ctx.db.insert("others", {})


@mutation
async def sleeps(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "before"})
    await asyncio.sleep(0.01)


@mutation
async def yields(ctx: MutationCtx) -> None:
    await asyncio.sleep(0)


@mutation
async def waits_for_a_thread(ctx: MutationCtx) -> None:
    await asyncio.to_thread(urllib.request.urlopen, "http://localhost:1")


@mutation
async def gathers(ctx: MutationCtx) -> None:
    await asyncio.gather(ctx.db.query("notes").collect(), ctx.db.query("notes").collect())


@mutation
async def swallows(ctx: MutationCtx) -> str:
    try:
        await asyncio.sleep(0)
    except FunctionError:
        return "swallowed"
    return "slept"


@mutation
async def exits(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "before"})
    raise SystemExit(3)


@mutation
async def returns_a_set(ctx: MutationCtx) -> Any:
    await ctx.db.insert("notes", {"text": "before"})
    return {1, 2}


@mutation
async def returns_the_wrong_type(ctx: MutationCtx) -> int:
    await ctx.db.insert("notes", {"text": "before"})
    return "five"  # pyright: ignore[reportReturnType]


@query
async def forgets_collect(ctx: QueryCtx) -> Any:
    return ctx.db.query("notes")


@internal_action
async def acts(ctx: ActionCtx) -> None: ...


APP = {
    "app": SimpleNamespace(**handlers_in(globals())),
    "schema": define_schema({"tagged": define_table({"tag": v.string()}).index("by_tag", ["tag"])}),
}


async def refused(
    t: Harness, error: type[Exception], message: str, ref: Any, args: dict[str, Any] | None = None
) -> None:
    with pytest.raises(error) as caught:
        await t.app.run(ref, args)
    assert message in str(caught.value)
    assert await t.query(reads) == 0
    assert await t.jobs() == []


@pytest.mark.parametrize(
    ("ref", "args", "error", "message"),
    [
        (
            "app:nowt",
            {},
            FunctionNotFoundError,
            "got the function 'app:nowt', which does not exist; did you mean 'app:note'?",
        ),
        ("nowhere:x", {}, FunctionNotFoundError, "got the function 'nowhere:x', expected one of this app: app:"),
        (5, {}, FunctionNotFoundError, 'got 5 (int), expected a function: "module:function"'),
        ("app:note", {}, ArgumentValidationError, "app:note: at .text: missing required field of type string"),
        ("app:note", {"text": 5}, ArgumentValidationError, "app:note: at .text: expected a string, got 5 (int)"),
        ("app:note", {"text": "x", "txt": 1}, ArgumentValidationError, "app:note: at .txt: not a declared field"),
        ("app:note", {"text": "x", "priority": True}, ArgumentValidationError, "app:note: at .priority: expected"),
        ("app:note", {"text": {1}}, ArgumentValidationError, "app:note: at .text: got {1} (set), expected a value"),
        (
            "app:note",
            {"text": "x", "priority": 2**63},
            ArgumentValidationError,
            "got an int of 65 bits, expected at most 64",
        ),
        ("app:note", ["x"], ArgumentValidationError, "app:note: got ['x'] (list), expected the arguments as a dict"),
        (
            "app:touch",
            {"id": "abc"},
            ArgumentValidationError,
            'app:touch: at .id: expected an id of table "notes", got "abc"',
        ),
        ("app:returns_a_set", {}, ReturnsValidationError, "app:returns_a_set: its return value: got {1, 2} (set)"),
        ("app:returns_the_wrong_type", {}, ReturnsValidationError, 'its return value: expected an integer, got "five"'),
        ("app:forgets_collect", {}, FunctionError, "it returned a query, expected its documents"),
        ("app:sleeps", {}, FunctionError, "expected only calls of `ctx`"),
        ("app:yields", {}, FunctionError, "awaited a pause, expected only calls of `ctx`"),
        ("app:waits_for_a_thread", {}, FunctionError, "expected only calls of `ctx`"),
        ("app:exits", {}, FunctionError, "got SystemExit from a function"),
    ],
)
async def test_a_call_that_cannot_be_is_refused(ref: Any, args: Any, error: type[Exception], message: str) -> None:
    async with Harness(APP) as t:
        await refused(t, error, message, ref, args)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_asyncio_gather_is_refused_with_what_to_use_instead() -> None:
    async with Harness(APP) as t:
        await refused(t, FunctionError, "use ctx.gather instead of asyncio.gather", "app:gathers")
    gc.collect()  # the calls it was given were never awaited: Python says so here


async def test_a_mutation_may_catch_what_it_was_told_and_goes_on() -> None:
    async with Harness(APP) as t:
        assert await t.mutation(swallows) == "swallowed"


async def test_a_value_nested_seventeen_levels_deep_is_refused() -> None:
    deep: Any = "x"
    for _ in range(17):
        deep = [deep]
    async with Harness(APP) as t:
        with pytest.raises(
            SchemaValidationError, match=r"notes.insert: at .*: got a value nested more than 16 levels deep"
        ):
            await t.transaction(lambda ctx: ctx.db.insert("notes", {"deep": deep}))
        assert await t.query(reads) == 0


async def test_a_call_of_the_wrong_kind_is_refused() -> None:
    async with Harness(APP) as t:
        with pytest.raises(FunctionNotFoundError, match="app:reads is a query, expected a mutation"):
            await t.mutation("app:reads")
        with pytest.raises(FunctionNotFoundError, match="app:note is a mutation, expected a query"):
            await t.query("app:note", {"text": "x"})
        with pytest.raises(FunctionNotFoundError, match="app:acts is an action, expected a mutation"):
            await t.mutation("app:acts")
        with pytest.raises(FunctionNotFoundError, match="app:note is a mutation, expected an action"):
            await t.action("app:note", {"text": "x"})


async def test_an_id_of_another_table_is_refused() -> None:
    async with Harness(APP) as t:
        other_id = await t.mutation(other)
        job_id = await t.transaction(lambda ctx: ctx.scheduler.run_after(1000, acts))
        with pytest.raises(
            ArgumentValidationError, match='at .id: expected an id of table "notes", got an id of table "others"'
        ):
            await t.mutation(touch, {"id": other_id})
        with pytest.raises(InvalidIdError, match="ctx.db got the id of a document of '_scheduled_functions'"):
            await t.transaction(lambda ctx: ctx.db.get(job_id))
        with pytest.raises(InvalidIdError, match="ctx.db.system got the id of a document of 'others'"):
            await t.transaction(lambda ctx: ctx.db.system.get(other_id))
        with pytest.raises(InvalidIdError, match=r"got 'abc' \(str\), expected the id of a document"):
            await t.transaction(lambda ctx: ctx.db.get("abc"))


async def test_an_id_of_another_table_that_is_to_be_canceled_or_retried_is_told_with_its_table() -> None:
    async def makes_a_table(ctx: MutationCtx) -> None:
        await ctx.scheduler.cancel(await ctx.db.insert("new", {}))

    @action
    async def cancels(ctx: ActionCtx, id: str) -> None:
        await ctx.scheduler.cancel(id)

    async with Harness({**APP, "more": SimpleNamespace(cancels=cancels)}) as t:
        other_id = await t.mutation(other)
        told = f"got the id {other_id} of a document of 'others', expected one of '_scheduled_functions'"
        with pytest.raises(InvalidIdError, match=told):
            await t.transaction(lambda ctx: ctx.scheduler.cancel(other_id))
        with pytest.raises(InvalidIdError, match=told):
            await t.action(cancels, {"id": other_id})
        with pytest.raises(InvalidIdError, match=told):
            await t.app.retry(other_id)
        with pytest.raises(InvalidIdError, match="of a document of another table, expected one of"):
            await t.transaction(makes_a_table)


@pytest.mark.both_engines
async def test_an_id_of_another_store_is_told_from_what_is_no_id() -> None:
    async with Harness(APP) as t:
        foreign = await t.mutation(other)
    told = f"'{foreign}' \\(str\\), which is no id of this store \\(of another one\\?\\), expected"
    async with Harness(APP) as t:
        with pytest.raises(
            ArgumentValidationError,
            match=f'expected an id of table "notes", got "{foreign}", which is no id of this store .of another one',
        ):
            await t.mutation(touch, {"id": foreign})
        with pytest.raises(InvalidIdError, match=f"{told} the id of a document"):
            await t.transaction(lambda ctx: ctx.db.get(foreign))
        with pytest.raises(InvalidIdError, match=f"{told} an id of '_scheduled_functions'"):
            await t.transaction(lambda ctx: ctx.scheduler.cancel(foreign))


NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("delay", "message"),
    [
        (-1, "got a delay of -1 ms, expected a finite one that is not negative"),
        (timedelta(seconds=-1), "got a delay of -1000.0 ms, expected a finite one that is not negative"),
        (float("nan"), "got a delay of nan ms"),
        (float("inf"), "got a delay of inf ms"),
        ("5", "got the delay '5' (str), expected milliseconds or a timedelta"),
        (True, "got the delay True (bool), expected milliseconds or a timedelta"),
        (timedelta(days=1831), "got a time 1,831.0 days in the future, expected at most 1,830 days, five years"),
    ],
)
async def test_a_delay_that_cannot_be_is_refused(delay: Any, message: str) -> None:
    async with Harness(APP, start=NOW) as t:
        with pytest.raises(InvalidScheduleError) as caught:
            await t.transaction(lambda ctx: ctx.scheduler.run_after(delay, note, {"text": "x"}))
        assert message in str(caught.value)
        assert await t.jobs() == []


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (NOW.replace(year=2036), "got a time 2,191.0 days in the future, expected at most 1,830 days, five years"),
        (NOW.replace(year=2024), "got a time 2,192.0 days in the past, expected at most 1,830 days, five years"),
        (datetime(2030, 1, 1), "got the naive datetime 2030-01-01T00:00:00, expected an aware one"),
        ("tomorrow", "got the time 'tomorrow' (str), expected milliseconds since 1970 or an aware datetime"),
        (float("nan"), "got the time nan (float)"),
    ],
)
async def test_a_time_that_cannot_be_is_refused(when: Any, message: str) -> None:
    async with Harness(APP, start=NOW) as t:
        with pytest.raises(InvalidScheduleError) as caught:
            await t.transaction(lambda ctx: ctx.scheduler.run_at(when, note, {"text": "x"}))
        assert message in str(caught.value)
        assert await t.jobs() == []


async def test_five_years_to_the_millisecond_are_accepted_either_way() -> None:
    async with Harness(APP, start=NOW) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(timedelta(days=1830), note, {"text": "x"}))
        await t.transaction(lambda ctx: ctx.scheduler.run_at(NOW - timedelta(days=1830), note, {"text": "x"}))
        await t.run_until_idle()
        assert await t.query(reads) == 1


async def test_a_query_an_unknown_function_and_no_values_cannot_be_scheduled() -> None:
    async with Harness(APP) as t:
        with pytest.raises(InvalidScheduleError, match="app:reads is a query, expected a mutation or an action"):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, reads))
        with pytest.raises(FunctionNotFoundError, match="got the function 'app:nope'"):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:nope"))
        with pytest.raises(ArgumentValidationError, match=r"app:note: at .text: got \{1\} \(set\)"):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"text": {1}}))
        assert await t.jobs() == []


async def test_arguments_that_do_not_fit_fail_when_the_function_runs() -> None:
    async with Harness(APP) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"text": 5}))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert job["state"] == {
            "kind": "failed",
            "error": "ArgumentValidationError: app:note: at .text: expected a string, got 5 (int)",
        }


async def test_a_function_that_is_gone_when_it_is_due_is_failed() -> None:
    async with Harness(APP) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"text": "x"}))
        del t.app.runner.registry.functions["app:note"]
        await t.run_until_idle()
        [job] = await t.jobs()
        assert "app:note does not exist (any more)" in job["state"]["error"]


@pytest.mark.both_engines
async def test_what_has_completed_cannot_be_canceled() -> None:
    async with Harness(APP) as t:
        id = await t.transaction(lambda ctx: ctx.scheduler.run_after(0, note, {"text": "x"}))
        await t.run_until_idle()
        with pytest.raises(AlreadyCompletedError, match=r"has completed \(success\), expected one that is pending"):
            await t.transaction(lambda ctx: ctx.scheduler.cancel(id))


@mutation
async def cancels_itself(ctx: MutationCtx) -> None:
    assert ctx.scheduled_function_id is not None
    await ctx.scheduler.cancel(ctx.scheduled_function_id)


@pytest.mark.both_engines
async def test_a_scheduled_mutation_cannot_cancel_itself() -> None:
    async with Harness({"app": SimpleNamespace(cancels_itself=cancels_itself)}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, cancels_itself))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert job["state"]["error"].startswith("InvalidScheduleError: got the id of the running mutation itself")


@pytest.mark.both_engines
async def test_a_mutation_schedules_a_thousand_functions_and_not_one_more() -> None:
    @mutation
    async def schedule(ctx: MutationCtx, count: int, size: int = 0) -> None:
        for _ in range(count):
            await ctx.scheduler.run_after(0, note, {"text": "x" * size})

    async with Harness({**APP, "other": SimpleNamespace(schedule=schedule)}) as t:
        with pytest.raises(LimitError, match=r"got 1,001 functions .* \(scheduled_functions_max\)"):
            await t.mutation("other:schedule", {"count": 1001})
        with pytest.raises(LimitError, match=r"bytes of arguments.* \(scheduled_arguments_bytes_max\)"):
            await t.mutation("other:schedule", {"count": 9, "size": 1 << 20})
        assert await t.jobs() == []
        await t.mutation("other:schedule", {"count": 1000})
        assert len(await t.jobs()) == 1000


@pytest.mark.parametrize(
    ("unit", "error", "message"),
    [
        (
            lambda ctx: ctx.db.insert("no-table", {}),
            SchemaValidationError,
            "table: got the name 'no-table', expected letters",
        ),
        (lambda ctx: ctx.db.insert("_x", {}), SchemaValidationError, "table: got the name '_x'"),
        (
            lambda ctx: ctx.db.insert("_scheduled_functions", {}),
            SchemaValidationError,
            "expected a table of the application",
        ),
        (
            lambda ctx: ctx.db.insert("notes", [1]),
            SchemaValidationError,
            "notes.insert: got [1] (list), expected a dict",
        ),
        (
            lambda ctx: ctx.db.insert("notes", {"_id": "x"}),
            SchemaValidationError,
            "got the field '_id', expected names",
        ),
        (lambda ctx: ctx.db.insert("notes", {"text": "x" * (1 << 20)}), LimitError, "(document_bytes_max)"),
        (
            lambda ctx: ctx.db.insert("tagged", {"tag": 1}),
            SchemaValidationError,
            "tagged.insert: at .tag: expected a string",
        ),
        (
            lambda ctx: ctx.db.insert("tagged", {}),
            SchemaValidationError,
            "tagged.insert: at .tag: missing required field",
        ),
        (
            lambda ctx: ctx.db.query("tagged").with_index("by_x").collect(),
            QueryError,
            "got the index 'by_x', expected one of",
        ),
        (lambda ctx: ctx.db.query("_scheduled_functions").collect(), QueryError, "read it with ctx.db.system.query"),
        (lambda ctx: ctx.db.query("notes").take(-1), QueryError, "take: got -1, expected a whole number"),
    ],
)
async def test_a_database_call_that_cannot_be_is_refused(unit: Any, error: type[Exception], message: str) -> None:
    async def transaction(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", {"text": "before"})
        await unit(ctx)

    async with Harness(APP) as t:
        with pytest.raises(error) as caught:
            await t.transaction(transaction)
        assert message in str(caught.value)
        assert await t.query(reads) == 0


async def test_an_index_range_out_of_order_is_refused() -> None:
    async with Harness(APP) as t:
        for build, message in (
            (lambda q: q.eq("other", 1), "tagged.by_tag: got a comparison of 'other', expected one of 'tag'"),
            (lambda q: q.gt("tag", 1).gte("tag", 2), "got two bounds on the same side of 'tag'"),
            (lambda q: q.eq("tag", 1).eq("tag", 2), "got a comparison of 'tag', expected one of '_creationTime'"),
        ):
            with pytest.raises(QueryError) as caught:
                await t.transaction(
                    lambda ctx, build=build: ctx.db.query("tagged").with_index("by_tag", build).collect()
                )
            assert message in str(caught.value)


async def test_a_write_to_a_document_that_is_gone_is_refused() -> None:
    async with Harness(APP) as t:
        id = await t.mutation(note, {"text": "x"})
        await t.transaction(lambda ctx: ctx.db.delete(id))
        for act in (
            lambda ctx: ctx.db.patch(id, {}),
            lambda ctx: ctx.db.replace(id, {}),
            lambda ctx: ctx.db.delete(id),
        ):
            with pytest.raises(DocumentNotFoundError, match="of 'notes', expected one of a document that exists"):
                await t.transaction(act)
