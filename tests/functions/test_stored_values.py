"""Values, fields and ids of documents at their edges: what is stored, refused, compared and found."""

from __future__ import annotations

import asyncio
import math
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    UNSET,
    ArgumentValidationError,
    DocumentNotFoundError,
    FunctionNotFoundError,
    Id,
    LimitError,
    MutationCtx,
    QueryCtx,
    QueryError,
    SchemaValidationError,
    define_schema,
    define_table,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.app import App
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"]), "tags": define_table(v.any())})


async def insert(t: Harness, *documents: dict[str, Any]) -> list[str]:
    async def act(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert("notes", document) for document in documents]

    return await t.transaction(act)


# Numbers.


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("name", "given", "received"),
    [
        ("take_int", 3.0, 3),
        ("take_int", 2**63 - 1, 2**63 - 1),
        ("take_float", 3, 3.0),
        ("take_number", 3, 3),
        ("take_number", 3.0, 3.0),
    ],
)
async def test_a_number_arrives_as_what_is_asked_for(name: str, given: Any, received: Any) -> None:
    async with Harness(NUMBERS) as t:
        assert await t.query(f"app:{name}", {"n": given}) == f"{type(received).__name__} {received}"


@pytest.mark.one_engine
@pytest.mark.parametrize("name", ["take_int", "take_float", "take_number"])
async def test_true_is_never_a_number(name: str) -> None:
    async with Harness(NUMBERS) as t:
        with pytest.raises(ArgumentValidationError, match=r"at \.n: expected .*, got True \(bool\)"):
            await t.query(f"app:{name}", {"n": True})


@query
async def take_int(ctx: QueryCtx, n: int) -> str:
    return f"{type(n).__name__} {n}"


@query
async def take_float(ctx: QueryCtx, n: float) -> str:
    return f"{type(n).__name__} {n}"


@query(args={"n": v.number()})
async def take_number(ctx: QueryCtx, n: Any) -> str:
    return f"{type(n).__name__} {n}"


NUMBERS = {"app": SimpleNamespace(take_int=take_int, take_float=take_float, take_number=take_number)}


# Null, missing, and removal.


@pytest.mark.one_engine
async def test_null_is_stored_and_only_unset_removes() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {"a": 1, "b": 2})
        await t.transaction(lambda ctx: ctx.db.patch(id, {"a": None, "b": UNSET}))
        note = await t.transaction(lambda ctx: ctx.db.get(id))
        assert note["a"] is None and "b" not in note


@pytest.mark.one_engine
async def test_an_argument_that_is_unset_is_absent() -> None:
    async with Harness(NUMBERS) as t:
        with pytest.raises(ArgumentValidationError, match="at .n: missing required field"):
            await t.query("app:take_number", {"n": UNSET})


async def test_a_missing_field_is_in_the_index_before_null_and_is_not_null() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        await insert(t, {"rank": None, "n": 1}, {"n": 2}, {"rank": 0, "n": 3}, {"rank": "0", "n": 4})

        async def found(build: Any) -> list[int]:
            async def read(ctx: MutationCtx) -> list[int]:
                return [note["n"] for note in await ctx.db.query("notes").with_index("by_rank", build).collect()]

            return await t.transaction(read)

        assert await found(lambda q: q.eq("rank", UNSET)) == [2]
        assert await found(lambda q: q.eq("rank", None)) == [1]
        assert await found(lambda q: q.gt("rank", UNSET)) == [1, 3, 4]
        assert await found(lambda q: q.lt("rank", 5)) == [2, 1, 3]  # all that sorts before numbers, too
        assert await found(lambda q: q.gt("rank", -5)) == [3, 4]  # … and behind them


async def test_equal_keys_read_from_the_end_have_the_newest_document_first() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        ids = await insert(t, {"rank": 1}, {"rank": 1}, {"rank": 1})

        async def read(ctx: MutationCtx) -> list[str]:
            query = ctx.db.query("notes").with_index("by_rank", lambda q: q.eq("rank", 1)).order("desc")
            return [note["_id"] for note in await query.collect()]

        assert await t.transaction(read) == ids[::-1]


# Documents that are not there, or not alone.


@pytest.mark.one_engine
async def test_unique_refuses_two_and_names_them() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        ids = await insert(t, {"rank": 1}, {"rank": 1})
        with pytest.raises(QueryError, match=rf"notes: unique\(\) found {ids[0]}, {ids[1]}"):
            await t.transaction(lambda ctx: ctx.db.query("notes").unique())


