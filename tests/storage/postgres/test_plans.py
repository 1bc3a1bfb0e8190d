"""The statements that run most often are planned well, whatever the statistics say."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from tests import postgres

pytest.importorskip("asyncpg")


from duly import MutationCtx, mutation
from duly.app import App
from duly.storage.engine import ReadKeys
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Claim, Get, Scan, View
from duly.storage.rows import JOBS, Write
from duly.values.index_keys import EVERYTHING, Cut, Interval
from tests.storage.postgres.notes import (
    BY_N,
    NAME,
    NOTES,
    NUMBERED,
    STATE,
    Open,
    ask,
    changes,
    insert,
    job,
    update,
    with_notes,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


MANY, FEW = 20_000, 120
"""Rows of a table, and how many of them statements for a few may read."""


def fill(store: str) -> None:
    ask(
        store,
        f"INSERT INTO duly.jobs SELECT i << 10, 'a:b', '{{}}', i, i, 'pending', 'mutation' FROM generate_series(1001, {MANY}) i",
        f"INSERT INTO duly.completed_jobs SELECT i << 10, 'a:b', '{{}}', i, 'success', 'mutation', NULL, NULL, i"
        f" FROM generate_series({MANY + 1001}, {2 * MANY}) i",
        f"INSERT INTO duly.t100_notes SELECT i << 10, '{{}}' FROM generate_series(1001, {MANY}) i",
        f"INSERT INTO duly.i100_by_n SELECT int8send(i), i << 10 FROM generate_series(1001, {MANY}) i",
    )


def rows_read(engine: PostgresEngine, connection: BlockingConnection) -> Counter[str]:
    """How many rows of each table a connection has read, more or less lately."""
    return Counter(
        dict(
            connection.fetch(
                "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
                " WHERE schemaname = $1",
                engine.address.schema,
            )
        )
    )


def many(rows: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in rows.items() if count > FEW}


def read_all(view: View) -> None:
    """Each hot read once."""
    pending = Interval(Cut(("pending",), after=False), Cut(("pending",), after=True))
    named = Interval(Cut(("a:b",), after=False), Cut(("a:b",), after=True))
    for descending in (False, True):
        for table, order, interval in ((NOTES, None, EVERYTHING), (NOTES, BY_N, EVERYTHING)):
            view.answer(Scan(table, order, interval, descending, 1))
        for order, interval in ((None, EVERYTHING), (STATE, pending), (NAME, named)):
            view.answer(Scan(JOBS, order, interval, descending, 1))
    for table in (NOTES, JOBS):
        view.answer(Get(table, 1_500 << 10))
    view.answer(Claim(1e9, 10, 10))


def touched_by_reads(engine: PostgresEngine) -> dict[str, int]:
    with engine.snapshot() as view:
        [connection] = engine._readers._acquired  # pyright: ignore[reportPrivateUsage]
        before = rows_read(engine, connection)
        read_all(view)
        return many(rows_read(engine, connection) - before)


def touched_by_a_commit(engine: PostgresEngine, first: int) -> dict[str, int]:
    """What a batch touches that writes five documents and their keys, adds five functions and completes five."""
    ids = range(first, first + 5)
    add = {id: Write(None, job(id, 1.0)) for id in ids}
    engine.begin()
    engine.commit(changes((JOBS, add), (NOTES, {id: insert(id, id) for id in ids})))
    engine.begin()
    connection: BlockingConnection = engine._connection  # pyright: ignore[reportPrivateUsage]
    connection.execute("BEGIN")
    before = rows_read(engine, connection)
    done = {id: Write(job(id, 1.0), job(id, None, "success", completed_time=2.0)) for id in ids}
    engine.commit(changes((JOBS, done), (NOTES, {id: update(id, id, id + 1) for id in ids}), ids=[first]))
    engine.validate(ReadKeys([first], [(NOTES, BY_N, b"", b"\xff")]))
    found = many(rows_read(engine, connection) - before)
    connection.execute("COMMIT")
    return found


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed while empty"])
def test_hot_statements_that_were_planned_for_an_empty_store_are_good_in_a_full_one(
    store: str, engine: PostgresEngine, analyzed: bool
) -> None:
    with_notes(engine)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
    for round in range(10):  # from the sixth time on PostgreSQL may keep a plan
        touched_by_a_commit(engine, 1 + 5 * round)
        touched_by_reads(engine)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
        for round in range(10):
            touched_by_a_commit(engine, 101 + 5 * round)
            touched_by_reads(engine)
    fill(store)
    assert touched_by_reads(engine) == {}
    assert touched_by_a_commit(engine, 201) == {}


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
def test_hot_statements_are_planned_well_for_a_full_store(
    store: str, engine: PostgresEngine, new_engine: Open, analyzed: bool
) -> None:
    with_notes(engine)
    fill(store)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
    fresh = new_engine()
    for round in range(10):
        assert touched_by_reads(fresh) == {}
        assert touched_by_a_commit(fresh, 1 + 5 * round) == {}


_LARGE = ("jobs", "completed_jobs", "t100_notes", "i100_by_n", "log", "nodes")


@mutation
async def add_five(ctx: MutationCtx) -> list[str]:
    return [await ctx.db.insert("notes", {"text": "", "more": n}) for n in range(5)]


@mutation
async def read_each(ctx: MutationCtx, ids: list[str]) -> list[int]:
    return [(await ctx.db.get(id) or {})["more"] for id in ids]


async def test_the_documents_that_arguments_name_are_read_by_one_statement(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"notes": SimpleNamespace(add_five=add_five, read_each=read_each), "schema": NUMBERED}
    async with App(modules, store, executor=False) as app, App(modules, store, executor=False) as other:
        ids = await other.mutation("notes:add_five")
        connection = app.database._engine._connection  # pyright: ignore
        asked, fetch = list[str](), connection.fetch
        monkeypatch.setattr(connection, "fetch", lambda sql, *values: (asked.append(sql), fetch(sql, *values))[1])
        assert await app.mutation("notes:read_each", {"ids": ids}) == [0, 1, 2, 3, 4]
        assert len([sql for sql in asked if "_notes" in sql]) == 1
