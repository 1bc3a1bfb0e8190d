"""Indexes are built beside the calls of everybody, in steps, and agree with the documents whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    MutationCtx,
    QueryCtx,
    QueryError,
    SchemaValidationError,
    StoreError,
    define_schema,
    define_table,
    faults,
    mutation,
    query,
    v,
)
from duly.app import App
from duly.model.schema_change import Deploy, SchemaChange, apply_schema
from tests.model.soundness import complaints, indexes


@mutation
async def put(ctx: MutationCtx, first: int, count: int = 1) -> list[str]:
    return [await ctx.db.insert("rows", {"n": -n, "m": n % 7}) for n in range(first, first + count)]


@mutation
async def change_n(ctx: MutationCtx, id: str, n: Any) -> None:
    await ctx.db.patch(id, {"n": n})


@mutation
async def change_other(ctx: MutationCtx, id: str) -> None:
    await ctx.db.patch(id, {"other": "x"})


@mutation
async def remove(ctx: MutationCtx, id: str) -> None:
    await ctx.db.delete(id)


@query
async def by(ctx: QueryCtx, index: str, field: str = "n", limit: int = 8_000) -> list[Any]:
    return [row[field] for row in await ctx.db.query("rows").with_index(index).take(limit)]


APP = SimpleNamespace(put=put, change_n=change_n, change_other=change_other, remove=remove, by=by)
ROWS = define_table(v.any())
PLAIN = define_schema({"rows": ROWS})
BY_N = define_schema({"rows": ROWS.index("by_n", ["n"])})
BY_N_IS_M = define_schema({"rows": ROWS.index("by_n", ["m"])})
BOTH = define_schema({"rows": ROWS.index("by_n", ["n"]).index("by_m", ["m"])})


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step adds the keys of three documents."""
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_STEP_ROWS", 3)
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_STEP_SECONDS", 0.0)


def app_with(store: str, schema: Any, **more: Any) -> App:
    return App({"app": APP, "schema": schema}, store, **more)


async def fill(app: App, count: int) -> None:
    for first in range(0, count, 5_000):
        await app.mutation(put, {"first": first, "count": min(5_000, count - first)})


async def everything(app: App, index: str) -> list[int]:
    """All of `n`, of more documents than a query may return."""
    return await app.runner.transaction(lambda ctx: select_all(ctx, index))


async def select_all(ctx: MutationCtx, index: str) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").with_index(index).collect()]


async def step(app: App, change: SchemaChange) -> bool:
    return await app.database.commit(change.step, exclusive=True)


async def begin(app: App, schema: Any, steps: int) -> SchemaChange:
    """Bring a schema some steps on its way."""
    change = SchemaChange(Deploy(schema), app.database.ids)
    for _ in range(steps):
        assert not await step(app, change)
    return change


async def finish(app: App, change: SchemaChange) -> None:
    while not await step(app, change):
        pass


# While it is built.


async def test_queries_and_mutations_go_on_while_an_index_over_twenty_thousand_documents_is_built(store: str) -> None:
    source = {"app": APP, "schema": PLAIN}
    events: list[str] = []
    async with App(source, store) as app:
        await fill(app, 20_000)
        source["schema"] = BY_N
        faults.arm("schema.step", lambda: events.append("step"))
        reloading = asyncio.ensure_future(app.reload())
        try:
            written = 20_000
            while not reloading.done():
                await app.mutation(put, {"first": written})
                written += 1
                assert await app.query(by, {"index": "by_creation_time", "field": "m", "limit": 3}) == [0, 1, 2]
                events.append("calls")
        finally:
            faults.disarm()
        await reloading
        assert await everything(app, "by_n") == list(range(1 - written, 1))
    turns = sum(before != after for before, after in itertools.pairwise(events))
    assert events.count("step") >= 10 and turns >= 10
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
async def test_an_index_is_of_no_use_to_queries_until_it_is_ready(store: str) -> None:
    async with app_with(store, PLAIN) as app:
        await app.mutation(put, {"first": 0, "count": 10})
        change = await begin(app, BY_N, 2)
        with pytest.raises(QueryError, match="got the index 'by_n', expected one of by_creation_time, by_id$"):
            await app.query(by, {"index": "by_n"})
        await finish(app, change)
        assert await app.query(by, {"index": "by_n"}) == list(range(-9, 1))


@pytest.mark.usefixtures("small_steps")
async def test_the_index_of_the_old_schema_serves_until_the_new_one_of_its_name_is_ready(store: str) -> None:
    async with app_with(store, BY_N) as app:
        await app.mutation(put, {"first": 0, "count": 10})
        change = await begin(app, BY_N_IS_M, 2)
        await app.mutation(put, {"first": 10})
        assert await app.query(by, {"index": "by_n"}) == list(range(-10, 1))
        assert indexes(store) == {("rows", "by_n"): [True, False]}
        await finish(app, change)
        assert await app.query(by, {"index": "by_n", "field": "m"}) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6]
    assert indexes(store) == {("rows", "by_n"): [True]}
    assert complaints(store) == []


async def test_a_query_that_began_before_reads_an_index_that_is_gone_to_its_end(engine: str, store: str) -> None:
    begun, gate = threading.Event(), threading.Event()

    @query
    async def slow(ctx: QueryCtx) -> list[list[int]]:
        rows = ctx.db.query("rows").with_index("by_n")
        before = [row["n"] for row in await rows.collect()]
        begun.set()
        gate.wait(5)
        return [before, [row["n"] for row in await rows.collect()]]

    source: dict[str, Any] = {"app": SimpleNamespace(put=put, slow=slow), "schema": BY_N}
    async with App(source, store) as app:
        await app.mutation(put, {"first": 0, "count": 3})
        reading = asyncio.ensure_future(app.query(slow))
        await asyncio.to_thread(begun.wait)
        source["schema"] = BY_N_IS_M
        reloading = asyncio.ensure_future(app.reload())
        later = asyncio.ensure_future(app.mutation(put, {"first": 3}))
        # PostgreSQL drops an index when nobody reads it any more, and all others wait until then.
        await asyncio.wait((reloading, later), timeout=None if engine == "sqlite" else 0.3)
        gate.set()
        assert await reading == [[-2, -1, 0], [-2, -1, 0]]
        await asyncio.gather(reloading, later)
        assert indexes(store) == {("rows", "by_n"): [True]}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("act", ["change_n", "change_other", "remove"])
@pytest.mark.parametrize("row", [0, 4, 9])  # in the index already, and not yet
async def test_a_write_to_a_document_is_in_the_index_whether_it_was_reached_or_not(
    store: str, act: str, row: int
) -> None:
    async with app_with(store, PLAIN) as app:
        ids = await app.mutation(put, {"first": 0, "count": 10})
        change = await begin(app, BY_N, 3)
        await app.mutation(f"app:{act}", {"id": ids[row], **({"n": 5} if act == "change_n" else {})})
        assert complaints(store) == []
        await finish(app, change)
        left = {-n for n in range(10)}
        if act != "change_other":
            left = left - {-row} | ({5} if act == "change_n" else set())
        assert await app.query(by, {"index": "by_n"}) == sorted(left)
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_written_between_the_steps_the_index_agrees_with_the_documents(store: str, seed: int) -> None:
    rng = Random(seed)
    schemas = [PLAIN, BY_N, BY_N_IS_M, BOTH]
    async with app_with(store, PLAIN) as app:
        ids: list[str] = await app.mutation(put, {"first": 0, "count": 30})
        for _ in range(4):
            change = SchemaChange(Deploy(rng.choice(schemas)), app.database.ids)
            done = False
            while not done:
                # Some wait together with the step, and are in its batch before or after it.
                calls = [write(app, rng, ids) for _ in range(rng.randrange(4))]
                calls.insert(rng.randrange(len(calls) + 1), step(app, change))
                outcomes = await asyncio.gather(*calls)
                done = True in outcomes
                assert complaints(store) == []
    assert complaints(store) == []


async def write(app: App, rng: Random, ids: list[str]) -> None:
    kind = rng.choice(["insert", "change", "change", "other", "remove"])
    if kind == "insert" or not ids:
        ids += await app.mutation(put, {"first": rng.randrange(50), "count": rng.randrange(1, 4)})
    elif kind == "change":
        await app.mutation(change_n, {"id": rng.choice(ids), "n": rng.choice([1, 2.5, None, "x", [1]])})
    elif kind == "other":
        await app.mutation(change_other, {"id": rng.choice(ids)})
    else:
        await app.mutation(remove, {"id": ids.pop(rng.randrange(len(ids)))})


async def test_two_reloads_at_once_end_with_the_later_schema(store: str) -> None:
    source = {"app": APP, "schema": PLAIN}
    async with App(source, store) as app:
        await app.mutation(put, {"first": 0, "count": 5_000})
        source["schema"] = BY_N
        first = asyncio.ensure_future(app.reload())
        await asyncio.sleep(0)
        source["schema"] = BY_N_IS_M
        await asyncio.gather(first, app.reload())
        assert (await app.query(by, {"index": "by_n", "field": "m"}))[:3] == [0, 0, 0]
    assert indexes(store) == {("rows", "by_n"): [True]}
    assert complaints(store) == []


