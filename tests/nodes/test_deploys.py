"""Two versions of an application on one store, and a server that is not the one it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

import duly
from duly import (
    App,
    FunctionNotFoundError,
    MutationCtx,
    QueryCtx,
    SchemaValidationError,
    cron_jobs,
    define_schema,
    define_table,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.storage.postgres.address import parse
from tests.scheduler.held import Held


@mutation
async def add(ctx: MutationCtx, n: Any) -> str:
    return await ctx.db.insert("notes", {"n": n})


@mutation
async def change(ctx: MutationCtx, id: str, by: int) -> int:
    note = await ctx.db.get(id)
    await ctx.db.patch(id, {"n": note["n"] + by})
    return note["n"] + by


@query
async def numbers(ctx: QueryCtx) -> list[Any]:
    return [note["n"] for note in await ctx.db.query("notes").collect()]


@internal_mutation
async def news(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("notes", {"n": n})


@mutation
async def tell(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.scheduler.run_after(0, news, {"n": n})


LOOSE = define_schema({"notes": define_table({"n": v.any()}).index("by_n", ["n"])})
STRICT = define_schema({"notes": define_table({"n": v.int64()})})
OLD = {"app": SimpleNamespace(add=add, change=change, numbers=numbers), "schema": LOOSE}
NEW = {"app": SimpleNamespace(add=add, change=change, numbers=numbers, news=news, tell=tell), "schema": STRICT}


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


@asynccontextmanager
async def sql(store: str) -> AsyncGenerator[Any]:
    address = parse(store)
    connection = await asyncpg.connect(address.dsn, server_settings={"search_path": address.schema})
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_node_with_an_older_schema_does_not_undo_a_newer_one(store: str) -> None:
    async with App(OLD, store):
        pass
    async with App(NEW, store) as new:
        async with App(OLD, store) as old:
            assert [index.name for index in old.database.catalog.tables["notes"].indexes] == []
        assert new.database.catalog.tables["notes"].indexes == ()
        with pytest.raises(SchemaValidationError):
            await new.mutation(add, {"n": "one"})


async def test_what_an_older_node_writes_is_checked_by_the_next_deploy(store: str) -> None:
    async with App(OLD, store):
        pass
    async with App(NEW, store), App(OLD, store) as old:
        await old.mutation(add, {"n": "one"})
    with pytest.raises(SchemaValidationError, match='expected an integer, got "one"'):
        async with App(NEW, store):
            pass


async def test_functions_that_only_a_newer_version_knows_wait_for_a_node_that_has_it(store: str) -> None:
    async with App(OLD, store, executor=False):
        pass
    async with App(NEW, store, executor=False) as new:
        await new.mutation(tell, {"count": 20})
        async with App(OLD, store):
            await asyncio.sleep(0.3)
            assert await new.query(numbers) == []  # nothing ran, and nothing has failed
    async with App(NEW, store) as new:
        async for found in new.subscribe(numbers):
            if len(found) == 20:
                break
        assert sorted(found) == list(range(20))


async def test_a_function_that_the_newest_version_does_not_know_fails(store: str) -> None:
    async with App(NEW, store, executor=False) as new:
        await new.mutation(tell, {"count": 1})
    async with App({"app": SimpleNamespace(numbers=numbers), "schema": STRICT}, store) as newest, sql(store) as server:
        while not (rows := await server.fetch("SELECT state, error FROM completed_jobs")):
            await asyncio.sleep(0.02)
        assert [row["state"] for row in rows] == ["failed"]
        assert FunctionNotFoundError.__name__ in rows[0]["error"]
        assert await newest.query(numbers) == []


async def taken_over(server: Any, store: str, version: int, connections_end: bool = True) -> None:
    """What a standby looks like that was promoted a moment too early: it has the commits up to a version only."""
    await server.execute("UPDATE t100_notes SET document = replace(document, '6', '1')")
    await server.execute("DELETE FROM log WHERE version > $1", version)
    await server.execute("UPDATE nodes SET batch = batch - 1, version = version - 1 WHERE version > $1", version)
    if connections_end:
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE $1",
            f"%{parse(store).schema}%",
        )


@pytest.mark.parametrize("connections_end", [True, False], ids=["directly", "behind a pooler that keeps connections"])
async def test_a_server_that_lacks_the_last_commits_is_believed(store: str, connections_end: bool) -> None:
    async with App(OLD, store, executor=False) as app, App(OLD, store, executor=False) as other, sql(store) as server:
        note = await app.mutation(add, {"n": 1})
        before = await server.fetchval("SELECT max(version) FROM log")
        await other.mutation(change, {"id": note, "by": 5})
        assert await app.mutation(change, {"id": note, "by": 0}) == 6  # it has heard of it
        await taken_over(server, store, before, connections_end)
        assert await app.mutation(change, {"id": note, "by": 1}) == 2
        assert await app.query(numbers) == [2]


async def test_a_query_is_answered_by_a_server_that_lacks_all_that_a_node_has_seen(store: str) -> None:
    async with App(OLD, store, executor=False) as app, sql(store) as server:
        note = await app.mutation(add, {"n": 1})
        before = await server.fetchval("SELECT max(version) FROM log")
        await app.mutation(change, {"id": note, "by": 5})
        async with App(OLD, store, executor=False) as later:
            assert await later.query(numbers) == [6]
            await taken_over(server, store, before)
            async with asyncio.timeout(20):
                assert await later.query(numbers) == [1]


async def test_who_was_away_itself_is_no_judge_of_others(store: str) -> None:
    async with App(OLD, store) as first, App(OLD, store) as second, sql(store) as server:
        epochs = [first.database.epoch, second.database.epoch]
        # As after an outage: nobody was seen for a minute, and one is the first to come back.
        await server.execute("UPDATE nodes SET seen = clock_timestamp() - interval '1 min'")
        await server.fetchrow("SELECT * FROM beat_1($1, false, interval '1 s')", epochs[0])
        states = await server.fetch("SELECT state FROM nodes ORDER BY epoch")
        assert [row["state"] for row in states] == ["live", "live"]
        # One that has been here all the time is.
        await server.execute("UPDATE nodes SET steady = clock_timestamp() - interval '1 min'")
        await server.execute("UPDATE nodes SET seen = clock_timestamp() - interval '1 min' WHERE epoch = $1", epochs[1])
        await server.fetchrow("SELECT * FROM beat_1($1, false, interval '1 s')", epochs[0])
        states = await server.fetch("SELECT state FROM nodes WHERE epoch = ANY ($1) ORDER BY epoch", epochs)
        assert [row["state"] for row in states] in (["live", "lost"], ["live", "live"])  # it may have beaten meanwhile


# Crons.


@query
async def crons(ctx: QueryCtx) -> list[Any]:
    rows = await ctx.db.system.query("_cron_jobs").collect()
    return [[row["name"], row["schedule"]["ms"]] for row in rows]


def with_crons(**hours: int) -> dict[str, Any]:
    """An application whose crons run every so many hours."""
    declared = cron_jobs()
    for name, every in hours.items():
        declared.interval(name, {"hours": every}, news, {"n": every})
    return {"app": SimpleNamespace(crons=crons, numbers=numbers, news=news), "schema": LOOSE, "crons": declared}


HOUR = 3_600_000


async def test_a_node_with_older_code_does_not_bring_back_a_cron_that_was_removed_or_changed(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = with_crons(stays=1, changes=2, goes=3), with_crons(stays=1, changes=4)
    async with App(before, store, executor=False) as older:
        assert await older.query(crons) == [["stays", HOUR], ["changes", 2 * HOUR], ["goes", 3 * HOUR]]
        async with App(after, store, executor=False) as newer:
            expected = [["stays", HOUR], ["changes", 4 * HOUR]]
            assert await newer.query(crons) == expected
            async with App(before, store, executor=False) as late:
                assert await late.query(crons) == expected
        [warning] = [record.getMessage() for record in caplog.records if record.name == "duly.schema"]
        assert "its schema and its crons stay" in warning
        assert "`duly migrate --folder` with its folder, or `app.reload()`" in warning
        async with App(after, store, executor=False) as newer:
            assert await newer.query(crons) == expected
            async with App(before, store, executor=False) as back:
                await back.reload()
            assert await newer.query(crons) == [["stays", HOUR], ["changes", 2 * HOUR], ["goes", 3 * HOUR]]


@mutation
async def registers(ctx: MutationCtx) -> None:
    for n in range(20):
        if await duly.crons.get(ctx, f"cron {n}") is None:
            await duly.crons.register(ctx, {"kind": "interval", "ms": HOUR}, news, {"n": n}, name=f"cron {n}")


async def test_nodes_that_register_or_declare_the_same_crons_at_once_make_each_once(store: str) -> None:
    app = with_crons(a=1, b=1, c=1)
    app["app"].registers = registers
    nodes = [App(app, store, executor=False) for _ in range(3)]
    await asyncio.gather(*(node.__aenter__() for node in nodes))
    try:
        await asyncio.gather(*(node.mutation(registers) for node in nodes))
        names = sorted(name for name, _ in await nodes[0].query(crons))
        assert names == sorted(["a", "b", "c", *(f"cron {n}" for n in range(20))])
    finally:
        for node in nodes:
            await node.close()


async def test_who_decides_by_the_list_of_crons_knows_of_one_that_another_node_registers_meanwhile(store: str) -> None:
    held = list[Held]()

    @mutation
    async def registers_the_first(ctx: MutationCtx) -> None:
        there_is_none = not await duly.crons.list(ctx)
        held[0].stand()
        if there_is_none:
            await duly.crons.register(ctx, {"kind": "interval", "ms": HOUR}, news, {"n": 1}, name="first")

    app = with_crons()
    app["app"].registers_the_first = registers_the_first
    async with App(app, store, executor=False) as one, App(app, store, executor=False) as other:
        async with Held(one) as decides:
            held.append(decides)
            deciding = asyncio.ensure_future(one.mutation(registers_the_first))
            await decides.arrived()
            await other.runner.transaction(
                lambda ctx: duly.crons.register(ctx, {"kind": "interval", "ms": HOUR}, news, {"n": 2}, name="other")
            )
        await deciding
        assert await other.query(crons) == [["other", HOUR]]


async def test_a_node_with_older_code_ticks_the_crons_of_the_newer_and_leaves_their_runs_to_it(store: str) -> None:
    async with App({"app": SimpleNamespace(numbers=numbers, crons=crons), "schema": LOOSE}, store, executor=False):
        pass
    older = {"app": SimpleNamespace(numbers=numbers, crons=crons), "schema": LOOSE}
    async with App(with_crons(new=1), store, executor=False) as newer, App(older, store):
        await asyncio.sleep(0.3)
        assert await newer.query(numbers) == []
        assert await newer.query(crons) == [["new", HOUR]]
    async with App(with_crons(new=1), store) as newer:
        async for found in newer.subscribe(numbers):
            if found:
                break
        assert found == [1]
