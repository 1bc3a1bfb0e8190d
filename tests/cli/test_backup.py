"""`duly backup` and `duly restore`, of a store that runs, was killed or is closed, and of files that are none."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.test_ownership import app_of, owner
from tests.support import duly

pytestmark = pytest.mark.slow  # processes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


def backup(file: Path, target: Path) -> tuple[int, str]:
    done = duly(file.parent, "backup", str(target), "--store", f"sqlite:///{file}")
    return done.returncode, done.said


def restore(source: Path, file: Path, *options: str) -> tuple[int, str]:
    done = duly(source.parent, "restore", str(source), "--store", f"sqlite:///{file}", *options)
    return done.returncode, done.said


def notes(file: Path) -> list[str]:
    async def look() -> list[str]:
        async with app_of(file) as app:
            return await app.query("app:notes")

    return asyncio.run(look())


def make(file: Path, *texts: str) -> None:
    """A store that was closed, with notes."""

    async def add() -> None:
        async with app_of(file) as app:
            for text in texts:
                await app.mutation("app:add", {"text": text})

    asyncio.run(add())


def test_a_backup_of_a_running_store_has_all_that_was_acknowledged_and_is_one_file(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        code, said = backup(file, tmp_path / "backup.db")
        assert (code, f"is backed up in {tmp_path}/backup.db (" in said) == (0, True)
        assert running.ask("add coffee") == "None"
        assert running.ask("notes") == "['tea', 'coffee']"
        assert running.ask("close") == "None"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "data"]
    shutil.copyfile(tmp_path / "backup.db", tmp_path / "copy.db")
    assert notes(tmp_path / "copy.db") == ["tea"]


def test_a_restored_backup_takes_the_place_of_a_store_whose_owner_was_killed(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add old") == "None"
        assert backup(file, tmp_path / "backup.db")[0] == 0
        assert running.ask("add new") == "None"
        code, said = restore(tmp_path / "backup.db", file)
        assert (code, f"is owned by process {running.process.pid}" in said) == (1, True)
        assert running.ask("notes") == "['old', 'new']"
    code, said = restore(tmp_path / "backup.db", file)
    assert (code, said) == (
        0,
        f"{tmp_path}/backup.db is restored to sqlite:///{file}\nWhat was there before is in {file}-before-restore-1\n",
    )
    assert notes(file) == ["old"]
    assert notes(Path(f"{file}-before-restore-1")) == ["old", "new"]


def test_a_backup_that_was_copied_by_hand_over_a_killed_store_is_not_undone(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add old") == "None"
        assert backup(file, tmp_path / "backup.db")[0] == 0
        assert running.ask("add new") == "None"
    shutil.copyfile(tmp_path / "backup.db", file)
    with owner(file) as refused:
        assert "is the log of another file" in refused.says()
    code, said = backup(file, tmp_path / "second.db")
    assert (code, "is the log of another file" in said) == (1, True)
    assert restore(tmp_path / "backup.db", file)[0] == 0
    assert notes(file) == ["old"]


def test_a_backup_is_restored_where_there_is_nothing(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
    assert backup(file, tmp_path / "backup.db")[0] == 0  # of a store that was killed
    other = tmp_path / "data" / "other.db"
    assert restore(tmp_path / "backup.db", other) == (
        0,
        f"{tmp_path}/backup.db is restored to sqlite:///{other}\n",
    )
    assert notes(other) == ["tea"]
    assert notes(file) == ["tea"]


def test_a_closed_store_is_backed_up_and_left_as_it_was(file: Path, tmp_path: Path) -> None:
    make(file, "tea")
    before = file.read_bytes()
    assert backup(file, tmp_path / "backup.db")[0] == 0
    assert file.read_bytes() == before
    assert notes(file) == ["tea"]
    assert notes(tmp_path / "backup.db") == ["tea"]


def test_what_runs_was_pending_in_a_backup_runs_again_once_it_is_restored(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert "started" in (running.ask("act"), running.says())
        assert backup(file, tmp_path / "backup.db")[0] == 0
        assert running.ask("close") == "None"
    assert notes(file) == ["closing"]
    assert restore(tmp_path / "backup.db", file)[0] == 0
    assert notes(file) == []
    with closing(sqlite3.connect(file)) as restored:
        # It was in progress: whether it has reached outside is unknown, so that it has failed and is not repeated.
        assert restored.execute("SELECT state FROM scheduled_functions").fetchall() == [("failed",)]


def test_a_copy_without_its_log_is_restored_only_if_that_is_asked_for(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        shutil.copyfile(file, tmp_path / "copy.db")
    code, said = restore(tmp_path / "copy.db", tmp_path / "data" / "other.db")
    assert (code, "is a copy of a store that was running, without its log" in said) == (1, True)
    assert restore(tmp_path / "copy.db", tmp_path / "data" / "other.db", "--incomplete")[0] == 0
    assert notes(tmp_path / "data" / "other.db") == []


def test_what_is_no_backup_is_refused_and_nothing_is_touched(file: Path, tmp_path: Path) -> None:
    make(file, "tea")
    (tmp_path / "text.db").write_text("x" * 5_000)
    (tmp_path / "empty.db").write_text("")
    with closing(sqlite3.connect(tmp_path / "songs.db")) as other:
        other.execute("CREATE TABLE songs (name)")
    for source, expected in (
        (tmp_path / "text.db", "got a file of something else, expected a store of duly"),
        (tmp_path / "empty.db", "got an SQLite database of something else, expected a store of duly"),
        (tmp_path / "songs.db", "got an SQLite database of something else, expected a store of duly"),
        (tmp_path / "none.db", "there is no such file to restore"),
        (tmp_path, "there is no such file to restore"),
        (file, "got the store itself, expected a backup of it"),
    ):
        code, said = restore(source, file)
        assert (code, expected in said) == (1, True), said
    for target, expected in (
        (tmp_path / "text.db", "got a file that is there already, expected the name of a new one"),
        (tmp_path / "no" / "folder.db", "the backup cannot be written: No such file or directory"),
        (tmp_path, "got a file that is there already, expected the name of a new one"),
        (Path(f"{file}-wal"), "got a name that SQLite has for files of a store"),
    ):
        code, said = backup(file, target)
        assert (code, expected in said) == (1, True), said
    assert backup(tmp_path / "none.db", tmp_path / "x.db")[0] == 1
    assert notes(file) == ["tea"]
    assert {path.name for path in tmp_path.rglob("*")} == {
        *("data", "app.db", "app.db-owner", "text.db", "empty.db", "songs.db"),
    }


def test_a_damaged_backup_is_not_restored(file: Path, tmp_path: Path) -> None:
    make(file, *(f"{number}" + "x" * 500 for number in range(50)))
    assert backup(file, tmp_path / "backup.db")[0] == 0
    damaged = bytearray((tmp_path / "backup.db").read_bytes())
    damaged[-4_096:] = b"\xff" * 4_096
    (tmp_path / "backup.db").write_bytes(damaged)
    code, said = restore(tmp_path / "backup.db", file)
    assert (code, "the store is damaged" in said or "SQLite cannot copy it" in said) == (1, True), said
    assert notes(file)[0].startswith("0x")


def test_a_store_in_postgresql_is_backed_up_with_its_own_tools(tmp_path: Path) -> None:
    store = "postgresql://shop:secret@db.example/shop"
    done = duly(tmp_path, "backup", "x.db", "--store", store)
    assert done.returncode == 1
    assert "PostgreSQL has tools of its own, such as pg_dump --schema" in done.said
    assert "secret" not in done.said


def test_a_restore_that_is_killed_leaves_the_store_and_its_log(file: Path, tmp_path: Path) -> None:
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add old") == "None"
        assert backup(file, tmp_path / "backup.db")[0] == 0
        assert running.ask("add new") == "None"
    program = (
        "import os; from duly.storage.sqlite import backup\n"
        "os.replace = lambda *_: os._exit(9)\n"
        f"backup.restore({str(tmp_path / 'backup.db')!r}, {str(file)!r})"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert notes(file) == ["old", "new"]
    assert restore(tmp_path / "backup.db", file)[0] == 0
    assert notes(file) == ["old"]


def test_a_store_is_backed_up_and_restored_through_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(file)
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
        assert backup(tmp_path / "link.db", tmp_path / "backup.db")[0] == 0
    assert restore(tmp_path / "backup.db", tmp_path / "link.db")[0] == 0
    assert (tmp_path / "link.db").is_symlink()
    assert notes(file) == ["tea"]


def test_a_backup_is_readable_only_by_its_owner_and_a_restored_store_has_the_mode_it_had(
    file: Path, tmp_path: Path
) -> None:
    make(file)
    file.chmod(0o640)
    assert backup(file, tmp_path / "backup.db")[0] == 0
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600
    assert restore(tmp_path / "backup.db", file)[0] == 0
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_backup_of_a_store_that_rests_makes_no_files_beside_it(file: Path, tmp_path: Path) -> None:
    """A log that it made would be of another user, and keep the owner from writing."""
    make(file)
    before = sorted(path.name for path in file.parent.iterdir())
    assert backup(file, tmp_path / "backup.db")[0] == 0
    assert sorted(path.name for path in file.parent.iterdir()) == before
    code, said = restore(tmp_path / "backup.db", tmp_path / "no" / "app.db")
    assert (code, f"there is no folder {tmp_path}/no to restore it to" in said) == (1, True)


def test_a_backup_that_was_killed_leaves_no_file_of_its_name(file: Path, tmp_path: Path) -> None:
    """Else a backup under the same name, each night, would be refused for ever."""
    with owner(file) as running:
        assert running.says() == "open"
        assert running.ask("add tea") == "None"
    program = (
        "import os; from duly.storage.sqlite import backup\n"
        "os.link = lambda *_: os._exit(9)\n"
        f"backup.backup({str(file)!r}, {str(tmp_path / 'backup.db')!r})"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert backup(file, tmp_path / "backup.db")[0] == 0
    assert notes(tmp_path / "backup.db") == ["tea"]
