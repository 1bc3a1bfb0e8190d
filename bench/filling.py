"""Stores full of functions that are pending and far from due, and what is cleared away between two rounds on them."""

from __future__ import annotations

import apsw

from bench import stores
from bench.product import HOUR_MS, open_app
from duly.storage.open import sqlite_path

SPREAD_MS = 30 * 24 * 3_600_000
"""They are due within this time from the far day on."""
STEP = 2_654_435_761
"""A prime, so that the times are in no order: nothing may rely on functions being scheduled as they become due."""
SECONDS_MAX = 3_600
BULK_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-262144", "threads=2")
"""For a file that nobody misses. The app that opens it next makes it what a store is."""

DUE = f"{stores.FAR_MS} + (n * {STEP} % {SPREAD_MS})"


async def fill(store: str, pending: int) -> None:
    """Make the tables, and copies of a job that duly has written: with ids of their own, due on a far day."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        if pending:
            await app.mutation("bench:schedule_for_later", {"first": 0, "count": 1, "delay": HOUR_MS})
    if not pending:
        return
    if stores.is_in_postgres(store):
        await _fill_postgres(store, pending)
    else:
        _fill_sqlite(store, pending)


# With the indexes made anew behind it, which sorts once instead of ten million times.


async def _fill_postgres(store: str, pending: int) -> None:
    async with stores.connection(store) as postgres:
        [(last,)] = await postgres.fetch("SELECT id FROM jobs")
        columns = [name for (name,) in await postgres.fetch(_COLUMNS, "jobs")]
        indexes = await postgres.fetch(_POSTGRES_INDEXES)
        numbers = f"generate_series(1::bigint, {pending}) AS numbers (n)"
        await postgres.execute("SET maintenance_work_mem = '512MB'")
        for sql in (
            *(f"DROP INDEX {name}" for name, _ in indexes),
            _copy("jobs", columns, numbers, last, pending),
            f"DELETE FROM jobs WHERE id = {last}",
            *(create for _, create in indexes),
            "VACUUM ANALYZE jobs",
        ):
            await postgres.execute(sql, timeout=SECONDS_MAX)


def _fill_sqlite(store: str, pending: int) -> None:
    connection = stores.connect(store, BULK_PRAGMAS)
    try:
        run = connection.execute
        [(last,)] = run("SELECT id FROM scheduled_functions").fetchall()
        columns = [str(row[1]) for row in run("PRAGMA table_info(scheduled_functions)")]
        indexes = run(_SQLITE_INDEXES).fetchall()
        numbers = (
            f"(WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT {pending}) SELECT n FROM n)"
        )
        with connection:
            for name, _ in indexes:
                run(f"DROP INDEX {name}")
            run(_copy("scheduled_functions", columns, numbers, last, pending))
            run("DELETE FROM scheduled_functions WHERE id = ?", (last,))
            for _, create in indexes:
                run(create)
    finally:
        connection.close()


def _copy(table: str, columns: list[str], numbers: str, last: int, pending: int) -> str:
    """Older ids, in their order, as those of functions that were scheduled one after the other."""
    copied = {"id": f"id - (({pending} + 1 - n) << 10)", "due": DUE, "scheduled_time": DUE}
    values = ", ".join(copied.get(column, column) for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, {numbers} WHERE id = {last}"


def count_far(store: str) -> int:
    """How many functions are pending on the far day."""
    table = "jobs" if stores.is_in_postgres(store) else "scheduled_functions"
    [(found,)] = stores.read(store, f"SELECT count(*) FROM {table} WHERE lane = 'mutation' AND due >= {stores.FAR_MS}")
    return found


def clear(store: str) -> None:
    """Leave a store as it was filled: without what has completed, and without what that has written."""
    written = [stores.table_of(store, table) for table in ("counters", "events")]
    if stores.is_in_postgres(store):
        stores.read(store, f"TRUNCATE completed_jobs, {', '.join(written)}")
        return
    connection = apsw.Connection(sqlite_path(store))
    try:
        with connection:
            connection.execute("DELETE FROM scheduled_functions WHERE state IN ('success', 'failed', 'canceled')")
            for table in written:
                connection.execute(f"DELETE FROM {table}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_POSTGRES_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = 'jobs'::regclass AND NOT indisprimary
"""
_SQLITE_INDEXES = """
SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'scheduled_functions' AND sql IS NOT NULL
"""
