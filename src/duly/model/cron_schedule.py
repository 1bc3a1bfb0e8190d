"""When a cron runs next: at an interval, or by a cron expression in a time zone. Pure: the time is an argument.

The hours of a zone's clock change twice a year. What a cron expression then means is what Debian's cron does, with or
without seconds before it:

    its slot …                          minute and hour are given          minute or hour begins with *
    does not exist (clock goes ahead)   runs once, right after the gap     by elapsed time: there is no such slot
    exists twice (clock goes back)      runs once, the first time          by elapsed time: runs in both hours

CronSim reads the expression and lists what matches on a clock that never changes. When the clock of a zone shows that
is found here: where clocks change by half an hour, or at a quarter to, CronSim's answer is wrong, or never comes.
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

from cronsim import CronSim, CronSimError

from duly.clock import to_datetime, to_milliseconds
from duly.errors import InvalidScheduleError
from duly.limits import CRON_INTERVAL_MS_MAX, CRON_INTERVAL_MS_MIN, CRON_LATE_MS

UTC: Final = "UTC"


class FixedInterval(NamedTuple):
    """Every so many milliseconds."""

    ms: float


class Calendar(NamedTuple):
    """A cron expression of five fields, or of six with the seconds first, by the clock of a zone."""

    cron: str
    tz: str = UTC


Schedule = FixedInterval | Calendar


def interval(ms: object) -> FixedInterval:
    """An interval. InvalidScheduleError unless it is at least a second, and at most five years."""
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
    """A cron expression in a zone. InvalidScheduleError where it cannot be read, or never matches.

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
    """Each tick of a cron asks for the same ones again."""
    fields = _ALIASES.get(cron.strip().lower(), cron).upper().split()
    names = _FIELDS[-len(fields) :] if len(fields) in (5, 6) else ()
    if not names:
        raise InvalidScheduleError(
            f"got the cron expression {cron!r:.80} with {len(fields)} field{'s' * (len(fields) != 1)}, expected minute,"
            " hour, day of month, month and day of week (and seconds before them, if wanted), or one of "
            + ", ".join(_ALIASES)
            + _instead(cron)
        )
    for name, field in zip(names, fields, strict=True):
        for step in _steps.findall(field):
            if int(step) > _RANGES[name][1]:
                raise InvalidScheduleError(
                    f"got the cron expression {cron!r:.80}: the {name} is {field!r}, expected steps of at most"
                    f" {_RANGES[name][1]}: a longer one leaves nothing but the first"
                )
    found = Calendar(" ".join(map(_unwrapped, names, fields)), tz)
    try:
        CronSim(found.cron, _SOME_DAY)
    except (CronSimError, ValueError, AssertionError) as error:
        raise InvalidScheduleError(
            f"got the cron expression {cron!r:.80}: {_what_is_wrong(error, names, fields)}"
        ) from None
    following(found, _SOME_TIME)
    return found


def next_after(schedule: Schedule, slot: float, now: float) -> float:
    """The first slot after `now`, of a schedule that has had one at `slot`; both in milliseconds since 1970."""
    if isinstance(schedule, FixedInterval):
        behind = max(floor((now - slot) / schedule.ms), 0)
        after = slot + (behind + 1) * schedule.ms
        return after if after > now else after + schedule.ms  # what was rounded
    return following(schedule, max(slot, now))


def clamp(schedule: Schedule, slot: float, now: float) -> float:
    """The next slot; or an earlier one, where it is further from now than the schedule explains.

    A minute further is explained: clocks are set back a little now and then.
    """
    if slot <= next_after(schedule, now + CRON_LATE_MS, now + CRON_LATE_MS):
        return slot
    if isinstance(schedule, FixedInterval):
        return slot - (ceil((slot - now) / schedule.ms) - 1) * schedule.ms
    return following(schedule, now)


