"""What only the store in PostgreSQL does. The traps it avoids, and where that is tested or why it cannot happen:

- A connection left within a statement: whatever is unexpected throws it away (`Link`).
- A stalled holder of the lock: cut off by the server, here.
- The answer of a commit lost: settled, here; amid the bytes of a connection in tests/crash.
- Comparing what was read with what was written: by hash joins, and not at all where it would take long (`conflicts_1`).
- NOTIFY lost: the next beat notices, here. Listening has a connection of its own.
- Old snapshots: here.
- Writers that go around `commit_1`: out of scope, a manual UPDATE makes caches stale; a node that finds its place in
  the log pruned forgets all it remembers, here.
- Text that PostgreSQL has not, collations: here. Documents are text, keys are bytea, names sort by "C".
- SERIALIZABLE and SKIP LOCKED: not used; a session that is not at READ COMMITTED may not commit, here.
- Clocks, jobs cancelled as they are claimed, actions of lost nodes: tests/nodes/test_nodes.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from tests import postgres

pytest.importorskip("asyncpg")

from asyncpg import Connection

from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    crons,
    define_schema,
    define_table,
    internal_action,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.app import App, engine_of
from duly.errors import StoreError, StoreLostError
from duly.limits import DEFAULTS, Limits
from duly.storage.conflicts import CommitInDoubt, Conflict
from duly.storage.engine import Changeset, ReadKeys
from duly.storage.postgres import lock_timeout, migrations
from duly.storage.postgres.address import parse
from duly.storage.postgres.connection import _ARRAYS, BlockingConnection
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Claim, Get, Scan, View
from duly.storage.rows import JOBS, MUTATION, Job, Write
from duly.testing import Harness
from duly.values.index_keys import EVERYTHING, Cut, Interval, encode, encode_id
from duly.values.schema.tables import Index, Table
from tests.nodes.serializable import connect

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]

BY_N = Index("by_n", 100, ("n",))
NOTES = Table("notes", 100, (BY_N,))
STATE, NAME = JOBS.indexes

Open = Callable[..., PostgresEngine]

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


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


@pytest.fixture
def new_engine(store: str) -> Iterator[Open]:
    opened: list[PostgresEngine] = []

    def open_another(limits: Limits = DEFAULTS) -> PostgresEngine:
        engine = engine_of(store, limits)
        assert isinstance(engine, PostgresEngine)
        opened.append(engine)
        engine.open()
        return engine

    yield open_another
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(new_engine: Open) -> PostgresEngine:
    return new_engine()


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


# The answer of a commit.


def lose(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch, *losses: tuple[str, str]) -> list[tuple[Any, ...]]:
    """Lose the connection at statements that contain a text, in this order: their request or their answer.

    Returns the requests that were lost, to arrive late.
    """
    left, lost = list(losses), list[tuple[Any, ...]]()
    connection: BlockingConnection = engine._connection  # pyright: ignore[reportPrivateUsage]
    fetch = connection.fetch

    def fetch_or_lose(sql: str, *values: object) -> list[Any]:
        if left and left[0][0] in sql:
            _, what = left.pop(0)
            if what == "answer":
                fetch(sql, *values)
            else:
                lost.append((sql, *values))
            connection.discard()
            raise StoreLostError("lost by the test")
        return fetch(sql, *values)

    monkeypatch.setattr(connection, "fetch", fetch_or_lose)
    return lost


def test_a_commit_whose_answer_is_lost_is_found_to_be_done(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5)
    lose(engine, monkeypatch, ("commit_1", "answer"))
    assert put(engine, 1, 5, 6) == 2
    assert put(engine, 1, 6, 7) == 3


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_commit_whose_request_is_lost_is_run_again_and_can_never_arrive_late(
    engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    with_notes(engine, 5)
    lost = lose(engine, monkeypatch, ("commit_1", "request"))
    engine.begin(exclusive)
    with pytest.raises(StoreLostError):
        engine.commit(changes((NOTES, {2: insert(2, 6)})))
    engine.rollback()
    [(sql, *values)] = lost
    other = new_engine()
    assert other._idle_connection.fetch(sql, *values)[0][0] == -2  # pyright: ignore[reportPrivateUsage]
    assert note(other, 2) is None
    engine.begin()
    engine.commit(changes((NOTES, {2: insert(2, 6)})))
    assert note(engine, 2) == '{"n":6}'


def test_a_batch_that_is_settled_twice_as_not_committed_stays_so(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5)
    lose(engine, monkeypatch, ("commit_1", "request"), ("settle_1", "answer"))
    engine.begin()
    with pytest.raises(StoreLostError):
        engine.commit(changes((NOTES, {1: update(1, 5, 6)})))
    engine.rollback()
    assert put(engine, 1, 5, 6) == 2


def test_a_commit_is_done_though_the_connection_is_lost_right_after_it(
    engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5, 5, 5)
    other = new_engine()
    note(engine, 3)
    engine.begin().answer(Get(NOTES, 1))
    put(other, 2, 5, 6)
    put(other, 3, 5, 6)
    lose(engine, monkeypatch, (".log", "request"))
    assert engine.commit(changes((NOTES, {1: update(1, 5, 6)}), ids=[1])) == 4
    assert [note(engine, id) for id in (1, 2, 3)] == ['{"n":6}'] * 3
    assert put(other, 1, 6, 7) == 5


def test_a_commit_that_is_settled_only_by_the_next_batch_is_known_to_its_cache(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5)
    lose(engine, monkeypatch, ("commit_1", "answer"), ("settle_1", "request"))
    with pytest.raises(CommitInDoubt, match="whether it is stored is not known"):
        put(engine, 1, 5, 6)
    engine.rollback()
    assert engine.begin(exclusive=True).answer(Get(NOTES, 1)) == '{"n":6}'
    assert engine.commit(changes((NOTES, {1: update(1, 6, 7)}))) == 3
    assert put(engine, 1, 7, 8) == 4


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_commit_is_settled_once_the_store_answers_again(
    engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    with_notes(engine, 5, 5)
    other = new_engine()
    put(other, 2, 5, 6)
    lose(engine, monkeypatch, ("commit_1", "request" if exclusive else "answer"), *[("settle_1", "request")] * 3)
    engine.begin(exclusive)
    with pytest.raises(CommitInDoubt):
        engine.commit(changes((NOTES, {1: update(1, 5, 6)})))
    for _ in range(2):
        with pytest.raises(StoreLostError):
            engine.resolve_commit()

    assert engine.resolve_commit() == (None if exclusive else 3)

    assert [news.version for news in engine.remote_commits() if not news.is_complete] == [3] * (not exclusive)
    engine.rollback()
    assert [note(engine, id) for id in (1, 2)] == ['{"n":5}' if exclusive else '{"n":6}', '{"n":6}']
    assert put(other, 1, 5 if exclusive else 6, 7) == 4 - exclusive
    assert put(engine, 1, 7, 8) == 5 - exclusive


# What others do meanwhile.


def test_engines_of_one_process_and_host_are_different_nodes(new_engine: Open) -> None:
    first, second = new_engine(), new_engine()
    assert first.epoch != second.epoch
    assert first.node != second.node


def test_what_was_read_and_then_written_by_another_node_is_a_conflict(engine: PostgresEngine, new_engine: Open) -> None:
    with_notes(engine, 5)
    other = new_engine()
    engine.begin().answer(Get(NOTES, 1))
    put(other, 1, 5, 6)
    with pytest.raises(Conflict):
        engine.commit(changes((NOTES, {1: update(1, 5, 9)}), ids=[1]))
    engine.rollback()
    assert put(engine, 1, 6, 7) == 3


def test_a_gap_of_one_version_in_the_log_is_a_conflict(store: str, engine: PostgresEngine, new_engine: Open) -> None:
    """What was committed there is not known any more, so it may be what was read."""
    with_notes(engine, 5, 5)
    other = new_engine()
    engine.begin().answer(Get(NOTES, 1))
    gap = put(other, 1, 5, 6)
    put(other, 2, 5, 6)
    ask(store, f"DELETE FROM duly.log WHERE version = {gap}")
    with pytest.raises(Conflict):
        engine.commit(changes((NOTES, {1: update(1, 5, 9)}), ids=[1]))


def test_who_reads_scheduled_functions_has_no_conflict_with_commits_of_documents(
    engine: PostgresEngine, new_engine: Open
) -> None:
    with_notes(engine, 5, 5)
    other = new_engine()
    engine.begin().answer(Scan(JOBS, STATE, EVERYTHING, False, 10))
    put(other, 1, 5, 6)
    reads = ReadKeys([], [(JOBS, STATE, b"", b"\xff")])
    engine.commit(Changeset([(NOTES, {2: update(2, 5, 6)})], 1_000, reads))
    engine.begin().answer(Scan(JOBS, STATE, EVERYTHING, False, 10))
    other.begin()
    other.commit(changes((JOBS, {9: Write(None, job(9, 1.0))})))
    with pytest.raises(Conflict):
        engine.commit(Changeset([(NOTES, {2: update(2, 6, 7)})], 1_000, reads))


def test_a_node_that_lags_behind_the_log_forgets_what_it_remembers(
    store: str, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "NODE_LOG_COMMITS_MAX", 2)
    engine, other = new_engine(), new_engine()
    with_notes(engine, 5, 5)
    engine.begin().answer(Get(NOTES, 1))
    for n in range(5, 135):
        put(other, 1, n, n + 1)
    [(kept,)] = ask(store, "SELECT count(*) FROM duly.log")
    assert kept <= 2 + 64
    with pytest.raises(Conflict):
        engine.commit(changes((NOTES, {1: update(1, 5, 9)}), ids=[1]))
    engine.rollback()
    engine.refresh()
    engine.rollback()
    assert [news.is_complete for news in engine.remote_commits()] == [False]
    assert put(engine, 1, 135, 136) == 132


def test_a_batch_that_learns_of_others_after_it_has_read_from_memory_does_not_undo_what_they_wrote(
    engine: PostgresEngine, new_engine: Open
) -> None:
    other = new_engine()
    with_notes(engine, 5)
    put(other, 1, 5, 6)
    assert engine.begin().answer(Get(NOTES, 1)) == '{"n":5}'
    with pytest.raises(Conflict):
        engine.refresh()
    engine.rollback()
    assert note(engine, 1) == '{"n":6}'


async def test_a_conflict_that_one_work_of_a_batch_meets_has_all_of_them_run_again(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    met = iter([Conflict("met by the test")])

    def meet_conflict() -> None:
        for conflict in met:
            raise conflict

    async with App({}, store) as app:
        monkeypatch.setattr(app.database._engine, "refresh", meet_conflict)  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(
            app.database.commit(lambda batch: ran.append(batch.version)),
            app.database.commit(lambda batch: batch.refresh()),
        )
    assert len(ran) == 2


def test_who_holds_the_lock_and_says_nothing_is_cut_off(new_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_timeout, "LOCK_IDLE_MS", 300)
    engine, other = new_engine(), new_engine()
    with_notes(engine, 5)
    began = time.monotonic()
    engine.begin(exclusive=True)
    assert put(other, 1, 5, 6) == 2
    assert 0.2 < time.monotonic() - began < 30
    with pytest.raises(StoreLostError):
        engine.commit(changes((NOTES, {1: update(1, 5, 9)})))
    engine.rollback()
    assert put(engine, 1, 6, 7) == 3


def test_a_lock_that_the_server_does_not_wait_for_any_longer_is_asked_for_again(store: str, new_engine: Open) -> None:
    holder = new_engine()
    with_notes(holder, 5)
    impatient = engine_of(f"{store}&lock_timeout=200")
    assert isinstance(impatient, PostgresEngine)
    impatient.open()
    try:
        holder.begin(exclusive=True)
        with pytest.raises(Conflict, match="lock timeout"):
            impatient.begin(exclusive=True)
        impatient.rollback()
        impatient.begin()
        with pytest.raises(Conflict, match="lock timeout"):
            impatient.commit(changes((NOTES, {1: update(1, 5, 9)})))
        impatient.rollback()
        holder.rollback()
        assert put(impatient, 1, 5, 6) == 2
    finally:
        impatient.close()


def test_a_lost_node_commits_nothing_and_comes_back_as_another(new_engine: Open) -> None:
    other = new_engine()
    with_notes(other, 5)
    engine = new_engine(Limits(node_lost_seconds=0.05))
    lost = engine.epoch
    engine.begin()
    time.sleep(0.1)
    while not other.is_lost(lost):
        other.wait_for_peers(True)
    with pytest.raises(Conflict):
        engine.commit(changes((NOTES, {1: update(1, 5, 6)})))
    engine.rollback()
    assert put(engine, 1, 5, 7) == 2
    assert engine.epoch > lost > other.epoch
    assert engine.is_lost(lost)


def test_a_heartbeat_does_not_wait_for_a_node_that_is_committing_nor_declare_it_lost(
    store: str, new_engine: Open
) -> None:
    committing, beating = new_engine(), new_engine()

    async def beat() -> list[str]:
        first, schema = await connect(store)
        second, _ = await connect(store)
        try:
            await first.execute(
                f"UPDATE {schema}.nodes SET steady = clock_timestamp() - interval '1 h';"
                f"UPDATE {schema}.nodes SET seen = clock_timestamp() - interval '1 h' WHERE epoch = {committing.epoch}"
            )
            async with first.transaction():  # as `commit_1` does
                await first.execute(
                    f"UPDATE {schema}.nodes SET seen = clock_timestamp() WHERE epoch = {committing.epoch}"
                )
                await second.execute("SET lock_timeout = '10 s'")
                row = await second.fetchrow(f"SELECT * FROM {schema}.beat_1({beating.epoch}, false, interval '1 s')")
            assert row["is_live"]
            states = await first.fetch(f"SELECT state FROM {schema}.nodes ORDER BY epoch")
            return [state for (state,) in states]
        finally:
            await first.close()
            await second.close()

    assert asyncio.run(beat()) == ["live", "live"]


def test_commits_are_noticed_by_the_next_beat_when_nobody_is_told(engine: PostgresEngine, new_engine: Open) -> None:
    with_notes(engine, 5)
    other = new_engine()
    other.wait_for_peers(True)  # something may have come before it listened
    other.membership._connection.execute("UNLISTEN *")  # pyright: ignore[reportPrivateUsage]
    put(engine, 1, 5, 6)
    began = time.monotonic()
    while not other.wait_for_peers(True).has_commits:
        assert time.monotonic() - began < 2


def test_news_that_came_while_a_batch_was_under_way_come_again(engine: PostgresEngine, new_engine: Open) -> None:
    with_notes(engine, 5, 5)
    other = new_engine()
    other.begin().answer(Get(NOTES, 2))
    put(engine, 1, 5, 6)
    other.refresh()  # its snapshot is older than the news
    other.rollback()
    for _ in range(3):
        assert other.wait_for_peers(True).has_commits
    other.refresh()
    other.rollback()
    assert [news.version for news in other.remote_commits()] == [2]
    other.wait_for_peers(True)
    assert not other.wait_for_peers(True).has_commits


def test_a_node_learns_of_the_commits_of_others_by_one_statement(
    engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = new_engine()
    with_notes(other, 5)
    learn(engine)
    engine.remote_commits()
    put(other, 1, 5, 6)
    asked: list[str] = []
    for way in ("fetch", "execute"):
        act = getattr(BlockingConnection, way)
        monkeypatch.setattr(
            BlockingConnection,
            way,
            lambda connection, sql, *more, act=act: asked.append(sql) or act(connection, sql, *more),
        )

    engine.begin()
    engine.refresh()
    engine.rollback()

    assert [news.version for news in engine.remote_commits()] == [engine.position]
    assert len(asked) == 1


def test_a_snapshot_outlives_an_index_that_another_node_drops(engine: PostgresEngine, new_engine: Open) -> None:
    with_notes(engine, 5)
    other = new_engine()
    with engine.snapshot() as view:
        other.begin(exclusive=True)
        other.drop_index(BY_N)
        other.commit(changes())
        with pytest.raises(Conflict):  # run again, it knows of no such index
            view.answer(Scan(NOTES, BY_N, EVERYTHING, False, 10))


def test_work_goes_on_beside_an_old_snapshot(store: str, engine: PostgresEngine) -> None:
    with_notes(engine, 5)

    async def beside() -> None:
        connection, schema = await connect(store)
        await connection.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM {schema}.jobs")
        await asyncio.to_thread(drain)
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.completed_jobs") == 0
        await connection.close()

    def drain() -> None:
        for round in range(5):
            ids = range(1 + 100 * round, 101 + 100 * round)
            engine.begin()
            engine.commit(changes((JOBS, {id: Write(None, job(id, 1.0)) for id in ids})))
            claimed = engine.begin().answer(Claim(2.0, 1_000, 0))
            assert [found.id for found in claimed.mutations] == list(ids)
            done = {id: Write(job(id, 1.0), job(id, None, "success", completed_time=2.0)) for id in ids}
            engine.commit(changes((JOBS, done)))
        assert engine.begin().answer(Claim(2.0, 1_000, 0)) == ([], [], None)

    asyncio.run(beside())


# Text.


@mutation
async def add_five(ctx: MutationCtx) -> list[str]:
    return [await ctx.db.insert("notes", {"text": "", "more": n}) for n in range(5)]


@mutation
async def read_each(ctx: MutationCtx, ids: list[str]) -> list[int]:
    return [(await ctx.db.get(id) or {})["more"] for id in ids]


async def test_the_documents_that_arguments_name_are_read_by_one_statement(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"notes": SimpleNamespace(add_five=add_five, read_each=read_each), "schema": NUMBERED}
    async with App(modules, store, executor=False) as app, App(modules, store, executor=False) as other:
        ids = await other.mutation("notes:add_five")
        connection = app.database._engine._connection  # pyright: ignore
        asked, fetch = list[str](), connection.fetch
        monkeypatch.setattr(connection, "fetch", lambda sql, *values: (asked.append(sql), fetch(sql, *values))[1])
        assert await app.mutation("notes:read_each", {"ids": ids}) == [0, 1, 2, 3, 4]
        assert len([sql for sql in asked if "_notes" in sql]) == 1


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


# Addresses.


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://somebody:secret@127.0.0.1:1/duly",
        "postgresql://somebody:secret@nowhere.invalid/duly",
        "postgresql://somebody:secret@127.0.0.1:port/duly",
        "postgresql://somebody:secret@127.0.0.1:99999/duly",
        "postgresql://somebody:secret@[127.0.0.1/duly",
        "postgresql://somebody:secret@127.0.0.1/duly?sslmode=perhaps",
        "postgresql://somebody:secret@127.0.0.1/duly?schema=Capital",
        "postgresql://somebody:secret@127.0.0.1/duly?schema=a;b",
        "postgresql://somebody:top/secret@127.0.0.1/duly",
        "postgresql://somebody:secret/top@127.0.0.1/duly",
        "postgresql://somebody:secret#top@127.0.0.1/duly",
        "postgresql://somebody:top#secret@127.0.0.1/duly",
        "postgresql://somebody:top?secret@127.0.0.1/duly",
        "postgresql://somebody:secret@top/secret@127.0.0.1/duly",
        "postgresql://127.0.0.1:1/duly?user=a@b&password=secret",
        "postgresql://somebody:secret@127.0.0.1:1/duly?client_encoding=LATIN1",
        "postgresql://somebody:5432?secret@127.0.0.1/duly",
        "postgresql://somebody:secret[top@127.0.0.1/duly",
        "postgresql://somebody:secret\u2100top@127.0.0.1/duly",
        "postgresql://somebody:secret@127.0.0.1/duly?schema",
        "postgresql://somebody:secret@127.0.0.1/duly?listen=ada:secret@127.0.0.1:1",
    ],
)
def test_an_address_that_leads_nowhere_is_an_error_without_its_password(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        engine_of(address).open()
    error: BaseException | None = raised.value
    assert "secret" not in "".join(traceback.format_exception_only(error))
    assert re.match("postgresql://[^/@]*(/duly)?: ", str(error))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("postgresql://ada:p@ss@db/shop", "got an address with more than one @, expected one.* @ .* %40"),
        ("postgresql://ada@tenant:pass@db/shop", "got an address with more than one @"),
        ("postgresql://ada:p@ss@db/shop?schema=x", "got an address with more than one @"),
        ("postgresql://ada:pa?ss@db/shop", r"got an address that cannot be read, expected .* \? .* %3F"),
        ("postgresql://ada:pa#ss@db/shop", "got an address with ambiguous parts, expected .* # .* %23"),
        ("postgresql://ada:pa/ss@db/shop", "got an address with ambiguous parts, expected .* / .* %2F"),
        ("postgresql://ada:pa[ss@db/shop", r"got an address that cannot be read, expected .* \[ .* %5B"),
        ("postgresql://ada:pass@db/shop\n", "postgresql://db/shop: got an address with a line break"),
        ("postgresql://ada:pa\tss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pa\0ss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pa%00ss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pass@db/shop?schema", r"got an address that cannot be read, expected .* \?name=value"),
        ("postgresql://ada:pass@db/shop?listen=x:y", "got listen=x:y, expected host:port"),
    ],
)
def test_what_is_wrong_with_an_address_is_told_before_anybody_connects(address: str, wrong: str) -> None:
    for opened in (App, Harness):
        with pytest.raises(StoreError, match=wrong) as raised:
            opened({}, store=address)
        assert "ss@" not in str(raised.value).partition(": got")[0]


@pytest.mark.parametrize("password", ["p%40ss", "p:ss", "p%2Fss", "p ss", "pä", "p%ss"])
def test_a_password_may_hold_any_character_that_is_escaped(password: str) -> None:
    assert parse(f"postgresql://ada:{password}@db/shop?schema=x").schema == "x"


def test_a_server_that_never_answers_is_an_error_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StoreError, match="cannot be reached"):
            engine_of(f"postgresql://somebody@127.0.0.1:{silent.getsockname()[1]}/duly").open()
        assert time.monotonic() - began < 30


def test_a_missing_driver_is_told_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "duly.storage.postgres.engine")
    monkeypatch.delitem(sys.modules, "duly.storage.postgres.connection")
    with pytest.raises(StoreError, match="run pip install asyncpg"):
        App({}, "postgresql://somebody@127.0.0.1/duly")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_session_of_another_isolation_level_commits_nothing(store: str, new_engine: Open, level: str) -> None:
    with_notes(new_engine(), 5)
    engine = engine_of(f"{store}&default_transaction_isolation={level.replace(' ', '%20')}")
    engine.open()
    engine.begin()
    with pytest.raises(StoreError, match="READ COMMITTED"):
        engine.commit(changes((NOTES, {2: insert(2, 6)})))
    engine.rollback()
    engine.close()


# The migrations.


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database of its own, in the encoding that the test is run for."""
    server, name = postgres.new_store(postgres.shared_address()), f"test_{uuid4().hex}"
    ask(server, f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0")
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    ask(server, f"DROP DATABASE {name}")
    postgres.drop_store(server)


@pytest.mark.parametrize("database", ["LATIN1", "SQL_ASCII"], indirect=True)
def test_a_database_that_does_not_hold_every_text_is_refused_by_name(database: str) -> None:
    [(encoding,)] = ask(database, "SHOW server_encoding")
    for opened in (lambda: engine_of(database).open(), lambda: migrations.plan(parse(database))):
        with pytest.raises(StoreError, match=rf"got a database whose encoding is {encoding}, expected UTF8.*ENCODING"):
            opened()
    with pytest.raises(StoreError, match="encoding"):
        migrations.migrate_store(parse(database))
    assert (
        ask(database, f"SELECT FROM pg_namespace WHERE nspname = '{parse(database).schema}'") == []
    )  # nothing was made


@mutation
async def schedules_what_fails(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, runs_out)
    await ctx.scheduler.run_after(0, runs_out_of_all)
    await crons.register(ctx, {"kind": "interval", "ms": 1_000}, runs_out, name="c")
    await crons.register(ctx, {"kind": "interval", "ms": 1_000}, runs_out_of_all, name="d")


@internal_mutation
async def runs_out(ctx: MutationCtx) -> None:
    ctx.log.info("no more ☕")
    raise ValueError("no more ☕")


@internal_action
async def runs_out_of_all(ctx: ActionCtx) -> None:
    ctx.log.info("no more ☕")
    raise ValueError("no more ☕")


@query
async def ends(ctx: QueryCtx) -> list[str]:
    rows = await ctx.db.system.query("_scheduled_functions").collect()
    logs = await ctx.db.system.query("_cron_job_logs").collect()
    told = [row["state"].get("error", "") for row in rows] + [log["status"]["error"] for log in logs]
    return sorted({error.partition("\n")[0] for error in told}) if len({log["name"] for log in logs}) == 2 else []


@pytest.mark.parametrize("database", ["LATIN1"], indirect=True)
async def test_an_end_whose_text_a_store_cannot_hold_is_recorded_nevertheless(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "check_settings", lambda connection: None)  # pyright: ignore
    functions = (schedules_what_fails, runs_out, runs_out_of_all, ends)
    modules = {"app": SimpleNamespace(**{function.handler.__name__: function for function in functions})}
    async with App(modules, database) as app:
        await app.mutation(schedules_what_fails)
        async with asyncio.timeout(20):
            async for told in app.subscribe(ends):
                if told == ["ValueError: no more \\u2615"]:
                    break


@pytest.mark.parametrize(
    "setting", ["standard_conforming_strings=off", "options=-c%20standard_conforming_strings%3Doff"]
)
def test_a_session_that_reads_texts_otherwise_is_refused_by_name(store: str, setting: str) -> None:
    refused = pytest.raises(StoreError, match=r"got standard_conforming_strings = off, expected on")
    with refused:
        engine_of(f"{store}&{setting}").open()
    engine = engine_of(store)
    engine.open()  # nothing was made that is in the way
    engine.close()
    with refused:
        engine_of(f"{store}&{setting}").open()


def test_processes_that_come_at_once_make_one_store(store: str) -> None:
    secrets: set[bytes] = set()
    several = [engine_of(store) for _ in range(4)]
    threads = [threading.Thread(target=lambda engine=engine: secrets.add(engine.open().secret)) for engine in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 1
    assert ask(store, "SELECT count(*), count(DISTINCT number) FROM duly.nodes WHERE state = 'live'") == [(4, 4)]
    for engine in several:
        engine.close()


@pytest.mark.parametrize("end", ["SELECT no_such_column", "SELECT pg_terminate_backend(pg_backend_pid())"])
def test_a_migration_that_ends_half_way_leaves_nothing(
    store: str, end: str, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql_of = migrations.sql_of
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "sql_of", lambda version, address: f"{sql_of(version, address)}; {end}")
        with pytest.raises(StoreError):
            new_engine()
    assert ask(store, f"SELECT 1 FROM pg_namespace WHERE nspname = '{store.rpartition('=')[2]}'") == []
    new_engine()


def test_a_node_goes_on_while_its_store_becomes_one_of_the_next_format(
    store: str, engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "FORMAT", 2)
        patched.setattr(migrations, "sql_of", lambda version, address: _NEXT.replace("duly.", f"{address.schema}."))
        newer = new_engine()
    assert ask(store, "SELECT format FROM duly.store") == [(2,)]
    assert put(engine, 1, 5, 6) == 2
    engine.begin()
    engine.commit(changes((JOBS, {1: Write(None, job(1, 5.0))})))
    newer.begin()
    newer.commit(changes((JOBS, {1: Write(job(1, 5.0), job(1, None, "success", completed_time=6.0))})))
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)).state == "success"
    assert new_engine().epoch > newer.epoch  # one of this version may come, too


