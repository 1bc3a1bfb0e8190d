"""`ctx.log`: a logger whose lines belong to one call. The limits bound their number and length."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import lru_cache
from traceback import format_exception_only
from typing import Final

from duly.limits import Limits
from duly.logs import LogLine, set_request

APP_LOG: Final = "duly.app"
"""The logger above all `ctx.log`."""

_LEVELS: Final = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))
"""The lowest number of each level that a line is kept with. Below all of them it is DEBUG."""


class CallLog(logging.Logger):
    """`ctx.log` of one call: the logger `duly.app.<function>`, with the limits of a call."""

    def __init__(self, function: str, limits: Limits, kept: list[LogLine] | None = None) -> None:
        self._shared = logger_of(function)
        super().__init__(self._shared.name)
        self.parent = self._shared
        self._limits = limits
        self._lines = 0
        self._kept = kept
        if kept is not None:
            self.setLevel(min(logging.INFO, self._shared.getEffectiveLevel()))  # whatever the program wants to see

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
            self._kept.append(LogLine(_level(record.levelno), record.getMessage()))
            if not self._shared.isEnabledFor(record.levelno):
                return
        set_request(record)
        with suppress(Exception):  # errors of handlers: what the function does must not depend on them
            super().handle(record)

    def callHandlers(self, record: logging.LogRecord) -> None:
        self._shared.handle(record)  # which has the filters and the handlers that the program has given it


@lru_cache(1024)
def logger_of(function: str) -> logging.Logger:
    """Return `duly.app.orders:archive`, below `duly.app.orders`: the program may set up the one or the other."""
    logger = logging.getLogger(f"{APP_LOG}.{function}")
    module = function.rpartition(":")[0].replace("/", ".")
    if module:
        logger.parent = logging.getLogger(f"{APP_LOG}.{module}")
    return logger


def _level(number: int) -> str:
    return next((level for lowest, level in _LEVELS if number >= lowest), "DEBUG")


def _text(record: logging.LogRecord) -> str:
    """Return the line. A line that cannot be formatted says so: it must not fail the function."""
    try:
        return record.getMessage()
    except Exception as error:
        line = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        why = "".join(format_exception_only(error)).strip()
        record.msg, record.args = f"{line} (which cannot be formatted: {why})", ()
        return record.msg
