"""The time for which a function is scheduled: delays and moments in milliseconds, within five years of now."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from duly.clock import to_milliseconds
from duly.errors import InvalidScheduleError
from duly.limits import SCHEDULE_WINDOW_MS

Delay = float | timedelta
"""Milliseconds, or a timedelta."""
Moment = float | datetime
"""Milliseconds since 1970, or an aware datetime."""

_FOREVER_MS: Final = 1e15  # beyond every window; an int may be too large for a float
_ROUNDING_MS: Final = 0.0005  # the error of a sum of a time and a delay: half the resolution of a datetime
_WINDOW_MS: Final = SCHEDULE_WINDOW_MS + _ROUNDING_MS


def delay_ms(delay: object) -> float:
    """Return a delay in milliseconds; it must be finite and not negative."""
    if isinstance(delay, timedelta):
        delay = delay / timedelta(milliseconds=1)
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise InvalidScheduleError(
            f"got the delay {delay!r:.80} ({type(delay).__name__}), expected milliseconds or a timedelta"
        )
    if not 0 <= delay < math.inf:  # neither is NaN
        shown = max(delay, -_FOREVER_MS) if isinstance(delay, int) else delay
        raise InvalidScheduleError(f"got a delay of {shown} ms, expected a finite one that is not negative")
    return float(min(delay, _FOREVER_MS))  # never an instance of a subclass


def moment_ms(when: object) -> float:
    """Return a time in milliseconds since 1970."""
    if isinstance(when, datetime):
        try:
            return to_milliseconds(when)
        except ValueError as error:
            raise InvalidScheduleError(str(error)) from None
    if isinstance(when, bool) or not isinstance(when, int | float) or not -math.inf < when < math.inf:
        raise InvalidScheduleError(
            f"got the time {when!r:.80} ({type(when).__name__}), expected milliseconds since 1970 or an aware datetime"
        )
    return float(max(-_FOREVER_MS, min(when, _FOREVER_MS)))


def check_window(when: float, now: float) -> None:
    """Raise unless a time is at most five years away."""
    if not -_WINDOW_MS <= when - now <= _WINDOW_MS:
        days = math.ceil(abs(when - now) / 8_640_000) / 10  # rounded up, because it is more than allowed
        seconds = "; it looks like seconds since 1970, expected milliseconds (multiply by 1000) or an aware datetime"
        raise InvalidScheduleError(
            f"got a time {days:,.1f} days in the {'future' if when > now else 'past'}, expected at most"
            f" {SCHEDULE_WINDOW_MS // 86_400_000:,} days, five years (SCHEDULE_WINDOW_MS)"
            f"{seconds if abs(when * 1000 - now) <= _WINDOW_MS else ''}"
        )
