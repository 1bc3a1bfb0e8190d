"""ctx.db: documents, indexes, and transactions within transactions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    UNSET,
    ActionCtx,
    AppError,
    LimitError,
    MutationCtx,
    QueryCtx,
    action,
    define_schema,
    define_table,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.ctx.db.index_range import IndexRange
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema(
    {"people": define_table(v.any()).index("by_city_age", ["address.city", "age"]).index("by_age", ["age"])}
)
PEOPLE: list[dict[str, Any]] = [
    {"name": "ada", "address": {"city": "Berlin"}, "age": 36},
    {"name": "bob", "address": {"city": "Athens"}, "age": 7.5},
    {"name": "cy", "address": {"city": "Berlin"}, "age": 9},
    {"name": "dee", "address": {"city": "Berlin"}},
    {"name": "eve", "address": {"city": "Athens"}, "age": None},
    {"name": "fay", "address": "none", "age": "old"},
]


def harness(**functions: Any) -> Harness:
    return Harness({"app": SimpleNamespace(**functions), "schema": SCHEMA})


async def with_people(t: Harness) -> list[str]:
    async def insert(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert("people", person) for person in PEOPLE]

    return await t.transaction(insert)


async def test_a_document_comes_back_with_its_id_and_its_time_of_creation() -> None:
    async with harness() as t:
        id = await t.transaction(lambda ctx: ctx.db.insert("people", {"text": "hi", "n": 1, "x": 1.0, "b": b"\x00"}))
        document = await t.transaction(lambda ctx: ctx.db.get(id))
        assert document == {
            "text": "hi",
            "n": 1,
            "x": 1.0,
            "b": b"\x00",
            "_id": id,
            "_creationTime": 1_893_456_000_000.0,
        }
        assert isinstance(document["n"], int) and isinstance(document["x"], float)


async def test_a_range_whose_ends_contradict_is_empty_whatever_was_written_in_between() -> None:
    async with harness() as t:
        ids = await with_people(t)

        async def look(ctx: MutationCtx) -> Any:
            for id in ids:
                await ctx.db.patch(id, {"age": 3})
            people = ctx.db.query("people").with_index("by_age", lambda q: q.gt("age", 90).lt("age", 1))
            return await people.take(1)

        assert await t.transaction(look) == []


async def test_patch_changes_removes_and_keeps_fields() -> None:
    async def change(ctx: MutationCtx) -> Any:
        id = await ctx.db.insert("notes", {"a": 1, "b": {"c": 1, "d": 2}, "e": 3})
        await ctx.db.patch(id, {"b": {"c": 5}, "e": UNSET, "f": None})
        return await ctx.db.get(id)

    async with harness() as t:
        document = await t.transaction(change)
        assert {name: document[name] for name in document if name[0] != "_"} == {"a": 1, "b": {"c": 5}, "f": None}


async def test_a_document_read_from_the_database_can_be_put_back() -> None:
    async def change(ctx: MutationCtx) -> Any:
        id = await ctx.db.insert("notes", {"a": 1})
        document = await ctx.db.get(id)
        assert document is not None
        document["a"] = 2
        await ctx.db.replace(id, document)
        await ctx.db.patch(id, await ctx.db.get(id))
        return await ctx.db.get(id)

    async with harness() as t:
        assert (await t.transaction(change))["a"] == 2


async def test_changing_what_was_read_changes_nothing_stored() -> None:
    async def change(ctx: MutationCtx) -> Any:
        original = {"list": [1]}
        id = await ctx.db.insert("notes", original)
        original["list"].append(2)
        document = await ctx.db.get(id)
        assert document is not None
        document["list"].append(3)
        return (await ctx.db.get(id) or {})["list"]

    async with harness() as t:
        assert await t.transaction(change) == [1]


async def test_a_transaction_reads_its_own_writes() -> None:
    async def change(ctx: MutationCtx) -> list[Any]:
        people = ctx.db.query("people").with_index("by_age")
        first = await ctx.db.insert("people", {"age": 2})
        seen = [[person["age"] for person in await people.collect()]]
        await ctx.db.insert("people", {"age": 1})
        await ctx.db.patch(first, {"age": 0})
        seen.append([person["age"] for person in await people.collect()])
        await ctx.db.delete(first)
        seen.append([person["age"] for person in await people.order("desc").take(5)])
        return seen

    async with harness() as t:
        await t.transaction(lambda ctx: ctx.db.insert("people", {"age": 5}))
        assert await t.transaction(change) == [[2, 5], [0, 1, 5], [5, 1]]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("index", "build", "names"),
    [
        ("by_age", None, ["dee", "eve", "bob", "cy", "ada", "fay"]),
        ("by_age", lambda q: q.gt("age", 7.5), ["cy", "ada", "fay"]),
        ("by_age", lambda q: q.gte("age", 7.5).lt("age", 36), ["bob", "cy"]),
        ("by_age", lambda q: q.lte("age", 9), ["dee", "eve", "bob", "cy"]),
        ("by_age", lambda q: q.eq("age", None), ["eve"]),
        ("by_age", lambda q: q.eq("age", UNSET), ["dee"]),
        ("by_age", lambda q: q.gt("age", UNSET), ["eve", "bob", "cy", "ada", "fay"]),
        ("by_city_age", lambda q: q.eq("address.city", "Berlin"), ["dee", "cy", "ada"]),
        ("by_city_age", lambda q: q.eq("address.city", "Berlin").eq("age", 9.0), ["cy"]),
        ("by_city_age", lambda q: q.eq("address.city", "Berlin").gt("age", 9), ["ada"]),
        ("by_city_age", lambda q: q.gt("address.city", "Athens"), ["dee", "cy", "ada"]),
        ("by_city_age", lambda q: q.eq("address.city", UNSET), ["fay"]),
        ("by_creation_time", lambda q: q.gt("_creationTime", 1_893_456_000_000.0), ["bob", "cy", "dee", "eve", "fay"]),
        ("by_creation_time", lambda q: q.lte("_creationTime", 1_893_456_000_000.0), ["ada"]),
        ("by_creation_time", lambda q: q.eq("_creationTime", 1_893_456_000_000.0 + 2 / 4096), ["cy"]),
        ("by_age", lambda q: q.eq("age", 9).gte("_creationTime", 1_893_456_000_001), []),
    ],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "own writes"])
async def test_an_index_is_read_in_its_order(
    index: str, build: Callable[[IndexRange], IndexRange] | None, names: list[str], stored: bool
) -> None:
    async def read(ctx: MutationCtx) -> list[list[str]]:
        if not stored:
            for person in PEOPLE:
                await ctx.db.insert("people", person)
        found = ctx.db.query("people").with_index(index, build)
        return [
            [person["name"] for person in await found.collect()],
            [person["name"] for person in await found.order("desc").collect()],
            [person["name"] for person in await found.take(2)],
            [person["name"] for person in await found.order("desc").take(2)],
        ]

    async with harness() as t:
        if stored:
            await with_people(t)
        assert await t.transaction(read) == [names, names[::-1], names[:2], names[::-1][:2]]


async def test_first_and_unique_find_one_document_or_none() -> None:
    async def read(ctx: MutationCtx) -> list[Any]:
        query = ctx.db.query("people").with_index("by_age", lambda q: q.eq("age", 9))
        nobody = ctx.db.query("people").with_index("by_age", lambda q: q.eq("age", 99))
        one, only = await query.first(), await query.unique()
        assert one is not None and only is not None
        return [one["name"], only["name"], await nobody.first(), await nobody.unique()]

    async with harness() as t:
        await with_people(t)
        assert await t.transaction(read) == ["cy", "cy", None, None]
        with pytest.raises(
            Exception, match=r"people: unique\(\) found .* and perhaps more, expected at most one document"
        ):
            await t.transaction(lambda ctx: ctx.db.query("people").unique())


async def test_an_index_follows_changes_and_deletions_over_commits() -> None:
    async with harness() as t:
        ids = await with_people(t)
        await t.transaction(lambda ctx: ctx.db.patch(ids[0], {"age": 1}))
        await t.transaction(lambda ctx: ctx.db.delete(ids[2]))
        await t.transaction(lambda ctx: ctx.db.replace(ids[5], {"name": "fay", "age": 2}))
        people = await t.transaction(lambda ctx: ctx.db.query("people").with_index("by_age").collect())
        assert [person["name"] for person in people] == ["dee", "eve", "ada", "fay", "bob"]


async def test_scheduled_functions_are_found_by_state_and_by_name() -> None:
    async with harness(noop=noop, boom=boom) as t:

        async def schedule(ctx: MutationCtx) -> None:
            for delay in (30, 10, 20):
                await ctx.scheduler.run_after(delay, noop)
            await ctx.scheduler.run_after(0, boom)

        await t.transaction(schedule)
        await t.advance(timedelta(milliseconds=15))

        async def read(ctx: MutationCtx) -> Any:
            jobs = ctx.db.system.query("_scheduled_functions")
            by_state = jobs.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", "pending"))
            by_name = jobs.with_index(
                "by_name_scheduled_time", lambda q: q.eq("name", "app:noop").gt("scheduledTime", 1_893_456_000_010)
            )
            late = jobs.with_index("by_state_scheduled_time").order("desc")
            return [
                [job["scheduledTime"] - 1_893_456_000_000 for job in await by_state.collect()],
                [job["scheduledTime"] - 1_893_456_000_000 for job in await by_name.order("desc").collect()],
                [job["state"]["kind"] for job in await late.collect()],
                [job["name"] for job in await jobs.order("desc").take(2)],
                await jobs.with_index("by_name_scheduled_time", lambda q: q.eq("name", 5)).collect(),
                len(await jobs.with_index("by_name_scheduled_time", lambda q: q.gt("name", None)).collect()),
            ]

        assert await t.transaction(read) == [
            [20, 30],
            [30, 20],
            ["success", "pending", "pending", "failed"],
            ["app:boom", "app:noop"],
            [],
            4,
        ]


async def test_a_transaction_sees_what_it_schedules_and_cancels() -> None:
    async def schedule(ctx: MutationCtx) -> Any:
        first = await ctx.scheduler.run_after(10, noop)
        second = await ctx.scheduler.run_after(5, noop)
        await ctx.scheduler.cancel(first)
        jobs = ctx.db.system.query("_scheduled_functions").with_index("by_state_scheduled_time")
        job = await ctx.db.system.get(second)
        assert job is not None
        return [[job["state"]["kind"] for job in await jobs.collect()], job["state"]]

    async with harness(noop=noop) as t:
        assert await t.transaction(schedule) == [["canceled", "pending"], {"kind": "pending"}]


# Functions that call functions.


@internal_mutation
async def noop(ctx: MutationCtx) -> None: ...


@mutation
async def boom(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"by": "boom"})
    await ctx.scheduler.run_after(0, noop)
    raise AppError({"code": 7})


@mutation
async def catches(ctx: MutationCtx) -> Any:
    await ctx.db.insert("notes", {"by": "catches"})
    await ctx.scheduler.run_after(0, noop)
    try:
        await ctx.run_mutation(boom)
    except AppError as error:
        return [error.data, await ctx.run_query(count)]
    return None


@mutation
async def does_not_catch(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"by": "does_not_catch"})
    await ctx.run_mutation(boom)


@query
async def count(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("notes").collect())


@mutation
async def endless(ctx: MutationCtx) -> None:
    await ctx.run_mutation("app:endless")


@action
async def acts(ctx: ActionCtx) -> Any:
    before = await ctx.run_query(count)
    try:
        await ctx.run_mutation(boom)
    except AppError as error:
        await ctx.run_mutation(catches)
        return [before, error.data, await ctx.run_query(count), await ctx.run_action(sub)]
    return None


@action
async def sub(ctx: ActionCtx) -> str:
    return "sub"


FUNCTIONS = {"noop": noop, "boom": boom, "catches": catches, "does_not_catch": does_not_catch, "count": count}


async def test_a_failed_sub_transaction_takes_back_only_its_own_writes_and_schedules() -> None:
    async with harness(**FUNCTIONS) as t:
        assert await t.mutation(catches) == [{"code": 7}, 1]
        assert await t.query(count) == 1
        assert len(await t.jobs()) == 1


async def test_a_sub_transaction_whose_failure_is_not_caught_takes_everything_back() -> None:
    async with harness(**FUNCTIONS) as t:
        with pytest.raises(AppError, match="'code': 7"):
            await t.mutation(does_not_catch)
        assert await t.query(count) == 0
        assert await t.jobs() == []


async def test_each_call_of_an_action_is_a_transaction_of_its_own() -> None:
    async with harness(**FUNCTIONS, acts=acts, sub=sub) as t:
        assert await t.action(acts) == [0, {"code": 7}, 1, "sub"]


@pytest.mark.one_engine
async def test_functions_that_call_each_other_without_end_are_stopped() -> None:
    async with harness(endless=endless) as t:
        with pytest.raises(LimitError, match=r"got 9 calls of functions by functions.* at most 8 \(CALL_DEPTH_MAX\)"):
            await t.mutation(endless)


# What a handler is told.


@dataclasses.dataclass
class Place:
    city: str
    people: int = 0


@mutation
async def told(ctx: MutationCtx, place: Place, label: str | None = None) -> Any:
    identity = await ctx.auth.get_user_identity()
    return [place.city, place.people, label, ctx.now, identity and identity["subject"], ctx.scheduled_function_id]


@pytest.mark.one_engine
async def test_a_handler_receives_what_its_annotations_ask_for() -> None:
    async with harness(told=told) as t:
        args = {"place": {"city": "Berlin"}}
        assert await t.mutation(told, args) == ["Berlin", 0, None, 1_893_456_000_000.0, None, None]
        ada = t.with_identity({"subject": "ada"})
        assert await ada.mutation(told, args | {"label": "x"}) == ["Berlin", 0, "x", 1_893_456_000_000.0, "ada", None]


@query
async def gathered(ctx: QueryCtx) -> Any:
    return await ctx.gather(ctx.run_query(count), ctx.db.query("notes").first())


@pytest.mark.one_engine
async def test_gather_returns_results_in_order() -> None:
    async with harness(gathered=gathered, count=count) as t:
        assert await t.query(gathered) == [0, None]
