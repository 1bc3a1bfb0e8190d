"""A store whose file is deleted, moved, replaced, overwritten or copied while it is open, or is next to a foreign log."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import apsw
import pytest

from duly import App, StoreError, StoreGoneError
from duly.storage.engine import Changeset
from duly.storage.sqlite import opening
from duly.storage.sqlite.engine import SqliteEngine
from tests.storage.owner import MODULES
from tests.storage.test_ownership import app_of, owner

pytestmark = pytest.mark.slow  # processes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


def log_of(file: Path) -> Path:
    return Path(f"{file}-wal")


def delete(file: Path) -> None:
    file.unlink()


def delete_all(file: Path) -> None:
    for path in file.parent.iterdir():
        path.unlink()


def delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


def move(file: Path) -> None:
    file.rename(file.with_name("moved.db"))


def move_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


def other_store(file: Path) -> Path:
    engine = SqliteEngine(str(file.with_name("other.db")))
    engine.open()
    engine.close()
    return file.with_name("other.db")


def replace(file: Path) -> None:
    other_store(file).rename(file)


def overwrite(file: Path) -> None:
    shutil.copyfile(other_store(file), file)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def delete_log(file: Path) -> None:
    log_of(file).unlink()


def replace_log(file: Path) -> None:
    log_of(file).unlink()
    log_of(file).write_bytes(b"")


LOSSES = [delete, delete_all, delete_folder, move, move_folder, replace, overwrite, empty, delete_log, replace_log]


@pytest.mark.parametrize("lose", LOSSES)
async def test_nothing_is_acknowledged_once_the_file_is_gone(file: Path, lose: Callable[[Path], None]) -> None:
    app = await app_of(file).__aenter__()
    try:
        await app.mutation("app:add", {"text": "before"})
        assert await app.query("app:notes") == ["before"]
        lose(file)
        for _ in range(2):
            with pytest.raises(StoreGoneError, match=r"while the store was open, so nothing of this call is stored"):
                await app.mutation("app:add", {"text": "after"})
            with pytest.raises(StoreGoneError):
                await app.query("app:notes")
        with pytest.raises(StoreGoneError):
            await app.stats()
    finally:
        await app.close()


@pytest.mark.parametrize("lose", [delete, overwrite, delete_log])
async def test_a_store_that_is_gone_is_noticed_though_nothing_is_asked_of_it(
    file: Path, lose: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    app = await app_of(file).__aenter__()
    values = app.subscribe("app:notes")
    assert await anext(values) == []
    lose(file)
    with pytest.raises(StoreGoneError):
        await anext(values)
    assert (await app.database.gone).args
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "while the store was open: nothing more is stored, and nothing more runs" in told[0]
    await app.close()


async def test_an_app_whose_file_is_gone_runs_nothing_more_and_closes_without_touching_what_is_there_now(
    file: Path,
) -> None:
    app = await app_of(file).__aenter__()
    await app.mutation("app:start_slow")
    while not (await app.stats()).running:
        await asyncio.sleep(0.01)
    delete_all(file)
    async with app_of(file) as other:  # at the same path
        await other.mutation("app:add", {"text": "new"})
        with pytest.raises(StoreGoneError):
            await app.mutation("app:add", {"text": "old"})
        await app.close(grace_seconds=0)
        assert log_of(file).exists()
        assert await other.query("app:notes") == ["new"]
    async with app_of(file) as other:
        assert await other.query("app:notes") == ["new"]


@pytest.mark.parametrize("lose", [delete_log, replace_log])
async def test_a_log_that_was_deleted_loses_nothing_that_was_acknowledged(
    file: Path, lose: Callable[[Path], None]
) -> None:
    app = await app_of(file).__aenter__()
    await app.mutation("app:add", {"text": "tea"})
    lose(file)
    await app.close()
    async with app_of(file) as app:
        assert await app.query("app:notes") == ["tea"]


# Copies.


def test_a_copy_of_the_file_of_a_running_store_is_refused_and_not_taken_for_a_new_one(
    file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        shutil.copyfile(file, copy)
    for _ in range(2):
        with owner(copy) as opened:
            assert "is a copy of a store that was running, without its log" in opened.says()
    assert not log_of(copy).exists()


def test_a_copy_of_a_running_store_is_refused_also_after_its_log_was_brought_into_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.storage.sqlite.engine._CHECKPOINT_PAGES", 20)

    async def run() -> None:
        async with app_of(file) as app:
            for number in range(100):
                await app.mutation("app:add", {"text": str(number)})
                shutil.copyfile(file, tmp_path / f"copy{number}.db")

    asyncio.run(run())
    for number in range(0, 100, 7):
        with pytest.raises(StoreError, match="is a copy of a store that was running"):
            SqliteEngine(str(tmp_path / f"copy{number}.db")).open()


def test_a_copy_of_the_empty_file_that_earlier_versions_left_is_refused(file: Path) -> None:
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA journal_mode=WAL")
    assert file.stat().st_size == 4096
    with pytest.raises(StoreError, match="is a copy of a store that was running, without its log"):
        SqliteEngine(str(file)).open()


def test_copies_of_a_store_that_is_closed_or_of_file_and_log_are_stores(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        shutil.copyfile(file, tmp_path / "both.db")
        shutil.copyfile(log_of(file), log_of(tmp_path / "both.db"))
        assert running.ask("close") == "None"
    shutil.copyfile(file, tmp_path / "closed.db")
    for name in ("both.db", "closed.db"):
        with owner(tmp_path / name) as opened:
            assert opened.says() == "open"
            assert opened.ask("notes") == "['tea']"


@pytest.mark.parametrize("how", ["backup", "vacuum"])
def test_backups_of_sqlites_own_tools_are_stores(file: Path, tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy.db"
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            if how == "backup":
                source.backup(target)
            else:
                source.execute("VACUUM INTO ?", (str(tmp_path / "vacuum.db"),))
    made = copy if how == "backup" else tmp_path / "vacuum.db"
    with owner(made) as opened:
        assert opened.says() == "open"
        assert opened.ask("notes") == "['tea']"


# Logs.


def killed_with_a_note(file: Path, text: str) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask(f"add {text}") == "None"
    running.process.wait()


def test_a_killed_owner_leaves_a_file_and_a_log_that_belong_together(file: Path) -> None:
    for text in ("a", "b", "c"):
        killed_with_a_note(file, text)
        assert log_of(file).stat().st_size > 0
    with owner(file) as opened:
        assert opened.says() == "open"
        assert opened.ask("notes") == "['a', 'b', 'c']"


def test_a_backup_that_was_copied_over_a_killed_store_is_not_undone_by_its_log(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add old") == "None"
        assert running.ask("close") == "None"
    shutil.copyfile(file, tmp_path / "backup.db")
    killed_with_a_note(file, "new")
    shutil.copyfile(tmp_path / "backup.db", file)
    before = file.read_bytes()
    for _ in range(2):
        with owner(file) as opened:
            assert f"{log_of(file)} is the log of another file than {file}" in opened.says()
    assert file.read_bytes() == before
    log_of(file).unlink()
    Path(f"{file}-shm").unlink(missing_ok=True)
    with owner(file) as opened:
        assert opened.says() == "open"
        assert opened.ask("notes") == "['old']"


def test_another_store_that_was_moved_over_a_killed_one_is_not_opened_with_its_log(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with owner(other) as running:
        assert running.says() == "open"
        assert running.ask("close") == "None"
    killed_with_a_note(file, "tea")
    other.rename(file)
    with owner(file) as opened:
        assert "is the log of another file" in opened.says()


def test_a_log_whose_file_is_gone_is_not_thrown_away(file: Path) -> None:
    killed_with_a_note(file, "tea")
    file.rename(file.with_name("moved.db"))
    for _ in range(2):
        with owner(file) as opened:
            assert "next to it is the log of a store that was there before" in opened.says()
    file.unlink()
    file.with_name("moved.db").rename(file)
    with owner(file) as opened:
        assert opened.says() == "open"
        assert opened.ask("notes") == "['tea']"


def test_an_opening_that_is_killed_at_any_point_leaves_a_store_that_opens(file: Path, tmp_path: Path) -> None:
    """Also if the opening after that is killed at any point, and the kill is amid the pages of a checkpoint."""
    killed_with_a_note(file, "tea")
    once = _kills_of_an_opening(file.parent, tmp_path)
    assert len(once) > 15
    for folder in [*once, *(twice for each in once for twice in _kills_of_an_opening(each, tmp_path))]:
        assert _notes_of_a_store(folder / file.name) == 1


def _kills_of_an_opening(folder: Path, tmp_path: Path) -> list[Path]:
    """Copies of a folder as an opening of its store leaves it on the disk, if it is killed at each possible point."""
    kept: list[Path] = []
    connect, checkpoint = SqliteEngine._connect, opening.checkpoint
    opened = shutil.copytree(folder, tmp_path / f"opened-{uuid4()}")
    [name] = (each.name for each in folder.iterdir() if each.suffix == ".db")

    def keep(*statement: object) -> bool:
        kept.append(Path(shutil.copytree(opened, tmp_path / f"kept-{uuid4()}")))
        return True

    def traced(engine: SqliteEngine, cache_kib: int) -> apsw.Connection:
        connection = connect(engine, cache_kib)
        connection.exec_trace = keep
        return connection

    def torn(writer: apsw.Connection) -> bool:
        keep()
        before, whole = kept[-1], checkpoint(writer)
        old, new = (before / name).read_bytes(), (opened / name).read_bytes()
        for end in range(4_096, len(new), 4_096):  # SQLite copies the pages in their order
            keep()
            (kept[-1] / name).write_bytes(new[:end] + old[end:])
        return whole

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SqliteEngine, "_connect", traced)
        patched.setattr(opening, "checkpoint", torn)
        engine = SqliteEngine(str(opened / name))
        engine.open()
        patched.undo()
        engine.close()
    return kept


def _notes_of_a_store(file: Path) -> Any:
    engine = SqliteEngine(str(file))
    engine.open()
    try:
        return engine._connection.execute("SELECT count(*) FROM t100_notes").get
    finally:
        engine.close()


def test_a_store_is_opened_while_somebody_reads_it_and_survives_a_kill_then(file: Path) -> None:
    """The number of the opening cannot get into the file then."""
    killed_with_a_note(file, "a")
    with closing(sqlite3.connect(file)) as shell:
        shell.execute("BEGIN")
        assert shell.execute("SELECT count(*) FROM duly_store").fetchone() == (1,)
        killed_with_a_note(file, "b")
        killed_with_a_note(file, "c")
    with owner(file) as opened:
        assert opened.says() == "open"
        assert opened.ask("notes") == "['a', 'b', 'c']"


def test_a_file_into_which_the_log_is_being_copied_is_no_other_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page comes first, and says how many pages there will be."""
    engine, checkpoint = SqliteEngine(str(file)), opening.checkpoint
    engine.open()
    found: list[BaseException | None] = []

    def look() -> None:
        try:
            engine.check_present()
        except StoreGoneError as error:
            found.append(error)
        else:
            found.append(None)

    def half_done(writer: apsw.Connection) -> bool:
        head = file.read_bytes()[:100]
        with file.open("r+b") as written:
            written.write(head[:28] + (1_000_000).to_bytes(4, "big") + head[32:])
        reader = threading.Thread(target=look)
        reader.start()
        reader.join(0.1)
        with file.open("r+b") as written:
            written.write(head)
        whole = checkpoint(writer)
        waiting.append(reader)
        return whole

    waiting: list[threading.Thread] = []
    monkeypatch.setattr(opening, "checkpoint", half_done)
    engine._checkpoint_at = 0
    engine.begin()
    engine.commit(Changeset([], 1))
    waiting[0].join()
    assert found == [None]
    monkeypatch.undo()
    engine.close()


