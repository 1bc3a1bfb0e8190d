"""Stores of either engine by their address: what their rows say, read past duly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import apsw

from duly.storage.open import sqlite_path
from duly.storage.postgres.address import is_postgres, parse

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "wal_autocheckpoint=2000")
"""Those of duly's own connection, so that the floor pays for the same durability."""
READER_PRAGMAS = ("query_only=1", "cache_size=-4096")
"""Those of the connections of duly's queries."""

FAR_MS = 4_000_000_000_000
"""What is due from here on was put there to be in the way, and is not counted among the jobs."""


class Dialect(NamedTuple):
    """How an engine keeps what is asked for here."""

    jobs: str
    """The state of each scheduled function."""
    tables: str
    """The SQL tables of the application's tables, of their names."""
    number: str
    """The `n` of a document."""


SQLITE = Dialect(
    "(SELECT state FROM scheduled_functions WHERE state IN ('inProgress', 'success', 'failed', 'canceled')"
    f" UNION ALL SELECT state FROM scheduled_functions WHERE lane IN ('mutation', 'action') AND due < {FAR_MS})",
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 't[0-9]*_{}'",
    "json_extract(document, '$.n')",
)
POSTGRES = Dialect(
    f"(SELECT state FROM jobs WHERE due IS NULL OR due < {FAR_MS}"
    " UNION ALL SELECT state FROM completed_jobs) AS scheduled_functions",
    "SELECT format('t%s_%s', number, name) FROM tables WHERE name = '{}'",
    "(document::json ->> 'n')::bigint",
)


def is_in_postgres(store: str) -> bool:
    return is_postgres(store)


def dialect_of(store: str) -> Dialect:
    return POSTGRES if is_in_postgres(store) else SQLITE


def read(store: str, sql: str) -> list[Any]:
    """Rows of a store that may be open elsewhere. It may be called where an event loop runs, which waits."""
    if is_in_postgres(store):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _fetch(store, sql)).result()
    reader = apsw.Connection(sqlite_path(store))
    try:
        return reader.execute(sql).fetchall()
    finally:
        reader.close()


async def _fetch(store: str, sql: str) -> list[Any]:
    async with connection(store) as postgres:
        return await postgres.fetch(sql)


@asynccontextmanager
async def connection(store: str, **settings: str) -> AsyncIterator[Any]:
    """A connection of asyncpg, for which the tables of the store need no schema."""
    import asyncpg

    address = parse(store)
    postgres = await asyncpg.connect(address.dsn, server_settings={"search_path": address.schema, **settings})
    try:
        yield postgres
    finally:
        await postgres.close()


def connect(store: str, pragmas: Iterable[str] = PRAGMAS) -> apsw.Connection:
    connection = apsw.Connection(sqlite_path(store))
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def job_rows(store: str) -> list[dict[str, Any]]:
    """The rows of all scheduled functions of a file, in the order of scheduling, by column."""
    reader = apsw.Connection(sqlite_path(store))
    try:
        cursor = reader.execute("SELECT * FROM scheduled_functions ORDER BY id")
        names = [column[0] for column in cursor.get_description()]
        return [dict(zip(names, row, strict=True)) for row in cursor]
    finally:
        reader.close()


def table_of(store: str, name: str) -> str:
    """The SQL table of a table of the application."""
    [(found,)] = read(store, dialect_of(store).tables.format(name))
    return found


def index_of(store: str, name: str) -> str:
    """The SQL table of an index of a file."""
    [(found,)] = read(store, f"SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'i[0-9]*_{name}'")
    return found


def states(store: str) -> dict[str, int]:
    """How many scheduled functions are in each state."""
    return dict(read(store, f"SELECT state, count(*) FROM {dialect_of(store).jobs} GROUP BY state"))


def check_all_succeeded(store: str, jobs: int) -> None:
    found = states(store)
    assert found == {"success": jobs}, f"got {found}, expected {jobs} jobs to be success"


def check_rows(store: str, table: str, rows: int) -> None:
    [(found,)] = read(store, f"SELECT count(*) FROM {table_of(store, table)}")
    assert found == rows, f"got {found} rows in {table}, expected {rows}"


def check_counted(store: str, jobs: int) -> None:
    """Each job has counted once and left one row: none is lost, none doubled."""
    number, counters, events = dialect_of(store).number, table_of(store, "counters"), table_of(store, "events")
    [(counted,)] = read(store, f"SELECT sum({number}) FROM {counters}")
    assert counted == jobs, f"got {counted} as the sum of the counters, expected {jobs}"
    [(rows, distinct)] = read(store, f"SELECT count(*), count(DISTINCT {number}) FROM {events}")
    assert (rows, distinct) == (jobs, jobs), f"got {rows} events of {distinct} jobs, expected one of each of {jobs}"


def checkpoint(store: str) -> None:
    """Have PostgreSQL write out what preparing has left, so that it does not while something is measured."""
    if is_in_postgres(store):
        read(store, "CHECKPOINT")


def touch(path: str) -> None:
    """Have the system hold a file in memory, as it does with what is in use: its cache is not what is measured."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass
