"""What is said of a function that failed: to its developer, and to a remote client."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from duly.database.watchdog import is_application
from duly.errors import AppError
from duly.limits import OF_ANY_SIZE
from duly.values.value import UNSET, NotAValueError, dumps

_FRAMES_MAX: Final = 8


def describe(error: BaseException) -> str:
    """The exception and where it came from, innermost line last.

    ValueError: no such item
      at create_order (orders.py:12)
    """
    frames = [
        f"  at {frame.name} ({Path(frame.filename).name}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if is_application(frame.filename)
    ]
    head = "".join(traceback.format_exception_only(error)).rstrip()
    if type(error).__module__.startswith("duly."):
        head = head.removeprefix(f"{type(error).__module__}.")
    return "\n".join([head, *frames[-_FRAMES_MAX:]])


@dataclass(frozen=True)
class ClientError:
    """What a remote client learns of an error."""

    message: str
    request_id: str
    """By it the developer finds the error in the log."""
    data: object = UNSET
    """The data of an AppError; UNSET for other errors."""


def for_client(error: BaseException, development: bool, request_id: str) -> ClientError:
    """An AppError with its data; of others the text in development, and in production no word."""
    if isinstance(error, AppError) and _is_value(error.data):
        return ClientError(str(error), request_id, error.data)
    text = describe(error) if development else "Server Error"
    return ClientError(f"[Request ID: {request_id}] {text}", request_id)


def _is_value(data: object) -> bool:
    try:
        dumps(data, OF_ANY_SIZE)
    except NotAValueError:
        return False
    return True
