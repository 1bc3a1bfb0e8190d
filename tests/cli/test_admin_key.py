"""`duly admin-key`: a key for remote clients who administrate, of which the store has only the hash."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from duly import App
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.server.support import client_of
from tests.support import Done, app_of, duly

pytestmark = pytest.mark.one_engine


def make(store: str) -> None:
    async def scenario() -> None:
        async with App({}, store, executor=False):
            pass

    asyncio.run(scenario())


def admin_key(store: str, *args: str) -> Done:
    return duly(Path.cwd(), "admin-key", "--store", store, *args)


def counts(store: str, key: str) -> bool:
    """Whether a client with this key is the administrator."""

    async def scenario() -> bool:
        async with Harness(app_of(), store=store) as t, client_of(t.app) as client:
            body = {"path": "app:nothing", "args": {}}
            status, answer = await client.post("/api/function", body, Authorization=f"Convex {key}")
            assert (status, answer.get("code")) in ((200, None), (401, "BadAdminKey"))
            return status == 200

    return asyncio.run(scenario())


@pytest.mark.both_engines
def test_a_key_is_printed_once_and_counts_until_there_is_another_or_none(store: str) -> None:
    make(store)
    first = admin_key(store)
    key = first.stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert first.stderr == "store it now: it is not printed again\n"
    assert counts(store, key)

    second = admin_key(store)
    newer = second.stdout.strip()
    assert second.stderr == "store it now: it is not printed again; the key before it counts no more\n"
    assert (counts(store, key), counts(store, newer)) == (False, True)

    assert admin_key(store, "--revoke").said == "revoked: the key counts no more\n"
    assert not counts(store, newer)
    assert admin_key(store, "--revoke").said == "there was no key\n"


@only_on_sqlite
def test_the_store_does_not_have_the_key_itself(store: str, tmp_path: Path) -> None:
    make(store)
    key = admin_key(store).stdout.strip()
    files = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert files and not any(key.encode() in content for content in files)


@only_on_sqlite
def test_a_file_that_is_in_use_is_not_touched(store: str) -> None:
    async def scenario() -> Done:
        async with App({}, store):
            return await asyncio.to_thread(admin_key, store)

    done = asyncio.run(scenario())
    assert done.returncode == 1 and done.stdout == ""
    assert f"is owned by process {os.getpid()}, and this command needs a file that no process owns" in done.stderr


def test_a_store_that_does_not_exist_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    for args in ((), ("--revoke",)):
        done = admin_key(f"sqlite:///{tmp_path}/none.db", *args)
        assert done.returncode == 1 and "there is no store at " in done.stderr
    assert list(tmp_path.iterdir()) == []
