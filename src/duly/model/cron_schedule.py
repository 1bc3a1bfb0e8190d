"""The slots of a schedule: a fixed interval, or a cron expression in a time zone. Pure: the time is an argument.

The clock of a zone may be set ahead or back, mostly twice a year. A cron expression then means what it means to
Debian's cron, with or without a field for seconds:

    its slot …                          minute and hour are given          minute or hour begins with *
    does not exist (clock goes ahead)   runs once, right after the gap     by elapsed time: there is no such slot
    exists twice (clock goes back)      runs once, the first time          by elapsed time: runs in both hours

CronSim lists the wall times that match, on a clock that never changes. This module computes when the clock of the zone
shows them. CronSim's own computation is wrong, or never ends, where a clock changes by half an hour or at minute 45.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import ceil, floor
from typing import Any, Final, NamedTuple, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim

from duly.clock import to_datetime, to_milliseconds
from duly.errors import InvalidScheduleError
from duly.limits import CRON_INTERVAL_MS_MAX, CRON_INTERVAL_MS_MIN, CRON_LATE_MS
from duly.model.cron_expression import normalize

UTC: Final = "UTC"


class FixedInterval(NamedTuple):
    """A slot every `ms` milliseconds."""

    ms: float


class Calendar(NamedTuple):
    """A cron expression of five fields, or of six with the seconds first, in a time zone."""

    cron: str
    tz: str = UTC


Schedule = FixedInterval | Calendar


def interval(ms: object) -> FixedInterval:
    """Return an interval. Raises InvalidScheduleError unless it is at least a second and at most five years."""
    if isinstance(ms, timedelta):
        ms = ms / timedelta(milliseconds=1)
    if isinstance(ms, bool) or not isinstance(ms, int | float) or ms != ms:
        raise InvalidScheduleError(f"got an interval of {ms!r:.80}, expected milliseconds or a timedelta")
    if not CRON_INTERVAL_MS_MIN <= ms <= CRON_INTERVAL_MS_MAX:
        shown = f"{ms:,.15g}" if abs(ms) < _FOREVER_MS else f"{'more' if ms > 0 else 'less'} than {_FOREVER_MS:,.0f}"
        raise InvalidScheduleError(
            f"got an interval of {shown} ms, expected at least {CRON_INTERVAL_MS_MIN:,.0f} (CRON_INTERVAL_MS_MIN) and"
            f" at most {CRON_INTERVAL_MS_MAX:,.0f} (CRON_INTERVAL_MS_MAX), five years"
        )
    return FixedInterval(ms)


def calendar(cron: object, tz: object = UTC) -> Calendar:
    """Return a cron expression in a zone. Raises InvalidScheduleError if it is malformed or never matches.

    >>> calendar("@daily")
    Calendar(cron='0 0 * * *', tz='UTC')
    >>> calendar("0 22-2 * * MON")
    Calendar(cron='0 22-23,0-2 * * MON', tz='UTC')
    """
    if not isinstance(cron, str):
        raise InvalidScheduleError(f"got the cron expression {cron!r:.80}, expected a string such as '0 9 * * 1'")
    return _read(cron, _zone_name(tz))


@lru_cache(1024)
def _read(cron: str, tz: str) -> Calendar:
    """Read an expression. Cached, because each tick of a cron reads the same expression again."""
    found = Calendar(normalize(cron), tz)
    following(found, _SOME_TIME)
    return found


def next_after(schedule: Schedule, slot: float, now: float) -> float:
    """Return the first slot after `now` of a schedule that had one at `slot`; both in milliseconds since 1970."""
    if isinstance(schedule, FixedInterval):
        behind = max(floor((now - slot) / schedule.ms), 0)
        after = slot + (behind + 1) * schedule.ms
        return after if after > now else after + schedule.ms  # a rounding error
    return following(schedule, max(slot, now))


def clamp(schedule: Schedule, slot: float, now: float) -> float:
    """Return `slot`, or an earlier one if `slot` is further ahead than the schedule allows.

    A slot is too far ahead after the machine's clock was set back. A minute is tolerated: small corrections are common.
    """
    if slot <= next_after(schedule, now + CRON_LATE_MS, now + CRON_LATE_MS):
        return slot
    if isinstance(schedule, FixedInterval):
        return slot - (ceil((slot - now) / schedule.ms) - 1) * schedule.ms
    return following(schedule, now)


def last(schedule: Schedule, slot: float, now: float) -> float:
    """Return the last slot up to `now`, of a schedule that has one at `slot`, which is not after `now`."""
    if isinstance(schedule, FixedInterval):
        return next_after(schedule, slot, now) - schedule.ms
    seconds = range(int(slot / 1000), int(now / 1000) + 1)  # a slot is at a whole second
    before = bisect_left(seconds, True, key=lambda second: following(schedule, second * 1000.0) > now)
    return (seconds[0] + before) * 1000.0 if before else slot


def count(schedule: Schedule, slot: float, now: float) -> int:
    """Return the number of slots from `slot` to `now`, both included, without listing them: there may be millions."""
    if isinstance(schedule, FixedInterval):
        return round((next_after(schedule, slot, now) - slot) / schedule.ms)
    matches, zone = CronSim(schedule.cron, _SOME_DAY), _zone(schedule.tz)
    by_elapsed_time = _goes_by_elapsed_time(schedule)
    shown = to_datetime(slot).astimezone(zone).replace(tzinfo=None)
    counted = 1 - _times(matches, shown, shown + _SECOND)  # a slot at the end of a gap does not match the wall time
    for begin, end in _stretches(zone, int(slot / 1000), int(now / 1000) + 1):
        if not by_elapsed_time and begin > shown:  # a gap: all its slots run once, at its end
            counted += min(_times(matches, shown, begin), 1 - _times(matches, begin, begin + _SECOND))
        counted += _times(matches, begin if by_elapsed_time else max(begin, shown), end)
        shown = max(shown, end)
    return counted


def _stretches(zone: ZoneInfo, start: int, end: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield the stretches of wall time between changes of a zone's clock, from one second since 1970 to another."""

    def offset(second: int) -> timedelta:
        return _offset(to_datetime(second * 1000.0).astimezone(zone))

    while start < end:
        here, day = offset(start), start
        while day < end and offset(day + _DAY_SECONDS) == here:
            day += _DAY_SECONDS
        changed = day + bisect_left(range(_DAY_SECONDS), True, key=lambda second: offset(day + second) != here)
        shown = (_EPOCH + timedelta(seconds=second) + here for second in (start, min(changed, end)))
        yield next(shown), next(shown)
        start = changed


