"""A server that gives no answer: each call waits for its own time, all that are late fail together, and closing ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from duly import (
    ActionCtx,
    App,
    MutationCtx,
    QueryCtx,
    StoreError,
    StoreLostError,
    internal_action,
    mutation,
    query,
)
from duly.database import call_queue
from duly.database.call_queue import QueuedCall, StoreTimeout
from tests import postgres
from tests.nodes.proxy import Proxy

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))

PATIENCE, ANSWER, CONNECT, CLOSING = 3.0, 2.0, 1.0, 1.0
SLACK = 10.0
"""What a busy machine may take beside."""


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("committer", "database"):
        monkeypatch.setattr(f"duly.database.{module}.STORE_LOST_SECONDS_MAX", PATIENCE)
    monkeypatch.setattr("duly.database.call_queue.STORE_LOST_CLOSING_SECONDS_MAX", CLOSING)
    for module in ("engine", "membership", "connection_pool"):
        monkeypatch.setattr(f"duly.storage.postgres.{module}.CONNECT_SECONDS", CONNECT)
    monkeypatch.setattr("duly.storage.postgres.engine.ANSWER_SECONDS", ANSWER)
    monkeypatch.setattr("duly.storage.postgres.membership.NODE_ANSWER_SECONDS", ANSWER)


@pytest.fixture
def long_patience(short_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For calls that are to come through, on a machine that is as busy as may be."""
    for module in ("committer", "database"):
        monkeypatch.setattr(f"duly.database.{module}.STORE_LOST_SECONDS_MAX", 60.0)


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("rows", {"n": n})


