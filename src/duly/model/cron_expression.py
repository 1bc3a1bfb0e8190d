"""The text of a cron expression: checks it, names the wrong field, and writes it as CronSim reads it.

An expression has five fields, or six with the seconds first. It may contain names, aliases such as `@daily`, and ranges
across the end of a field such as `22-2` hours, which CronSim refuses. `cron_schedule.py` computes its slots.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from cronsim import CronSim, CronSimError

from duly.errors import InvalidScheduleError

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
_SOME_DAY: Final = datetime(2024, 1, 1)


def normalize(cron: str) -> str:
    """Return the expression with its aliases and its wrapping ranges written out.

    Raises InvalidScheduleError, which says which field is wrong and what it may contain.

    >>> normalize("@daily"), normalize("0 22-2 * * mon")
    ('0 0 * * *', '0 22-23,0-2 * * MON')
    """
    fields = _ALIASES.get(cron.strip().lower(), cron).upper().split()
    names = _FIELDS[-len(fields) :] if len(fields) in (5, 6) else ()
    if not names:
        raise InvalidScheduleError(
            f"got the cron expression {cron!r:.80} with {len(fields)} field{'s' * (len(fields) != 1)}, expected minute,"
            " hour, day of month, month and day of week (and seconds before them, if wanted), or one of "
            + ", ".join(_ALIASES)
            + _hint(cron)
        )
    _check_steps(cron, names, fields)
    normalized = " ".join(map(_unwrap, names, fields))
    try:
        CronSim(normalized, _SOME_DAY)
    except (CronSimError, ValueError, AssertionError) as error:
        raise InvalidScheduleError(f"got the cron expression {cron!r:.80}: {_reason(error, names, fields)}") from None
    return normalized


def _check_steps(cron: str, names: tuple[str, ...], fields: list[str]) -> None:
    for name, field in zip(names, fields, strict=True):
        for step in _steps.findall(field):
            if int(step) > _RANGES[name][1]:
                raise InvalidScheduleError(
                    f"got the cron expression {cron!r:.80}: the {name} is {field!r}, expected steps of at most"
                    f" {_RANGES[name][1]}: a longer one leaves nothing but the first"
                )


def _unwrap(name: str, field: str) -> str:
    """Write ranges across the end of a field, such as 22-2 hours or FRI-MON, as two ranges or as a list."""
    return ",".join(_unwrap_range(name, part) for part in field.split(","))


def _unwrap_range(name: str, part: str) -> str:
    match = _range.fullmatch(part)
    if match is None:
        return part
    low, high = _RANGES[name]
    first, last, step = _number(name, match[1]), _number(name, match[2]), int(match[3] or 1)
    if name == "day of week":
        high = 6  # 7 is Sunday, as 0 is
        if first == 7 and last != 7:
            first = 0
            part = f"0-{part.partition('-')[2]}"
    if first is None or last is None or first < last or step == 0:
        return part
    if first == last:
        return part.partition("/")[0]  # CronSim would read 5-5/2 as 5/2
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


def _reason(error: Exception, names: tuple[str, ...], fields: list[str]) -> str:
    """Return which field is wrong, and what it may contain."""
    if str(error) == "Bad day-of-month" and _is_day(fields[-3]):
        return "it never matches: none of its months has such a day"
    for name, field in zip(names, fields, strict=True):
        if str(error) == f"Bad {name.replace(' ', '-')}":
            low, high = _RANGES[name]
            names_too = f" or {_NAMED[name][0]}-{_NAMED[name][-1]}" if name in _NAMED else ""
            expected = f"expected {low}-{high}{names_too}, lists, ranges and steps of them"
            return f"the {name} is {field!r}, {expected}{_hint(field)}"
    return str(error)


def _hint(text: str) -> str:
    """Return the advice for `?`, which other systems use for a day that is left open."""
    return "; instead of ? write *" if "?" in text else ""


def _is_day(field: str) -> bool:
    try:
        CronSim(f"0 0 {field} * *", _SOME_DAY)
    except CronSimError:
        return False
    return True