_NEXT = """
ALTER TABLE duly.jobs ADD note text; ALTER TABLE duly.completed_jobs ADD note text; ALTER TABLE duly.log ADD note text;
ALTER TABLE duly.nodes ADD note text; CREATE TABLE duly.more (); UPDATE duly.store SET format = 2
"""


def test_a_store_that_needs_a_newer_duly_is_refused(store: str, engine: PostgresEngine, new_engine: Open) -> None:
    ask(store, f"UPDATE duly.store SET needs = {migrations.FORMAT + 1}")
    with pytest.raises(StoreError, match=f"got a store that needs format {migrations.FORMAT + 1}, .*newer duly"):
        new_engine()


# Plans.

MANY, FEW = 20_000, 120
"""Rows of a table, and how many of them statements for a few may read."""


def fill(store: str) -> None:
    ask(
        store,
        f"INSERT INTO duly.jobs SELECT i << 10, 'a:b', '{{}}', i, i, 'pending', 'mutation' FROM generate_series(1001, {MANY}) i",
        f"INSERT INTO duly.completed_jobs SELECT i << 10, 'a:b', '{{}}', i, 'success', 'mutation', NULL, NULL, i"
        f" FROM generate_series({MANY + 1001}, {2 * MANY}) i",
        f"INSERT INTO duly.t100_notes SELECT i << 10, '{{}}' FROM generate_series(1001, {MANY}) i",
        f"INSERT INTO duly.i100_by_n SELECT int8send(i), i << 10 FROM generate_series(1001, {MANY}) i",
    )


