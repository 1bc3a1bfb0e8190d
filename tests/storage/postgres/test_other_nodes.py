"""What other nodes do meanwhile. The traps of a shared store, and where each is tested or why it cannot happen:

- A connection that is left within a statement: any unexpected error discards it (`BlockingConnection`).
- A stalled holder of the lock: the server ends its session, here and in tests/nodes/test_silent_nodes.py.
- A commit whose answer is lost: test_commits.py; cut in the middle of its bytes: tests/crash.
- Comparing what was read with what was written: by hash joins, and not at all if it would take long (`conflicts_1`).
- A lost notification: the next heartbeat notices, here. Notifications have a connection of their own.
- Old snapshots: here.
- Writes that bypass `commit_1`: out of scope, a manual UPDATE makes the documents in memory stale. A node whose place in
  the log is gone forgets everything in memory, here.
- Text that PostgreSQL cannot hold, collations: test_text.py. Documents are text, keys are bytea, names sort by "C".
- SERIALIZABLE and SKIP LOCKED: not used; a session that is not at READ COMMITTED cannot commit: test_addresses.py.
- Clocks, jobs that are canceled while they are claimed, actions of lost nodes: tests/nodes/test_nodes.py.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import postgres

pytest.importorskip("asyncpg")


from duly.app import App, engine_of
from duly.database.batch import Batch
from duly.errors import StoreLostError
from duly.limits import EXCLUSIVE_BATCHES_MIN, Limits
from duly.storage.conflicts import Conflict
from duly.storage.engine import Changeset, ReadKeys
from duly.storage.postgres import lock_timeout, migrations
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.postgres.replica import Replica
from duly.storage.requests import Claim, Get, Scan
from duly.storage.rows import JOBS, Write
from duly.values.index_keys import EVERYTHING
from tests.nodes.serializable import connect
from tests.storage.postgres.notes import (
    BY_N,
    NOTES,
    STATE,
    Open,
    ask,
    changes,
    job,
    learn,
    note,
    put,
    update,
    with_notes,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


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


def test_a_snapshot_knows_which_version_has_changed_the_tables(engine: PostgresEngine, new_engine: Open) -> None:
    """A node that does not know those tables yet must not read by the old ones."""
    other = new_engine()
    with_notes(engine, 5)
    put(engine, 1, 5, 6)
    with other.snapshot() as view:
        assert (view.version, view.catalog_version) == (2, 1)


def test_documents_in_memory_are_bounded_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.storage.postgres.replica.DOCUMENT_CACHE_BYTES_MAX", 10_000)
    documents = Replica("duly").documents
    for id in range(100):
        documents.put("notes", {id: "x" * 1_000})
    kept = list(documents.rows["notes"])
    assert 1 <= len(kept) <= 9
    assert kept[-1] == 99


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


async def test_after_batches_without_a_conflict_the_next_one_makes_no_more_batches_exclusive_than_the_first(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with App({}, store, executor=False) as app:
        engine: Any = app.database._engine  # pyright: ignore[reportPrivateUsage]
        begin, begun, conflicts = engine.begin, list[bool](), list[Conflict]()

        def begin_and_note(exclusive: bool = False) -> Any:
            begun.append(exclusive)
            return begin(exclusive)

        def meet_conflict() -> None:
            if conflicts:
                raise conflicts.pop()

        async def exclusive_batches_after_a_conflict() -> int:
            conflicts.append(Conflict("met by the test"))
            begun.clear()
            for _ in range(2 * EXCLUSIVE_BATCHES_MIN + 5):
                await app.database.commit(lambda batch: batch.refresh())
            return sum(begun)

        monkeypatch.setattr(engine, "begin", begin_and_note)
        monkeypatch.setattr(engine, "refresh", meet_conflict)
        counts = [await exclusive_batches_after_a_conflict() for _ in range(3)]
    assert counts == [EXCLUSIVE_BATCHES_MIN + 1] * 3  # the one that is run again, and those after it


async def test_work_that_changes_tables_is_not_run_again_when_the_store_was_lost_on_the_way(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bool] = []
    losses = [StoreLostError("lost by the test")]

    def lose() -> None:
        if losses:
            raise losses.pop()

    def work(batch: Batch) -> None:
        ran.append(True)
        batch.refresh()

    async with App({}, store, executor=False) as app:
        monkeypatch.setattr(app.database._engine, "refresh", lose)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StoreLostError, match="lost by the test"):
            await app.database.commit(work, exclusive=True)
        assert len(ran) == 1
        losses.append(StoreLostError("lost by the test"))
        await app.database.commit(work)
        assert len(ran) == 3  # other work is


def test_a_node_is_notified_again_after_the_connection_for_that_was_lost(
    engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.storage.postgres.membership.NODE_HEARTBEAT_SECONDS", 3600.0)  # which would notice, too
    other, membership = new_engine(), engine.membership
    with_notes(other, 5)
    membership._heartbeat_at = 0.0  # pyright: ignore[reportPrivateUsage]  # the last one for an hour
    assert membership.listen(True).server_ms
    membership._connection.discard()  # pyright: ignore[reportPrivateUsage]
    assert membership.listen(True).has_commits  # some may have been missed
    with ThreadPoolExecutor(1) as thread:
        listening = thread.submit(membership.listen, True)
        put(other, 1, 5, 6)
        assert listening.result(60).has_commits
