"""A batch that runs while the commit before it is in flight: what it reads, and when that turns out to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import postgres

pytest.importorskip("asyncpg")

from duly.app import engine_of
from duly.errors import StoreLostError
from duly.storage.conflicts import Conflict, SpeculationFailed
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Claim, Get
from duly.storage.rows import JOBS, Write
from tests.storage.postgres.notes import NOTES, changes, insert, job, learn, note, put, update, with_notes

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


@pytest.fixture
def nodes(store_of: Callable[[str], str]) -> Iterator[tuple[PostgresEngine, PostgresEngine]]:
    """Two, of which the first has notes 1 to 3 in memory, which say 5."""
    opened = [engine_of(store_of("postgres")) for _ in range(2)]
    one, other = opened
    assert isinstance(one, PostgresEngine)
    assert isinstance(other, PostgresEngine)
    one.open()
    with_notes(one, 5, 5, 5)
    other.open()
    try:
        yield one, other
    finally:
        one.close()
        other.close()


def begin(engine: PostgresEngine, *notes: int) -> list[object]:
    """Begin a batch, and read these notes."""
    view = engine.begin()
    return [view.answer(Get(NOTES, id)) for id in notes]


def test_the_next_batch_reads_what_is_being_committed(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, other = nodes
    begin(engine, 1, 2)
    deleted = Write('{"n":5}', None, update(2, 5, 6).old_keys, ())
    engine.send_commit(changes((NOTES, {1: update(1, 5, 6), 2: deleted, 4: insert(4, 7)}), ids=[1, 2]))
    assert begin(engine, 1, 2, 3, 4) == ['{"n":6}', None, '{"n":5}', '{"n":7}']
    assert engine.await_commit() == 2
    assert engine.commit(changes((NOTES, {1: update(1, 6, 8)}), ids=[1, 2, 3, 4])) == 3
    assert note(other, 1) == '{"n":8}'
    assert note(other, 2) is None


def test_where_a_commit_has_a_conflict_what_the_next_batch_read_is_not_so(
    nodes: tuple[PostgresEngine, PostgresEngine],
) -> None:
    engine, other = nodes
    begin(engine, 1)
    put(other, 1, 5, 9)
    engine.send_commit(changes((NOTES, {1: update(1, 5, 6)}), ids=[1]))
    assert begin(engine, 1) == ['{"n":6}']
    with pytest.raises(Conflict):
        engine.await_commit()
    with pytest.raises(SpeculationFailed):
        engine.commit(changes((NOTES, {3: update(3, 5, 6)}), ids=[1, 3]))
    engine.rollback()
    assert note(engine, 1) == '{"n":9}'
    assert note(engine, 3) == '{"n":5}'


def test_what_others_committed_before_a_commit_is_compared_with_what_the_next_batch_read(
    nodes: tuple[PostgresEngine, PostgresEngine],
) -> None:
    engine, other = nodes
    begin(engine, 1)
    put(other, 2, 5, 9)
    engine.send_commit(changes((NOTES, {1: update(1, 5, 6)}), ids=[1]))
    assert begin(engine, 2) == ['{"n":5}']
    assert engine.await_commit() == 3
    with pytest.raises(SpeculationFailed):
        engine.commit(changes((NOTES, {3: update(3, 5, 6)}), ids=[2, 3]))
    engine.rollback()
    assert note(engine, 2) == '{"n":9}'
    assert note(engine, 1) == '{"n":6}'


def test_what_others_committed_after_a_commit_is_a_conflict_of_the_next_batch_only(
    nodes: tuple[PostgresEngine, PostgresEngine],
) -> None:
    engine, other = nodes
    begin(engine, 1)
    engine.send_commit(changes((NOTES, {1: update(1, 5, 6)}), ids=[1]))
    assert begin(engine, 1, 2) == ['{"n":6}', '{"n":5}']
    assert engine.await_commit() == 2
    put(other, 2, 5, 9)
    with pytest.raises(Conflict):
        engine.commit(changes((NOTES, {1: update(1, 6, 7)}), ids=[1, 2]))
    engine.rollback()
    assert note(engine, 1) == '{"n":6}'


def test_a_claim_waits_for_the_commit_and_finds_no_job_that_has_run(
    nodes: tuple[PostgresEngine, PostgresEngine],
) -> None:
    engine, _ = nodes
    first, second = job(11, 10.0), job(12, 20.0)
    engine.begin()
    engine.commit(changes((JOBS, {11: Write(None, first), 12: Write(None, second)})))
    engine.begin()
    ended = first._replace(state="success", due=None, completed_time=30.0)
    later = job(13, 30.0)
    engine.send_commit(changes((JOBS, {11: Write(first, ended), 13: Write(None, later)})))
    claimed = engine.begin().answer(Claim(30.0, 10, 10))
    assert [job.id for job in claimed.mutations] == [12, 13]
    assert engine.await_commit() == 3
    engine.rollback()


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_where_the_connection_is_lost_the_next_batch_is_run_again(
    nodes: tuple[PostgresEngine, PostgresEngine], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    engine, other = nodes
    link = engine._connection  # pyright: ignore[reportPrivateUsage]
    answer = link.answer

    def lose() -> list[Any]:
        if lost == "answer":
            answer()
        link.discard()
        monkeypatch.undo()
        raise StoreLostError("lost by the test")

    if lost == "request":
        monkeypatch.setattr(link, "send", lambda *_: None)
    monkeypatch.setattr(link, "answer", lose)
    begin(engine, 1)
    engine.send_commit(changes((NOTES, {1: update(1, 5, 6)}), ids=[1]))
    assert begin(engine, 1) == ['{"n":6}']
    if lost == "answer":
        assert engine.await_commit() == 2
    else:
        with pytest.raises(StoreLostError):
            engine.await_commit()
    with pytest.raises(SpeculationFailed):
        engine.commit(changes((NOTES, {3: update(3, 5, 6)}), ids=[1, 3]))
    engine.rollback()
    learn(engine)
    expected = '{"n":6}' if lost == "answer" else '{"n":5}'
    assert begin(engine, 1) == [expected]
    engine.rollback()
    assert note(other, 1) == expected
    assert put(engine, 3, 5, 6) == (3 if lost == "answer" else 2)
