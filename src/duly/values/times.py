"""Datetimes and times as text, always with six digits of fraction: texts of one zone sort as their times do."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any, cast


def written_time(value: datetime | time) -> str:
    """Return a datetime or time as ISO text, with `Z` for UTC.

    >>> written_time(datetime(2030, 1, 31, 9, tzinfo=UTC))
    '2030-01-31T09:00:00.000000Z'
    """
    kind: Any = datetime if isinstance(value, datetime) else time  # also for an instance of a subclass
    text = cast("str", kind.isoformat(value, timespec="microseconds"))
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text
