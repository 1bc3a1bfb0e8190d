"""Async tests: every `async def test_…` runs on an event loop of its own. Stores: of every engine there is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import postgres

ENGINES = ("sqlite", "postgres")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test, given = pyfuncitem.obj, pyfuncitem.funcargs
    if not inspect.iscoroutinefunction(test):
        return None
    asyncio.run(test(**{name: given[name] for name in inspect.signature(test).parameters if name in given}))
    return True


@pytest.fixture
def store_of(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The address of an empty store of an engine; the same one for the whole test."""
    stores = {"sqlite": f"sqlite:///{tmp_path}/app.db"}

    def store(engine: str) -> str:
        if engine not in stores:
            if reason := postgres.unavailable():
                pytest.skip(reason)
            stores[engine] = postgres.new_store(postgres.shared_address())
        return stores[engine]

    yield store
    if "postgres" in stores:
        postgres.drop_store(stores["postgres"])
