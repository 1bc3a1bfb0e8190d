"""What is said of a function that failed: to its developer, and to a remote client."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Final, cast

from duly.database.watchdog import is_application
from duly.errors import AppError
from duly.limits import OF_ANY_SIZE
from duly.values.value import UNSET, NotAValueError, dumps, loads

_FRAMES_MAX: Final = 8


def describe(error: BaseException, length_max: int | None = None) -> str:
    """The exception and where it came from, innermost line last; of a group, what is in it too.

    ValueError: no such item
      at create_order (orders.py:12)

    What is longer than `length_max` loses the end of its message, not the lines that tell where.
    """
    frames = [
        f"\n  at {frame.name} ({Path(frame.filename).name}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if is_application(frame.filename)
    ]
    where = "".join([*frames[-_FRAMES_MAX:], *(f"\n{indent(describe(one), '  | ')}" for one in _members(error))])
    head = "".join(traceback.format_exception_only(error)).rstrip()
    head = head.encode("utf-8", "backslashreplace").decode()  # it may hold any text, and no log can show all of that
    if type(error).__module__.startswith("duly."):
        head = head.removeprefix(f"{type(error).__module__}.")
    if length_max is not None and len(head) + len(where) > length_max:
        head = head[: max(length_max - len(where) - 1, 0)] + "…"
    return head + where


def _members(error: BaseException) -> Iterable[BaseException]:
    """The first of the exceptions of which a group consists, such as that of an `asyncio.TaskGroup`."""
    if isinstance(error, BaseExceptionGroup):
        yield from cast("BaseExceptionGroup[BaseException]", error).exceptions[:_FRAMES_MAX]


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
    if isinstance(error, AppError) and (data := _plain(error.data)) is not UNSET:
        return ClientError(str(error), request_id, data)
    text = describe(error) if development else "Server Error"
    return ClientError(f"[Request ID: {request_id}] {text}", request_id)


def _plain(data: object) -> object:
    """The data of an AppError as a plain value; UNSET if it is none."""
    try:
        return loads(dumps(data, OF_ANY_SIZE))
    except NotAValueError:
        return UNSET
