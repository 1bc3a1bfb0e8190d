"""Crons whose processes are killed: each slot is run once, or logged as skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duly.model.jobs import INTERRUPTED
from tests.crons.kills import POINTS, in_postgres, in_sqlite
from tests.crons.slot_audit import SlotAudit

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def test_kills_at_every_fault_point_of_a_tick_and_of_a_run_miss_and_double_nothing(tmp_path: Path) -> None:
    counts, violations = in_sqlite(tmp_path, kills=2 * len(POINTS), seed=7)

    assert [] == violations
    assert {f"at {point}" for point in POINTS} <= counts.keys()
    assert counts["runs"] > 100


def test_three_nodes_of_which_some_are_killed_and_stopped_miss_and_double_nothing(
    store_of: Callable[[str], str], tmp_path: Path
) -> None:
    counts, violations = in_postgres(store_of("postgres"), tmp_path, kills=8, seed=7)

    assert [] == violations
    assert counts["runs"] > 100


# What the account finds.


def cron(name: str = "notes", slots: int = 3) -> dict[str, Any]:
    return {"name": name, "nextRunTime": slots * 1000.0}


def ran(slot: float, name: str = "notes", ended: float | None = None, error: str = "") -> dict[str, Any]:
    status = {"kind": "failed", "error": error} if error else {"kind": "success"}
    completed = slot if ended is None else ended
    return {
        "name": name,
        "scheduledTime": slot,
        "startedTime": slot,
        "completedTime": completed,
        "status": status,
    }


def skipped(slot: float, count: int) -> dict[str, Any]:
    return {**ran(slot), "status": {"kind": "skipped", "count": count}}


@pytest.mark.parametrize(
    ("cron", "rows", "notes", "expected"),
    [
        (cron(), [ran(0), ran(1000), ran(2000)], 3, []),
        (cron(), [ran(0), skipped(1000, 2)], 1, []),
        (cron(slots=6), [ran(0), skipped(1000, 3), ran(2000), ran(5000)], 3, []),
        (cron(slots=6), [ran(0), skipped(2000, 2), skipped(1000, 3)], 1, []),
        (cron(slots=6), [ran(0), skipped(2000, 2), skipped(3000, 2)], 1, ["notes: 1 slots of 6 missed: [1]"]),
        (cron(), [ran(0), ran(2000)], 2, ["notes: 1 slots of 3 missed: [1]"]),
        (cron(), [ran(0), ran(1000), ran(1000), ran(2000)], 4, ["notes: 1 slots of 3 twice: [1]"]),
        (cron(), [ran(0), ran(1000), skipped(1000, 2)], 2, ["notes: 1 slots of 3 twice: [1]"]),
        (cron(), [ran(0), skipped(1000, 3)], 1, ["notes: 1 slots that have not come: [3]"]),
        (
            cron(),
            [ran(0), ran(1000), ran(2000)],
            4,
            ["notes: 4 traces of 3 runs that have succeeded, and of 0 that were interrupted"],
        ),
        (cron("acts"), [ran(0, "acts"), ran(1000, "acts", error=INTERRUPTED), ran(2000, "acts")], 3, []),
        (cron(slots=1), [ran(0, error=INTERRUPTED)], 0, [f"notes: {INTERRUPTED}"]),
        (
            cron("acts", slots=2),
            [ran(0, "acts", ended=1900), ran(1000, "acts")],
            2,
            ["acts: two at once: one began 900 ms before another had ended"],
        ),
        (cron("acts beside", slots=2), [ran(0, "acts beside", ended=1900), ran(1000, "acts beside")], 2, []),
        (cron(), [], 0, ["notes: never ran"]),
    ],
    ids=[
        "sound",
        "skipped",
        "skipped with one that ran in between",
        "skipped and dropped later",
        "one before those that were skipped",
        "missed",
        "twice",
        "run and skipped",
        "early",
        "a run without a log",
        "interrupted",
        "a mutation cannot be",
        "two at once",
        "as it may",
        "never",
    ],
)
def test_what_is_missed_or_doubled_is_found(
    cron: dict[str, Any], rows: list[dict[str, Any]], notes: int, expected: list[str]
) -> None:
    audit = SlotAudit()
    audit.add(list(enumerate(rows)))

    assert expected == audit.check([cron], Counter({cron["name"]: notes}))
