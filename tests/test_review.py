"""Defects that a review found, one test each."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    AppError,
    FunctionNotFoundError,
    LimitError,
    MutationCtx,
    QueryCtx,
    QueryError,
    SchemaValidationError,
    StoreError,
    StoreLostError,
    action,
    cron_jobs,
    define_schema,
    define_table,
    internal,
    mutation,
    query,
    v,
)
from duly.app import App
from duly.clock import ManualClock
from duly.database.environment import ALL_IDS
from duly.limits import CATALOGS_MAX, Limits
from duly.logs import log_of
from duly.testing import Harness
from duly.workers.loop import run_worker

pytestmark = pytest.mark.usefixtures("engine")


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


async def fill(t: Harness, table: str, count: int, text: str) -> None:
    async def act(ctx: MutationCtx) -> None:
        for _ in range(count):
            await ctx.db.insert(table, {"text": text})

    await t.transaction(act)


# Live queries.


@query
async def one(ctx: QueryCtx) -> int:
    return 1


async def test_a_subscription_to_a_query_that_reads_nothing_ends_with_the_app() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        values = t.subscribe("app:one")
        assert await anext(values) == 1
        ended = asyncio.create_task(anext(values, "the end"))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(ended, 30) == "the end"


async def test_a_subscription_to_a_query_that_reads_nothing_hears_of_new_code() -> None:
    @query
    async def two(ctx: QueryCtx) -> int:
        return 2

    functions = SimpleNamespace(number=one)
    async with Harness({"app": functions}) as t:
        values = t.subscribe("app:number")
        assert await anext(values) == 1
        functions.number = two
        await t.app.reload()
        assert await asyncio.wait_for(anext(values), 30) == 2


async def test_a_subscription_waits_for_a_function_that_is_gone() -> None:
    functions = SimpleNamespace(number=one)
    async with Harness({"app": functions}) as t:
        values = t.subscribe("app:number")
        assert await anext(values) == 1
        del functions.number
        await t.app.reload()
        with pytest.raises(FunctionNotFoundError):
            await anext(values)
        again = asyncio.create_task(anext(values))
        assert await asyncio.wait((again,), timeout=0.05) == (set(), {again})
        functions.number = one
        await t.app.reload()
        assert await asyncio.wait_for(again, 30) == 1


async def test_a_subscription_tells_values_as_large_as_the_limits_of_the_app() -> None:
    @query
    async def many(ctx: QueryCtx) -> list[int]:
        return [0] * 9_000

    async with Harness({"app": SimpleNamespace(many=many)}, limits=Limits(array_length_max=9_000)) as t:
        assert len(await anext(t.subscribe("app:many"))) == 9_000


# Limits.


async def test_what_scheduling_reads_for_itself_does_not_count() -> None:
    @mutation
    async def fan_out(ctx: MutationCtx, padding: str) -> None:
        for _ in range(3):
            await ctx.scheduler.run_after(1_000_000, "app:fan_out", {"padding": ""})

    limits = Limits(reads_max=2, bytes_read_max=1_000)
    async with Harness({"app": SimpleNamespace(fan_out=fan_out)}, limits=limits) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:fan_out", {"padding": "x" * 900}))
        await t.run_until_idle()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success", "pending", "pending", "pending"]


async def test_the_end_of_an_action_is_recorded_whatever_the_limits() -> None:
    @action
    async def work(ctx: ActionCtx, padding: str) -> None: ...

    async with Harness({"app": SimpleNamespace(work=work)}, limits=Limits(bytes_read_max=1_000)) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:work", {"padding": "x" * 2_000}))
        await t.run_until_idle()
        assert [job["state"] for job in await t.jobs()] == [{"kind": "success"}]


async def test_an_iteration_counts_the_documents_it_hands_out_and_no_more() -> None:
    @query
    async def some(ctx: QueryCtx, count: int) -> int:
        met = 0
        async for _ in ctx.db.query("texts"):
            met += 1
            if met == count:
                break
        return met

    async with Harness({"app": SimpleNamespace(some=some)}, limits=Limits(documents_read_max=20)) as t:
        await fill(t, "texts", 40, "")
        assert await t.query("app:some", {"count": 20}) == 20
        with pytest.raises(LimitError, match="documents_read_max"):
            await t.query("app:some", {"count": 21})


@pytest.mark.parametrize(("text", "length"), [("x" * 1_000, 10), ("x" * 900_000, 1)])
async def test_a_page_ends_at_the_document_that_reaches_maximum_bytes_read(text: str, length: int) -> None:
    @query
    async def page(ctx: QueryCtx) -> list[Any]:
        found = await ctx.db.query("texts").paginate(num_items=40, maximum_bytes_read=10_000)
        return [len(found["page"]), found["isDone"]]

    async with Harness({"app": SimpleNamespace(page=page)}) as t:
        await fill(t, "texts", 40 if length > 1 else 18, text)
        if length == 1:
            await fill(t, "texts", 18, text)
        assert await t.query("app:page") == [length, False]


@pytest.mark.parametrize("value", [2.5, math.inf])
def test_a_limit_of_whole_things_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="for actions_running_max, expected a number above 0, a whole one"):
        Limits(actions_running_max=value)


@pytest.mark.parametrize("seconds", [math.inf, sys.maxsize])
async def test_a_handler_may_have_all_the_time_there_is(seconds: float) -> None:
    async with Harness({"app": SimpleNamespace(one=one)}, limits=Limits(handler_seconds_max=seconds)) as t:
        assert await t.query("app:one") == 1


async def test_a_cursor_holds_values_as_deep_as_the_limits_of_the_app() -> None:
    @query
    async def pages(ctx: QueryCtx) -> list[int]:
        documents = ctx.db.query("lists").with_index("by_list")
        first = await documents.paginate(num_items=1)
        second = await documents.paginate(num_items=1, cursor=first["continueCursor"])
        return [repr(document["list"]).count("[") for document in (*first["page"], *second["page"])]

    schema = define_schema({"lists": define_table(v.any()).index("by_list", ["list"])})
    modules = {"app": SimpleNamespace(pages=pages), "schema": schema}
    async with Harness(modules, limits=Limits(value_depth_max=31)) as t:
        nested: list[Any] = []
        for depth in range(1, 31):
            if depth > 28:
                await t.transaction(lambda ctx, nested=nested: ctx.db.insert("lists", {"list": nested}))
            nested = [nested]
        assert await t.query("app:pages") == [29, 30]


# New code.

SHOP = {
    "schema": """
