"""One process owns the file of a store, even if it forks, is killed, closes late, or loses the owner file."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from duly import App, StoreError, StoreInUseError
from duly.storage.sqlite import ownership
from duly.storage.sqlite.engine import SqliteEngine
from tests.storage.owner import MODULES

pytestmark = [
    pytest.mark.slow,  # processes
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # since Python 3.12, beside threads
]


class Owner:
    """A process of `tests.storage.owner`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.says()


@contextmanager
def owner(file: Path, wait_for_owner: float = 0.0) -> Iterator[Owner]:
    command = [sys.executable, "-m", "tests.storage.owner", f"sqlite:///{file}", str(wait_for_owner)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Owner(process)
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def app_of(file: Path, wait_for_owner: float = 0.0) -> App:
    return App(MODULES, f"sqlite:///{file}", wait_for_owner=wait_for_owner)


def is_owned_here(file: Path) -> bool:
    return any(owned.path == str(file) for owned in ownership._held.values())


# Children.


async def test_a_forked_child_does_not_keep_the_store_of_its_parent(file: Path) -> None:
    sleeping = get_context("fork").Event()
    async with app_of(file) as app:
        await app.mutation("app:add", {"text": "tea"})
        child = get_context("fork").Process(target=sleeping.wait, args=(60,))
        child.start()
    try:
        async with app_of(file) as app:
            assert await app.query("app:notes") == ["tea"]
    finally:
        sleeping.set()
        child.join()


async def test_a_pool_of_forked_processes_does_not_keep_the_store(file: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        async with app_of(file):
            assert await asyncio.wrap_future(pool.submit(pow, 2, 3)) == 8
        async with app_of(file) as app:
            assert await app.query("app:notes") == []


def test_a_killed_owner_frees_the_store_though_its_child_lives(file: Path) -> None:
    with owner(file) as first:
        assert first.says() == "open"
        child = int(first.ask("fork"))
        try:
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            os.kill(child, 0)  # it lives
            with owner(file) as second:
                assert second.says() == "open"
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_that_closes_what_it_got_from_its_parent_leaves_the_store_to_it(file: Path) -> None:
    engine = SqliteEngine(str(file))
    engine.open()
    child = get_context("fork").Process(target=engine.close)
    child.start()
    child.join()
    assert child.exitcode == 0
    with owner(file) as second:
        assert f"is owned by process {os.getpid()};" in second.says()
    engine.begin()
    engine.rollback()
    engine.close()


def test_no_child_is_forked_between_the_opening_of_a_file_and_its_lock() -> None:
    forking = threading.Thread(target=lambda: os.waitpid(os.fork() or os._exit(0), 0))
    with ownership._guard:  # as while it is taken
        forking.start()
        forking.join(0.1)
        assert forking.is_alive()
    forking.join()


# The lock.


def test_a_second_owner_is_refused_though_the_file_that_names_the_first_was_removed(file: Path) -> None:
    with owner(file) as first:
        assert first.says() == "open"
        Path(f"{file}-owner").unlink()
        with owner(file) as second:
            refused = second.says()
            assert refused.startswith(f"StoreInUseError: {file} is owned by a process that cannot be named")
        assert first.ask("add tea") == "None"
        assert first.ask("notes") == "['tea']"


def test_no_process_is_named_that_does_not_own_the_store(file: Path) -> None:
    Path(f"{file}-owner").write_text("1")  # of an owner that has ended; process 1 lives
    assert ownership.owner_of(str(file)) is None
    with owner(file) as first:
        assert first.says() == "open"
        assert ownership.owner_of(str(file)) == first.process.pid
    first.process.wait()
    assert ownership.owner_of(str(file)) is None


def test_an_owner_leaves_nothing_of_what_an_earlier_one_has_said_of_itself(file: Path) -> None:
    Path(f"{file}-owner").write_text(f"{os.getpid()}99\nclosing 5.0\n")  # it was killed while it was closing
    engine = SqliteEngine(str(file))
    engine.open()
    assert Path(f"{file}-owner").read_text() == f"{os.getpid()}\n"
    engine.close()


def test_a_hard_link_to_a_store_has_the_same_owner(file: Path, tmp_path: Path) -> None:
    engine = SqliteEngine(str(file))
    engine.open()
    os.link(file, tmp_path / "link.db")
    with owner(tmp_path / "link.db") as second:
        assert second.says().startswith("StoreInUseError")
    with pytest.raises(StoreInUseError, match="is owned by this process, by another App"):
        SqliteEngine(str(tmp_path / "link.db")).open()
    engine.close()


def test_a_refused_opening_leaves_the_locks_of_sqlite_as_they_are(file: Path) -> None:
    """Closing a file drops all locks that the process has on it: without them a shell would remove the log."""
    engine = SqliteEngine(str(file))
    engine.open()
    for _ in range(3):
        with pytest.raises(StoreInUseError):
            SqliteEngine(str(file)).open()
    shell = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('SELECT * FROM duly_store').fetchall()"
    subprocess.run([sys.executable, "-c", shell], check=True)
    assert Path(f"{file}-wal").exists()
    engine.check_present()
    engine.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS])
