"""Nodes that reach PostgreSQL through PgBouncer, which gives each transaction whatever connection is free."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import pytest

from duly import App, Id, MutationCtx, QueryCtx, StoreError, internal, internal_mutation, mutation, query
from duly.storage.postgres.connection import BlockingConnection
from tests import postgres

PATIENCE: Final = 30.0
TASKS: Final = 300
KNOWS_PREPARED_STATEMENTS: Final = (1, 21)

SETTINGS: Final = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_prepared_statements = {prepared}
default_pool_size = {pool_size}
logfile = {folder}/log
pidfile = {folder}/pid
"""


class PgBouncer:
    """A pooler in transaction mode before a server."""

    def __init__(self, store: str, pool_size: int = 3, prepared: int = 256) -> None:
        self._store = urlsplit(store)
        self._folder = Path(tempfile.mkdtemp(prefix="duly-pgbouncer-", dir=postgres.PLACE))
        self._own_port = postgres.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        settings = SETTINGS.format(
            host=self._store.hostname,
            port=self._store.port,
            user=self._store.username,
            own_port=self._own_port,
            pool_size=pool_size,
            prepared=prepared,
            folder=self._folder,
        )
        (self._folder / "settings").write_text(settings)
        if who := postgres.unprivileged():
            os.chown(self._folder, who["user"], who["group"])

    def address(self, *, listens: bool = False) -> str:
        """Of the same store through the pooler; `listens` goes around it."""
        parts = self._store._replace(netloc=f"{self._store.username}@127.0.0.1:{self._own_port}")
        return urlunsplit(parts) + (f"&listen={self._store.hostname}:{self._store.port}" if listens else "")

    def start(self) -> None:
        command = [binary() or "", str(self._folder / "settings")]
        self._process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, cwd=self._folder, **postgres.unprivileged()
        )
        deadline = time.monotonic() + PATIENCE
        while "process up" not in self.log():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.005)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            (self._folder / "log").unlink()
            (self._folder / "pid").unlink(missing_ok=True)

    def log(self) -> str:
        file = self._folder / "log"
        return file.read_text() if file.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)


def binary() -> str | None:
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")


def missing() -> str | None:
    """Why this cannot be tested here."""
    if (found := binary()) is None:
        return "no pgbouncer on the PATH"
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    numbers = re.search(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < KNOWS_PREPARED_STATEMENTS:
        return f"{version.splitlines()[0]} cannot prepare statements in transaction mode, 1.21 can"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def pooler(store_of: Callable[[str], str]) -> Iterator[PgBouncer]:
    with PgBouncer(store_of("postgres")) as pooler:
        yield pooler


@mutation
async def plan(ctx: MutationCtx, first: int, count: int) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(0, internal.work.do, {"number": number})


@internal_mutation
async def do(ctx: MutationCtx, number: int) -> Id:
    [total] = await ctx.db.query("totals").collect() or [None]
    if total is None:
        await ctx.db.insert("totals", {"done": 1})
    else:
        await ctx.db.patch(total["_id"], {"done": total["done"] + 1})
    return await ctx.db.insert("done", {"number": number})


@query
async def total(ctx: QueryCtx) -> int:
    document = await ctx.db.query("totals").first()
    return document["done"] if document else 0


@query
async def done(ctx: QueryCtx) -> list[int]:
    return [document["number"] for document in await ctx.db.query("done").collect()]


SOURCE: Final = {"work": SimpleNamespace(plan=plan, do=do, total=total, done=done)}


async def seen(app: App, count: int) -> None:
    """Return once a subscription has seen that many."""
    async with asyncio.timeout(PATIENCE):
        async for value in app.subscribe(total):
            if value == count:
                return


async def test_nodes_behind_it_do_each_scheduled_mutation_once(pooler: PgBouncer) -> None:
    async with App(SOURCE, pooler.address()) as one, App(SOURCE, pooler.address()) as other:
        plans = [{"first": first, "count": 10} for first in range(0, TASKS, 10)]
        await asyncio.gather(*(app.mutation(plan, args) for app, args in zip([one, other] * 15, plans, strict=True)))
        await asyncio.gather(seen(one, TASKS), seen(other, TASKS))

        assert Counter(await one.query(done)) == Counter(range(TASKS))
        assert await other.query(total) == TASKS


async def test_it_may_be_killed_and_started_again(pooler: PgBouncer) -> None:
    async with App(SOURCE, pooler.address()) as one, App(SOURCE, pooler.address()) as other:
        await one.mutation(plan, {"first": 0, "count": TASKS})
        await asyncio.to_thread(pooler.kill)
        await asyncio.to_thread(pooler.start)
        await other.mutation(plan, {"first": TASKS, "count": TASKS})
        await asyncio.gather(seen(one, 2 * TASKS), seen(other, 2 * TASKS))

        assert Counter(await one.query(done)) == Counter(range(2 * TASKS))


async def test_a_hint_goes_around_it(pooler: PgBouncer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "duly.storage.postgres.membership.NODE_HEARTBEAT_SECONDS", 3600.0
    )  # no beat can tell of anything
    here, there = pooler.address(), pooler.address(listens=True)
    async with App(SOURCE, here) as one, App(SOURCE, there, executor=False) as other:
        waiting = asyncio.create_task(seen(other, 1))
        await one.mutation(plan, {"first": 0, "count": 1})
        await waiting


async def test_without_that_the_beat_tells_of_what_is_new(pooler: PgBouncer) -> None:
    async with App(SOURCE, pooler.address()) as one, App(SOURCE, pooler.address(), executor=False) as other:
        waiting = asyncio.create_task(seen(other, 1))
        await one.mutation(plan, {"first": 0, "count": 1})
        await waiting


def test_one_that_forgets_prepared_statements_is_refused(store_of: Callable[[str], str]) -> None:
    with PgBouncer(store_of("postgres"), prepared=0) as pooler:
        address = pooler.address().partition("?")[0]
        connection, other = BlockingConnection(address, 5.0, 5.0), BlockingConnection(address, 5.0, 5.0)
        try:
            connection.fetch("SELECT 1")
            other.execute("BEGIN")  # on the connection where that was prepared
            with pytest.raises(
                StoreError, match="expected PgBouncer 1.21 or newer with max_prepared_statements above 0"
            ):
                connection.fetch("SELECT 1")
        finally:
            connection.close()
            other.close()
