"""Store files: connections with the pragmas of duly, and what the rows in them say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "wal_autocheckpoint=2000")
"""Those of duly's own connection, so that the floor pays for the same durability."""
READER_PRAGMAS = ("query_only=1", "cache_size=-4096")
"""Those of the connections of duly's queries."""


def connect(path: str, pragmas: Iterable[str] = PRAGMAS) -> apsw.Connection:
    connection = apsw.Connection(path)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def read(path: str, sql: str) -> list[Any]:
    """Rows of a store that may be open elsewhere."""
    reader = apsw.Connection(path)
    try:
        return reader.execute(sql).fetchall()
    finally:
        reader.close()


def job_rows(path: str) -> list[dict[str, Any]]:
    """The rows of all scheduled functions, in the order of scheduling, by column."""
    reader = apsw.Connection(path)
    try:
        cursor = reader.execute("SELECT * FROM scheduled_functions ORDER BY id")
        names = [column[0] for column in cursor.get_description()]
        return [dict(zip(names, row, strict=True)) for row in cursor]
    finally:
        reader.close()


def table_of(path: str, name: str) -> str:
    """The SQL table of a table of the application."""
    [(found,)] = read(path, f"SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 't[0-9]*_{name}'")
    return found


def index_of(path: str, name: str) -> str:
    """The SQL table of an index."""
    [(found,)] = read(path, f"SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'i[0-9]*_{name}'")
    return found


def states(path: str) -> dict[str, int]:
    """How many scheduled functions are in each state."""
    return dict(read(path, "SELECT state, count(*) FROM scheduled_functions GROUP BY state"))


def check_all_succeeded(path: str, jobs: int) -> None:
    found = states(path)
    assert found == {"success": jobs}, f"got {found}, expected {jobs} jobs to be success"


def check_rows(path: str, table: str, rows: int) -> None:
    [(found,)] = read(path, f"SELECT count(*) FROM {table_of(path, table)}")
    assert found == rows, f"got {found} rows in {table}, expected {rows}"


def check_counted(path: str, jobs: int) -> None:
    """Each job has counted once and left one row."""
    [(counted,)] = read(path, f"SELECT sum(json_extract(document, '$.n')) FROM {table_of(path, 'counters')}")
    assert counted == jobs, f"got {counted} as the sum of the counters, expected {jobs}"
    check_rows(path, "events", jobs)


def touch(path: str) -> None:
    """Have the system hold a file in memory, as it does with what is in use: its cache is not what is measured."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass
