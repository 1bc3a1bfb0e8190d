"""Each limit has a name, an error that bears it, a setting, and a warning on the way there."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    LimitError,
    Limits,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@query
async def collect(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("notes").collect())


@query
async def get(ctx: QueryCtx, id: str, times: int) -> None:
    for _ in range(times):
        await ctx.db.get(id)


@mutation
async def insert(ctx: MutationCtx, times: int, text: str = "") -> str:
    id = ""
    for _ in range(times):
        id = await ctx.db.insert("notes", {"text": text})
    return id


@mutation
async def schedule(ctx: MutationCtx, times: int, text: str = "") -> None:
    for _ in range(times):
        await ctx.scheduler.run_after(1_000, "app:insert", {"times": 0, "text": text})


@mutation
async def try_inserts(ctx: MutationCtx, times: int) -> str:
    """Sub-mutations that are undone, then one that stays."""

    async def once() -> None:
        try:
            await ctx.run_mutation(fail_after, {"times": 3})
        except ValueError:
            return

    for _ in range(times):
        await once()
    return await ctx.run_mutation(insert, {"times": 3})


@mutation
async def fail_after(ctx: MutationCtx, times: int) -> None:
    await ctx.run_mutation(insert, {"times": times})
    await ctx.run_mutation(schedule, {"times": times})
    raise ValueError("undone")


@query
async def give(ctx: QueryCtx, length: int) -> str:
    return "x" * length


@query
async def take(ctx: QueryCtx, value: Any) -> Any:
    return value


APP = {
    "app": SimpleNamespace(
        collect=collect,
        get=get,
        insert=insert,
        schedule=schedule,
        try_inserts=try_inserts,
        fail_after=fail_after,
        give=give,
        take=take,
    )
}


@pytest.mark.parametrize(
    ("limits", "function", "args", "allowed"),
    [
        ({"reads_max": 3}, "get", {"times": 4}, {"times": 3}),
        ({"documents_read_max": 9}, "collect", {}, None),
        ({"bytes_read_max": 100}, "collect", {}, None),
        ({"documents_written_max": 3}, "insert", {"times": 4}, {"times": 3}),
        ({"bytes_written_max": 60}, "insert", {"times": 1, "text": "x" * 60}, {"times": 3}),
        ({"scheduled_functions_max": 3}, "schedule", {"times": 4}, {"times": 3}),
        ({"scheduled_arguments_bytes_max": 99}, "schedule", {"times": 1, "text": "x" * 99}, {"times": 2}),
        ({"document_bytes_max": 50}, "insert", {"times": 1, "text": "x" * 50}, {"times": 1, "text": "x" * 30}),
        ({"result_bytes_max": 50}, "give", {"length": 50}, {"length": 48}),
        ({"arguments_bytes_max": 50}, "take", {"value": "x" * 50}, {"value": "x" * 30}),
    ],
)
async def test_a_limit_is_named_by_its_error_and_what_is_within_it_passes(
    limits: dict[str, int], function: str, args: dict[str, Any], allowed: dict[str, Any] | None
) -> None:
    [name] = limits
    async with Harness(APP, limits=Limits(**limits)) as t:
        id = await t.transaction(lambda ctx: ctx.db.insert("notes", {"text": "x"}))

        async def more(ctx: MutationCtx) -> None:
            for _ in range(9):
                await ctx.db.insert("notes", {"text": "x"})

        await t.transaction(more)
        call = t.mutation if function in ("insert", "schedule") else t.query
        with pytest.raises(LimitError, match=rf"\({name}\)"):
            await call(f"app:{function}", args | ({"id": id} if function == "get" else {}))
        if allowed is not None:
            await call(f"app:{function}", allowed | ({"id": id} if function == "get" else {}))


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"value_depth_max": 2}, [[1]], [[[1]]]),
        ({"object_fields_max": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}),
        ({"array_length_max": 2}, [1, 2], [1, 2, 3]),
        ({"value_depth_max": 20}, [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], [[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]),
    ],
)
async def test_the_shape_of_values_has_limits(limits: dict[str, int], good: Any, bad: Any) -> None:
    [name] = limits
    async with Harness({}, limits=Limits(**{**limits, "object_fields_max": limits.get("object_fields_max", 9)})) as t:

        async def store(ctx: MutationCtx, value: Any) -> Any:
            # One level is the document's own.
            document = value if isinstance(value, dict) else {"a": value[0]}
            return await ctx.db.get(await ctx.db.insert("notes", document))

        await t.transaction(lambda ctx: store(ctx, good))
        with pytest.raises(Exception, match=rf"\({name}\)"):
            await t.transaction(lambda ctx: store(ctx, bad if isinstance(bad, dict) else [bad]))


@pytest.mark.both_engines
async def test_a_collect_beyond_the_limit_fails_the_mutation_and_nothing_else() -> None:
    async with Harness(APP, limits=Limits(documents_written_max=3)) as t:
        with pytest.raises(LimitError, match="got more than 3 documents written by one function, expected at most 3"):
            await t.mutation("app:insert", {"times": 4})
        assert await t.query("app:collect") == 0
        await t.mutation("app:insert", {"times": 2})
        assert await t.query("app:collect") == 2


@pytest.mark.both_engines
async def test_what_a_sub_mutation_took_back_does_not_count() -> None:
    async with Harness(APP, limits=Limits(documents_written_max=6, scheduled_functions_max=5)) as t:
        await t.mutation("app:try_inserts", {"times": 10})
        assert await t.query("app:collect") == 3
        assert await t.jobs() == []


async def test_close_to_a_limit_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, limits=Limits(documents_written_max=10, documents_read_max=100)) as t:
        with caplog.at_level(logging.WARNING, "duly.run"):
            await t.mutation("app:insert", {"times": 8})
            assert caplog.messages == []
            await t.mutation("app:insert", {"times": 9})
            assert caplog.messages == [
                "app:insert is close to a limit: 9 documents written, 90% of documents_written_max (10);"
                " write a part and schedule a function that goes on"
            ]
            await t.mutation("app:insert", {"times": 9})  # not again so soon
            await t.mutation("app:schedule", {"times": 1})
            await t.run_until_idle()
            assert len(caplog.messages) == 1


async def test_a_scheduled_function_warns_of_a_limit_that_is_close_too(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(APP, limits=Limits(documents_written_max=10)) as t:
        with caplog.at_level(logging.WARNING, "duly.run"):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(0, insert, {"times": 9}))
            await t.run_until_idle()
        assert caplog.messages == [
            "app:insert is close to a limit: 9 documents written, 90% of documents_written_max (10);"
            " write a part and schedule a function that goes on"
        ]


async def test_preparing_data_in_a_test_has_no_such_limits() -> None:
    async def prepare(ctx: MutationCtx) -> int:
        for _ in range(20):
            await ctx.db.insert("notes", {})
        return len(await ctx.db.query("notes").collect())

    async with Harness(APP, limits=Limits(documents_written_max=10, documents_read_max=10)) as t:
        assert await t.transaction(prepare) == 20


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_action_that_takes_too_long_is_stopped_and_failed(blocking: bool) -> None:
    release = threading.Event()

    @action
    async def wait(ctx: ActionCtx) -> None:
        await asyncio.Event().wait()

    @action
    def block(ctx: Any) -> None:
        release.wait(10)

    functions = SimpleNamespace(act=block if blocking else wait)
    async with Harness({"app": functions}, limits=Limits(action_seconds_max=0.05)) as t:
        with pytest.raises(LimitError, match=r"app:act: it ran longer than 0.05 s \(action_seconds_max\)"):
            await t.action("app:act")
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:act"))
        await t.run_until_idle()
        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"
        assert "action_seconds_max" in job["state"]["error"]
        release.set()


async def test_an_action_that_gets_no_thread_in_its_time_says_who_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.run.threads.BLOCKING_ACTIONS_MAX", 2)
    release, ran = threading.Event(), list[str]()

    @action
    def block(ctx: SyncActionCtx) -> None:
        release.wait(10)

    @action
    def run(ctx: SyncActionCtx) -> None:
        ran.append("run")

    functions = SimpleNamespace(block=block, run=run)
    async with Harness({"app": functions}, limits=Limits(action_seconds_max=0.3)) as t:
        given_up = await asyncio.gather(t.action("app:block"), t.action("app:block"), return_exceptions=True)
        assert all("its thread cannot be stopped and goes on" in str(error) for error in given_up)
        with pytest.raises(LimitError) as raised:
            await t.action("app:run")
        assert str(raised.value).startswith(
            "app:run: it did not begin, for it got none of the 2 threads of `def` actions (BLOCKING_ACTIONS_MAX) within"
            " 0.3 s (action_seconds_max): 2 of them are held by actions that ran out of time"
        )
        assert ran == []
        release.set()
        await t.action("app:run")  # it waits for one
        assert ran == ["run"]


async def test_an_actions_own_timeout_is_not_mistaken_for_the_limit() -> None:
    @action
    async def own(ctx: ActionCtx) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with Harness({"app": SimpleNamespace(own=own)}) as t:
        with pytest.raises(TimeoutError):
            await t.action("app:own")


async def test_lines_of_the_log_have_a_number_and_a_length(caplog: pytest.LogCaptureFixture) -> None:
    @query
    async def talk(ctx: QueryCtx) -> None:
        ctx.log.info("%s", "x" * 12)
        for n in range(5):
            ctx.log.info("line %d", n)

    async with Harness(
        {"app": SimpleNamespace(talk=talk)}, limits=Limits(log_lines_max=3, log_line_length_max=10)
    ) as t:
        with caplog.at_level(logging.INFO, "duly.app"):
            await t.query("app:talk")
            assert caplog.messages == [
                "xxxxxxxxxx… and 2 characters (log_line_length_max)",
                "line 0",
                "line 1",
                "more than 3 lines of this call are left out (log_lines_max)",
            ]
            caplog.clear()
            await t.query("app:talk")
            assert len(caplog.messages) == 4


async def test_a_line_of_the_log_that_cannot_be_formatted_says_so_and_fails_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unsayable:
        def __str__(self) -> str:
            raise ValueError("no words")

    @mutation
    async def talk(ctx: MutationCtx) -> str:
        ctx.log.info("%d", "x")
        ctx.log.info("%s", Unsayable())
        ctx.log.info(Unsayable())
        return "fine"

    async with Harness({"app": SimpleNamespace(talk=talk)}) as t:
        with caplog.at_level(logging.INFO, "duly.app"):
            assert await t.mutation("app:talk") == "fine"
    lines = [line for line in caplog.messages if "formatted" in line]
    assert [line.partition(" (")[0] for line in lines] == ["%d", "%s", "Unsayable"]
    assert "TypeError: %d format: a real number is required, not str" in lines[0]


@pytest.mark.parametrize("value", [0, -1, True, "many", None, float("nan")])
def test_a_limit_is_a_number_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="for documents_read_max, expected a number above 0"):
        Limits(documents_read_max=value)


def test_values_cannot_be_allowed_to_be_deeper_than_the_walk_over_them() -> None:
    with pytest.raises(ValueError, match=r"got 65 for value_depth_max, expected at most 64"):
        Limits(value_depth_max=65)


@pytest.mark.both_engines
async def test_what_an_index_sorts_by_has_a_size_on_every_engine() -> None:
    schema = define_schema({"notes": define_table({"text": v.string()}).index("by_text", ["text"])})
    async with Harness({"schema": schema}) as t:
        await t.transaction(
            lambda ctx: ctx.db.insert("notes", {"text": "".join(chr(33 + n % 90) for n in range(2_500))})
        )
        with pytest.raises(LimitError, match=r"'by_text' \(text\) take 3,0\d\d bytes, expected at most 2,600"):
            await t.transaction(lambda ctx: ctx.db.insert("notes", {"text": "x" * 3_000}))
        found = await t.transaction(lambda ctx: ctx.db.query("notes").with_index("by_text").collect())
        assert [len(note["text"]) for note in found] == [2_500]