def test_an_sqlite_database_of_something_else_is_said_to_be_one(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("PRAGMA user_version=7")
        other.execute("CREATE TABLE songs (name)")
        other.commit()
        with pytest.raises(StoreError, match="got an SQLite database of something else"):
            SqliteEngine(str(file)).open()
    with pytest.raises(StoreError, match="got an SQLite database of something else"):
        SqliteEngine(str(file)).open()


# Addresses.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:///~/app.db", "~ is not replaced by your home"),
        ("sqlite:///app.db?mode=ro", "it takes no options"),
        ("sqlite:///app.db#x", "the name of a store has no ? or #"),
        ("sqlite:///app\0.db", "a path without NUL"),
        ("sqlite:///app\ud800.db", "a path without NUL and other characters"),
        ("sqlite:///data/", "expected a file, not a folder"),
        ("sqlite:///file:app.db", "it is no URI"),
        ("sqlite:///app.db-wal", "such files belong to the store next to them"),
        ("sqlite:///:memory:", "in tests, use Harness"),
        ("sqlite:///:memory:?cache=shared", "in tests, use Harness"),
        ("sqlite://app.db", "expected sqlite:///relative/path.db"),
    ],
)
def test_an_address_that_would_make_an_odd_file_says_what_is_wrong(
    address: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        App(MODULES, address)
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_and_a_device_are_no_stores(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")
    for path in (tmp_path / "folder.db", tmp_path / "pipe.db", Path("/dev/null")):
        with pytest.raises(StoreError, match=f"{path}: got a folder or a device, expected a file"):
            await app_of(path).__aenter__()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.db", "pipe.db"]


# What a review found.


def empty_log(file: Path) -> None:
    os.truncate(log_of(file), 0)


def link_to_where_it_was_moved(file: Path) -> None:
    file.rename(file.with_name("moved.db"))
    file.symlink_to(file.with_name("moved.db"))


def cut(file: Path) -> None:
    os.truncate(file, 8_192)


@pytest.mark.parametrize("lose", [empty_log, link_to_where_it_was_moved, cut])
async def test_nothing_is_acknowledged_once_a_part_of_the_store_was_emptied_or_lies_elsewhere(
    file: Path, lose: Callable[[Path], None]
) -> None:
    app = await app_of(file).__aenter__()
    try:
        await app.mutation("app:add", {"text": "before"})
        lose(file)
        for _ in range(2):
            with pytest.raises(StoreGoneError):
                await app.mutation("app:add", {"text": "after"})
    finally:
        await app.close()


@pytest.mark.parametrize("spoil", [lambda log: os.truncate(log, 0), lambda log: log.write_bytes(b"\0" * 5_000)])
def test_a_log_that_was_emptied_or_overwritten_after_a_kill_is_missed(
    file: Path, spoil: Callable[[Path], None]
) -> None:
    killed_with_a_note(file, "tea")
    spoil(log_of(file))
    with owner(file) as opened:
        assert "is a copy of a store that was running, without its log" in opened.says()


async def test_a_log_that_another_program_has_brought_into_the_file_is_not_missed(file: Path) -> None:
    async with app_of(file) as app:
        await app.mutation("app:add", {"text": "tea"})
        shell = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('PRAGMA wal_checkpoint(TRUNCATE)')"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", shell], check=True)
        assert log_of(file).stat().st_size == 0
        await app.mutation("app:add", {"text": "coffee"})
        assert await app.query("app:notes") == ["tea", "coffee"]


