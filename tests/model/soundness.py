"""Reads a store past duly itself: whether its documents, its indexes and what it says of them agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import orjson

from duly.values.keys import encode, encode_id, field_of


def complaints(path: Path) -> list[str]:
    """Whatever is wrong in a store. An index that is being built may lack keys, and has none that is wrong."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(_complaints(connection))
    finally:
        connection.close()


def indexes(path: Path) -> dict[tuple[str, str], list[bool]]:
    """Which indexes are ready, by table and name; more than one while another one of the name is built."""
    found: dict[tuple[str, str], list[bool]] = {}
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    for _, _, table, name, _, ready in connection.execute(INDEXES):
        found.setdefault((table, name), []).append(bool(ready))
    connection.close()
    return found


def _complaints(connection: apsw.Connection) -> Iterator[str]:
    for (text,) in connection.execute("PRAGMA integrity_check"):
        if text != "ok":
            yield f"integrity_check: {text}"
    yield from _wrong_tables(connection)
    for number, table_number, table, name, fields, ready in connection.execute(INDEXES).fetchall():
        rows: Any = connection.execute(f"SELECT id, document FROM t{table_number}_{table}").fetchall()
        expected = {_key(orjson.loads(fields), id, orjson.loads(document)): id for id, document in rows}
        found: Any = dict(connection.execute(f"SELECT key, id FROM i{number}_{name}").fetchall())
        if wrong := found.items() - expected.items():
            yield f"{table}.{name}: {len(wrong)} keys lead nowhere"
        if ready and (missing := expected.items() - found.items()):
            yield f"{table}.{name}: {len(missing)} keys are missing"


def _wrong_tables(connection: apsw.Connection) -> Iterator[str]:
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name GLOB '[it][0-9]*'")}
    known = {f"i{row[0]}_{row[3]}" for row in connection.execute(INDEXES)}
    known |= {f"t{number}_{name}" for number, name in connection.execute("SELECT number, name FROM duly_tables")}
    if there != known:
        yield f"the file has the tables {there - known} and lacks {known - there}"


def _key(fields: list[str], id: int, document: dict[str, Any]) -> bytes:
    return b"".join(encode(field_of(document, path)) for path in fields) + encode_id(id)


INDEXES = """
SELECT i.number, t.number, t.name, i.name, i.fields, i.ready
FROM duly_indexes i JOIN duly_tables t ON t.number = i.table_number ORDER BY i.number
"""
