"""A backup of a store in PostgreSQL with its own tools, as the documentation has it."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from duly import App
from tests import postgres
from tests.conftest import skip_without_postgres
from tests.storage.owner import MODULES


@pytest.fixture
def store() -> Iterator[str]:
    skip_without_postgres()
    address = postgres.new_store(postgres.shared_address())
    yield address
    postgres.drop_store(address)


def tool(name: str) -> Path:
    """That of the server: a newer one dumps what an older server does not know."""
    for folder in postgres.all_binaries():
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"there is no {name} beside the server")


async def test_a_dump_of_the_schema_is_a_backup_that_can_be_restored(store: str, tmp_path: Path) -> None:
    [schema] = parse_qs(urlsplit(store).query)["schema"]
    database, dump = store.partition("?")[0], tmp_path / f"{uuid.uuid4().hex}.dump"

    async def run(*command: str | Path) -> None:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    async with App(MODULES, store, executor=False) as app:
        await app.mutation("app:add", {"text": "old"})
        await app.mutation("app:start_slow")
        await run(tool("pg_dump"), "--format=custom", f"--schema={schema}", f"--file={dump}", database)  # it runs
        await app.mutation("app:add", {"text": "new"})
    await asyncio.to_thread(postgres.drop_store, store)
    await run(tool("pg_restore"), f"--dbname={database}", dump)
    async with App(MODULES, store) as app:
        async for notes in app.subscribe("app:notes"):
            if notes == ["old", "slow"]:  # what was pending has run
                break
