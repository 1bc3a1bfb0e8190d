"""A process that dies while it changes the schema leaves the old one or the new one, and indexes that are right."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.model import schema_process
from tests.model.schema_process import NEW, OLD
from tests.model.soundness import complaints, indexes

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
ROWS = 2_500

READY_OLD = {("rows", "by_n"), ("rows", "by_m")}
READY_NEW = {("rows", "by_n"), ("rows", "by_k"), ("pets", "by_n")}


def dies(store: str, fault: str | None) -> bool:
    """Run a process that changes the schema. Returns whether it was killed; if not, it has changed it."""
    command = [sys.executable, "-W", "error", "-m", "tests.model.schema_process", store]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"DULY_FAULT": fault} if fault is not None else {}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0


def ready(store: str) -> set[tuple[str, str]]:
    return {index for index, states in indexes(store).items() if True in states}


def amid(fault: str) -> Any:
    """A fault point amid the steps: one of them is enough on PostgreSQL."""
    return pytest.param(fault, READY_OLD, marks=pytest.mark.one_engine)


@pytest.mark.parametrize(("then", "indexed"), [(OLD, READY_OLD), (NEW, READY_NEW)], ids=["old", "new"])
@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("schema.index_created:1", READY_OLD),  # not durable yet
        amid("schema.step:20"),  # the first 50 steps check
        ("schema.step:52", READY_OLD),  # and the next 50 fill
        amid("schema.step:75"),
        amid("schema.step:99"),
        ("schema.ready:2", READY_OLD),  # the first one is that of the start
        ("schema.applied:2", READY_NEW),
        (None, READY_NEW),
    ],
)
async def test_the_old_schema_or_the_new_one_is_whole_wherever_a_process_dies(
    store: str, fault: str | None, state: set[tuple[str, str]], then: Any, indexed: set[tuple[str, str]]
) -> None:
    opened, _ = schema_process.app(store, OLD)
    async with opened:
        await opened.mutation(schema_process.put, {"first": 0, "count": ROWS})

    assert await asyncio.to_thread(dies, store, fault) == (fault is not None)
    assert ready(store) == state
    assert complaints(store) == []

    opened, _ = schema_process.app(store, then, development=True)  # where the older schema may come back
    async with opened:
        await opened.mutation(schema_process.stir, {"turn": 0})
    assert indexes(store) == {index: [True] for index in indexed}
    assert complaints(store) == []
