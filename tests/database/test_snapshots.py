"""A snapshot and the tables it is read with are of one version."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

from duly import MutationCtx
from duly.app import App
from duly.database.transaction import Transaction
from duly.storage.requests import View


async def insert(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "first"})


async def test_a_table_made_right_before_a_snapshot_is_not_missing_in_it(store: str) -> None:
    async with App({}, store) as app:
        database, engine = app.database, app.database._engine
        snapshot = engine.snapshot
        wait_for_commit, committed = threading.Event(), threading.Event()

        @contextmanager
        def late_snapshot() -> Generator[View]:
            wait_for_commit.set()
            committed.wait(10)
            with snapshot() as view:
                yield view

        async def read(transaction: Transaction) -> tuple[float, bool]:
            return transaction.now, "notes" in transaction.catalog.tables

        engine.snapshot = late_snapshot
        reading = database.read(read)
        task = asyncio.create_task(reading)
        await asyncio.to_thread(wait_for_commit.wait, 10)
        await app.runner.transaction(insert)
        committed.set()
        outcome = await task
        assert outcome.version == database.commit_log.version
        assert outcome.value is not None
        assert outcome.value[1]


async def test_an_older_snapshot_is_read_with_the_tables_of_its_own_time(store: str) -> None:
    async with App({}, store) as app:
        loop = asyncio.get_running_loop()

        def look() -> None:
            with app.database._engine.snapshot() as view:
                asyncio.run_coroutine_threadsafe(app.runner.transaction(insert), loop).result(10)
                assert "notes" not in app.database._committer.catalogs.at(view).tables
                assert "notes" in app.database.catalog.tables

        await asyncio.to_thread(look)
