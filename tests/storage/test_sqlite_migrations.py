"""A store of an older format is migrated when it is opened, and keeps its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from duly.app import App
from duly.errors import StoreError
from duly.storage.requests import Get, Scan
from duly.storage.rows import SYSTEM_TABLES
from duly.storage.sqlite import file
from duly.storage.sqlite.engine import SqliteEngine
from duly.values.index_keys import EVERYTHING, encode, encode_id
from duly.values.schema.tables import Index, Table

FORMAT_1 = """
CREATE TABLE duly_store (format INTEGER NOT NULL, secret BLOB NOT NULL, version INTEGER NOT NULL,
    last_id INTEGER NOT NULL, epoch INTEGER NOT NULL) STRICT;
CREATE TABLE duly_tables (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE duly_indexes (number INTEGER PRIMARY KEY, table_number INTEGER NOT NULL REFERENCES duly_tables,
    name TEXT NOT NULL, fields TEXT NOT NULL, UNIQUE (table_number, name)) STRICT;
CREATE TABLE scheduled_functions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    args TEXT NOT NULL,
    scheduled_time REAL NOT NULL,
    due REAL,
    state TEXT NOT NULL,
    lane TEXT NOT NULL CHECK (lane IN ('mutation', 'action')),
    parent INTEGER,
    epoch INTEGER,
    error TEXT,
    completed_time REAL,
    -- Each state has its own columns, and no others. One CASE: separate checks double the cost of an insert.
    CHECK (CASE state
        WHEN 'pending' THEN due IS NOT NULL AND epoch IS NULL AND error IS NULL AND completed_time IS NULL
        WHEN 'inProgress' THEN due IS NULL AND epoch IS NOT NULL AND error IS NULL AND completed_time IS NULL
        WHEN 'success' THEN due IS NULL AND epoch IS NULL AND error IS NULL AND completed_time IS NOT NULL
        WHEN 'failed' THEN due IS NULL AND epoch IS NULL AND error IS NOT NULL AND completed_time IS NOT NULL
        WHEN 'canceled' THEN due IS NULL AND epoch IS NULL AND error IS NULL AND completed_time IS NOT NULL
        ELSE false END)
) STRICT;
CREATE INDEX scheduled_functions_due ON scheduled_functions (lane, due) WHERE due IS NOT NULL;
CREATE INDEX scheduled_functions_by_state ON scheduled_functions (state, scheduled_time);
CREATE INDEX scheduled_functions_by_name ON scheduled_functions (name, scheduled_time);

INSERT INTO duly_store VALUES (1, zeroblob(32), 7, 12, 3);
INSERT INTO duly_tables VALUES (100, 'notes');
INSERT INTO duly_indexes VALUES (100, 100, 'by_n', '["n"]');
CREATE TABLE t100_notes (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i100_by_n (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO t100_notes VALUES (11, '{"n":2}'), (12, '{"n":1}');
"""
NOTES = Table("notes", 100, (Index("by_n", 100, ("n",)),))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store as the first format laid it out."""
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.execute(FORMAT_1)
    keys = [(encode(n) + encode_id(id), id) for id, n in ((11, 2), (12, 1))]
    connection.executemany("INSERT INTO i100_by_n VALUES (?, ?)", keys)
    connection.close()
    return path


def columns(path: Path) -> Iterator[tuple[object, ...]]:
    connection = apsw.Connection(str(path))
    for table in ("duly_store", "duly_tables", "duly_indexes", "scheduled_functions"):
        for row in connection.execute(f"PRAGMA table_xinfo({table})"):
            yield (table, *row)
        for row in connection.execute(f"SELECT \"unique\", partial FROM pragma_index_list('{table}')"):
            yield (table, *row)
    connection.close()


def test_a_store_of_the_first_format_keeps_its_documents_and_indexes(old: Path) -> None:
    engine = SqliteEngine(str(old))
    header = engine.open()
    assert (header[1:4], engine.epoch) == ((7, 12, (*SYSTEM_TABLES.values(), NOTES)), 4)
    with engine.snapshot() as view:
        assert view.answer(Get(NOTES, 11)) == '{"n":2}'
        rows = view.answer(Scan(NOTES, NOTES.indexes[0], EVERYTHING, False, 9))
    assert [id for id, _ in rows] == [12, 11]
    engine.close()


def test_a_migrated_store_has_the_layout_of_a_new_one(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "new.db"):
        engine = SqliteEngine(str(path))
        engine.open()
        engine.close()
    assert list(columns(old)) == list(columns(tmp_path / "new.db"))


def test_a_store_is_migrated_once(old: Path) -> None:
    for epoch in (4, 5):
        engine = SqliteEngine(str(old))
        engine.open()
        assert engine.epoch == epoch
        engine.close()
    connection = apsw.Connection(str(old))
    assert connection.execute("SELECT format FROM duly_store").get == 4
    connection.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(columns(old))
    halfway = file._MIGRATIONS[1] + "SELECT * FROM no_such_table;"  # pyright: ignore[reportPrivateUsage]
    with monkeypatch.context() as patched:
        patched.setitem(file._MIGRATIONS, 1, halfway)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StoreError, match="no such table"):
            SqliteEngine(str(old)).open()
    assert list(columns(old)) == before
    engine = SqliteEngine(str(old))
    assert engine.open().tables == (*SYSTEM_TABLES.values(), NOTES)
    engine.close()


async def test_an_app_goes_on_with_a_store_of_the_first_format(old: Path) -> None:
    async with App({}, f"sqlite:///{old}") as app:
        found = await app.runner.transaction(lambda ctx: ctx.db.query("notes").collect())
        assert [note["n"] for note in found] == [2, 1]
