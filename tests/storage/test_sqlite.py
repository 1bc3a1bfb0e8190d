"""What only the SQLite engine does."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from duly.errors import StoreError, StoreInUseError
from duly.storage.engine import Changeset
from duly.storage.rows import ACTION, JOBS, MUTATION, Job, Write
from duly.storage.sqlite.engine import SqliteEngine
from duly.storage.sqlite.snapshot import _DUE, _NEXT_DUE, SqliteSnapshot  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    return SqliteEngine(str(tmp_path / "store.db"))


def test_every_commit_is_flushed_to_the_disk(engine: SqliteEngine) -> None:
    engine.open()
    assert engine._connection.execute("PRAGMA synchronous").get == 2  # FULL
    assert engine._connection.execute("PRAGMA journal_mode").get == "wal"
    engine.close()


def test_a_second_name_of_the_same_file_has_the_same_owner(engine: SqliteEngine, tmp_path: Path) -> None:
    engine.open()
    os.symlink(engine.path, tmp_path / "alias.db")
    with pytest.raises(StoreInUseError):
        SqliteEngine(str(tmp_path / "alias.db")).open()
    engine.close()


def test_the_cursor_of_what_was_read_is_closed_though_an_error_may_keep_it(engine: SqliteEngine) -> None:
    engine.open()
    with engine.snapshot() as view:
        pass
    batch = engine.begin()
    assert isinstance(view, SqliteSnapshot) and isinstance(batch, SqliteSnapshot)
    engine.rollback()
    engine.begin()
    for ended in (view, batch):
        with pytest.raises(apsw.CursorClosedError):
            ended._read_one("SELECT 1")
    engine.close()
    engine.open()
    engine.begin()
    engine.close()


def test_a_store_of_a_newer_format_is_not_opened(engine: SqliteEngine) -> None:
    engine.open()
    engine._connection.execute("UPDATE duly_store SET format = 5")
    engine.close()
    with pytest.raises(StoreError, match="got a store of format 5, expected 4; this duly cannot read it"):
        engine.open()


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("filled", [False, True])
def test_what_is_due_is_found_by_its_index_and_never_by_sorting(
    engine: SqliteEngine, filled: bool, analyzed: bool
) -> None:
    engine.open()
    if filled:
        engine.begin()
        jobs = [Job(n, "a:b", "{}", float(n), float(n), "pending", (MUTATION, ACTION)[n % 2]) for n in range(5_000)]
        engine.commit(Changeset([(JOBS, {job.id: Write(None, job) for job in jobs})], 5_000))
    if analyzed:
        engine._connection.execute("ANALYZE")
    for sql, values in ((_DUE, (MUTATION, 10.0, 5)), (_NEXT_DUE, (MUTATION, 10.0))):
        plan = [row[3] for row in engine._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert len(plan) == 1
        assert (
            "USING INDEX scheduled_functions_due" in plan[0]
            or "USING COVERING INDEX scheduled_functions_due" in plan[0]
        )
    engine.close()


def test_a_log_that_has_grown_long_is_brought_into_the_file_and_begun_anew(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.storage.sqlite.engine._CHECKPOINT_PAGES", 20)
    engine.open()
    for n in range(1, 201):
        engine.begin()
        job = Job(n, "a:b", "{}", 1.0, 1.0, "pending", MUTATION)
        engine.commit(Changeset([(JOBS, {n: Write(None, job)})], n))
    assert os.path.getsize(f"{engine.path}-wal") < 60 * 4_096
    engine.close()
