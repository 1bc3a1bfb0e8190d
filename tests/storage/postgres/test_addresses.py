"""Addresses of stores: what is wrong with them, the password in them, and servers that do not answer."""

from __future__ import annotations

import re
import socket
import sys
import time
import traceback

import pytest

from tests import postgres

pytest.importorskip("asyncpg")


from duly.app import App, engine_of
from duly.errors import StoreError
from duly.storage.postgres.address import parse
from duly.testing import Harness
from tests.storage.postgres.notes import (
    NOTES,
    Open,
    changes,
    insert,
    with_notes,
)

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://somebody:secret@127.0.0.1:1/duly",
        "postgresql://somebody:secret@nowhere.invalid/duly",
        "postgresql://somebody:secret@127.0.0.1:port/duly",
        "postgresql://somebody:secret@127.0.0.1:99999/duly",
        "postgresql://somebody:secret@[127.0.0.1/duly",
        "postgresql://somebody:secret@127.0.0.1/duly?sslmode=perhaps",
        "postgresql://somebody:secret@127.0.0.1/duly?schema=Capital",
        "postgresql://somebody:secret@127.0.0.1/duly?schema=a;b",
        "postgresql://somebody:top/secret@127.0.0.1/duly",
        "postgresql://somebody:secret/top@127.0.0.1/duly",
        "postgresql://somebody:secret#top@127.0.0.1/duly",
        "postgresql://somebody:top#secret@127.0.0.1/duly",
        "postgresql://somebody:top?secret@127.0.0.1/duly",
        "postgresql://somebody:secret@top/secret@127.0.0.1/duly",
        "postgresql://127.0.0.1:1/duly?user=a@b&password=secret",
        "postgresql://somebody:secret@127.0.0.1:1/duly?client_encoding=LATIN1",
        "postgresql://somebody:5432?secret@127.0.0.1/duly",
        "postgresql://somebody:secret[top@127.0.0.1/duly",
        "postgresql://somebody:secret\u2100top@127.0.0.1/duly",
        "postgresql://somebody:secret@127.0.0.1/duly?schema",
        "postgresql://somebody:secret@127.0.0.1/duly?listen=ada:secret@127.0.0.1:1",
    ],
)
def test_an_address_that_leads_nowhere_is_an_error_without_its_password(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        engine_of(address).open()
    error: BaseException | None = raised.value
    assert "secret" not in "".join(traceback.format_exception_only(error))
    assert re.match("postgresql://[^/@]*(/duly)?: ", str(error))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("postgresql://ada:p@ss@db/shop", "got an address with more than one @, expected one.* @ .* %40"),
        ("postgresql://ada@tenant:pass@db/shop", "got an address with more than one @"),
        ("postgresql://ada:p@ss@db/shop?schema=x", "got an address with more than one @"),
        ("postgresql://ada:pa?ss@db/shop", r"got an address that cannot be read, expected .* \? .* %3F"),
        ("postgresql://ada:pa#ss@db/shop", "got an address with ambiguous parts, expected .* # .* %23"),
        ("postgresql://ada:pa/ss@db/shop", "got an address with ambiguous parts, expected .* / .* %2F"),
        ("postgresql://ada:pa[ss@db/shop", r"got an address that cannot be read, expected .* \[ .* %5B"),
        ("postgresql://ada:pass@db/shop\n", "postgresql://db/shop: got an address with a line break"),
        ("postgresql://ada:pa\tss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pa\0ss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pa%00ss@db/shop", "postgresql://db/shop: got an address with .* control character"),
        ("postgresql://ada:pass@db/shop?schema", r"got an address that cannot be read, expected .* \?name=value"),
        ("postgresql://ada:pass@db/shop?listen=x:y", "got listen=x:y, expected host:port"),
    ],
)
def test_what_is_wrong_with_an_address_is_told_before_anybody_connects(address: str, wrong: str) -> None:
    for opened in (App, Harness):
        with pytest.raises(StoreError, match=wrong) as raised:
            opened({}, store=address)
        assert "ss@" not in str(raised.value).partition(": got")[0]


@pytest.mark.parametrize("password", ["p%40ss", "p:ss", "p%2Fss", "p ss", "pä", "p%ss"])
def test_a_password_may_hold_any_character_that_is_escaped(password: str) -> None:
    assert parse(f"postgresql://ada:{password}@db/shop?schema=x").schema == "x"


def test_a_server_that_never_answers_is_an_error_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StoreError, match="cannot be reached"):
            engine_of(f"postgresql://somebody@127.0.0.1:{silent.getsockname()[1]}/duly").open()
        assert time.monotonic() - began < 30


def test_a_missing_driver_is_told_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "duly.storage.postgres.engine")
    monkeypatch.delitem(sys.modules, "duly.storage.postgres.connection")
    with pytest.raises(StoreError, match="run pip install asyncpg"):
        App({}, "postgresql://somebody@127.0.0.1/duly")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_session_of_another_isolation_level_commits_nothing(store: str, new_engine: Open, level: str) -> None:
    with_notes(new_engine(), 5)
    engine = engine_of(f"{store}&default_transaction_isolation={level.replace(' ', '%20')}")
    engine.open()
    engine.begin()
    with pytest.raises(StoreError, match="READ COMMITTED"):
        engine.commit(changes((NOTES, {2: insert(2, 6)})))
    engine.rollback()
    engine.close()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ada:secret@db:5432/shop?schema=x", "postgresql://db:5432/shop"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert parse(address).redacted == shown