@query
async def rows(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").collect()]


@internal_action
async def rests(ctx: ActionCtx) -> None:
    await asyncio.sleep(60)


@mutation
async def begin(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, rests)


MODULES: dict[str, Any] = {"app": SimpleNamespace(put=put, rows=rows, rests=rests, begin=begin)}


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


def behind(proxy: Proxy, store: str) -> str:
    parts = urlsplit(store)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


@pytest.fixture
def proxy(store: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(store).port or 5432) as proxy:
        yield proxy


async def outcome(call: Callable[[], Any], after_seconds: float) -> tuple[float, Exception | None]:
    """How long a call takes that is made after a while, and what it raises."""
    await asyncio.sleep(after_seconds)
    began = time.perf_counter()
    try:
        await call()
    except StoreError as error:
        return time.perf_counter() - began, error
    return time.perf_counter() - began, None


def hundred(app: App) -> list[asyncio.Task[tuple[float, Exception | None]]]:
    """Mutations and queries that are called one after the other, for longer than one waits."""

    def call(n: int) -> Callable[[], Any]:
        return (lambda: app.query(rows)) if n % 2 else (lambda: app.mutation(put, {"n": n}))

    return [asyncio.create_task(outcome(call(n), n * 2 * PATIENCE / 100)) for n in range(100)]


@contextmanager
def stopped(server: postgres.Server) -> Iterator[None]:
    """All processes of a server are stopped: connections are taken, and nobody ever answers."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    family = [int(pid) for pid, parent in map(str.split, listed.splitlines()) if str(server.pid) in (pid, parent)]
    assert len(family) > 1
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


async def all_fail_in_time(app: App) -> None:
    told = await asyncio.gather(*hundred(app))
    doubted = [error for _, error in told if type(error) is StoreError]  # of what was being committed
    assert len(doubted) <= 1
    assert all("whether it is stored is not known" in str(error) for error in doubted)
    assert all(isinstance(error, StoreLostError) for _, error in told if error not in doubted)
    assert min(seconds for seconds, _ in told) >= PATIENCE
    assert max(seconds for seconds, _ in told) < PATIENCE + ANSWER + CONNECT + SLACK


async def test_while_a_server_is_stopped_each_of_a_hundred_calls_fails_after_its_own_time() -> None:
    with postgres.Server() as server:
        app = await App(MODULES, server.address()).__aenter__()
        await app.mutation(put, {"n": -1})
        with stopped(server):
            await all_fail_in_time(app)
            began = time.perf_counter()
            await app.close()
            assert time.perf_counter() - began < CLOSING + 10 * (ANSWER + CONNECT) + SLACK


async def test_while_a_server_refuses_each_of_a_hundred_calls_fails_after_its_own_time(store: str) -> None:
    with Proxy(urlsplit(store).port or 5432) as proxy:
        app = await App(MODULES, behind(proxy, store)).__aenter__()
    await all_fail_in_time(app)
    began = time.perf_counter()
    await app.close()
    assert time.perf_counter() - began < CLOSING + ANSWER + SLACK


@pytest.mark.usefixtures("long_patience")
async def test_calls_that_wait_go_on_when_the_server_answers_again(store: str, proxy: Proxy) -> None:
    async with App(MODULES, behind(proxy, store)) as app:
        await app.mutation(put, {"n": -1})
        proxy.black_hole()
        calls = [asyncio.create_task(outcome(lambda n=n: app.mutation(put, {"n": n}), 0)) for n in range(50)]
        reads = [asyncio.create_task(outcome(lambda: app.query(rows), 0)) for _ in range(50)]
        await asyncio.sleep(CONNECT)
        proxy.heal()
        assert {error for _, error in await asyncio.gather(*calls, *reads)} == {None}
        assert sorted(await app.query(rows)) == list(range(-1, 50))


async def test_closing_ends_within_its_bound_whatever_waits_and_runs(store: str, proxy: Proxy) -> None:
    app = await App(MODULES, behind(proxy, store)).__aenter__()
    await app.mutation(begin)
    while not app.executor.running:
        await asyncio.sleep(0.01)
    proxy.black_hole()
    calls = [asyncio.create_task(outcome(lambda n=n: app.mutation(put, {"n": n}), 0)) for n in range(100)]
    calls += [asyncio.create_task(outcome(lambda: app.query(rows), 0)) for _ in range(100)]
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    await app.close(grace_seconds=0.1)
    # Beside the patience of calls, an action that was interrupted has 5 s to end, which waits for its end to be stored.
    assert time.perf_counter() - began < CLOSING + 5 + 10 * (ANSWER + CONNECT) + SLACK
    assert all(isinstance(error, StoreError) for _, error in await asyncio.gather(*calls))


async def test_of_a_commit_whose_answer_never_comes_only_its_own_calls_do_not_know(store: str, proxy: Proxy) -> None:
    async with App(MODULES, behind(proxy, store), executor=False) as app:
        await app.mutation(put, {"n": 0})
        cut = proxy.lose_commit("answer")
        cut.add_done_callback(lambda _: setattr(proxy, "_silent", True))  # from now on nobody answers
        doubted = asyncio.create_task(outcome(lambda: app.mutation(put, {"n": 1}), 0))
        while not cut.done():
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(outcome(lambda: app.mutation(put, {"n": 2}), n / 20)) for n in range(20)]

        seconds, error = await doubted

        assert type(error) is StoreError
        assert "whether it is stored is not known" in str(error)
        told = [(seconds, error), *await asyncio.gather(*others)]
        assert {type(error) for _, error in told[1:]} == {StoreLostError}
        assert max(seconds for seconds, _ in told) < PATIENCE + ANSWER + CONNECT + SLACK
        proxy.heal()
        await app.mutation(put, {"n": 3})
        assert await app.query(rows) == [0, 1, 3]


@pytest.mark.usefixtures("long_patience")
async def test_a_commit_that_is_settled_after_a_while_is_answered(store: str, proxy: Proxy) -> None:
    async with App(MODULES, behind(proxy, store), executor=False) as app:
        await app.mutation(put, {"n": 0})
        for n, loss in enumerate(("answer", "request"), 1):
            cut = proxy.lose_commit(loss)
            cut.add_done_callback(lambda _: setattr(proxy, "_silent", True))
            calls = [asyncio.create_task(outcome(lambda m=m: app.mutation(put, {"n": m}), 0)) for m in (n, 10 * n)]
            while not cut.done():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.4)
            proxy.heal()
            assert [error for _, error in await asyncio.gather(*calls)] == [None, None]
        assert sorted(await app.query(rows)) == [0, 1, 2, 10, 20]


# Connections.


@pytest.fixture
def few(store: str) -> Iterator[str]:
    """The address of a store for a role that has three connections."""
    role, server = f"test_{uuid4().hex}", _server(store)
    _ask(server, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3", f"GRANT CREATE ON DATABASE duly TO {role}")
    parts = urlsplit(store)
    yield urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    _ask(server, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def _server(store: str) -> str:
    return urlunsplit(urlsplit(store)._replace(query=""))


def _ask(server: str, *statements: str) -> None:
    import asyncpg

    async def ask() -> None:
        connection = await asyncpg.connect(server)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(ask())


@pytest.mark.usefixtures("long_patience")
async def test_the_first_query_of_a_node_runs_where_the_server_has_no_connection_left(few: str) -> None:
    async with App(MODULES, few) as app:
        await app.mutation(put, {"n": 1})
        told = await asyncio.gather(*(outcome(lambda: app.query(rows), 0) for _ in range(20)))
        assert {error for _, error in told} == {None}
        assert max(seconds for seconds, _ in told) < PATIENCE + SLACK


async def test_a_node_that_does_not_get_its_connections_does_not_start(few: str) -> None:
    async with App(MODULES, few) as app:
        with pytest.raises(StoreError, match="PostgreSQL cannot be reached: too many connections"):
            await App(MODULES, few).__aenter__()
        await app.mutation(put, {"n": 1})
        assert await app.query(rows) == [1]


# StoreTimeout.


def test_a_call_waits_from_its_own_begin_or_from_the_last_answer_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(call_queue, "monotonic", lambda: now)
    patience = StoreTimeout()
    future: Any = None
    calls = [QueuedCall(lambda batch: None, future, False, "", True, 100.0 + n) for n in (0, 10, 20)]
    now = 115.0
    patience.store_answered()  # the first two have waited for something else
    now = 134.9
    assert patience.take_expired(calls, 20.0) == []
    now = 135.1
    assert [queued.queued_at for queued in patience.take_expired(calls, 20.0)] == [100.0, 110.0]
    assert [queued.queued_at for queued in calls] == [120.0]
    patience.begin_closing()
    now += call_queue.STORE_LOST_CLOSING_SECONDS_MAX + 0.1
    assert [queued.queued_at for queued in patience.take_expired(calls, 20.0)] == [120.0]
    assert calls == []
