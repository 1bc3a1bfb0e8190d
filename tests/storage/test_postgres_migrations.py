"""The tables of a store in PostgreSQL are made once, however many come at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("asyncpg")

from duly.storage.postgres import migrations
from duly.storage.postgres.address import parse
from duly.storage.postgres.connection import BlockingConnection

pytestmark = pytest.mark.server


def test_who_waits_for_its_turn_to_make_a_store_sees_that_another_has_made_it(store_of: Callable[[str], str]) -> None:
    address = parse(store_of("postgres"))
    first, second = (BlockingConnection(address.dsn, 2.0, 5.0) for _ in range(2))
    assert migrations.pending_versions(second, address) == [1]
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