async def test_reading_the_file_in_the_process_of_its_owner_does_not_let_others_delete_its_log(file: Path) -> None:
    """Closing a file drops the locks of SQLite in this process; another program would take itself for the last one."""
    async with app_of(file) as app:
        await app.mutation("app:add", {"text": "tea"})
        file.read_bytes()
        shell = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('SELECT * FROM duly_store').fetchall()"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", f"{shell}; c.close()"], check=True)
        await app.mutation("app:add", {"text": "coffee"})
        assert await app.query("app:notes") == ["tea", "coffee"]


async def test_subscriptions_of_an_app_that_executes_nothing_learn_that_the_store_is_gone(file: Path) -> None:
    app = await App(MODULES, f"sqlite:///{file}", executor=False).__aenter__()
    values = app.subscribe("app:notes")
    assert await anext(values) == []
    delete(file)
    with pytest.raises(StoreGoneError):
        await anext(values)
    await app.close()


async def test_what_is_no_store_gets_no_second_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text")
    with pytest.raises(StoreError, match="got a file of something else, expected a store of duly or no file"):
        await app_of(tmp_path / "text").__aenter__()
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


async def test_a_vacuum_of_another_program_is_no_loss(file: Path) -> None:
    async with app_of(file) as app:
        for number in range(30):
            await app.mutation("app:add", {"text": str(number) * 1_000})
        shell = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('VACUUM'); c.execute('PRAGMA wal_checkpoint')"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", shell], check=True)
        await app.mutation("app:add", {"text": "after"})
        assert (await app.query("app:notes"))[-1] == "after"
    async with app_of(file) as app:
        assert len(await app.query("app:notes")) == 31
