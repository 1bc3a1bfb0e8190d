"""Text and names that PostgreSQL would change or refuse, and the types that its driver asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import postgres

pytest.importorskip("asyncpg")

from asyncpg import Connection

from duly.storage.postgres.connection import _ARRAYS
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Get, Scan
from duly.storage.rows import JOBS, Write
from duly.testing import Harness
from duly.values.index_keys import EVERYTHING, Cut, Interval
from duly.values.schema.tables import Index, Table
from tests.storage.postgres.notes import (
    NAME,
    NUMBERED,
    add,
    ask,
    changes,
    job,
    key,
    texts,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


async def test_the_driver_asks_the_server_for_no_type(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    ask_for_types = Connection._introspect_types

    def note(connection: Any, types: Any, *more: Any) -> Any:
        asked.append(types)
        return ask_for_types(connection, types, *more)

    monkeypatch.setattr(Connection, "_introspect_types", note)
    async with Harness({"notes": SimpleNamespace(add=add, texts=texts), "schema": NUMBERED}, store=store) as t:
        await t.mutation("notes:add", {"text": "tea", "more": 2})
        await t.advance(10)
        assert ["tea", "tea", "tea"] == await t.query("notes:texts")

    assert asked == []


def test_the_types_that_the_driver_is_told_of_are_those_of_the_server(store: str) -> None:
    found = ask(store, f"SELECT oid, typname, typelem FROM pg_type WHERE oid IN ({', '.join(map(str, _ARRAYS))})")

    assert sorted((oid, f"_{name}", of) for oid, (name, of) in _ARRAYS.items()) == sorted(found)


def test_an_error_may_hold_any_text(engine: PostgresEngine) -> None:
    engine.begin()
    engine.commit(changes((JOBS, {1: Write(None, job(1, 5.0))})))
    engine.begin()
    failed = job(1, None, "failed", error="a\0b", completed_time=6.0)
    engine.commit(changes((JOBS, {1: Write(job(1, 5.0), failed)})))
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)).error == "a\\0b"


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("lower", "upper", "ids"),
    [
        (("a:b\0",), ("a:c\0",), [2]),
        (("a:b\0c",), ("a:c",), []),
        (("a:b", 3.0), ("a:b\0", 1.0), [1]),
        (("a:b\0\0",), ("b\0",), [2, 3]),
    ],
)
def test_names_are_compared_with_text_that_none_can_hold(
    engine: PostgresEngine, lower: tuple[Any, ...], upper: tuple[Any, ...], ids: list[int], descending: bool
) -> None:
    engine.begin()
    names = {1: "a:b", 2: "a:c", 3: "b"}
    engine.commit(changes((JOBS, {id: Write(None, job(id, 5.0, name=name)) for id, name in names.items()})))
    interval = Interval(Cut(lower, after=False), Cut(upper, after=False))
    with engine.snapshot() as view:
        found = [id for id, _ in view.answer(Scan(JOBS, NAME, interval, descending, 10))]
    assert found == (ids[::-1] if descending else ids)


def test_a_name_may_be_as_long_as_a_name_may_be(engine: PostgresEngine) -> None:
    indexes = tuple(Index("i" * 63 + end, 100 + n, ("n",)) for n, end in enumerate("ab"))
    long = Table("t" * 64, 100, indexes)
    twin = Table("t" * 63 + "u", 101)
    engine.begin(exclusive=True)
    engine.create_table(twin)
    engine.create_table(Table(long.name, 100))
    for index in indexes:
        engine.create_index(Table(long.name, 100), index)
    engine.commit(changes((long, {1: Write(None, '{"n":5}', (), (key(5, 1), key(5, 1)))})))
    with engine.snapshot() as view:
        assert view.answer(Get(long, 1)) == '{"n":5}'
        assert view.answer(Get(twin, 1)) is None
        assert view.answer(Scan(long, indexes[1], EVERYTHING, False, 10)) == [(1, '{"n":5}')]