from dataclasses import dataclass
from duly import define_schema, define_table

@dataclass
class Order:
    n: int

schema = define_schema({"orders": define_table(Order)})
""",
    "orders": """
import asyncio
from duly import action, mutation
from .schema import Order

@mutation
async def add(ctx, times: int = 0) -> None:
    await ctx.db.insert(Order, Order(1))
    await ctx.db.query(Order).first()
    for _ in range(times):
        await ctx.scheduler.run_after(0, add)

@action
async def buy(ctx) -> None:
    await ctx.run_mutation(started)
    await asyncio.sleep(0.1)
    await ctx.run_mutation(add)

@mutation
async def started(ctx) -> None: ...
""",
}


def change(folder: Path) -> None:
    """Change every module without changing what it does."""
    for file in folder.glob("*.py"):
        file.write_text(f"{file.read_text()}# changed\n")


async def test_what_is_due_during_a_reload_does_not_fail(tmp_path: Path, store: str) -> None:
    folder = write(tmp_path / "shop_during_reload", **SHOP)
    async with App(str(folder), store) as app:
        for _ in range(10):
            await app.mutation("orders:add", {"times": 100})
            change(folder)
            await app.reload()

        async def states(ctx: MutationCtx) -> set[str]:
            return {job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()}

        while "pending" in (found := await app.runner.transaction(states)):
            await asyncio.sleep(0)
        assert found == {"success"}


async def test_calls_that_began_before_a_reload_know_their_classes_and_functions(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop_before_reload", **SHOP)
    async with Harness(str(folder)) as t:
        bought = asyncio.create_task(t.action("orders:buy"))
        await t.mutation("orders:started")
        queued = asyncio.create_task(t.mutation("orders:add"))
        change(folder)
        await t.app.reload()
        await queued
        await bought
        assert len(await t.transaction(lambda ctx: ctx.db.query("orders").collect())) == 2


async def test_a_function_that_another_one_made_is_not_taken_for_its_sibling() -> None:
    def adding(table: str) -> Any:
        @mutation
        async def add(ctx: MutationCtx) -> None:
            await ctx.db.insert(table, {})

        return add

    async with Harness({"app": SimpleNamespace(add=adding("ours"))}) as t:
        with pytest.raises(FunctionNotFoundError, match="is no function of this app"):
            await t.mutation(adding("others"))


async def test_a_reload_that_is_canceled_leaves_code_and_schema_that_belong_together(tmp_path: Path) -> None:
    declared = (
        'from duly import define_schema, define_table, v\nschema = define_schema({{"{}": define_table(v.any())}})'
    )
    folder = write(tmp_path / "canceled_reload", schema=declared.format("old"))
    async with Harness(str(folder)) as t:
        for turns in range(5):
            write(folder, schema=declared.format(f"new_{turns}"))
            reload = asyncio.create_task(t.app.reload())
            for _ in range(turns):
                await asyncio.sleep(0)
            reload.cancel()
            await asyncio.gather(reload, return_exceptions=True)
            assert t.app.database.catalog.schema is t.app.runner.registry.schema


def shop(status: str) -> str:
    return f"""
