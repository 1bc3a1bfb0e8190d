"""The connections that queries read through, where a server refuses them."""

from __future__ import annotations

import pytest

pytest.importorskip("asyncpg")

from duly.errors import StoreLostError
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.connection_pool import ConnectionPool


def test_a_connection_that_was_refused_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many queries may wait, and each attempt may take seconds."""
    tried: list[BlockingConnection] = []

    def new_connection() -> BlockingConnection:
        tried.append(BlockingConnection("postgresql://127.0.0.1:1/duly", 5.0, 5.0))
        return tried[-1]

    now = 100.0
    monkeypatch.setattr("duly.storage.postgres.connection_pool.monotonic", lambda: now)
    pool = ConnectionPool(new_connection)
    for _ in range(3):
        with pytest.raises(StoreLostError):
            pool.acquire()
    assert len(tried) == 1
    now += 10.0
    with pytest.raises(StoreLostError):
        pool.acquire()
    assert len(tried) == 2
    pool.close()
