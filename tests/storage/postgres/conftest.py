"""Engines over a new store in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from duly.app import engine_of
from duly.limits import DEFAULTS, Limits

if TYPE_CHECKING:  # these need the driver, and without it the tests are skipped
    from duly.storage.postgres.engine import PostgresEngine
    from tests.storage.postgres.notes import Open


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


@pytest.fixture
def new_engine(store: str) -> Iterator[Open]:
    from duly.storage.postgres.engine import PostgresEngine

    opened: list[PostgresEngine] = []

    def open_another(limits: Limits = DEFAULTS) -> PostgresEngine:
        engine = engine_of(store, limits)
        assert isinstance(engine, PostgresEngine)
        opened.append(engine)
        engine.open()
        return engine

    yield open_another
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(new_engine: Open) -> PostgresEngine:
    return new_engine()
