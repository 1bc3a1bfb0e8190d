"""Open an existing store without an application: nothing is loaded, applied, recovered or run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from duly.cli import options
from duly.clock import SystemClock
from duly.database.database import Database
from duly.errors import StoreError, StoreInUseError
from duly.storage.open import engine_of, sqlite_path
from duly.storage.postgres.address import is_postgres, parse


@asynccontextmanager
async def open_store(store: str) -> AsyncGenerator[Database]:
    """Open a store that exists, and close it at the end of the context. Raises StoreError or StoreInUseError."""
    engine = engine_of(store, executes=False)
    await check_exists(store)
    try:
        database = await Database.open(engine, SystemClock())
    except StoreInUseError as error:
        raise StoreInUseError(_in_use(store, error.pid), error.pid) from None
    try:
        yield database
    finally:
        await database.close()


def _in_use(store: str, owner: int | None) -> str:
    return (
        f"{sqlite_path(store)} is owned by process {owner or '(unknown)'}, and this command needs a file that"
        " no process owns: end that process (Ctrl-C). Or do it in that process: app.pause(), app.resume(),"
        " app.retry(id), app.stats(), `duly.crons`, a query of `_scheduled_functions` or `_cron_jobs`; `duly run` has"
        " `duly dev` run a function of yours. On PostgreSQL this command works while the application runs"
    )


async def check_exists(store: str) -> None:
    """Raise StoreError if there is no store. Opening it would create one, and its address may be mistyped."""
    if not await asyncio.to_thread(_exists, store):
        where = "" if is_postgres(store) else f" ({Path(sqlite_path(store)).absolute()})"  # noqa: ASYNC240
        raise StoreError(
            f"there is no store at {options.redacted(store)}{where}; duly dev makes one, --store names another"
        )


def _exists(store: str) -> bool:
    if not is_postgres(store):
        return Path(sqlite_path(store)).exists()
    from duly.storage.postgres import migrations

    return migrations.exists(parse(store))