def last(schedule: Schedule, slot: float, now: float) -> float:
    """The last slot that is not after `now`, of a schedule that has one at `slot`, which is not."""
    if isinstance(schedule, FixedInterval):
        return next_after(schedule, slot, now) - schedule.ms
    seconds = range(int(slot / 1000), int(now / 1000) + 1)  # slots are whole ones
    before = bisect_left(seconds, True, key=lambda second: following(schedule, second * 1000.0) > now)
    return (seconds[0] + before) * 1000.0 if before else slot


def count(schedule: Schedule, slot: float, now: float) -> int:
    """How many slots there are from one to `now`, both included. None is looked at: they may be millions."""
    if isinstance(schedule, FixedInterval):
        return round((next_after(schedule, slot, now) - slot) / schedule.ms)
    matches, zone = CronSim(schedule.cron, _SOME_DAY), _zone(schedule.tz)
    by_elapsed_time = _goes_by_elapsed_time(schedule)
    shown = to_datetime(slot).astimezone(zone).replace(tzinfo=None)
    counted = 1 - _times(matches, shown, shown + _SECOND)  # at the end of a gap, it is not what the clock shows
    for begin, end in _stretches(zone, int(slot / 1000), int(now / 1000) + 1):
        if not by_elapsed_time and begin > shown:  # a gap, whose slots all run at its end
            counted += min(_times(matches, shown, begin), 1 - _times(matches, begin, begin + _SECOND))
        counted += _times(matches, begin if by_elapsed_time else max(begin, shown), end)
        shown = max(shown, end)
    return counted


