"""Notes in a store in PostgreSQL, written and read through an engine, without the layers above it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("asyncpg")


from duly import (
    MutationCtx,
    QueryCtx,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.storage.conflicts import Conflict
from duly.storage.engine import Changeset, ReadKeys
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Get
from duly.storage.rows import JOBS, MUTATION, Job, Write
from duly.values.index_keys import encode, encode_id
from duly.values.schema.tables import Index, Table
from tests.nodes.serializable import connect

BY_N = Index("by_n", 100, ("n",))
NOTES = Table("notes", 100, (BY_N,))
STATE, NAME = JOBS.indexes

Open = Callable[..., PostgresEngine]


def ask(store: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last statement, by a connection of the test's own; `duly.` stands for the store's schema."""

    async def answer() -> list[tuple[Any, ...]]:
        connection, schema = await connect(store)
        try:
            answers = [await connection.fetch(sql.replace("duly.", f"{schema}.")) for sql in statements]
        finally:
            await connection.close()
        return [tuple(row) for row in answers[-1]]

    return asyncio.run(answer())


def key(n: int, id: int) -> bytes:
    return encode(n) + encode_id(id)


def insert(id: int, n: int) -> Write:
    return Write(None, f'{{"n":{n}}}', (), (key(n, id),))


def update(id: int, old: int, new: int) -> Write:
    return Write(f'{{"n":{old}}}', f'{{"n":{new}}}', (key(old, id),), (key(new, id),))


def job(id: int, due: float | None, state: str = "pending", name: str = "a:b", **more: Any) -> Job:
    return Job(id, name, "{}", due or 0.0, due, state, MUTATION, **more)


def changes(*written: tuple[Table, dict[int, Write]], ids: list[int] | None = None) -> Changeset:
    return Changeset(written, 1_000, ReadKeys(ids or [], []))


def with_notes(engine: PostgresEngine, *numbers: int) -> None:
    engine.begin(exclusive=True)
    engine.create_table(Table("notes", 100))
    engine.create_index(Table("notes", 100), BY_N)
    engine.commit(changes((NOTES, {id: insert(id, n) for id, n in enumerate(numbers, 1)})))


def learn(engine: PostgresEngine) -> None:
    """Have an engine know of all commits."""
    with suppress(Conflict):  # there are other tables than it knew
        engine.refresh()
    engine.rollback()


def put(engine: PostgresEngine, id: int, old: int, new: int) -> int:
    """A batch that reads a note and writes it."""
    learn(engine)
    assert engine.begin().answer(Get(NOTES, id)) == f'{{"n":{old}}}'
    return engine.commit(changes((NOTES, {id: update(id, old, new)}), ids=[id]))


def note(engine: PostgresEngine, id: int) -> object:
    """A note as a batch reads it that knows of all commits."""
    learn(engine)
    try:
        return engine.begin().answer(Get(NOTES, id))
    finally:
        engine.rollback()


NUMBERED = define_schema({"notes": define_table({"text": v.string(), "more": v.int64()}).index("by_more", ["more"])})


@mutation
async def add(ctx: MutationCtx, text: str, more: int) -> None:
    note = await ctx.db.insert("notes", {"text": text, "more": more})
    await ctx.db.patch(note, {"text": text})
    if more:
        await ctx.scheduler.run_after(5, "notes:add", {"text": text, "more": more - 1})


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").with_index("by_more").collect()]