def rows_read(engine: PostgresEngine, connection: BlockingConnection) -> Counter[str]:
    """How many rows of each table a connection has read, more or less lately."""
    return Counter(
        dict(
            connection.fetch(
                "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
                " WHERE schemaname = $1",
                engine.address.schema,
            )
        )
    )


def many(rows: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in rows.items() if count > FEW}


def read_all(view: View) -> None:
    """Each hot read once."""
    pending = Interval(Cut(("pending",), after=False), Cut(("pending",), after=True))
    named = Interval(Cut(("a:b",), after=False), Cut(("a:b",), after=True))
    for descending in (False, True):
        for table, order, interval in ((NOTES, None, EVERYTHING), (NOTES, BY_N, EVERYTHING)):
            view.answer(Scan(table, order, interval, descending, 1))
        for order, interval in ((None, EVERYTHING), (STATE, pending), (NAME, named)):
            view.answer(Scan(JOBS, order, interval, descending, 1))
    for table in (NOTES, JOBS):
        view.answer(Get(table, 1_500 << 10))
    view.answer(Claim(1e9, 10, 10))


def touched_by_reads(engine: PostgresEngine) -> dict[str, int]:
    with engine.snapshot() as view:
        [connection] = engine._readers._acquired  # pyright: ignore[reportPrivateUsage]
        before = rows_read(engine, connection)
        read_all(view)
        return many(rows_read(engine, connection) - before)


