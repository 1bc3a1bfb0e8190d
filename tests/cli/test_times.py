"""Times on the command line: in the zone of the operator, in UTC, and relative to now."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator

import click
import pytest

from duly.cli.printing.times import local, local_and_utc, relative, time

NOON = 1_735_732_800_000.0  # 2025-01-01T12:00:00Z
MINUTE, HOUR, DAY = 60_000.0, 3_600_000.0, 86_400_000.0


@pytest.fixture(autouse=True)
def in_a_zone_one_hour_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-1")
    clock.tzset()
    yield
    monkeypatch.undo()
    clock.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01T12:00:00Z", NOON),
        ("2025-01-01T13:00", NOON),
        ("2025-01-01 13:00:00.250", NOON + 250),
        ("2025-01-01T17:30:00+05:30", NOON),
        ("2025-01-01", NOON - 13 * HOUR),
    ],
)
def test_a_time_without_a_zone_is_local(text: str, expected: float) -> None:
    assert time(text) == expected


@pytest.mark.parametrize(
    ("text", "after"),
    [("now", 0), ("30s", 30_000), ("5m", 5 * MINUTE), ("5 min", 5 * MINUTE), ("1.5h", 1.5 * HOUR), ("-2d", -2 * DAY)],
)
def test_a_duration_counts_from_now_on(text: str, after: float) -> None:
    before, found, now = clock.time() * 1000, time(text), clock.time() * 1000
    assert before - 1 <= found - after <= now + 1


@pytest.mark.parametrize("text", ["", "soon", "12", "25:00", "2025-13-01", "1 year", "0001-01-01", "1w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected `now`, a duration from now on such as"):
        time(text)


def test_times_are_shown_in_both_zones() -> None:
    assert local(NOON) == "2025-01-01 13:00:00"
    assert local_and_utc(NOON + 0.25) == "2025-01-01 13:00:00.000+01:00  2025-01-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (0, "now"),
        (-999, "now"),
        (1_000, "in 1 s"),
        (-59_999, "59 s ago"),
        (5 * MINUTE, "in 5 min"),
        (-HOUR, "1 h ago"),
        (DAY - 1, "in 23 h"),
        (-800 * DAY, "800 d ago"),
    ],
)
def test_how_far_a_time_is_off_is_said_in_its_largest_unit(after: float, text: str) -> None:
    assert relative(NOON + after, NOON) == text
