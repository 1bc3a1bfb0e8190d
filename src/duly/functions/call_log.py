"""`ctx.log`: a logger whose lines belong to one call, in number and length what the limits allow."""

from __future__ import annotations

import logging
from contextlib import suppress
from traceback import format_exception_only
from typing import Final

from duly.limits import Limits

APP_LOG: Final = "duly.app"
"""The logger above all `ctx.log`."""


class CallLog(logging.Logger):
    """The logger of one call of the function `name`."""

    def __init__(self, name: str, limits: Limits, kept: list[str] | None = None) -> None:
        super().__init__(name)
        self.parent = logging.getLogger(APP_LOG)
        self._limits = limits
        self._lines = 0
        self._kept = kept
        if kept is not None:
            self.setLevel(logging.INFO)  # whatever the program wants to see

    def handle(self, record: logging.LogRecord) -> None:
        self._lines += 1
        most, longest = self._limits.log_lines_max, self._limits.log_line_length_max
        if self._lines > most + 1:
            return
        if self._lines > most:
            record.msg, record.args = f"more than {most} lines of this call are left out (log_lines_max)", ()
        elif len(text := _text(record)) > longest:
            left_out = len(text) - longest
            record.msg, record.args = f"{text[:longest]}… and {left_out:,} characters (log_line_length_max)", ()
        if self._kept is not None:
            self._kept.append(record.getMessage())
            if self.parent is not None and not self.parent.isEnabledFor(record.levelno):
                return
        with suppress(Exception):  # of handlers: what the function does must not depend on them
            super().handle(record)


def _text(record: logging.LogRecord) -> str:
    """The line. One that cannot be formatted must not fail the function, whatever handlers there are: it says so."""
    try:
        return record.getMessage()
    except Exception as error:
        line = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        why = "".join(format_exception_only(error)).strip()
        record.msg, record.args = f"{line} (which cannot be formatted: {why})", ()
        return record.msg
