"""The tables of a store in PostgreSQL are made once, however many come at the same time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("asyncpg")

from duly.storage.postgres import layout
from duly.storage.postgres.address import parse
from duly.storage.postgres.link import Link


def test_who_waits_for_its_turn_to_make_a_store_sees_that_another_has_made_it(store_of: Callable[[str], str]) -> None:
    address = parse(store_of("postgres"))
    first, second = (Link(address.dsn, 2.0, 5.0) for _ in range(2))
    assert layout.missing(second, address) == [1]
    second.execute("BEGIN; SELECT 1")  # as in `migrate`, whose lock the first one holds

    layout.migrate(first, address)

    assert layout.missing(second, address) == []
    first.close()
    second.close()
