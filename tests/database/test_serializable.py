"""Concurrent calls leave only what a serial order explains, and the same tests find it when they do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duly import App
from duly.app import engine_of
from duly.database.batch import Batch
from duly.database.committer import Committer, Work
from duly.storage.engine import Engine
from duly.storage.requests import Get, Request
from duly.storage.sqlite.engine import SqliteEngine
from tests.database.workloads import COUNT, SOURCE, WORKLOADS, Append, Lists, Workload, changed_total, disorders

PLENTY = 20  # anomalies that a control finds, at least


@pytest.mark.parametrize("workload", WORKLOADS)
async def test_concurrent_calls_are_explained_by_a_serial_order(workload: Workload, store: str) -> None:
    async with App(SOURCE, store) as app:
        assert await workload(app) == []


# On SQLite only: there a batch reads what its view shows, while on PostgreSQL it compares what it has read. The
# controls of that are in tests/nodes.
@pytest.mark.parametrize("workload", WORKLOADS)
async def test_anomalies_are_found_when_handlers_read_the_snapshot_of_the_moment_they_were_queued(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "app.db")
    with handlers_reading_the_past(path, monkeypatch):
        async with App(SOURCE, f"sqlite:///{path}") as app:
            assert len(await workload(app)) >= PLENTY


async def test_a_changed_total_is_found_when_each_read_of_a_query_is_of_another_moment(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at_once_only(type(engine_of(store)), monkeypatch)
    async with App(SOURCE, store) as app:
        assert len(await changed_total(app, count=4 * COUNT)) >= PLENTY


@contextmanager
def handlers_reading_the_past(path: str, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let each handler read a snapshot taken when its call was queued, and commit whatever it writes."""
    submit = Committer.submit
    engines: list[SqliteEngine] = []  # idle ones: each has one snapshot at a time

    def submit_with_a_snapshot(committer: Committer, work: Work[Any], *more: Any) -> asyncio.Future[Any]:
        engine = engines.pop() if engines else SqliteEngine(path)
        snapshot = engine.snapshot()
        view = snapshot.__enter__()

        def work_in_the_past(batch: Batch) -> Any:
            try:
                with monkeypatch.context() as during:
                    during.setattr(batch, "answer", view.answer)
                    during.setattr(batch, "read_row", lambda table, id: view.answer(Get(table, id)))
                    return work(batch)
            finally:
                snapshot.__exit__(None, None, None)
                engines.append(engine)

        return submit(committer, work_in_the_past, *more)

    monkeypatch.setattr(Committer, "submit", submit_with_a_snapshot)
    try:
        yield
    finally:
        for engine in engines:
            engine.close()


def read_at_once_only(engine: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read of a query have a snapshot of its own."""
    snapshot = engine.snapshot

    @contextmanager
    def snapshots(engine: Engine) -> Generator[SimpleNamespace]:
        def answer(request: Request) -> Any:
            time.sleep(0.0002)  # so that commits fall between the reads
            with snapshot(engine) as view:
                return view.answer(request)

        with snapshot(engine) as first:
            version, catalog_version = first.version, first.catalog_version
        yield SimpleNamespace(version=version, catalog_version=catalog_version, cached={}, answer=answer)

    monkeypatch.setattr(engine, "snapshot", snapshots)


# The check of what calls that append have seen.


@pytest.mark.parametrize(
    ("final", "appends", "expected"),
    [
        ({"a": [1, 2], "b": [2]}, [Append(1, ["a"], {"a": [], "b": []}), Append(2, ["a", "b"], {"a": [1], "b": []})], []),
        ({"a": [2]}, [Append(1, ["a"], {"a": []}), Append(2, ["a"], {"a": []})], ["1 is not in a"]),
        ({"a": [1, 2]}, [Append(1, ["a"], {"a": []}), Append(2, ["a"], {"a": []})], ["each before the next: [1, 2, 1]"]),
        # Neither has seen the other, though they write to different lists.
        ({"a": [1], "b": [2]}, [Append(1, ["a"], {"b": []}), Append(2, ["b"], {"a": []})], ["each before the next: [1, 2, 1]"]),
        ({"a": [1, 2]}, [Append(1, ["a"], {"a": []}), Append(2, ["a"], {"a": [1]}), Append(3, [], {"a": [2]})],
         ["3 saw [2] in a, which is not how it begins"]),
    ],
)  # fmt: skip
def test_what_no_order_explains_is_told(final: Lists, appends: list[Append], expected: list[str]) -> None:
    assert disorders(final, appends) == expected