async def test_deleting_twice_is_an_error() -> None:
    async def twice(ctx: MutationCtx, id: str) -> None:
        await ctx.db.delete(id)
        await ctx.db.delete(id)

    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {})
        with pytest.raises(DocumentNotFoundError, match=f"delete: got the id {id} of 'notes'"):
            await t.transaction(lambda ctx: twice(ctx, id))
        assert await t.transaction(lambda ctx: ctx.db.get(id)) is not None


async def test_a_well_formed_id_of_a_table_that_does_not_exist_is_of_no_document() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        id = t.app.database.ids.encode(9_999, 12_345)
        assert await t.transaction(lambda ctx: ctx.db.get(id)) is None
        with pytest.raises(DocumentNotFoundError, match="a table that does not exist"):
            await t.transaction(lambda ctx: ctx.db.delete(id))


@pytest.mark.one_engine
async def test_normalize_id_tells_ids_of_one_table_from_all_else() -> None:
    async def read(ctx: MutationCtx, id: str) -> list[Any]:
        db = ctx.db
        texts = [(("notes"), id), ("tags", id), ("nowhere", id), ("notes", "x"), ("notes", id.upper()), ("notes", "")]
        return [db.normalize_id(table, text) for table, text in texts]

    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {})
        assert await t.transaction(lambda ctx: read(ctx, id)) == [id, None, None, None, None, None]
        with pytest.raises(QueryError, match=r"read it with ctx\.db\.system"):
            await t.transaction(lambda ctx: _normalize(ctx, "_scheduled_functions", id))


async def _normalize(ctx: MutationCtx, table: str, id: str) -> Any:
    return ctx.db.normalize_id(table, id)


# Who is woken.


async def test_a_patch_that_changes_nothing_wakes_nobody() -> None:
    @query
    async def all_notes(ctx: QueryCtx) -> Any:
        return await ctx.db.query("notes").collect()

    async with Harness({"app": SimpleNamespace(all_notes=all_notes), "schema": SCHEMA}) as t:
        [id] = await insert(t, {"a": 1, "b": [1.0]})
        outcome = await t.app.runner.read(t.app.runner.registry.find("app:all_notes"), None)
        watch = t.app.database.watch(outcome.reads, outcome.version)
        version = t.app.database.commit_log.version
        await t.transaction(lambda ctx: ctx.db.patch(id, {"a": 1}))
        await t.transaction(lambda ctx: ctx.db.replace(id, {"a": 1, "b": [1.0]}))
        assert t.app.database.commit_log.version == version
        assert not watch.done()
        await t.transaction(lambda ctx: ctx.db.patch(id, {"a": 2}))
        assert watch.done()


# Concurrency, on the real clock.


@mutation
async def increment(ctx: MutationCtx) -> int:
    counter = await ctx.db.query("counters").first()
    if counter is None:
        await ctx.db.insert("counters", {"n": 1})
        return 1
    await ctx.db.patch(counter["_id"], {"n": counter["n"] + 1})
    return counter["n"] + 1


@mutation
async def append(ctx: MutationCtx) -> None:
    await ctx.db.insert("tags", {})


async def test_parallel_increments_all_count_and_parallel_inserts_do_not_meet(store: str) -> None:
    app = App({"app": SimpleNamespace(increment=increment, append=append)}, store)
    async with app:
        counts = await asyncio.gather(*(app.mutation("app:increment") for _ in range(50)))
        assert sorted(counts) == list(range(1, 51))
        await asyncio.gather(*(app.mutation("app:append") for _ in range(50)))
        assert len(await app.runner.transaction(lambda ctx: ctx.db.query("tags").collect())) == 50


@pytest.mark.one_engine
async def test_the_clock_stands_still_in_a_query_and_in_a_mutation(store: str) -> None:
    async def times(ctx: Any) -> list[float]:
        before = ctx.now
        for _ in range(20_000):
            pass
        await ctx.db.query("notes").collect()
        return [before, ctx.now, await ctx.run_query("app:inner")]

    @query
    async def inner(ctx: QueryCtx) -> float:
        return ctx.now

    modules = {"app": SimpleNamespace(read=query(times), write=mutation(times), inner=inner)}
    async with App(modules, store) as app:
        for found in (await app.query("app:read"), await app.mutation("app:write")):
            assert found[0] == found[1] == found[2]


