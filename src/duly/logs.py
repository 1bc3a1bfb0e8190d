"""The loggers of duly itself, contained: an error of a log handler never reaches the code that logs.

A handler of the application may raise, because its disk is full or its pipe is closed. Such an error must not stop the
work that is logged.

What is logged while a server works for a client has the attributes `request_id` and `session`.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from traceback import format_exception
from typing import Any, Final, NamedTuple


class Request(NamedTuple):
    """What a remote client wants, as logs know it: an HTTP request, a connection, or one call over it."""

    id: str
    """The errors that the client gets name it."""
    session: str | None = None
    """The session of the client, if it has a connection."""


class LogLine(NamedTuple):
    """A line of `ctx.log`, as a call keeps it."""

    level: str
    """As JavaScript has it: DEBUG, INFO, WARN or ERROR; LOG for one that was stored when levels were not."""
    text: str


REQUEST: Final = ContextVar[Request | None]("duly_request", default=None)
"""What the current code works for; None if no remote client waits for it."""


def set_request(record: logging.LogRecord) -> None:
    """Set the attributes of a record by which it is found, unless the program has set them itself."""
    request = REQUEST.get()
    record.__dict__.setdefault("request_id", None if request is None else request.id)
    record.__dict__.setdefault("session", None if request is None else request.session)


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
    logger.addFilter(_complete)  # a filter is added only once
    return _Contained(logger)


def _complete(record: logging.LogRecord) -> bool:
    """Escape lone surrogates in the text of a traceback: handlers could not encode it, and would lose the record."""
    set_request(record)
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
