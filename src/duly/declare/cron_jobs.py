"""`cron_jobs()`: the crons that an application declares in `crons.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack, cast

from duly.declare.references import Ref
from duly.errors import InvalidScheduleError
from duly.hints import name_hint
from duly.limits import CRON_IDENTIFIER_LENGTH_MAX, CRON_INTERVAL_MS_MAX
from duly.model import cron_schedule
from duly.model.cron_policy import MISSED, OVERLAP, Options
from duly.model.cron_schedule import UTC, FixedInterval, Schedule
from duly.model.crons import is_name


class GivenOptions(TypedDict, total=False):
    """The options of a cron, beside its schedule. The defaults behave as the Convex documentation describes."""

    missed: Literal["once", "skip", "all"]
    """The policy for slots that pass while no executor runs: one run for all of them ("once", the default), none for
    those more than a minute late ("skip"), or one for each, up to 100 ("all"): one after the other, or all at once with
    overlap="allow"."""
    overlap: Literal["skip", "queue", "allow"]
    """The policy for a slot that comes while a run goes on: no run ("skip", the default), a run after that one
    ("queue", up to 100), or a run at the same time ("allow", up to 100)."""
    jitter: float | timedelta
    """A run starts up to this many milliseconds after its slot, at random: this spreads crons that are due on the hour.
    With a fixed interval, at most that interval: otherwise the slots of the cron would overtake each other."""
    paused: bool
    """True: the cron does not run until it is resumed."""


class CalendarOptions(GivenOptions, total=False):
    tz: str
    """The time zone of the schedule, such as "Europe/Berlin"; UTC by default."""


class Declaration(NamedTuple):
    """A cron as it is declared, before its reference is resolved."""

    ref: Ref[Any]
    args: dict[str, Any] | None
    schedule: Schedule
    options: Options


@name_hint('got crons.{name}: write crons.interval("name", {{"minutes": 5}}, function)', "every")
@name_hint(
    "got crons.{name} of cron_jobs(): functions have `from duly import crons` to register and change crons",
    *("register", "get", "list", "pause", "resume", "update", "delete"),
)
class CronJobs:
    """The crons of an application. Made by `cron_jobs()`.

        crons = cron_jobs()
        crons.interval("clear presence", {"seconds": 30}, internal.presence.clear)
        crons.daily("report", {"hour_utc": 7, "minute_utc": 30}, internal.reports.send, {"to": "ada"}, jitter=60_000)
        crons.cron("wake up", "0 7 * * 1-5", internal.bells.ring, tz="Europe/Berlin")

    Crons are identified by their names: deploying a cron again does not reset its clock. A wrong definition raises
    InvalidScheduleError at its own line. The error says what is wrong.
    """

    def __init__(self) -> None:
        self.declared: dict[str, Declaration] = {}

    def interval(
        self,
        identifier: str,
        schedule: Mapping[str, int] | timedelta,
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[GivenOptions],
    ) -> None:
        """Run every so many seconds, minutes or hours: `{"seconds": 30}`, or a timedelta. First when it is deployed."""
        self._declare(identifier, cron_schedule.interval(_interval_ms(schedule)), ref, args, options)

    def hourly(
        self,
        identifier: str,
        schedule: Mapping[str, int],
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[CalendarOptions],
    ) -> None:
        """Run each hour at a minute: `{"minute_utc": 30}`."""
        _check_fields(schedule, "minute_utc")
        self._calendar(identifier, f"{_field(schedule, 'minute_utc', _MINUTE)} * * * *", ref, args, options)

    def daily(
        self,
        identifier: str,
        schedule: Mapping[str, int],
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[CalendarOptions],
    ) -> None:
        """Run each day: `{"hour_utc": 2, "minute_utc": 0}`."""
        _check_fields(schedule, "hour_utc", "minute_utc")
        self._calendar(identifier, f"{_time(schedule)} * * *", ref, args, options)

    def weekly(
        self,
        identifier: str,
        schedule: Mapping[str, int | str],
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[CalendarOptions],
    ) -> None:
        """Run each week: `{"day_of_week": "monday", "hour_utc": 9, "minute_utc": 0}`."""
        _check_fields(schedule, "day_of_week", "hour_utc", "minute_utc")
        day = schedule.get("day_of_week")
        if day not in _DAYS:
            raise InvalidScheduleError(f'got the day_of_week {day!r:.80}, expected a string like "monday"')
        self._calendar(identifier, f"{_time(schedule)} * * {_DAYS.index(day)}", ref, args, options)

    def monthly(
        self,
        identifier: str,
        schedule: Mapping[str, int],
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[CalendarOptions],
    ) -> None:
        """Run each month that has the day: `{"day": 1, "hour_utc": 0, "minute_utc": 0}`."""
        _check_fields(schedule, "day", "hour_utc", "minute_utc")
        day = _field(schedule, "day", ("day of month", 1, 31))
        self._calendar(identifier, f"{_time(schedule)} {day} * *", ref, args, options)

    def cron(
        self,
        identifier: str,
        schedule: str,
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        **options: Unpack[CalendarOptions],
    ) -> None:
        """Run by a cron expression: `"15 7 * * *"`, also with names, `L`, `LW`, `5L`, `MON#1`; or `"@daily"`."""
        self._calendar(identifier, schedule, ref, args, options)

    def _calendar(
        self,
        identifier: str,
        expression: str,
        ref: Ref[Any],
        args: dict[str, Any] | None,
        options: CalendarOptions,
    ) -> None:
        rest = cast("dict[str, Any]", options).copy()
        schedule = cron_schedule.calendar(expression, rest.pop("tz", UTC))
        self._declare(identifier, schedule, ref, args, cast("GivenOptions", rest))

    def _declare(
        self, identifier: str, schedule: Schedule, ref: Ref[Any], args: dict[str, Any] | None, options: GivenOptions
    ) -> None:
        check_identifier(identifier)
        if identifier in self.declared:
            raise InvalidScheduleError(f"got the cron {identifier!r} twice, expected each identifier once")
        self.declared[identifier] = Declaration(ref, args, schedule, checked(options, schedule))


def cron_jobs() -> CronJobs:
    """Return the crons of an application, still empty: `crons = cron_jobs()` in `crons.py`."""
    return CronJobs()


def check_identifier(identifier: object) -> str:
    if not isinstance(identifier, str) or not is_name(identifier):
        raise InvalidScheduleError(
            f"got the cron identifier {identifier!r:.80}, expected 1 to {CRON_IDENTIFIER_LENGTH_MAX} printable ASCII"
            " characters"
        )
    return identifier


def checked(options: GivenOptions, schedule: Schedule) -> Options:
    """Return the options of a cron with this schedule."""
    given = dict[str, Any](options)
    missed, overlap = given.pop("missed", "once"), given.pop("overlap", "skip")
    jitter, paused = given.pop("jitter", 0.0), given.pop("paused", False)
    if given:
        raise InvalidScheduleError(
            f"got the option {', '.join(given)}, expected missed, overlap, jitter or paused; or tz, of a schedule that"
            " goes by the clock"
        )
    for name, value, known in (("missed", missed, MISSED), ("overlap", overlap, OVERLAP)):
        if value not in known:
            raise InvalidScheduleError(f"got {name}={value!r:.80}, expected one of {', '.join(map(repr, known))}")
    if isinstance(jitter, timedelta):
        jitter = jitter / timedelta(milliseconds=1)
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= CRON_INTERVAL_MS_MAX:
        raise InvalidScheduleError(
            f"got jitter={jitter!r:.80}, expected milliseconds or a timedelta, not negative, at most"
            f" {CRON_INTERVAL_MS_MAX:,.0f} (CRON_INTERVAL_MS_MAX)"
        )
    check_jitter(jitter, schedule)
    if not isinstance(paused, bool):
        raise InvalidScheduleError(f"got paused={paused!r:.80}, expected True or False")
    return Options(missed, overlap, float(jitter), paused)


def check_jitter(jitter: float, schedule: Schedule) -> None:
    """Raise InvalidScheduleError if the jitter is longer than the interval."""
    if isinstance(schedule, FixedInterval) and jitter > schedule.ms:
        raise InvalidScheduleError(
            f"got jitter={jitter:,.15g} of an interval of {schedule.ms:,.15g} ms, expected at most that: with more,"
            " slots come before the run of an earlier one, and are skipped"
        )


_MINUTE: Final = ("minute of hour", 0, 59)
_HOUR: Final = ("hour of day", 0, 23)
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_UNITS_MS: Final = {"seconds": 1_000, "minutes": 60_000, "hours": 3_600_000}


def _interval_ms(schedule: Mapping[str, int] | timedelta) -> float | timedelta:
    if isinstance(schedule, timedelta):
        return schedule
    given = [*schedule.items()] if isinstance(schedule, Mapping) else []  # pyright: ignore[reportUnnecessaryIsInstance]
    if len(given) != 1 or given[0][0] not in _UNITS_MS:
        raise InvalidScheduleError(
            f"got the interval {schedule!r:.80}, expected exactly one of seconds, minutes or hours, or a timedelta"
        )
    [(unit, count)] = given
    if isinstance(count, bool) or not isinstance(count, int) or count <= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidScheduleError(f"got an interval of {count!r:.80} {unit}, expected a whole number above 0")
    return count * _UNITS_MS[unit]


def _check_fields(schedule: Mapping[str, object], *names: str) -> None:
    expected = ", ".join(names)
    if not isinstance(schedule, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidScheduleError(f"got the schedule {schedule!r:.80}, expected a dict of {expected}")
    unknown = ", ".join(repr(name) for name in schedule if name not in names)
    if unknown:
        zone = "; with tz= they are those of that zone" if {"hour", "minute"} & schedule.keys() else ""
        raise InvalidScheduleError(f"got {unknown} in the schedule, expected {expected}{zone}")


def _time(schedule: Mapping[str, Any]) -> str:
    """Return hour and minute, as a cron expression has them."""
    hour = _field(schedule, "hour_utc", _HOUR)
    return f"{_field(schedule, 'minute_utc', _MINUTE)} {hour}"


def _field(schedule: Mapping[str, Any], name: str, of: tuple[str, int, int]) -> int:
    what, lowest, highest = of
    value = schedule.get(name, 0 if name == "minute_utc" else None)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidScheduleError(
            f"got {name}={value!r:.80}, expected the {what}, a whole number from {lowest} to {highest}"
        )
    return value