def _stretches(zone: ZoneInfo, start: int, end: int) -> Iterator[tuple[datetime, datetime]]:
    """What the clock of a zone shows from one second since 1970 to another, whenever it was not set in between."""

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
    """How often an expression matches what a clock that is never set shows from one time until another."""
    if end <= start:
        return 0
    hours, minutes, seconds = matches.hours, matches.minutes, matches.seconds

    def is_day(day: date) -> bool:
        return day.month in matches.months and matches.match_day(day)

    def before(time: datetime) -> int:
        """So far in that day."""
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
    """The first slot of a calendar after a time. InvalidScheduleError if there is none within 50 years."""
    local = to_datetime(after // 1000 * 1000).astimezone(_zone(schedule.tz))
    wall = local.replace(tzinfo=None, fold=0)
    # Where the clock is about to go back, it will show again what it has shown already.
    back = timedelta(milliseconds=to_milliseconds(local.replace(fold=1)) - to_milliseconds(local))
    slots = [slot for start in {wall, wall - back} for slot in _first_slot(schedule, start, after)]
    if not slots:
        raise InvalidScheduleError(
            f"got the cron expression {schedule.cron!r:.80}, which never matches in {schedule.tz}"
        )
    return min(slots)


def _first_slot(schedule: Calendar, start: datetime, after: float) -> list[float]:
    """The first slot after a time, of those at which the clock shows more than `start`; empty if there is none."""
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
    """When the clock of a zone shows a time: once, or twice, or never."""
    first, second = (to_milliseconds(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return (first, second) if first < second else (first,) if first == second else ()


class Slot(NamedTuple):
    """A slot as the clock of its schedule's zone shows it; that of an interval in UTC."""

    time: datetime
    change: timedelta
    """How far that clock was set ahead since the slot before; back, if it is negative."""


def upcoming(schedule: Schedule, first: float, now: float) -> Iterator[Slot]:
    """The slots from the first one on, without end; the first tells of a change of the clock since now."""
    zone = zone_of(schedule)
    slot, before = first, _offset(to_datetime(now).astimezone(zone))
    while True:
        time = to_datetime(slot).astimezone(zone)
        yield Slot(time, _offset(time) - before)
        slot, before = next_after(schedule, slot, slot), _offset(time)


def zone_of(schedule: Schedule) -> ZoneInfo:
    """The zone whose clock a schedule goes by; of an interval UTC."""
    return _zone(UTC if isinstance(schedule, FixedInterval) else schedule.tz)


def _offset(time: datetime) -> timedelta:
    return time.utcoffset() or timedelta()


def words(schedule: Schedule) -> str:
    """The schedule in words, without its zone.

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


_ordinal: Final = re.compile(r"\b([0-9]+)th\b")  # CronSim writes all but the first nine with th


def _ordinal_of(match: re.Match[str]) -> str:
    number = int(match[1])
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def describe(schedule: Schedule) -> str:
    """The schedule in words.

    >>> describe(calendar("15 7 * * 1", "Europe/Berlin"))
    'At 07:15 on Monday (Europe/Berlin)'
    """
    return words(schedule) if isinstance(schedule, FixedInterval) else f"{words(schedule)} ({schedule.tz})"


def parse(data: object) -> Schedule:
    """A schedule as it is registered: {"kind": "interval", "ms": …} or {"kind": "cron", "cron": …, "tz": …}."""
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
    """A schedule as `_cron_jobs` shows it, and as `parse` takes it."""
    kind = "interval" if isinstance(schedule, FixedInterval) else "cron"
    return {"kind": kind, **schedule._asdict()}


_FOREVER_MS: Final = 1e15  # beyond every schedule; an int may be too large for a float
_SOME_DAY: Final = datetime(2024, 1, 1)
_SOME_TIME: Final = 1_704_067_200_000.0
_YEARS_MAX: Final = 50
_EPOCH: Final = datetime(1970, 1, 1)
_DAY_SECONDS: Final = 86_400
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))
_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NAMED: Final = {
    "month": ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    "day of week": ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
}
_FIELDS: Final = ("second", "minute", "hour", "day of month", "month", "day of week")
_RANGES: Final = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day of month": (1, 31),
    "month": (1, 12),
    "day of week": (0, 7),
}
_steps: Final = re.compile(r"/(\d{1,9})", re.ASCII)
_range: Final = re.compile(r"(\w{1,9})-(\w{1,9})(?:/(\d{1,9}))?", re.ASCII)


def _unwrapped(name: str, field: str) -> str:
    """The field with ranges that go beyond its end, such as 22-2 hours or FRI-MON, as two ranges or as a list."""
    return ",".join(_unwrapped_range(name, part) for part in field.split(","))


def _unwrapped_range(name: str, part: str) -> str:
    match = _range.fullmatch(part)
    if match is None:
        return part
    low, high = _RANGES[name]
    first, last, step = _number(name, match[1]), _number(name, match[2]), int(match[3] or 1)
    if name == "day of week":
        high = 6  # 7 is Sunday as well
        if first == 7 and last != 7:
            first = 0
            part = f"0-{part.partition('-')[2]}"
    if first is None or last is None or first < last or step == 0:
        return part
    if first == last:
        return part.partition("/")[0]  # CronSim would take 5-5/2 for 5/2
    if first > high or last < low:
        return part
    if step == 1:
        return f"{first}-{high},{low}-{last}"
    return ",".join(map(str, [*range(first, high + 1), *range(low, last + 1)][::step]))


def _number(name: str, text: str) -> int | None:
    if text.isdigit():
        return int(text)
    names = _NAMED.get(name, ())
    return names.index(text) + (name == "month") if text in names else None


def _what_is_wrong(error: Exception, names: tuple[str, ...], fields: list[str]) -> str:
    """Which field, and what it may hold."""
    if str(error) == "Bad day-of-month" and _is_day(fields[-3]):
        return "it never matches: none of its months has such a day"
    for name, field in zip(names, fields, strict=True):
        if str(error) == f"Bad {name.replace(' ', '-')}":
            low, high = _RANGES[name]
            names_too = f" or {_NAMED[name][0]}-{_NAMED[name][-1]}" if name in _NAMED else ""
            expected = f"expected {low}-{high}{names_too}, lists, ranges and steps of them"
            return f"the {name} is {field!r}, {expected}{_instead(field)}"
    return str(error)


def _instead(text: str) -> str:
    """What to write instead of the sign with which other systems leave a day open."""
    return "; instead of ? write *" if "?" in text else ""


def _is_day(field: str) -> bool:
    try:
        CronSim(f"0 0 {field} * *", _SOME_DAY)
    except CronSimError:
        return False
    return True


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
