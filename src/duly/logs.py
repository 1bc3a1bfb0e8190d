"""The loggers of duly itself, contained: an error of a log handler never reaches the code that logs.

A handler of the application may raise, because its disk is full or its pipe is closed. Such an error must not stop the
work that is logged.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from traceback import format_exception
from typing import Any


class _Contained(logging.LoggerAdapter[logging.Logger]):
    """A logger that swallows what its handlers raise."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs  # unchanged, so that the `extra` of the call is kept

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **kwargs)  # the record names the caller of this method


def log_of(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return the logger of a name, such as `duly.run`. It swallows what its handlers raise."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_writable)  # a filter is added only once
    return _Contained(logger)


def _make_writable(record: logging.LogRecord) -> bool:
    """Escape lone surrogates in the text of a traceback: handlers could not encode it, and would lose the record."""
    if record.exc_info and record.exc_info[1] is not None and record.exc_text is None:
        try:
            text = "".join(format_exception(record.exc_info[1])).rstrip("\n")
        except Exception:  # an error of the application that cannot be formatted: the message must do
            record.exc_info = None
            return True
        writable = text.encode("utf-8", "backslashreplace").decode()
        if writable != text:
            record.exc_text = writable
    return True
