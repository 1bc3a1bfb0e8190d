"""A commit whose answer is lost is resolved, and a batch that is not stored is run again."""

from __future__ import annotations

from typing import Any

import pytest

from tests import postgres

pytest.importorskip("asyncpg")


from duly.errors import StoreLostError
from duly.storage.conflicts import CommitInDoubt
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Get
from tests.storage.postgres.notes import (
    NOTES,
    Open,
    changes,
    insert,
    note,
    put,
    update,
    with_notes,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


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