def touched_by_a_commit(engine: PostgresEngine, first: int) -> dict[str, int]:
    """What a batch touches that writes five documents and their keys, adds five functions and completes five."""
    ids = range(first, first + 5)
    add = {id: Write(None, job(id, 1.0)) for id in ids}
    engine.begin()
    engine.commit(changes((JOBS, add), (NOTES, {id: insert(id, id) for id in ids})))
    engine.begin()
    connection: BlockingConnection = engine._connection  # pyright: ignore[reportPrivateUsage]
    connection.execute("BEGIN")
    before = rows_read(engine, connection)
    done = {id: Write(job(id, 1.0), job(id, None, "success", completed_time=2.0)) for id in ids}
    engine.commit(changes((JOBS, done), (NOTES, {id: update(id, id, id + 1) for id in ids}), ids=[first]))
    engine.validate(ReadKeys([first], [(NOTES, BY_N, b"", b"\xff")]))
    found = many(rows_read(engine, connection) - before)
    connection.execute("COMMIT")
    return found


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed while empty"])
def test_hot_statements_that_were_planned_for_an_empty_store_are_good_in_a_full_one(
    store: str, engine: PostgresEngine, analyzed: bool
) -> None:
    with_notes(engine)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
    for round in range(10):  # from the sixth time on PostgreSQL may keep a plan
        touched_by_a_commit(engine, 1 + 5 * round)
        touched_by_reads(engine)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
        for round in range(10):
            touched_by_a_commit(engine, 101 + 5 * round)
            touched_by_reads(engine)
    fill(store)
    assert touched_by_reads(engine) == {}
    assert touched_by_a_commit(engine, 201) == {}


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
def test_hot_statements_are_planned_well_for_a_full_store(
    store: str, engine: PostgresEngine, new_engine: Open, analyzed: bool
) -> None:
    with_notes(engine)
    fill(store)
    if analyzed:
        ask(store, *(f"VACUUM ANALYZE duly.{table}" for table in _LARGE))
    fresh = new_engine()
    for round in range(10):
        assert touched_by_reads(fresh) == {}
        assert touched_by_a_commit(fresh, 1 + 5 * round) == {}


_LARGE = ("jobs", "completed_jobs", "t100_notes", "i100_by_n", "log", "nodes")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ada:secret@db:5432/shop?schema=x", "postgresql://db:5432/shop"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert parse(address).redacted == shown
