"""The text of an error: the full text for developers, and the safe text for remote clients."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from types import TracebackType
from typing import Final, NamedTuple, cast

from duly.database.driver.application_lines import file_of, is_application
from duly.database.driver.watchdog import Interruption
from duly.errors import AppError
from duly.limits import OF_ANY_SIZE
from duly.values.json import NotAValueError, dumps, loads
from duly.values.plain import UNSET

_DULY: Final = str(Path(__file__).parent.parent) + os.sep
_FRAMES_MAX: Final = 8
_CAUSES_MAX: Final = 8
_PARTS_MAX: Final = 32
"""Exceptions in one text: the members of groups, and their causes, may be very many."""


def describe(error: BaseException, length_max: int | None = None) -> str:
    """Return the exception and its place, innermost line last; for a group, also its members; then its causes.

    ValueError: no such item
      at create_order (orders.py:12)
    caused by KeyError: 'tea'
      at price_of (prices.py:7)

    A text longer than `length_max` loses the ends of its messages, not the lines with places.
    """
    try:
        return _described(error, length_max)
    except Exception as unprintable:  # raised by an odd class, note or file name
        return f"{type(error).__name__} (which cannot be shown: {type(unprintable).__name__})"


def _described(error: BaseException, length_max: int | None) -> str:
    parts = list(_all_of(error, "", set()))
    text = _text(parts)
    if length_max is None or len(text) <= length_max:
        return text
    heads = sum(len(one.head) for one in parts)
    each = max(length_max - (len(text) - heads), 0) // len(parts)
    text = _text([one._replace(head=_cut(one.head, each)) for one in parts])
    return _cut(text, length_max)


class _Part(NamedTuple):
    """The text of one exception."""

    margin: str
    head: str
    where: str


def _text(parts: Iterable[_Part]) -> str:
    return "\n".join(indent(one.head + one.where, one.margin) for one in parts)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def _all_of(error: BaseException | None, margin: str, seen: set[int]) -> Iterator[_Part]:
    words = ""
    for _ in range(_CAUSES_MAX):
        if error is None or id(error) in seen or len(seen) == _PARTS_MAX:
            return
        seen.add(id(error))
        yield _Part(margin, words + _head(error), _where(error))
        for member in _members(error):
            yield from _all_of(member, f"{margin}  | ", seen)
        words, error = _cause_of(error)


def _head(error: BaseException) -> str:
    head = _writable("".join(traceback.format_exception_only(error)).rstrip())
    if type(error).__module__.startswith("duly."):
        head = head.removeprefix(f"{type(error).__module__}.")
    return head


def _where(error: BaseException) -> str:
    frames = [
        f"\n  at {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{line})"
        for frame, line in traceback.walk_tb(error.__traceback__)  # which reads no files, unlike `extract_tb`
        if is_application(frame.f_code.co_filename)
    ]
    return _writable("".join(frames[-_FRAMES_MAX:]))


def _writable(text: str) -> str:
    """Escape what no log can show: lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cause_of(error: BaseException) -> tuple[str, BaseException | None]:
    """Return the exception that another was raised from, or while handling; None if the application cannot use it."""
    if error.__cause__ is not None:
        words: str = "caused by "
        cause: BaseException | None = error.__cause__
    else:
        words, cause = "raised while handling ", None if error.__suppress_context__ else error.__context__
    if cause is None or is_internal(error) or is_internal(cause):
        return words, None
    if cause is error.__context__ is not error.__cause__ and _is_caught_here(cause):
        return words, None  # the function ran while duly handled this error, which has nothing to do with it
    is_same = _innermost(cause) is not None and _innermost(cause) is _innermost(error)  # under another name
    return words, None if is_same else cause


def is_internal(error: BaseException) -> bool:
    """Return whether the exception is duly's own, with no line of the application in its traceback."""
    if isinstance(error, Interruption):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    is_ours = type(error).__module__.startswith("duly.")
    return is_ours and not any(is_application(file_of(frame)) for frame, _ in frames)


def _is_caught_here(error: BaseException) -> bool:
    """Return whether duly's code caught the exception."""
    entry = error.__traceback__
    return entry is not None and entry.tb_frame.f_code.co_filename.startswith(_DULY)


def _innermost(error: BaseException) -> TracebackType | None:
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry


def _members(error: BaseException) -> Iterable[BaseException]:
    """Yield the first exceptions of a group, such as that of an `asyncio.TaskGroup`."""
    if isinstance(error, BaseExceptionGroup):
        yield from cast("BaseExceptionGroup[BaseException]", error).exceptions[:_FRAMES_MAX]


@dataclass(frozen=True)
class ClientError:
    """An error as a remote client gets it."""

    message: str
    request_id: str
    """The id under which the developer finds the error in the log."""
    data: object = UNSET
    """The data of an AppError; UNSET for other errors."""


def for_client(error: BaseException, development: bool, request_id: str) -> ClientError:
    """Return an AppError with its data. The text of other errors is included only in development."""
    if isinstance(error, AppError) and (data := _plain(error.data)) is not UNSET:
        return ClientError(_text_of(error), request_id, data)
    text = describe(error) if development else "Server Error"
    return ClientError(f"[Request ID: {request_id}] {text}", request_id)


def _text_of(error: AppError) -> str:
    """Return the message of an error whose class is perhaps one of the application."""
    try:
        return _writable(str(error))
    except Exception:
        return type(error).__name__


def _plain(data: object) -> object:
    """Return the data of an AppError as a plain value; UNSET if it is not a value."""
    try:
        return loads(dumps(data, OF_ANY_SIZE))
    except NotAValueError:
        return UNSET
