"""Weeks of crons of all kinds, and hours of those that run every few seconds, on the virtual clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from duly.model.cron_schedule import FixedInterval
from tests.crons.twin import Options, Skip, Twin
from tests.crons.year import Life

lasts = {"sqlite": 4.0, "postgres": 1.0}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("duly").setLevel(logging.CRITICAL)  # what fails does so on purpose
    yield
    logging.getLogger("duly").setLevel(logging.NOTSET)


@pytest.mark.slow
async def test_days_with_crons_of_all_kinds_have_each_slot_run_once_or_logged(engine: str) -> None:
    life = Life(1, crons=25, seconds=False)
    await life.live(days=lasts[engine], events=6)

    assert [] == life.violations
    assert life.counts["slots"] > 50


@pytest.mark.slow
async def test_minutes_with_crons_of_seconds_have_each_slot_run_once_or_logged(engine: str) -> None:
    life = Life(3, crons=8, seconds=True)
    await life.live(days=lasts[engine] / 250, events=8)

    assert [] == life.violations
    assert life.counts["slots"] > 50


# What a twin finds.


def log(slot: float, now: float, skipped: int = 0) -> dict[str, object]:
    status = {"kind": "skipped", "count": skipped} if skipped else {"kind": "success"}
    return {"_id": "0", "name": "c", "scheduledTime": slot, "completedTime": now, "status": status}


def twin(**options: str) -> Twin:
    return Twin("c", FixedInterval(1000.0), Options(**options), acts=False, first=0.0, now=0.0)


def test_a_slot_that_has_not_run_is_found() -> None:
    seen = twin()
    seen.tick(0)
    assert list(seen.at_rest(0, going=0)) == ["0 runs go on, expected those of the slots [0.0]"]


def test_a_slot_that_runs_twice_is_found() -> None:
    seen = twin()
    seen.tick(0)
    assert list(seen.check_log(log(0, 0), 0)) == []
    assert list(seen.check_log(log(0, 0), 0)) == ["ran the slot 0 twice", "ran the slot 0, expected one of []"]


def test_a_skip_that_nothing_excuses_and_one_that_is_not_logged_are_found() -> None:
    seen = twin()
    seen.tick(2000)
    assert list(seen.check_log(log(0, 2000), 2000)) == []
    assert list(seen.at_rest(2000, going=0)) == [f"did not log {[Skip(1000.0, 2)]}"]
    assert list(seen.check_log(log(1000, 2000, skipped=1), 2000)) == [
        "skipped 1 slots more from 1000 on, expected 2 from 1000.0 on"
    ]
    seen = twin()
    assert list(seen.check_log(log(1000, 2000, skipped=1), 2000)) == [
        "skipped 1 slots more from 1000 on, expected 0 from inf on"
    ]


def test_skips_that_are_logged_in_two_rows_are_found() -> None:
    seen = twin()
    seen.tick(2000)
    assert list(seen.check_log(log(1000, 2000, skipped=2), 2000)) == []
    seen.tick(4000)
    assert list(seen.check_log(log(1000, 4000, skipped=4), 4000)) == []
    seen.tick(5000)
    [found] = seen.check_log({**log(5000, 5000, skipped=1), "_id": "1"}, 5000)
    assert "expected them in the row before" in found