# Values at their limits.


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        math.inf,
        -math.inf,
        2**63 - 1,
        -(2**63),
        b"",
        "",
        [],
        {},
        "\x00",
        "é\U0001f375",
        {"a" * 1024: 1},
        {"é": 1},
        {"": 1},
        {"\n": 1},
    ],
)
async def test_a_value_at_the_edge_comes_back_as_it_was(value: Any) -> None:
    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {"v": value})
        found = (await t.transaction(lambda ctx: ctx.db.get(id)))["v"]
        assert found == value and type(found) is type(value)
        assert repr(found) == repr(value)


async def test_not_a_number_comes_back_as_such() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {"v": math.nan})
        assert math.isnan((await t.transaction(lambda ctx: ctx.db.get(id)))["v"])


@pytest.mark.one_engine
@pytest.mark.parametrize("name", ["$x", "$", "é" * 1025])
async def test_a_field_name_that_is_none_is_refused(name: str) -> None:
    async with Harness({"schema": SCHEMA}) as t:
        with pytest.raises(SchemaValidationError, match="got the field name"):
            await insert(t, {"v": {name: 1}})


@pytest.mark.one_engine
async def test_a_top_level_field_of_the_systems_is_refused_and_a_nested_one_is_not() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        with pytest.raises(SchemaValidationError, match="got the field '_x'"):
            await insert(t, {"_x": 1})
        await insert(t, {"v": {"_x": 1}})


@pytest.mark.one_engine
async def test_a_lone_surrogate_is_refused() -> None:
    async with Harness({"schema": SCHEMA}) as t:
        with pytest.raises(SchemaValidationError, match="lone surrogate"):
            await insert(t, {"v": "\ud800"})


async def test_a_document_of_one_mebibyte_is_stored_and_one_byte_more_is_refused() -> None:
    overhead = len('{"v":""}')
    async with Harness({"schema": SCHEMA}) as t:
        await insert(t, {"v": "x" * ((1 << 20) - overhead)})
        with pytest.raises(LimitError, match=r"got 1,048,577 bytes, expected at most 1,048,576 \(document_bytes_max\)"):
            await insert(t, {"v": "x" * ((1 << 20) - overhead + 1)})


# Names.


@internal_mutation
async def hidden(ctx: MutationCtx, id: Id) -> str:
    return id


@pytest.mark.one_engine
async def test_a_function_is_found_by_any_spelling_of_its_name_and_of_its_own_kind_only() -> None:
    modules = {"dir/mod": SimpleNamespace(hidden=hidden, default=increment), "schema": SCHEMA}
    async with Harness(modules) as t:
        [id] = await insert(t, {})
        for name in ("dir/mod:hidden", "dir/mod.py:hidden", "dir/mod.js:hidden"):
            assert await t.mutation(name, {"id": id}) == id  # the app's own calls reach internal functions
        assert await t.mutation("dir/mod") == await t.mutation("dir/mod:default") - 1
        with pytest.raises(FunctionNotFoundError, match="dir/mod:hidden is a mutation, expected a query"):
            await t.query("dir/mod:hidden", {"id": id})
        with pytest.raises(FunctionNotFoundError, match="got the function 'mod:nothing', expected one of this app"):
            await t.mutation("mod:nothing")


# Enums.


class Status(str, Enum):  # noqa: UP042  whose str() is not its value
    NEW = "new"


class Rank(IntEnum):
    FIRST = 1


@pytest.mark.one_engine
@pytest.mark.parametrize("member", [Status.NEW, Rank.FIRST])
async def test_a_member_of_an_enum_is_found_by_itself_and_by_its_value(member: Any) -> None:
    async with Harness({"schema": SCHEMA}) as t:
        [id] = await insert(t, {"rank": member})
        for value in (member, member.value):

            async def read(ctx: MutationCtx, value: Any = value) -> Any:
                by_index = await ctx.db.query("notes").with_index("by_rank", lambda q: q.eq("rank", value)).unique()
                by_filter = await ctx.db.query("notes").filter(lambda q: q.field("rank") == value).unique()
                return by_index, by_filter

            by_index, by_filter = await t.transaction(read)
            assert by_index["_id"] == by_filter["_id"] == id
            assert type(by_index["rank"]) is type(member.value)
