"""Next times beside a brute-force model of them (`cron_model`): a slice of what `make soak` compares."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from random import Random
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from duly.clock import to_datetime, to_milliseconds
from duly.errors import InvalidScheduleError
from duly.model.cron_schedule import Calendar, calendar, describe, following, parse, to_dict
from tests.model.cron_model import ZONES, Asked, Clock, Comparison, Cron, Times, compare_all, expressions

EXPRESSIONS = expressions(Random(1))


def test_there_are_40_zones_and_200_expressions() -> None:
    assert len(set(ZONES)) == 40
    assert len(set(EXPRESSIONS)) == 200


@pytest.mark.parametrize("zone", ZONES)
def test_next_times_are_those_of_the_model(zone: str) -> None:
    sample = Random(zone).sample(EXPRESSIONS, 10)
    comparison = compare_all(zone, sample, slots=12, seed=zone, changes=2)
    assert comparison.slots >= 10 * 12
    assert [str(difference) for difference in comparison.differences] == []


@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        ("UTC", "0 0 13 * FRI", "2024-09-07", ["09-13 00:00", "09-20 00:00"]),
        ("UTC", "0 0 */2 * MON#2", "2024-01-01", ["03-11 00:00", "05-13 00:00"]),
        ("UTC", "0 0 LW * *", "2024-06-01", ["06-28 00:00", "07-31 00:00"]),
        ("UTC", "5 22-1/2 29 2,3 *", "2024-02-28", ["02-29 00:05", "02-29 22:05", "03-29 00:05", "03-29 22:05"]),
        ("Europe/Berlin", "0,30 2 * * *", "2024-03-30", ["03-30 01:00", "03-30 01:30", "03-31 01:00", "04-01 00:00"]),
        ("Europe/Berlin", "0,30 2 * * *", "2024-10-26 12:00", ["10-27 00:00", "10-27 00:30", "10-28 01:00"]),
        ("Europe/Berlin", "*/30 2 * * *", "2024-03-30", ["03-30 01:00", "03-30 01:30", "04-01 00:00", "04-01 00:30"]),
        ("Europe/Berlin", "*/40 2 * * *", "2024-10-27", ["10-27 00:40", "10-27 01:00", "10-27 01:40", "10-28 01:00"]),
        ("Pacific/Apia", "0 9 * * *", "2011-12-29 18:00", ["12-29 19:00", "12-30 10:00", "12-30 19:00", "12-31 19:00"]),
    ],
)
def test_the_model_says_what_was_counted_by_hand(zone: str, cron: str, start: str, expected: list[str]) -> None:
    slots = Times(Cron(cron), Clock(zone)).after(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    found = [f"{datetime.fromtimestamp(slot, UTC):%m-%d %H:%M}" for slot in itertools.islice(slots, len(expected))]
    assert found == expected


def as_cronsim_has_it(schedule: Calendar, after: float) -> float:
    return to_milliseconds(next(CronSim(schedule.cron, to_datetime(after).astimezone(ZoneInfo(schedule.tz)))))


def without_a_gap(schedule: Calendar, after: float) -> float:
    slot = following(schedule, after)
    is_right_after_it = to_datetime(slot).astimezone(ZoneInfo(schedule.tz)).minute != 30
    return following(schedule, slot) if is_right_after_it else slot


def once_in_hours_that_come_again(schedule: Calendar, after: float) -> float:
    slot = following(schedule, after)
    return following(schedule, slot) if to_datetime(slot).astimezone(ZoneInfo(schedule.tz)).fold else slot


@pytest.mark.parametrize(
    ("zone", "cron", "wrong"),
    [
        ("Australia/Lord_Howe", "*/15 2 * * *", as_cronsim_has_it),
        ("Europe/Berlin", "30 2 * * *", without_a_gap),
        ("Europe/Berlin", "30 */2 * * *", once_in_hours_that_come_again),
    ],
)
def test_the_comparison_finds_what_is_wrong_around_clock_changes(zone: str, cron: str, wrong: Asked) -> None:
    comparison = Comparison(zone, Random(1), changes=10, asked=wrong)
    comparison.compare(cron, 0)
    assert comparison.differences


WORDS = (
    *(
        "*",
        "/",
        "-",
        ",",
        "#",
        "?",
        "@",
        "L",
        "LW",
        "W",
        "MON",
        "SUN",
        "jan",
        "FEB",
        "0",
        "1",
        "2",
        "5",
        "7",
        "23",
        "24",
    ),
    *("28", "29", "31", "60", "00", "-1", "1#5", "5L", "22-2", "5-5/2", "*/2", "1-3/0", "²", "٣", "é", "\ud800", "\0"),
)
fields = st.lists(st.sampled_from([*WORDS, "9" * 30, "9" * 5000]), min_size=1, max_size=4).map("".join)
garbage = st.text(max_size=30) | st.lists(fields | st.sampled_from(WORDS), max_size=7).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(
    garbage, st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Chatham"]) | st.text(max_size=10), st.floats(0, 2.5e12)
)
@example("22-2/0 * * * *", "UTC", 0)
@example("٣-٢ * * * *", "UTC", 0)
@example("²-1 * * * *", "UTC", 0)
@example("5-1/" + "9" * 5000 + " * * * *", "UTC", 0)
@example("0 0 * * *", "\0", 0)
@example("0 0 29 2 1#5", "UTC", 1.7e12)
@example("0 0 */29 2 1#5", "UTC", 1.7e12)
@example("0 0 */28 2 1", "Europe/Berlin", 1.7e12)
@example("* * 2 * 3 0L", "Europe/Berlin", 1.7e12)
def test_whatever_is_no_cron_expression_is_refused_and_the_rest_goes_on(cron: str, tz: str, after: float) -> None:
    try:
        schedule = calendar(cron, tz)
    except InvalidScheduleError:
        return
    assert parse(to_dict(schedule)) == schedule
    assert describe(schedule)
    assert following(schedule, after) > after