from enum import StrEnum
from duly import define_schema, define_table
from pydantic import BaseModel

class Status(StrEnum):
    {status} = "{status}"

class Order(BaseModel):
    status: Status

schema = define_schema({{"orders": define_table(Order)}})
"""


async def test_documents_are_checked_when_an_enum_of_their_model_changes(tmp_path: Path) -> None:
    folder = write(tmp_path / "enum_changes", schema=shop("new"))
    async with Harness(str(folder)) as t:
        await t.transaction(lambda ctx: ctx.db.insert("orders", {"status": "new"}))
        write(folder, schema=shop("paid"))
        with pytest.raises(SchemaValidationError, match="does not fit the schema: at .status"):
            await t.app.reload()


# Documents.


@dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("below zero")


@dataclass
class Pair:
    a: Positive
    b: Positive


POSITIVE = define_schema({"numbers": define_table(Positive), "pairs": define_table(Pair)})


@pytest.mark.parametrize(("table", "document"), [("numbers", {"n": -1}), ("pairs", {"a": {"n": 1}, "b": {"n": -1}})])
async def test_what_a_dataclass_itself_refuses_is_not_stored(table: str, document: dict[str, Any]) -> None:
    async with Harness({"schema": POSITIVE}) as t:
        with pytest.raises(SchemaValidationError, match="below zero"):
            await t.transaction(lambda ctx: ctx.db.insert(table, document))
        id = await t.transaction(lambda ctx: ctx.db.insert("numbers", Positive(1)))
        with pytest.raises(SchemaValidationError, match="below zero"):
            await t.transaction(lambda ctx: ctx.db.patch(id, {"n": -1}))


@dataclass(slots=True)
class Slotted:
    n: int


async def test_unique_names_documents_that_have_no_place_for_their_id() -> None:
    async with Harness({"schema": define_schema({"numbers": define_table(Slotted)})}) as t:
        for _ in range(2):
            await t.transaction(lambda ctx: ctx.db.insert("numbers", {"n": 1}))
        with pytest.raises(QueryError, match="expected at most one document"):
            await t.transaction(lambda ctx: ctx.db.query("numbers").unique())


async def test_members_of_enums_are_names_of_fields() -> None:
    class Name(StrEnum):
        RED = "red"
        OWN = "_own"

    async with Harness({}) as t:
        id = await t.transaction(lambda ctx: ctx.db.insert("colors", {Name.RED: {Name.RED: 1}}))
        document: Any = await t.transaction(lambda ctx: ctx.db.get(id))
        assert document["red"] == {"red": 1}
        with pytest.raises(SchemaValidationError, match="names that do not start with '_'"):
            await t.transaction(lambda ctx: ctx.db.insert("colors", {Name.OWN: 1}))


async def test_a_range_that_is_not_returned_is_told() -> None:
    schema = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"])})

    def nothing(_: object) -> Any:
        """A range that was forgotten."""

    async with Harness({"schema": schema}) as t:
        with pytest.raises(QueryError, match="returned None, expected a range made with its parameter"):
            await t.transaction(lambda ctx: ctx.db.query("notes").with_index("by_rank", nothing).collect())


async def test_an_id_of_a_table_that_was_not_made_after_all_harms_nobody() -> None:
    @mutation
    async def fail(ctx: MutationCtx) -> None:
        raise AppError(await ctx.db.insert("notes", {}))

    @mutation
    async def add(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", {})

    @mutation
    async def get(ctx: MutationCtx, id: str) -> Any:
        return await ctx.db.get(id)

    async with Harness({"app": SimpleNamespace(fail=fail, add=add, get=get)}) as t:
        with pytest.raises(AppError) as raised:
            await t.mutation("app:fail")
        both = t.mutation("app:add"), t.mutation("app:get", {"id": raised.value.data})
        assert await asyncio.gather(*both) == [None, None]


# One run and the next.


async def test_a_rehearsal_does_not_change_the_arguments_of_the_run() -> None:
    @mutation
    async def add(ctx: MutationCtx, items: list[str]) -> list[str]:
        items.append("more")
        return items

    async with Harness({"app": SimpleNamespace(add=add)}, development=True) as t:
        assert await t.mutation("app:add", {"items": ["tea"]}) == ["tea", "more"]


async def test_an_identity_that_a_handler_changes_stays_what_it_was() -> None:
    @query
    async def who(ctx: QueryCtx) -> Any:
        identity = await ctx.auth.get_user_identity()
        assert identity is not None
        identity["roles"].append("admin")
        return identity["roles"]

    ada = {"subject": "ada", "roles": ["reader"]}
    async with Harness({"app": SimpleNamespace(who=who)}) as t:
        assert await t.with_identity(ada).query("app:who") == ["reader", "admin"]
        assert await t.with_identity(ada).query("app:who") == ["reader", "admin"]


async def test_a_line_of_log_that_cannot_be_formatted_does_not_fail_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @query
    async def talk(ctx: QueryCtx) -> str:
        ctx.log.warning("%d items", "many")
        return "said"

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(caplog.handler, "handleError", lambda _: None)  # pyright: ignore  # pytest's own raises
    async with Harness({"app": SimpleNamespace(talk=talk)}) as t:
        assert await t.query("app:talk") == "said"


# What is kept.


async def test_references_by_names_that_are_data_are_not_kept_one_by_one() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        found: dict[Any, Any] = t.app.runner.registry._found  # pyright: ignore[reportPrivateUsage]
        await t.query(internal["app:one"])
        before = len(found)
        await t.query(internal["app:one"])
        await t.query(internal.app.one)
        assert len(found) == before


async def test_the_tables_of_old_versions_are_not_kept_for_ever() -> None:
    async with Harness({}) as t:
        for number in range(2 * CATALOGS_MAX):
            await t.transaction(lambda ctx, number=number: ctx.db.insert(f"table_{number}", {}))
        kept: list[Any] = t.app.database._committer.catalogs._versions  # pyright: ignore[reportPrivateUsage]
        assert len(kept) == CATALOGS_MAX


@pytest.mark.slow
async def test_a_query_of_an_action_that_outlives_the_app_is_told_that_it_is_closed() -> None:
    closed = asyncio.Event()

    @action
    async def late(ctx: ActionCtx) -> int:
        while not closed.is_set():  # whoever interrupts it
            with suppress(asyncio.CancelledError):
                await closed.wait()
        return await ctx.run_query("app:one")

    async with Harness({"app": SimpleNamespace(one=one, late=late)}) as t:
        task = asyncio.create_task(t.action("app:late"))
        await asyncio.sleep(0)
    closed.set()
    with pytest.raises(StoreError, match="after the app was closed"):
        await task


async def test_a_schema_that_could_not_follow_what_others_wrote_can_be_applied_again() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        commit = t.app.database.commit
        await commit(lambda batch: batch.track("notes"))
        await commit(lambda batch: batch.tracked["notes"].add(ALL_IDS))  # as after a lost connection

        with pytest.raises(StoreLostError, match="apply the schema again"):
            await commit(lambda batch: batch.track("notes"))

        assert await commit(lambda batch: batch.track()) == {"notes": set()}


class Raises(logging.Handler):
    """A handler of an application that fails on a full disk, some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def emit(self, record: logging.LogRecord) -> None:
        if self.times:
            self.times -= 1
            raise OSError(28, "No space left on device")