async def test_scheduled_functions_wait_until_the_index_is_there(store: str) -> None:
    seen: list[int] = []

    @mutation
    async def look(ctx: MutationCtx) -> None:
        seen.append(len(await ctx.db.query("rows").with_index("by_n").collect()))

    app = SimpleNamespace(put=put, look=look)
    async with App({"app": app, "schema": PLAIN}, store, executor=False) as first:
        await first.mutation(put, {"first": 0, "count": 3_000})
        await first.runner.transaction(lambda ctx: ctx.scheduler.run_after(0, look))
    async with App({"app": app, "schema": BY_N}, store) as second:
        await asyncio.wait_for(second.executor.run_batch(), 30)
        while second.executor.running or not seen:
            await asyncio.sleep(0)
    assert seen == [3_000]


# What is left half done.


@pytest.mark.usefixtures("small_steps")
async def test_a_late_refusal_leaves_no_index_behind(store: str) -> None:
    strict = define_table({"n": v.int64(), "m": v.int64()}).index("by_n", ["n"])
    async with app_with(store, PLAIN) as app:
        ids, database = await app.mutation(put, {"first": 0, "count": 10}), app.database

        def spoil() -> None:  # once the index is there, a document that was checked is changed
            if indexes(store):
                faults.disarm()
                database.commit(lambda batch: batch.attempt(worse))

        async def worse(transaction: Any) -> None:
            table, number = database.catalog.tables["rows"], database.ids.decode(ids[0])[1]
            transaction.write(table, number, await transaction.get(table, number), '{"n":"worse","m":1}')

        faults.arm("schema.step", spoil)
        with pytest.raises(SchemaValidationError, match=f'the document {ids[0]} does not fit .*got "worse"'):
            await apply_schema(app.database, Deploy(define_schema({"rows": strict})))
        assert indexes(store) == {}
        assert app.database.catalog.tables["rows"].indexes == ()
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_an_index_that_a_lost_process_left_half_built_is_finished_by_the_next(store: str, steps: int) -> None:
    async with app_with(store, PLAIN) as app:
        await app.mutation(put, {"first": 0, "count": 10})
        await begin(app, BY_N, steps)
        await app.crash()
    assert indexes(store) == {("rows", "by_n"): [False]}
    async with app_with(store, BY_N) as app:
        await app.mutation(put, {"first": 10})
        assert await app.query(by, {"index": "by_n"}) == list(range(-10, 1))
    assert indexes(store) == {("rows", "by_n"): [True]}
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(("old", "left"), [(PLAIN, {}), (BY_N_IS_M, {("rows", "by_n"): [True]})])
async def test_an_index_that_a_lost_process_left_half_built_is_dropped_with_the_old_schema(
    store: str, old: Any, left: dict[tuple[str, str], list[bool]]
) -> None:
    async with app_with(store, old) as app:
        await app.mutation(put, {"first": 0, "count": 10})
        await begin(app, BY_N, 2)
        await app.crash()
    async with app_with(store, old):
        pass
    assert indexes(store) == left
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
async def test_an_index_that_a_lost_process_left_half_built_makes_way_for_another_of_its_name(store: str) -> None:
    async with app_with(store, PLAIN) as app:
        await app.mutation(put, {"first": 0, "count": 10})
        await begin(app, BY_N, 2)
        await app.crash()
    async with app_with(store, BY_N_IS_M) as app:
        assert await app.query(by, {"index": "by_n", "field": "m"}) == [0, 0, 1, 1, 2, 2, 3, 4, 5, 6]
    assert indexes(store) == {("rows", "by_n"): [True]}
    assert complaints(store) == []


async def test_a_reload_that_is_canceled_leaves_no_index_behind(store: str) -> None:
    source = {"app": APP, "schema": PLAIN}
    async with App(source, store) as app:
        await fill(app, 10_000)
        source["schema"] = BY_N
        reloading = asyncio.ensure_future(app.reload())
        faults.arm("schema.step", reloading.cancel, passing=3)
        with pytest.raises(asyncio.CancelledError):
            await reloading
        faults.disarm()
        assert indexes(store) == {}
        source["schema"] = BOTH
        await app.reload()
        assert len(await everything(app, "by_m")) == 10_000
    assert complaints(store) == []


async def test_a_reload_ends_with_the_app_that_is_closed(store: str) -> None:
    source = {"app": APP, "schema": PLAIN}
    async with App(source, store) as app:
        await fill(app, 10_000)
        source["schema"] = BY_N
        stepped = asyncio.get_running_loop().create_future()
        faults.arm("schema.step", lambda: stepped.done() or stepped.set_result(None), passing=3)
        reloading = asyncio.ensure_future(app.reload())
        await stepped
        faults.disarm()
        await app.close()
        with pytest.raises(StoreError, match="after the app was closed"):
            await reloading
    assert indexes(store) == {("rows", "by_n"): [False]}
    assert complaints(store) == []
