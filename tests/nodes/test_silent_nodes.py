"""A node that goes silent while it holds the lock of the store: the others wait only a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from duly import App, MutationCtx, mutation
from duly.limits import Limits
from tests import postgres

asyncpg = pytest.importorskip("asyncpg")

from duly.errors import StoreLostError  # noqa: E402
from duly.storage.postgres import lock_timeout  # noqa: E402  (it needs the driver)
from duly.storage.postgres.address import parse  # noqa: E402
from duly.storage.postgres.connection import BlockingConnection  # noqa: E402

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))

PATIENCE = 30.0


@mutation
async def note(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"n": 1})


@mutation
async def count_slowly(ctx: MutationCtx, seconds: float) -> int:
    """Read, change and read, with a long thought in between."""
    counter = await ctx.db.query("counters").first()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    if counter is None:
        await ctx.db.insert("counters", {"n": 1})
        return 1
    await ctx.db.patch(counter["_id"], {"n": counter["n"] + 1})
    return counter["n"] + 1


MODULES = {"notes": SimpleNamespace(note=note, count_slowly=count_slowly)}


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


async def holding(store: str) -> Any:
    """A connection that holds the lock, as that of a node in an exclusive batch."""
    address = parse(store)
    connection = await asyncpg.connect(address.dsn)
    await connection.execute(
        f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = 1000; SELECT pg_advisory_xact_lock({address.lock})"
    )
    return connection


async def test_who_falls_silent_amid_a_statement_loses_the_lock(store: str) -> None:
    async with App(MODULES, store) as app:
        await app.mutation("notes:note")
        silent = await holding(store)
        # The driver sends the text of a statement and asks for no end of it: for PostgreSQL it goes on.
        await silent.prepare("SELECT 1")

        async with asyncio.timeout(PATIENCE):
            await app.mutation("notes:note")

        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            await silent.fetch("SELECT 1")
        silent.terminate()


async def test_a_node_can_start_while_another_that_is_gone_holds_the_lock(store: str) -> None:
    async with App(MODULES, store):
        pass
    silent = await holding(store)
    await silent.prepare("SELECT 1")
    await asyncio.sleep(1.1)

    async with asyncio.timeout(PATIENCE), App(MODULES, store) as app:
        await app.mutation("notes:note")

    silent.terminate()


def test_a_connection_that_is_lost_within_a_transaction_is_not_replaced_until_that_is_known(store: str) -> None:
    connection, other = (BlockingConnection(parse(store).dsn, 2.0, 5.0) for _ in range(2))
    connection.execute("BEGIN")
    [(pid,)] = connection.fetch("SELECT pg_backend_pid()")
    other.fetch("SELECT pg_terminate_backend($1)", pid)
    while connection.is_connected:
        connection.wait(0.01)  # it learns of it between two statements

    with pytest.raises(StoreLostError):
        connection.execute("COMMIT")  # on another connection it would seem to succeed

    assert [(1,)] == connection.fetch("SELECT 1")
    connection.close()
    other.close()


@pytest.mark.parametrize(("held_seconds", "expected"), [(0.0, 1_000), (1.5, 3_000)], ids=["at once", "after a while"])
def test_only_who_has_lost_the_lock_after_a_while_may_be_slow(
    held_seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(lock_timeout, "monotonic", lambda: now)
    timeout = lock_timeout.LockTimeout(handler_seconds=2.0)
    assert timeout.milliseconds == 1_000

    timeout.acquired()
    now += held_seconds
    timeout.lost()

    assert expected == timeout.milliseconds
    timeout.lost()  # nothing was held any more
    assert expected == timeout.milliseconds
    timeout.acquired()
    timeout.released()
    assert timeout.milliseconds == 1_000


async def test_a_slow_function_that_loses_the_lock_is_given_time_when_it_is_run_again(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_timeout, "LOCK_IDLE_MS", 200)
    async with (
        App(MODULES, store, limits=Limits(handler_seconds_max=10.0)) as app,
        App(MODULES, store, limits=Limits(handler_seconds_max=10.0)) as other,
    ):
        # They conflict with each other, so that they are run again by who holds the lock.
        counted = [call.mutation("notes:count_slowly", {"seconds": 0.5}) for call in (app, other) for _ in range(2)]

        assert [1, 2, 3, 4] == sorted(await asyncio.gather(*counted))
