"""The tables of a store are made and migrated once, in a database that can hold every text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from tests import postgres

pytest.importorskip("asyncpg")


from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    crons,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.app import App, engine_of
from duly.errors import StoreError
from duly.storage.postgres import migrations
from duly.storage.postgres.address import parse
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.requests import Get
from duly.storage.rows import JOBS, Write
from tests.storage.postgres.notes import (
    Open,
    ask,
    changes,
    job,
    put,
    with_notes,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database of its own, in the encoding that the test is run for."""
    server, name = postgres.new_store(postgres.shared_address()), f"test_{uuid4().hex}"
    ask(server, f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0")
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    ask(server, f"DROP DATABASE {name}")
    postgres.drop_store(server)


@pytest.mark.parametrize("database", ["LATIN1", "SQL_ASCII"], indirect=True)
def test_a_database_that_does_not_hold_every_text_is_refused_by_name(database: str) -> None:
    [(encoding,)] = ask(database, "SHOW server_encoding")
    for opened in (lambda: engine_of(database).open(), lambda: migrations.plan(parse(database))):
        with pytest.raises(StoreError, match=rf"got a database whose encoding is {encoding}, expected UTF8.*ENCODING"):
            opened()
    with pytest.raises(StoreError, match="encoding"):
        migrations.migrate_store(parse(database))
    assert (
        ask(database, f"SELECT FROM pg_namespace WHERE nspname = '{parse(database).schema}'") == []
    )  # nothing was made


@mutation
async def schedules_what_fails(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, runs_out)
    await ctx.scheduler.run_after(0, runs_out_of_all)
    await crons.register(ctx, {"kind": "interval", "ms": 1_000}, runs_out, name="c")
    await crons.register(ctx, {"kind": "interval", "ms": 1_000}, runs_out_of_all, name="d")


@internal_mutation
async def runs_out(ctx: MutationCtx) -> None:
    ctx.log.info("no more ☕")
    raise ValueError("no more ☕")


@internal_action
async def runs_out_of_all(ctx: ActionCtx) -> None:
    ctx.log.info("no more ☕")
    raise ValueError("no more ☕")


@query
async def ends(ctx: QueryCtx) -> list[str]:
    rows = await ctx.db.system.query("_scheduled_functions").collect()
    logs = await ctx.db.system.query("_cron_job_logs").collect()
    told = [row["state"].get("error", "") for row in rows] + [log["status"]["error"] for log in logs]
    return sorted({error.partition("\n")[0] for error in told}) if len({log["name"] for log in logs}) == 2 else []


@pytest.mark.parametrize("database", ["LATIN1"], indirect=True)
async def test_an_end_whose_text_a_store_cannot_hold_is_recorded_nevertheless(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "check_settings", lambda connection: None)  # pyright: ignore
    functions = (schedules_what_fails, runs_out, runs_out_of_all, ends)
    modules = {"app": SimpleNamespace(**{function.handler.__name__: function for function in functions})}
    async with App(modules, database) as app:
        await app.mutation(schedules_what_fails)
        async with asyncio.timeout(60):  # each end is tried twice, with a pause
            async for told in app.subscribe(ends):
                if told == ["ValueError: no more \\u2615"]:
                    break


@pytest.mark.parametrize(
    "setting", ["standard_conforming_strings=off", "options=-c%20standard_conforming_strings%3Doff"]
)
def test_a_session_that_reads_texts_otherwise_is_refused_by_name(store: str, setting: str) -> None:
    refused = pytest.raises(StoreError, match=r"got standard_conforming_strings = off, expected on")
    with refused:
        engine_of(f"{store}&{setting}").open()
    engine = engine_of(store)
    engine.open()  # nothing was made that is in the way
    engine.close()
    with refused:
        engine_of(f"{store}&{setting}").open()


def test_processes_that_come_at_once_make_one_store(store: str) -> None:
    secrets: set[bytes] = set()
    several = [engine_of(store) for _ in range(4)]
    threads = [threading.Thread(target=lambda engine=engine: secrets.add(engine.open().secret)) for engine in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 1
    assert ask(store, "SELECT count(*), count(DISTINCT number) FROM duly.nodes WHERE state = 'live'") == [(4, 4)]
    for engine in several:
        engine.close()


@pytest.mark.parametrize("end", ["SELECT no_such_column", "SELECT pg_terminate_backend(pg_backend_pid())"])
def test_a_migration_that_ends_half_way_leaves_nothing(
    store: str, end: str, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql_of = migrations.sql_of
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "sql_of", lambda version, address: f"{sql_of(version, address)}; {end}")
        with pytest.raises(StoreError):
            new_engine()
    assert ask(store, f"SELECT 1 FROM pg_namespace WHERE nspname = '{store.rpartition('=')[2]}'") == []
    new_engine()


def test_a_node_goes_on_while_its_store_becomes_one_of_the_next_format(
    store: str, engine: PostgresEngine, new_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_notes(engine, 5)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "FORMAT", 3)
        patched.setattr(migrations, "sql_of", lambda version, address: _NEXT.replace("duly.", f"{address.schema}."))
        newer = new_engine()
    assert ask(store, "SELECT format FROM duly.store") == [(3,)]
    assert put(engine, 1, 5, 6) == 2
    engine.begin()
    engine.commit(changes((JOBS, {1: Write(None, job(1, 5.0))})))
    newer.begin()
    newer.commit(changes((JOBS, {1: Write(job(1, 5.0), job(1, None, "success", completed_time=6.0))})))
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)).state == "success"
    assert new_engine().epoch > newer.epoch  # one of this version may come, too


_NEXT = """
ALTER TABLE duly.jobs ADD note text; ALTER TABLE duly.completed_jobs ADD note text; ALTER TABLE duly.log ADD note text;
ALTER TABLE duly.nodes ADD note text; CREATE TABLE duly.more (); UPDATE duly.store SET format = 3
"""


def test_a_store_that_needs_a_newer_duly_is_refused(store: str, engine: PostgresEngine, new_engine: Open) -> None:
    ask(store, f"UPDATE duly.store SET needs = {migrations.FORMAT + 1}")
    with pytest.raises(StoreError, match=f"got a store that needs format {migrations.FORMAT + 1}, .*newer duly"):
        new_engine()


def test_who_waits_for_its_turn_to_make_a_store_sees_that_another_has_made_it(store_of: Callable[[str], str]) -> None:
    address = parse(store_of("postgres"))
    first, second = (BlockingConnection(address.dsn, 2.0, 5.0) for _ in range(2))
    assert migrations.pending_versions(second, address) == [1, 2]
    second.execute("BEGIN; SELECT 1")  # as in `migrate`, whose lock the first one holds

    migrations.migrate(first, address)

    assert migrations.pending_versions(second, address) == []
    first.close()
    second.close()


def test_who_makes_a_store_waits_longer_than_for_an_answer(store_of: Callable[[str], str]) -> None:
    address = parse(store_of("postgres"))
    other, patient = BlockingConnection(address.dsn, 2.0, 5.0), BlockingConnection(address.dsn, 2.0, 0.3)
    other.execute(f"BEGIN; SELECT pg_advisory_xact_lock({address.lock})")  # it takes long to make one
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(migrations.migrate, patient, address)
        time.sleep(0.6)  # twice as long as an answer may take
        other.execute("COMMIT")
        made.result()
        thread.submit(patient.close).result()
    assert migrations.pending_versions(other, address) == []
    other.close()
