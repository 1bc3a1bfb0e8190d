"""What duly itself has to say, in the loggers of the application.

A handler of the application that raises, because its disk is full or nobody reads its pipe any more, must not stop what
was about to be told of.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from traceback import format_exception
from typing import Any


class _Contained(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs  # with the `extra` of the call

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **kwargs)  # the record names whoever calls this


def log_of(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a name, such as `duly.run`, which swallows what its handlers raise."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_writable)  # which is added once, however often
    return _Contained(logger)


def _make_writable(record: logging.LogRecord) -> bool:
    """Escape what no encoding has, where a traceback holds such text: handlers would fail, and lose the record."""
    if record.exc_info and record.exc_info[1] is not None and record.exc_text is None:
        try:
            text = "".join(format_exception(record.exc_info[1])).rstrip("\n")
        except Exception:  # an error of the application's that cannot even be shown: the message says what can be said
            record.exc_info = None
            return True
        writable = text.encode("utf-8", "backslashreplace").decode()
        if writable != text:
            record.exc_text = writable
    return True
