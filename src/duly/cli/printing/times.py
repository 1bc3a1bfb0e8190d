"""Times as an operator reads and writes them: in the local zone, in UTC, and relative to now."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import click

from duly.clock import SystemClock, to_datetime, to_milliseconds

_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000, "ms": 1}
_duration: Final = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]+)?)\s*(d|h|min|m|s|ms)")


def time(text: str) -> float:
    """Read `now`, a duration from now, or a time in ISO 8601, in the local zone if it names none."""
    if text == "now":
        return SystemClock().now()
    if duration := _duration.fullmatch(text):
        sign, number, unit = duration.groups()
        milliseconds = float(number) * _UNITS["min" if unit == "m" else unit]
        return SystemClock().now() + (-milliseconds if sign == "-" else milliseconds)
    try:
        return to_milliseconds(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"got {text!r}, expected `now`, a duration from now on such as 1h, 30min or -2d, or a time such as"
            " 2030-01-31T09:00 (local) or 2030-01-31T09:00Z"
        ) from None


def local(time_ms: float) -> str:
    return f"{to_datetime(time_ms).astimezone():%Y-%m-%d %H:%M:%S}"


def local_and_utc(time_ms: float) -> str:
    """Return a time in the local zone and in UTC, to the millisecond."""
    here = to_datetime(time_ms).astimezone()
    utc = here.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{here.isoformat(' ', 'milliseconds')}  {utc}Z"


def relative(time_ms: float, now: float) -> str:
    """Return a time relative to now.

    >>> relative(300_000.0, 0.0), relative(0.0, 7_300_000.0), relative(400.0, 0.0)
    ('in 5 min', '2 h ago', 'now')
    """
    distance = abs(time_ms - now)
    if distance < 1000:
        return "now"
    text = duration(distance)
    return f"in {text}" if time_ms > now else f"{text} ago"


def duration(ms: float) -> str:
    """Return a length of time in its largest unit.

    >>> duration(300_000.0), duration(7_300_000.0), duration(1.5)
    ('5 min', '2 h', '1 ms')
    """
    unit, length = next(((unit, length) for unit, length in _UNITS.items() if ms >= length), ("ms", 1))
    return f"{ms // length:.0f} {unit}"
