"""Reads a store past duly itself: whether its documents, its indexes and what it says of them agree."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw
import orjson

from duly.values.index_keys import encode, encode_id, field_of
from tests import postgres

T = TypeVar("T")
Ask = Callable[[str], list[tuple[Any, ...]]]
"""Runs a statement and returns its rows."""


def complaints(store: str) -> list[str]:
    """Whatever is wrong in a store. An index that is being built may lack keys, and has none that is wrong."""
    return look(store, lambda ask: list(_complaints(ask)))


def indexes(store: str) -> dict[tuple[str, str], list[bool]]:
    """Which indexes are ready, by table and name; more than one while another one of the name is built."""
    found: dict[tuple[str, str], list[bool]] = {}
    for _, _, table, name, _, ready in look(store, lambda ask: ask(INDEXES)):
        found.setdefault((table, name), []).append(bool(ready))
    return found


def look(store: str, reading: Callable[[Ask], T]) -> T:
    """Look into a store, and change it perhaps; in a thread, for an event loop may run in this one."""
    opened = sqlite if store.startswith("sqlite:///") else in_postgres

    def run() -> T:
        with opened(store) as ask:
            return reading(ask)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@contextmanager
def sqlite(store: str) -> Generator[Ask]:
    connection = apsw.Connection(store.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        yield lambda sql: connection.execute(sql).fetchall()
    finally:
        connection.close()


@contextmanager
def in_postgres(store: str) -> Generator[Ask]:
    yield lambda sql: postgres.ask(store, IN_POSTGRES.get(sql, sql))


def _complaints(ask: Ask) -> Iterator[str]:
    for (text,) in ask(INTEGRITY):
        if text != "ok":
            yield f"integrity_check: {text}"
    yield from _wrong_tables(ask)
    for number, table_number, table, name, fields, ready in ask(INDEXES):
        rows = ask(f'SELECT id, document FROM "t{table_number}_{table}"')
        expected = {_key(orjson.loads(fields), id, orjson.loads(document)): id for id, document in rows}
        found: Any = dict(ask(f'SELECT key, id FROM "i{number}_{name}"'))
        if wrong := found.items() - expected.items():
            yield f"{table}.{name}: {len(wrong)} keys lead nowhere"
        if ready and (missing := expected.items() - found.items()):
            yield f"{table}.{name}: {len(missing)} keys are missing"


def _wrong_tables(ask: Ask) -> Iterator[str]:
    there = {name for (name,) in ask(NAMES)}
    known = {f"i{row[0]}_{row[3]}" for row in ask(INDEXES)}
    known |= {f"t{number}_{name}" for number, name in ask(TABLES)} | SYSTEM
    if there != known:
        yield f"the store has the tables {there - known} and lacks {known - there}"


def _key(fields: list[str], id: int, document: dict[str, Any]) -> bytes:
    return b"".join(encode(field_of(document, path)) for path in fields) + encode_id(id)


INTEGRITY = "PRAGMA integrity_check"
NAMES = "SELECT name FROM sqlite_schema WHERE name GLOB '[it][0-9]*'"
TABLES = "SELECT number, name FROM duly_tables"
INDEXES = """
SELECT i.number, t.number, t.name, i.name, i.fields, i.ready
FROM duly_indexes i JOIN duly_tables t ON t.number = i.table_number ORDER BY i.number
"""
IN_POSTGRES = {
    INTEGRITY: "SELECT 'ok'",
    NAMES: "SELECT relname::text FROM pg_class"
    " WHERE relnamespace = current_schema::regnamespace AND relkind = 'r' AND relname ~ '^[it][0-9]'",
    TABLES: TABLES.replace("duly_", ""),
    INDEXES: INDEXES.replace("duly_", ""),
}
SYSTEM = {
    *("t2__executor", "t3__cron_jobs", "i4_by_name", "t4__cron_job_logs", "i5_by_name"),
    *("t5__client_requests", "i6_by_request", "t6__server"),
}
