"""Reads of many documents at once in SQLite: those of several ids, and how many an interval has."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final

import apsw

from duly.storage.job_bounds import first_id
from duly.storage.requests import Count, GetMany
from duly.values.ids import ID_MAX
from duly.values.schema.tables import Index, Table

REQUESTS: Final = (GetMany, Count)


def answer(read: Any, request: GetMany | Count, table: Callable[[Table], str], index: Callable[[Index], str]) -> Any:
    """What a view answers to one of `REQUESTS`, with the names of what the tables and indexes are stored in."""
    name = table(request.table)
    if isinstance(request, GetMany):
        ids = apsw.carray(array("q", request.ids))  # pyright: ignore[reportUnknownMemberType]
        return dict(read(_GET_MANY.format(table=name), (ids,)))
    lower, upper = request.interval
    bounds: tuple[object, object]
    if request.order is not None:
        name, sql, bounds = index(request.order), _COUNT_INDEX, (lower.key(), upper.key())
    else:
        sql, bounds = _COUNT_TABLE, (min(first_id(lower), ID_MAX), first_id(upper) - 1)
    return read(sql.format(table=name), (*bounds, request.limit)).get


_GET_MANY: Final = "SELECT id, document FROM {table} WHERE id IN carray(?)"
_COUNT_TABLE: Final = "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE id BETWEEN ? AND ? LIMIT ?)"
_COUNT_INDEX: Final = "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE key >= ? AND key < ? LIMIT ?)"