async def test_an_action_whose_run_the_log_cannot_take_has_ended_nevertheless(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, handler = logging.getLogger("duly.run"), Raises(2)
    monkeypatch.setattr(log, "handlers", [handler])
    caplog.set_level(logging.INFO, "duly.run")

    @action
    async def act(ctx: ActionCtx) -> None: ...

    async with Harness({"app": SimpleNamespace(act=act)}) as t:
        await t.action("app:act")
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, "app:act"))
        await t.run_until_idle()
        [job] = await t.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").collect())

    assert handler.times == 0
    assert job["state"] == {"kind": "success"}


async def test_a_cron_that_cannot_go_on_is_paused_though_the_log_cannot_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tick(*args: object) -> None:
        raise ValueError("its zone has gone")

    handler, declared = Raises(1), cron_jobs()
    declared.interval("note", {"seconds": 30}, "app:nothing")
    monkeypatch.setattr(logging.getLogger("duly.run"), "handlers", [handler])
    monkeypatch.setattr("duly.model.crons.tick", tick)

    @mutation
    async def nothing(ctx: MutationCtx) -> None: ...

    async with Harness({"app": SimpleNamespace(nothing=nothing), "crons": declared}) as t:
        await t.advance(30_000)
        [cron] = await t.transaction(lambda ctx: ctx.db.system.query("_cron_jobs").collect())

    assert handler.times == 0
    assert cron["paused"] and cron["error"].startswith("ValueError: its zone has gone")