def test_a_file_system_that_cannot_lock_is_not_taken_for_an_owner(
    file: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(StoreError) as caught:
        SqliteEngine(str(file)).open()
    assert type(caught.value) is StoreError
    assert f"{file}: its file system cannot lock it ({os.strerror(number)})" in str(caught.value)
    assert not is_owned_here(file)


def test_a_file_that_names_the_owner_and_cannot_be_written_stops_nobody(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{file}-owner").mkdir()  # as that of another user; tests may run as root, who may write everything
    engine = SqliteEngine(str(file))
    engine.open()
    assert f"{file}-owner cannot be written" in caplog.text
    engine.close()


async def test_a_store_that_another_process_opened_in_spite_of_the_lock_is_left_to_it(file: Path) -> None:
    """On a file system whose locks do nothing, or where the file is seen from two machines."""
    async with app_of(file) as app:
        await app.mutation("app:add", {"text": "tea"})
        shell = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('UPDATE duly_store SET epoch = 9')"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", f"{shell}; c.commit()"], check=True)
        with pytest.raises(StoreError, match="another process has opened .*app.db while the store was open"):
            await app.mutation("app:add", {"text": "coffee"})


# Waiting.


def test_a_process_waits_for_an_owner_that_is_closing(file: Path) -> None:
    with owner(file) as first:
        assert first.says() == "open"
        assert first.ask("act") in ("None", "started")
        first.says()
        first.tell("close")
        while ownership._closing_seconds(str(file)) is None:
            time.sleep(0.01)
        with owner(file, wait_for_owner=0.0) as second:
            assert second.says() == "open"
            assert second.ask("notes") == "['closing']"  # the action of the first one has ended meanwhile


async def test_an_owner_that_does_not_close_is_waited_for_as_long_as_asked_for(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with owner(file) as first:
        assert first.says() == "open"
        with caplog.at_level(logging.WARNING, "duly.store"), pytest.raises(StoreInUseError):
            await app_of(file, wait_for_owner=0.2).__aenter__()
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 1
        owned = f"{file} is owned by process {first.process.pid}: waiting up to 0"
        assert re.fullmatch(rf"{owned}\.\d+ s for that, to close it", told[0])
        waiting = asyncio.create_task(app_of(file, wait_for_owner=60.0).__aenter__())
        await asyncio.sleep(0.1)
        first.process.kill()
        app = await waiting
        assert await app.query("app:notes") == []
        await app.close()


async def test_an_app_that_is_not_waited_for_any_more_does_not_own_the_store(file: Path) -> None:
    async with app_of(file):
        waiting = asyncio.create_task(app_of(file, wait_for_owner=60.0).__aenter__())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    opening = asyncio.create_task(app_of(file).__aenter__())
    while not is_owned_here(file):
        await asyncio.sleep(0)
    opening.cancel()  # it has the lock by now, in its thread
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not is_owned_here(file)
    async with app_of(file) as app:
        assert await app.query("app:notes") == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "5", None])
def test_how_long_to_wait_is_a_number_of_seconds(file: Path, seconds: object) -> None:
    with pytest.raises(ValueError, match="got wait_for_owner=.*, expected seconds from 0 on, such as 5.0"):
        App(MODULES, f"sqlite:///{file}", wait_for_owner=seconds)  # type: ignore[arg-type]


# The event loop.


@pytest.mark.parametrize("end", [App.close, App.crash])
def test_an_app_whose_event_loop_is_closed_is_freed_from_another_one(store: str, end: object) -> None:
    app = App(MODULES, store)

    async def leave() -> None:
        await app.__aenter__()
        await app.mutation("app:add", {"text": "tea"})
        app.subscribe("app:notes")

    async def again() -> list[str]:
        with pytest.raises(StoreError, match="whose event loop is closed, expected one that was closed before"):
            await app.query("app:notes")
        with pytest.raises(StoreError, match="whose event loop is closed"):
            await app.__aenter__()
        await end(app)  # type: ignore[operator]
        async with app:  # itself
            await app.mutation("app:add", {"text": "coffee"})
        async with App(MODULES, store) as other:
            return await other.query("app:notes")

    asyncio.run(leave())
    assert asyncio.run(again()) == ["tea", "coffee"]


def test_what_ran_in_an_event_loop_that_is_closed_counts_as_interrupted(store: str) -> None:
    app = App(MODULES, store)

    async def leave() -> None:
        await app.__aenter__()
        await app.mutation("app:start_slow")
        while not (await app.stats()).running:
            await asyncio.sleep(0.01)

    async def states() -> list[str]:
        await app.close()
        async with App(MODULES, store, executor=False) as other:
            jobs = await other.runner.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").collect())
            return [job["state"]["kind"] for job in jobs]

    asyncio.run(leave())
    assert asyncio.run(states()) == ["failed"]


async def test_an_app_that_nobody_has_any_more_is_closed_for_the_next_one(file: Path) -> None:
    """Its event loop is closed, and so is no way to close it."""

    def enter_and_drop() -> None:
        asyncio.run(app_of(file).__aenter__())

    await asyncio.to_thread(enter_and_drop)
    async with app_of(file) as app:
        await app.mutation("app:add", {"text": "tea"})
        assert await app.query("app:notes") == ["tea"]


async def test_an_owner_of_the_same_process_that_is_closing_is_waited_for(file: Path) -> None:
    app = await app_of(file).__aenter__()
    await app.mutation("app:start_slow")
    while not app.executor.running:
        await asyncio.sleep(0.01)
    closing = asyncio.create_task(app.close())
    await asyncio.sleep(0)
    async with app_of(file, wait_for_owner=0) as next_app:
        assert await next_app.query("app:notes") == ["slow"]
    await closing