def _times(matches: CronSim, start: datetime, end: datetime) -> int:
    """Return how often an expression matches from `start` up to `end`, on a clock that is never changed."""
    if end <= start:
        return 0
    hours, minutes, seconds = matches.hours, matches.minutes, matches.seconds

    def is_day(day: date) -> bool:
        return day.month in matches.months and matches.match_day(day)

    def before(time: datetime) -> int:
        """Return the matches of that day before the time."""
        if not is_day(time.date()):
            return 0
        full_hours = sum(hour < time.hour for hour in hours)
        full_minutes = sum(minute < time.minute for minute in minutes) if time.hour in hours else 0
        is_minute = time.hour in hours and time.minute in minutes
        this_minute = sum(second < time.second for second in seconds) if is_minute else 0
        return (full_hours * len(minutes) + full_minutes) * len(seconds) + this_minute

    days = sum(map(is_day, map(date.fromordinal, range(start.toordinal(), end.toordinal()))))
    return days * len(hours) * len(minutes) * len(seconds) + before(end) - before(start)


def following(schedule: Calendar, after: float) -> float:
    """Return the first slot of a calendar after a time. Raises InvalidScheduleError if none follows in 50 years."""
    local = to_datetime(after // 1000 * 1000).astimezone(_zone(schedule.tz))
    wall = local.replace(tzinfo=None, fold=0)
    # If the clock is about to go back, it will show the same wall times again.
    back = timedelta(milliseconds=to_milliseconds(local.replace(fold=1)) - to_milliseconds(local))
    slots = [slot for start in {wall, wall - back} for slot in _first_slot(schedule, start, after)]
    if not slots:
        raise InvalidScheduleError(
            f"got the cron expression {schedule.cron!r:.80}, which never matches in {schedule.tz}"
        )
    return min(slots)


def _first_slot(schedule: Calendar, start: datetime, after: float) -> list[float]:
    """Return a list with the first slot after a time whose wall time is later than `start`; an empty list if none."""
    zone, times = _zone(schedule.tz), CronSim(schedule.cron, start)
    by_elapsed_time = _goes_by_elapsed_time(schedule)
    for wall in times:
        end_of_gap = wall
        while not (moments := _moments(end_of_gap, zone)):
            end_of_gap = end_of_gap.replace(second=0) + _MINUTE
        if by_elapsed_time and end_of_gap > wall:
            times.dt = end_of_gap - _SECOND
        elif slots := [slot for slot in moments[: 2 if by_elapsed_time else 1] if slot > after]:
            return slots[:1]
        if wall.year > start.year + _YEARS_MAX:
            break
    return []


def _goes_by_elapsed_time(schedule: Calendar) -> bool:
    return any(field.startswith("*") for field in schedule.cron.split()[-5:-3])


def _moments(wall: datetime, zone: ZoneInfo) -> tuple[float, ...]:
    """Return when the clock of a zone shows a wall time: once, twice, or never."""
    first, second = (to_milliseconds(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return (first, second) if first < second else (first,) if first == second else ()


class Slot(NamedTuple):
    """A slot by the clock of its schedule's zone; UTC for an interval."""

    time: datetime
    change: timedelta
    """How far that clock was set ahead since the slot before; negative if it was set back."""


def upcoming(schedule: Schedule, first: float, now: float) -> Iterator[Slot]:
    """Yield the slots from `first` on, without end. The change of the first slot counts from `now`."""
    zone = zone_of(schedule)
    slot, before = first, _offset(to_datetime(now).astimezone(zone))
    while True:
        time = to_datetime(slot).astimezone(zone)
        yield Slot(time, _offset(time) - before)
        slot, before = next_after(schedule, slot, slot), _offset(time)


def zone_of(schedule: Schedule) -> ZoneInfo:
    """Return the zone of a schedule; UTC for an interval."""
    return _zone(UTC if isinstance(schedule, FixedInterval) else schedule.tz)


def _offset(time: datetime) -> timedelta:
    return time.utcoffset() or timedelta()


def words(schedule: Schedule) -> str:
    """Return the schedule in words, without its zone.

    >>> words(calendar("15 7 * * 1", "Europe/Berlin")), words(interval(300_000))
    ('At 07:15 on Monday', 'every 5 minutes')
    >>> words(calendar("0 0 31 * *"))
    'At 00:00 on the 31st day of every month'
    """
    if isinstance(schedule, FixedInterval):
        for ms, unit in _UNITS:
            if schedule.ms % ms == 0:
                count = int(schedule.ms // ms)
                return f"every {unit}" if count == 1 else f"every {count:,} {unit}s"
        return f"every {schedule.ms / 1000:,} seconds"
    return _ordinal.sub(_ordinal_of, CronSim(schedule.cron, _SOME_DAY).explain())


_ordinal: Final = re.compile(r"\b([0-9]+)th\b")  # CronSim writes 21th, 22th, 31th


def _ordinal_of(match: re.Match[str]) -> str:
    number = int(match[1])
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def describe(schedule: Schedule) -> str:
    """Return the schedule in words.

    >>> describe(calendar("15 7 * * 1", "Europe/Berlin"))
    'At 07:15 on Monday (Europe/Berlin)'
    """
    return words(schedule) if isinstance(schedule, FixedInterval) else f"{words(schedule)} ({schedule.tz})"


def parse(data: object) -> Schedule:
    """Read a schedule as an application registers it.

    It is {"kind": "interval", "ms": …} or {"kind": "cron", "cron": …, "tz": …}.
    """
    given: dict[str, Any] = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    kind, rest = given.get("kind"), given.keys() - {"kind"}
    if kind == "interval" and rest == {"ms"}:
        return interval(given["ms"])
    if kind == "cron" and rest <= {"cron", "cronspec", "tz"} and len(rest - {"tz"}) == 1:
        return calendar(given.get("cron", given.get("cronspec")), given.get("tz", UTC))
    raise InvalidScheduleError(
        f"got the schedule {data!r:.200}, expected {{'kind': 'interval', 'ms': 60_000}} or"
        " {'kind': 'cron', 'cron': '0 9 * * 1', 'tz': 'Europe/Berlin'}"
    )


def to_dict(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as `_cron_jobs` shows it and as `parse` reads it."""
    kind = "interval" if isinstance(schedule, FixedInterval) else "cron"
    return {"kind": kind, **schedule._asdict()}


_FOREVER_MS: Final = 1e15  # beyond every schedule; a larger int may not fit a float
_SOME_DAY: Final = datetime(2024, 1, 1)
_SOME_TIME: Final = 1_704_067_200_000.0
_YEARS_MAX: Final = 50
_EPOCH: Final = datetime(1970, 1, 1)
_DAY_SECONDS: Final = 86_400
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))


def _zone_name(tz: object) -> str:
    if not isinstance(tz, str):
        raise InvalidScheduleError(f"got the time zone {tz!r:.80}, expected a name such as 'Europe/Berlin'")
    _zone(tz)
    return tz


@lru_cache(1024)
def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        raise InvalidScheduleError(f"got the time zone {tz!r:.80}, expected a name such as 'Europe/Berlin'") from None