async def test_a_line_of_a_function_that_the_log_cannot_take_does_not_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Raises(1)
    monkeypatch.setattr(logging.getLogger("duly.app"), "handlers", [handler])

    @mutation
    async def says(ctx: MutationCtx) -> str:
        ctx.log.warning("tea")
        return "done"

    async with Harness({"app": SimpleNamespace(says=says)}) as t:
        assert await t.mutation("app:says") == "done"
    assert handler.times == 0


def test_a_line_of_duly_in_the_log_names_where_it_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    log_of("duly.run").warning("%s is full", "the disk", extra={"run": 1})

    [record] = caplog.records
    assert (record.getMessage(), record.funcName, record.__dict__["run"]) == (
        "the disk is full",
        "test_a_line_of_duly_in_the_log_names_where_it_comes_from",
        1,
    )


async def test_work_that_failed_is_tried_again_though_the_log_cannot_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log, handler, clock = logging.getLogger("duly.worker"), Raises(1), ManualClock(0.0)
    monkeypatch.setattr(log, "handlers", [handler])
    stop = asyncio.get_running_loop().create_future()
    steps: list[int] = []

    class Refused:
        async def step(self) -> float | None:
            steps.append(1)
            if len(steps) == 1:
                raise StoreError("full")
            stop.set_result(None)
            return None

        def wakers(self) -> list[asyncio.Future[Any]]:
            return []

    running = asyncio.create_task(run_worker(Refused(), clock, Random(0), stop))
    await asyncio.sleep(0)
    clock.set(10_000.0)
    async with asyncio.timeout(30):
        await running

    assert len(steps) == 2


async def test_the_harness_has_no_limits_for_what_a_test_itself_schedules() -> None:
    @mutation
    async def nothing(ctx: MutationCtx) -> None: ...

    async def schedule_many(ctx: MutationCtx) -> None:
        for _ in range(1_001):
            await ctx.scheduler.run_after(1_000, "app:nothing")

    async with Harness({"app": SimpleNamespace(nothing=nothing)}) as t:
        await t.transaction(schedule_many)


async def test_an_action_takes_the_same_chances_in_every_run_of_a_test() -> None:
    @action
    async def draw(ctx: ActionCtx) -> float:
        return ctx.random.random()

    drawn: list[tuple[float, float]] = []
    for _ in range(2):
        async with Harness({"app": SimpleNamespace(draw=draw)}) as t:
            drawn.append((await t.action("app:draw"), await t.action("app:draw")))

    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


async def test_a_subscription_that_could_not_read_the_store_reads_again_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        subscription = t.app.subscribe("app:one")
        read = t.app.database.read

        async def refused(*args: object) -> Any:
            raise StoreLostError("too many clients")

        monkeypatch.setattr(t.app.database, "read", refused)
        with pytest.raises(StoreLostError):
            await anext(subscription)
        monkeypatch.setattr(t.app.database, "read", read)

        async with asyncio.timeout(30):
            assert await anext(subscription) == 1
