"""When a cron runs next, at the clock changes too, and how a schedule is said in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from duly.errors import InvalidScheduleError
from duly.model.cron_schedule import (
    Calendar,
    FixedInterval,
    calendar,
    clamp,
    count,
    describe,
    following,
    interval,
    last,
    next_after,
    parse,
    to_dict,
)
from tests.model.cron_model import BY_HAND, ZONES

BERLIN = "Europe/Berlin"  # the clock goes ahead on 2030-03-31 at 02:00, and back on 2030-10-27 at 03:00


def ms(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000


def slots(cron: str, tz: str, start: str, count: int) -> list[str]:
    """The next ones in UTC, without seconds."""
    found: list[str] = []
    at = ms(start)
    for _ in range(count):
        at = following(calendar(cron, tz), at)
        found.append(f"{datetime.fromtimestamp(at / 1000, UTC):%m-%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        ("5 * * * *", "2023-03-01 08:35", "03-01 09:05"),
        ("30 8 * * *", "2023-02-28 08:35", "03-01 08:30"),
        ("30 12 * * 2", "2023-02-28 08:35", "02-28 12:30"),
        ("30 12 1 * *", "2023-02-28 08:35", "03-01 12:30"),
        ("0 12 * * 1,5", "2023-02-28 08:35", "03-03 12:00"),
        ("0 0 31 * *", "2023-03-31 00:00", "05-31 00:00"),
        ("0 0 29 2 *", "2023-02-28 08:35", "02-29 00:00"),
        ("0 0 L * *", "2023-02-01 00:00", "02-28 00:00"),
        ("0 0 LW * *", "2023-04-01 00:00", "04-28 00:00"),
        ("0 0 * * 5L", "2023-04-01 00:00", "04-28 00:00"),
        ("0 0 * * MON#2", "2023-04-01 00:00", "04-10 00:00"),
        ("0 0 * * 7", "2023-04-01 00:00", "04-02 00:00"),
        ("0 0 13 * FRI", "2023-04-01 00:00", "04-07 00:00"),
        ("@weekly", "2023-04-01 00:00", "04-02 00:00"),
        ("0 22-2 * * *", "2023-04-01 23:30", "04-02 00:00"),
        ("0 0 * * SAT-SUN", "2023-04-03 00:00", "04-08 00:00"),
        ("0 0 * * 7-2", "2023-04-05 00:00", "04-09 00:00"),
        ("0 0 * * 7-2/2", "2023-04-09 00:00", "04-11 00:00"),
        ("0 0 * * 7-7", "2023-04-05 00:00", "04-09 00:00"),
        ("0 20-4/2 * * *", "2023-04-01 02:30", "04-01 04:00"),
    ],
)
def test_the_next_slot_is_the_first_that_matches_after_a_time(cron: str, start: str, expected: str) -> None:
    assert slots(cron, "UTC", start, 1) == [expected]


def test_a_slot_that_does_not_exist_is_right_after_the_gap() -> None:
    assert slots("30 2 * * *", BERLIN, "2030-03-30 00:00", 3) == ["03-30 01:30", "03-31 01:00", "04-01 00:30"]
    assert slots("15,45 2 * * *", BERLIN, "2030-03-31 00:00", 2) == ["03-31 01:00", "04-01 00:15"]
    assert slots("0 2,3 * * *", BERLIN, "2030-03-31 00:00", 2) == ["03-31 01:00", "04-01 00:00"]


def test_a_slot_that_exists_twice_is_the_first_of_both() -> None:
    assert slots("30 2 * * *", BERLIN, "2030-10-26 12:00", 2) == ["10-27 00:30", "10-28 01:30"]
    assert slots("30 2 * * *", BERLIN, "2030-10-27 01:10", 1) == ["10-28 01:30"]  # in the hour that came again


def test_what_goes_by_elapsed_time_neither_stops_nor_repeats_at_a_clock_change() -> None:
    assert slots("*/30 * * * *", BERLIN, "2030-03-31 00:30", 3) == ["03-31 01:00", "03-31 01:30", "03-31 02:00"]
    assert slots("*/30 * * * *", BERLIN, "2030-10-27 00:00", 4) == [
        "10-27 00:30",
        "10-27 01:00",
        "10-27 01:30",
        "10-27 02:00",
    ]


def test_seconds_before_an_expression_change_nothing_at_a_clock_change() -> None:
    assert slots("0 30 2 * * *", BERLIN, "2030-03-30 00:00", 3) == ["03-30 01:30", "03-31 01:00", "04-01 00:30"]
    assert slots("*/20 30 2 * * *", BERLIN, "2030-03-31 00:00", 2) == ["03-31 01:00", "04-01 00:30"]
    assert slots("0 30 2 * * *", BERLIN, "2030-10-26 12:00", 2) == ["10-27 00:30", "10-28 01:30"]


def test_a_clock_may_change_by_half_an_hour() -> None:
    # From 01:59 back to 01:30, and from 01:59 ahead to 02:30.
    assert slots("*/15 1,2 * * *", "Australia/Lord_Howe", "2030-04-06 14:29", 5) == [
        "04-06 14:30",
        "04-06 14:45",
        "04-06 15:00",
        "04-06 15:15",
        "04-06 15:30",
    ]
    assert slots("*/15 2 * * *", "Australia/Lord_Howe", "2030-10-05 15:00", 2) == ["10-05 15:30", "10-05 15:45"]
    assert slots("0 */2 * * *", "Asia/Pyongyang", "2018-05-04 14:00", 2) == ["05-04 15:00", "05-04 17:00"]


def test_a_clock_may_change_by_hours_or_a_day() -> None:
    assert slots("0 */2 * * *", "Antarctica/Casey", "2022-10-01 16:30", 2) == ["10-01 17:00", "10-01 19:00"]
    assert slots("0 9 * * *", "Pacific/Apia", "2011-12-29 18:00", 3) == ["12-29 19:00", "12-30 10:00", "12-30 19:00"]
    assert slots("*/30 9 * * *", "Pacific/Apia", "2011-12-29 18:45", 3) == ["12-29 19:00", "12-29 19:30", "12-30 19:00"]


@pytest.mark.timeout(100)
def test_a_clock_may_change_at_a_quarter_to() -> None:
    # From 03:44 back to 02:45, where the library alone never returns.
    assert slots("* 3 * * *", "Pacific/Chatham", "2023-04-01 13:58", 3) == ["04-01 13:59", "04-01 14:15", "04-01 14:16"]
    assert slots("* 2 * * *", "Pacific/Chatham", "2023-04-01 13:59", 2) == ["04-01 14:00", "04-01 14:01"]
    assert slots("0 * * * *", "Pacific/Chatham", "2023-04-01 13:59", 2) == ["04-01 14:15", "04-01 15:15"]


def test_an_hour_that_comes_again_is_not_forgotten_for_the_next_year() -> None:
    assert slots("*/30 2 27 10 *", BERLIN, "2030-10-27 00:40", 3) == ["10-27 01:00", "10-27 01:30", "10-27 01:00"]


def test_a_slot_a_fraction_of_a_millisecond_away_is_the_next_one() -> None:
    midnight = ms("2026-01-01 00:00")
    assert following(calendar("0 0 * * *"), midnight - 0.000_25) == midnight


def test_a_range_of_one_value_is_that_value_whatever_its_step() -> None:
    assert slots("0 5-5/2 * * *", "UTC", "2030-01-01 00:00", 2) == ["01-01 05:00", "01-02 05:00"]


@pytest.mark.timeout(100)
def test_what_only_ever_falls_into_a_gap_is_refused() -> None:
    for cron in ("*/30 2 * 3 0L", "* * 2 * 3 0L"):
        with pytest.raises(InvalidScheduleError, match="which never matches in Europe/Berlin"):
            calendar(cron, BERLIN)


def test_an_interval_keeps_its_phase_however_late_it_is() -> None:
    assert next_after(FixedInterval(60_000), slot=1_000, now=1_000) == 61_000
    assert next_after(FixedInterval(60_000), slot=1_000, now=60_999) == 61_000
    assert next_after(FixedInterval(60_000), slot=1_000, now=61_000) == 121_000
    assert next_after(FixedInterval(60_000), slot=1_000, now=600_000_000) == 600_001_000
    assert next_after(FixedInterval(1_000), slot=5_000, now=4_000) == 6_000


_DAYS = "the second, the 11th, the 12th, the 13th, the 21st, the 22nd, and the 23rd"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (interval(30_000), "every 30 seconds"),
        (interval(60_000), "every minute"),
        (interval(7_200_000), "every 2 hours"),
        (interval(1_500), "every 1.5 seconds"),
        (calendar("15 7 * * *"), "At 07:15 every day (UTC)"),
        (calendar("0 9 * * 1", BERLIN), "At 09:00 on Monday (Europe/Berlin)"),
        (calendar("0 0 31 * *"), "At 00:00 on the 31st day of every month (UTC)"),
        (calendar("0 0 2,11,12,13,21,22,23 * *"), f"At 00:00 on {_DAYS} day of month (UTC)"),
        (calendar("*/22 * * * *"), "Every 22nd minute of every hour (UTC)"),
        (calendar("0 0 1-31/21 * *"), "At 00:00 on every 21st day of month (UTC)"),
    ],
)
def test_a_schedule_is_said_in_words(given: Any, text: str) -> None:
    assert describe(given) == text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"kind": "interval", "ms": 60_000}, FixedInterval(60_000)),
        ({"kind": "cron", "cron": "0 9 * * 1", "tz": BERLIN}, Calendar("0 9 * * 1", BERLIN)),
        ({"kind": "cron", "cronspec": "@hourly"}, Calendar("0 * * * *", "UTC")),
    ],
)
def test_a_schedule_is_registered_as_data_and_shown_as_such(data: dict[str, Any], expected: Any) -> None:
    assert parse(data) == expected
    assert parse(to_dict(parse(data))) == expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"kind": "interval", "ms": 999}, "expected at least 1,000"),
        ({"kind": "interval", "ms": float("nan")}, "got an interval of nan"),
        ({"kind": "interval", "ms": True}, "got an interval of True"),
        ({"kind": "interval", "ms": 2e11}, "at most 158,112,000,000"),
        ({"kind": "interval"}, "got the schedule"),
        ({"kind": "cron", "cron": "61 * * * *"}, "the minute is '61', expected 0-59"),
        ({"kind": "cron", "cron": "* * * FOO *"}, "the month is 'FOO', expected 1-12 or JAN-DEC"),
        ({"kind": "cron", "cron": "* * * * 8"}, "the day of week is '8', expected 0-7 or SUN-SAT"),
        ({"kind": "cron", "cron": "0 0 31 2 *"}, "never matches: none of its months has such a day"),
        ({"kind": "cron", "cron": "22-2/0 * * * *"}, "the minute is '22-2/0', expected 0-59"),
        ({"kind": "cron", "cron": "²-1 * * * *"}, "the minute is '²-1', expected 0-59"),
        ({"kind": "cron", "cron": "5-1/" + "9" * 5000 + " * * * *"}, "got the cron expression '5-1/999"),
        ({"kind": "cron", "cron": "0 0 */29 2 1#5"}, "never matches"),
        ({"kind": "cron", "cron": "*/60 * * * *"}, "the minute is '*/60', expected steps of at most 59"),
        ({"kind": "cron", "cron": "0 1,5-9/24 * * *"}, "the hour is '1,5-9/24', expected steps of at most 23"),
        ({"kind": "cron", "cron": "0 9 ? * MON"}, "the day of month is '?', expected 1-31, lists, ranges and steps of"),
        ({"kind": "cron", "cron": "0 9 ? * MON"}, "instead of ? write *"),
        ({"kind": "cron", "cron": "0 9 1 * ?"}, "or SUN-SAT, lists, ranges and steps of them; instead of ? write *"),
        ({"kind": "cron", "cron": "0 0 9 ? * MON *"}, "with 7 fields, expected minute, hour"),
        ({"kind": "cron", "cron": "0 0 9 ? * MON *"}, "@hourly; instead of ? write *"),
        (
            {"kind": "cron", "cron": "? * * * *"},
            "the minute is '?', expected 0-59, lists, ranges and steps of them; in",
        ),
        ({"kind": "cron", "cron": "@reboot"}, "with 1 field, expected minute"),
        ({"kind": "interval", "ms": 2**60}, "got an interval of more than 1,000,000,000,000,000 ms, expected at"),
        ({"kind": "cron", "cron": "* * * *"}, "with 4 fields, expected minute, hour,"),
        ({"kind": "cron", "cron": "* * * * *", "cronspec": "* * * * *"}, "got the schedule"),
        ({"kind": "cron", "cron": "* * * * *", "tz": "Mars/Olympus"}, "got the time zone 'Mars/Olympus'"),
        ({"kind": "cron", "cron": 5}, "got the cron expression 5"),
        ({"kind": "sometimes"}, "got the schedule {'kind': 'sometimes'}"),
        (None, "got the schedule None"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_was_expected(data: Any, problem: str) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        parse(data)
    assert problem in str(caught.value)


# Slots that have passed.


@pytest.mark.parametrize("seed", range(4))
def test_slots_are_counted_as_if_each_was_looked_at_also_where_clocks_change(seed: int) -> None:
    rng = Random(seed)
    for _ in range(25):
        schedule = calendar(rng.choice(BY_HAND), rng.choice(ZONES))
        chain = [following(schedule, next_change(schedule.tz, rng) + rng.uniform(-1e7, 9e7))]
        for _ in range(rng.choice((2, 10, 100))):
            chain.append(following(schedule, chain[-1]))
        end = rng.randrange(len(chain) - 1)
        now = chain[end] + (chain[end + 1] - chain[end]) * rng.choice((0.0, rng.random() * 0.999))
        first = chain[0]
        assert (count(schedule, first, now), last(schedule, first, now)) == (end + 1, chain[end]), (
            schedule,
            first,
            now,
        )


def next_change(tz: str, rng: Random) -> float:
    """When the clock of a zone is set next after a time by chance; that time itself if it is not within a year."""
    began = datetime(2011, 1, 1, tzinfo=UTC) + timedelta(days=rng.randrange(20 * 365))
    offset = began.astimezone(ZoneInfo(tz)).utcoffset()
    days = (began + timedelta(days=day) for day in range(366))
    changed = (day for day in days if day.astimezone(ZoneInfo(tz)).utcoffset() != offset)
    return (next(changed, began) - timedelta(days=1)).timestamp() * 1000


def test_decades_of_slots_are_counted_at_once() -> None:
    schedule, first = calendar("* * * * * *"), ms("2000-01-01")
    now = ms("2040-01-01")
    assert count(schedule, first, now) == (now - first) / 1000 + 1
    assert last(schedule, first, now) == now
    assert (count(interval(1500), first, now), last(interval(1500), first, now + 1)) == ((now - first) // 1500 + 1, now)


def test_a_slot_that_is_further_ahead_than_the_schedule_explains_is_set_right() -> None:
    now = ms("2030-01-01 12:00")
    assert clamp(interval(60_000), now + 120_000, now) == now + 120_000  # what a clock explains that was set back
    assert clamp(interval(60_000), now + 121_000, now) == now + 1_000
    assert clamp(interval(60_000), now + 180_000, now) == now + 60_000
    assert clamp(calendar("0 * * * *"), ms("2030-01-01 13:00"), now) == ms("2030-01-01 13:00")
    assert clamp(calendar("0 * * * *"), ms("2030-01-01 15:00"), now) == ms("2030-01-01 13:00")
    assert clamp(calendar("0 0 1 1 *"), ms("2031-01-01"), now) == ms("2031-01-01")
