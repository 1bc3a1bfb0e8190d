"""Rows that the owner of a file keeps in memory: exact, and bounded in bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sys import getsizeof
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from duly import App, MutationCtx, StoreError, define_schema, define_table, mutation, v
from duly.storage.engine import Changeset
from duly.storage.requests import Get
from duly.storage.rows import ACTION, JOBS, Job, Row, Write
from duly.storage.sqlite.engine import SqliteEngine
from duly.storage.sqlite.hot_rows import HotRows
from duly.values.schema.tables import Table

NOTES, OTHERS = Table("notes", 100), Table("others", 101)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine(str(tmp_path / "app.db"))
    engine.open()
    engine.begin(exclusive=True)
    for table in (NOTES, OTHERS):
        engine.create_table(table)
    commit(engine, NOTES, 1, None, '{"n":1}')
    yield engine
    engine.close()


def commit(engine: SqliteEngine, table: Table, id: int, old: Row | None, new: Row | None) -> None:
    engine.commit(writing(table, id, old, new))


def writing(table: Table, id: int, old: Row | None, new: Row | None) -> Changeset:
    return Changeset([(table, {id: Write(old, new)})], id, None, [], 0.0)


def read(engine: SqliteEngine, table: Table = NOTES, id: int = 1) -> Any:
    """The document, as a batch of its own reads it."""
    view = engine.begin()
    try:
        found = view.cached.get(table.name, {}).get(id)
        return view.answer(Get(table, id)) if found is None else found
    finally:
        engine.rollback()


def held(engine: SqliteEngine) -> dict[str, dict[int, Row]]:
    return engine._hot.rows


def test_what_was_read_is_held_and_is_as_the_next_commit_leaves_it(engine: SqliteEngine) -> None:
    assert read(engine) == '{"n":1}'
    assert held(engine) == {"notes": {1: '{"n":1}'}}
    engine.begin()
    commit(engine, NOTES, 1, '{"n":1}', '{"n":2}')
    assert held(engine) == {"notes": {1: '{"n":2}'}}
    assert read(engine) == '{"n":2}'


def test_what_was_deleted_is_not_held(engine: SqliteEngine) -> None:
    read(engine)
    engine.begin()
    commit(engine, NOTES, 1, '{"n":1}', None)
    assert held(engine) == {"notes": {}}
    assert read(engine) is None


def test_what_was_written_and_never_read_is_not_held(engine: SqliteEngine) -> None:
    engine.begin()
    commit(engine, NOTES, 2, None, '{"n":2}')
    assert held(engine) == {}


def test_documents_of_two_tables_with_one_id_are_two(engine: SqliteEngine) -> None:
    engine.begin()
    commit(engine, OTHERS, 1, None, '{"other":1}')
    assert (read(engine), read(engine, OTHERS)) == ('{"n":1}', '{"other":1}')
    assert (read(engine), read(engine, OTHERS)) == ('{"n":1}', '{"other":1}')


@contextmanager
def refusing(engine: SqliteEngine, sql: str) -> Iterator[None]:
    """Have SQLite refuse one kind of statement."""

    def refuse(_: apsw.Cursor, statement: str, values: object) -> bool:
        if statement.startswith(sql):
            raise apsw.FullError("the disk is full on purpose")
        return True

    engine._connection.exec_trace = refuse
    try:
        yield
    finally:
        engine._connection.exec_trace = None


@pytest.mark.parametrize("sql", ["UPDATE t100", "UPDATE duly_store", "COMMIT"])
def test_after_a_commit_that_failed_nothing_is_held_that_was_not_stored(engine: SqliteEngine, sql: str) -> None:
    read(engine)
    engine.begin()
    with refusing(engine, sql), pytest.raises(StoreError):
        commit(engine, NOTES, 1, '{"n":1}', '{"n":2}')
    engine.rollback()
    assert held(engine) == {}
    assert read(engine) == '{"n":1}'


def test_a_batch_that_is_rolled_back_leaves_what_is_held_as_it_was(engine: SqliteEngine) -> None:
    read(engine)
    engine.begin()
    engine.rollback()
    assert held(engine) == {"notes": {1: '{"n":1}'}}


def test_nothing_is_held_of_before_another_program_has_written(engine: SqliteEngine) -> None:
    read(engine)
    with closing(sqlite3.connect(engine.path)) as shell:
        shell.execute("""UPDATE t100_notes SET document = '{"n":7}'""")
        shell.commit()
    assert read(engine) == '{"n":7}'


def test_a_file_that_is_opened_again_has_nothing_held(engine: SqliteEngine) -> None:
    read(engine)
    engine.close()
    with closing(sqlite3.connect(engine.path)) as restored:
        restored.execute("""UPDATE t100_notes SET document = '{"n":3}'""")
        restored.commit()
    engine.open()
    assert held(engine) == {}
    assert read(engine) == '{"n":3}'


def test_documents_take_no_more_bytes_than_they_may() -> None:
    hot, text = HotRows(bytes_max=1_000), "x" * 200
    each = getsizeof(text) + 100
    for id in range(10):
        hot.add(NOTES, id, text)
        assert hot.bytes == len(hot.rows["notes"]) * each <= 1_000
    hot.add(NOTES, 10, "x" * 2_000)  # more than all may take
    assert (hot.rows, hot.bytes) == ({}, 0)


def test_documents_that_grow_are_let_go() -> None:
    hot = HotRows(bytes_max=1_000)
    hot.add(NOTES, 1, "x")
    hot.attach(hot.detach(), writing(NOTES, 1, "x", "x" * 500))
    assert hot.rows == {"notes": {1: "x" * 500}}
    assert hot.bytes == getsizeof("x" * 500) + 100
    hot.attach(hot.detach(), writing(NOTES, 1, "x" * 500, "x" * 1_000))
    assert (hot.rows, hot.bytes) == ({}, 0)


PENDING = Job(7, "app:act", "{}", 1.0, 1.0, "pending", ACTION)
RUNNING = PENDING._replace(due=None, state="inProgress", epoch=3)


def test_a_job_is_held_while_it_is_in_progress(engine: SqliteEngine) -> None:
    engine.begin()
    commit(engine, JOBS, 7, None, PENDING)
    assert held(engine).get(JOBS.name, {}) == {}
    engine.begin()
    commit(engine, JOBS, 7, PENDING, RUNNING)
    assert held(engine)[JOBS.name] == {7: RUNNING}
    assert read(engine, JOBS, 7) == RUNNING
    engine.begin()
    commit(engine, JOBS, 7, RUNNING, RUNNING._replace(state="canceled", epoch=None, completed_time=2.0))
    assert held(engine)[JOBS.name] == {}
    assert read(engine, JOBS, 7).state == "canceled"
    assert engine._hot.bytes == 0


def test_a_job_that_succeeded_is_not_held(engine: SqliteEngine) -> None:
    for old, new in ((None, PENDING), (PENDING, RUNNING)):
        engine.begin()
        commit(engine, JOBS, 7, old, new)
    engine.begin()
    engine.commit(Changeset([], 7, None, [7], 2.0))
    assert held(engine)[JOBS.name] == {}
    assert read(engine, JOBS, 7).state == "success"


def test_a_job_is_not_held_after_its_end_was_refused(engine: SqliteEngine) -> None:
    for old, new in ((None, PENDING), (PENDING, RUNNING)):
        engine.begin()
        commit(engine, JOBS, 7, old, new)
    engine.begin()
    with refusing(engine, "COMMIT"), pytest.raises(StoreError):
        engine.commit(Changeset([], 7, None, [7], 2.0))
    engine.rollback()
    assert held(engine) == {}
    assert read(engine, JOBS, 7) == RUNNING


@mutation
async def put(ctx: MutationCtx, n: int) -> str:
    return await ctx.db.insert("notes", {"n": n})


@mutation
async def add(ctx: MutationCtx, id: str) -> Any:
    note = await ctx.db.get(id)
    assert note is not None
    await ctx.db.patch(id, {"n": note["n"] + 1})
    return (await ctx.db.get(id))["n"]


async def test_what_is_held_stays_exact_through_changes_of_the_schema(tmp_path: Path) -> None:
    indexed = define_schema({"notes": define_table({"n": v.number()}).index("by_n", ["n"])})
    modules: dict[str, Any] = {"app": SimpleNamespace(put=put, add=add)}
    async with App(modules, f"sqlite:///{tmp_path}/app.db") as app:
        id = await app.mutation("app:put", {"n": 1})
        assert await app.mutation("app:add", {"id": id}) == 2
        modules["schema"] = indexed
        await app.reload()
        assert await app.mutation("app:add", {"id": id}) == 3
        del modules["schema"]
        await app.reload()
        assert await app.mutation("app:add", {"id": id}) == 4
