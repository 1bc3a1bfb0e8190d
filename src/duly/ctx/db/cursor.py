"""Cursors of pagination: a place in a query's order, as a text that clients keep and send back.

A place is the values and the id of the last document read, not the document itself: deleting it does not move the
place. The text also contains a fingerprint of the query, and a tag that only this store can compute. The text is
signed, not secret: decoding it reveals the indexed values of that document.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final, NamedTuple

from duly.errors import AppError
from duly.limits import OF_ANY_SIZE
from duly.values.ids import TAG_BYTES, IdCodec
from duly.values.json import dumps, loads
from duly.values.plain import UNSET

_FINGERPRINT_BYTES: Final = 8


class Place(NamedTuple):
    """The place right after one document in the order of a query."""

    values: tuple[object, ...]
    id: int


class Journal:
    """The ends of the pages that a live query has read. When the query runs again, each page ends at the same place.

    Otherwise, after one of ten documents was deleted, a page would read an eleventh, which the next page has, too.
    """

    def __init__(self, text: str | None = None) -> None:
        """Begin with nothing, or go on where another journal was: `text` is what its `text` was, from a client."""
        self._run: object = None
        self._ends: dict[tuple[object, ...], str] = {}
        self._next: dict[tuple[object, ...], str] = {} if text is None else _ends_in(text)

    @property
    def text(self) -> str | None:
        """What the last run has read, for a client to keep; None if it read no page."""
        return dumps([[*request, end] for request, end in self._next.items()], OF_ANY_SIZE) if self._next else None

    def end_of(self, run: object, request: tuple[object, ...]) -> str | None:
        """Return where the requested page ended in the previous run, None if that run did not read it."""
        if run is not self._run:
            self._run, self._ends, self._next = run, self._next, {}
        return self._ends.get(request)

    def record(self, request: tuple[object, ...], end: str) -> None:
        """Record where the requested page ends in this run."""
        self._next[request] = end


def _ends_in(text: str) -> dict[tuple[object, ...], str]:
    """Return the ends of pages in the text of a journal. The ends are cursors: they are checked when they are used."""
    try:
        found: list[list[object]] = loads(text)
        return {tuple(request): str(end) for *request, end in found}
    except (ValueError, TypeError):
        raise _invalid(f"got the journal {text!r:.80}, expected one that came with a result of this query") from None


END: Final = Place((), -1)
"""The place after all documents: a page from here is empty."""


def fingerprint(*parts: str) -> str:
    """Return a short hash that identifies a query."""
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def write_cursor(ids: IdCodec, query: str, place: Place) -> str:
    """Return the cursor of a place in the query with that fingerprint."""
    values = [None if value is UNSET else dumps(value, OF_ANY_SIZE) for value in place.values]
    body = dumps([query, place.id, values]).encode()
    return base64.urlsafe_b64encode(ids.sign(body) + body).decode().rstrip("=")


def read_cursor(ids: IdCodec, query: str, cursor: object) -> Place:
    """Return the place of a cursor. A wrong one raises an AppError with the data that official clients understand."""
    try:
        if not isinstance(cursor, str):
            raise ValueError
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        body = text[TAG_BYTES:]
        if text[:TAG_BYTES] != ids.sign(body):
            raise ValueError
    except (ValueError, binascii.Error):
        raise _invalid(f"got {cursor!r:.80}, expected None or the continueCursor of a page of this query") from None
    of_query, id, values = loads(body.decode())
    if of_query != query:
        raise _invalid(
            "got the cursor of another query, expected one of this query, with the same range, filters and direction;"
            " a value that changes from call to call, such as ctx.now, must be an argument that goes with the cursor"
        )
    return Place(tuple(UNSET if value is None else loads(value) for value in values), id)


def _invalid(problem: str) -> AppError:
    data: dict[str, Any] = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    return AppError({**data, "message": f"InvalidCursor: {problem}"})
