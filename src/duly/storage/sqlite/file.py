"""The layout of the file of a store, its migrations, and its header when it is opened."""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import secrets
from typing import Any, Final

import apsw
import orjson

from duly.errors import StoreError
from duly.storage.engine import Header
from duly.storage.rows import SYSTEM_TABLES
from duly.values.ids import SECRET_BYTES
from duly.values.schema.tables import Index, Table

FORMAT: Final = 4
"""The version of the layout. A file of an older one is migrated when it is opened; a newer one is refused."""


def prepare(writer: apsw.Connection, path: str) -> None:
    """Create the tables in a new file, or migrate an older store to this format."""
    tables = {name for (name,) in writer.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        with writer:
            writer.execute(_CREATE_STORE)
            writer.execute(_INSERT_STORE, (FORMAT, secrets.token_bytes(SECRET_BYTES)))
    elif "duly_store" not in tables:
        raise StoreError(f"{path}: got an SQLite database of something else, expected a store of duly or no file")
    else:
        _migrate(writer, path)


def _migrate(writer: apsw.Connection, path: str) -> None:
    found: Any = writer.execute("SELECT format FROM duly_store").get
    if found != FORMAT and found not in _MIGRATIONS:
        raise StoreError(f"{path}: got a store of format {found}, expected {FORMAT}; this duly cannot read it")
    with writer:  # all of them or none
        for older in range(found, FORMAT):
            writer.execute(_MIGRATIONS[older])
            writer.execute(_SET_FORMAT, (older + 1,))


def read_header(writer: apsw.Connection) -> tuple[Header, int]:
    """Return the header of the store, and its epoch: how often it was opened, including this time."""
    writer.execute(_NEXT_EPOCH)
    store: Any = writer.execute(_GET_STORE).fetchone()
    indexes: dict[int, list[Index]] = {}
    for number, table, name, fields, ready in writer.execute(_GET_INDEXES):
        indexes.setdefault(table, []).append(Index(name, number, tuple(orjson.loads(fields)), bool(ready)))
    tables = [
        Table(name, number, tuple(indexes.get(number, ())), declared)
        for number, name, declared in writer.execute(_GET_TABLES)
    ]
    secret, version, last_id, epoch = store
    return Header(secret, version, last_id, (*SYSTEM_TABLES.values(), *tables)), epoch


# SQL.

_CREATE_STORE: Final = """
CREATE TABLE duly_store (format INTEGER NOT NULL, secret BLOB NOT NULL, version INTEGER NOT NULL,
    last_id INTEGER NOT NULL, epoch INTEGER NOT NULL) STRICT;
CREATE TABLE duly_tables (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    declared TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE duly_indexes (number INTEGER PRIMARY KEY, table_number INTEGER NOT NULL REFERENCES duly_tables,
    name TEXT NOT NULL, fields TEXT NOT NULL, ready INTEGER NOT NULL, UNIQUE (table_number, name, ready)) STRICT;
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
    attempts INTEGER NOT NULL DEFAULT 0,
    retry_of INTEGER,
    cron INTEGER,
    -- Each state has its own columns and no others. One CASE, because separate checks double the cost of an insert.
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
CREATE INDEX scheduled_functions_completed ON scheduled_functions (completed_time) WHERE completed_time IS NOT NULL;
CREATE TABLE t2__executor (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE t3__cron_jobs (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i4_by_name (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE t4__cron_job_logs (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i5_by_name (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE t5__client_requests (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i6_by_request (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE t6__server (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
"""
_INSERT_STORE: Final = "INSERT INTO duly_store VALUES (?, ?, 0, 0, 0)"
_NEXT_EPOCH: Final = "UPDATE duly_store SET epoch = epoch + 1"
_GET_STORE: Final = "SELECT secret, version, last_id, epoch FROM duly_store"
_GET_TABLES: Final = "SELECT number, name, declared FROM duly_tables ORDER BY number"
_GET_INDEXES: Final = "SELECT number, table_number, name, fields, ready FROM duly_indexes ORDER BY number"

_MIGRATIONS: Final = {
    # 2: tables have declarations, and an index may be built while another one of its name exists.
    1: """
ALTER TABLE duly_tables ADD COLUMN declared TEXT NOT NULL DEFAULT '';
ALTER TABLE duly_indexes RENAME TO duly_indexes_1;
CREATE TABLE duly_indexes (number INTEGER PRIMARY KEY, table_number INTEGER NOT NULL REFERENCES duly_tables,
    name TEXT NOT NULL, fields TEXT NOT NULL, ready INTEGER NOT NULL, UNIQUE (table_number, name, ready)) STRICT;
INSERT INTO duly_indexes SELECT number, table_number, name, fields, 1 FROM duly_indexes_1;
DROP TABLE duly_indexes_1;
""",
    # 3: the pause of executors, the sweeper, retries of failed jobs, and crons.
    2: """
ALTER TABLE scheduled_functions ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scheduled_functions ADD COLUMN retry_of INTEGER;
ALTER TABLE scheduled_functions ADD COLUMN cron INTEGER;
CREATE INDEX scheduled_functions_completed ON scheduled_functions (completed_time) WHERE completed_time IS NOT NULL;
CREATE TABLE t2__executor (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE t3__cron_jobs (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i4_by_name (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE t4__cron_job_logs (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i5_by_name (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
    # 4: the mutations of remote clients, and what servers agree on.
    3: """
CREATE TABLE t5__client_requests (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE i6_by_request (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE t6__server (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
""",
}
"""By format: the statements that turn a store of this format into one of the next."""
_SET_FORMAT: Final = "UPDATE duly_store SET format = ?"
