"""Reads from one connection to the file of a store: it answers the requests of handlers and executors."""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Any, Final, cast

import apsw

from duly.errors import StoreError
from duly.storage.job_bounds import COLUMNS, bound, first_id, native, shape
from duly.storage.requests import (
    Claim,
    Claimed,
    Count,
    CountJobs,
    Get,
    GetMany,
    JobCounts,
    ListCompleted,
    Request,
    Scan,
)
from duly.storage.rows import ACTION, JOB_FIELDS, JOBS, MUTATION, Row, make_job
from duly.storage.sqlite.hot_rows import HotRows
from duly.values.ids import ID_MAX
from duly.values.index_keys import Cut
from duly.values.schema.tables import Index, Table


class SqliteSnapshot:
    """The state of the store that a connection sees in its transaction."""

    catalog_version = 0

    def __init__(self, connection: apsw.Connection, hot: HotRows | None = None) -> None:
        self._read = connection.execute
        self._cursor = connection.cursor()
        self._read_one = self._cursor.execute  # for reads of one result at once: no new cursor each time
        self.version, self.epoch, self.data_version = cast("tuple[int, int, int]", self._read(_GET_VERSION).get)
        self._hot, self.cached = hot, {} if hot is None else hot.rows

    def close(self) -> None:
        """Close the cursor in the thread of its connection.

        The traceback of an error may keep this object until it ends in another thread, where a busy connection does not
        forget its cursor.
        """
        self._cursor.close()

    def answer(self, request: Request) -> Any:
        try:
            if type(request) is Get:
                return self._get(*request)
            if type(request) is Scan:
                return self._scan(request)
            if type(request) is GetMany:
                return self._get_many(*request)
            if type(request) is Count:
                return self._count(request)
            if type(request) is Claim:
                return self._claim(request)
            if type(request) is ListCompleted:
                return list(map(make_job, self._read(_COMPLETED, request)))
            assert isinstance(request, CountJobs)
            return JobCounts(*cast("tuple[Any, ...]", self._read(_COUNT_JOBS, request).fetchone()))
        except apsw.Error as error:
            raise StoreError(f"SQLite refused a read: {error}") from error

    def _claim(self, request: Claim) -> Claimed:
        now, mutations, actions = request
        next_dues: Any = [self._read(_NEXT_DUE, (queue, now)).get for queue in (MUTATION, ACTION)]
        return Claimed(
            list(map(make_job, self._read(_DUE, (MUTATION, now, mutations)))),
            list(map(make_job, self._read(_DUE, (ACTION, now, actions)))),
            min((due for due in next_dues if due is not None), default=None),
        )

    def _get(self, table: Table, id: int) -> Row | None:
        if table is JOBS:
            # `get` reads to the end: while a statement is open, no table can be dropped.
            columns: Any = self._read_one(_GET_JOB, (id,)).get
            return None if columns is None else make_job(columns)
        document: str | None = self._read_one(_get_document(table.number, table.name), (id,)).get
        if self._hot is not None and document is not None:
            self._hot.add(table, id, document)
        return document

    def _get_many(self, table: Table, ids: tuple[int, ...]) -> dict[int, Row]:
        bound_ids = apsw.carray(array("q", ids))
        return cast("dict[int, Row]", dict(self._read(_GET_MANY.format(table=table_name(table)), (bound_ids,))))

    def _count(self, request: Count) -> Any:
        table, order, (lower, upper), limit = request
        bounds: tuple[object, object]
        if order is not None:
            name, sql, bounds = index_name(order), _COUNT_INDEX, (lower.key(), upper.key())
        else:
            name, sql, bounds = table_name(table), _COUNT_TABLE, (min(first_id(lower), ID_MAX), first_id(upper) - 1)
        return self._read(sql.format(table=name), (*bounds, limit)).get

    def _scan(self, request: Scan) -> list[tuple[int, Row]]:
        table, index, interval, descending, limit = request
        direction = "DESC" if descending else "ASC"
        bounds: tuple[object, object]
        if table is JOBS:
            return [(row[0], make_job(row)) for row in self._scan_jobs(request)]
        if index is not None:
            sql = _SCAN_INDEX.format(table=table_name(table), index=index_name(index), direction=direction)
            bounds = (interval.lower.key(), interval.upper.key())
        else:
            sql = _SCAN_TABLE.format(table=table_name(table), direction=direction)
            bounds = (min(first_id(interval.lower), ID_MAX), first_id(interval.upper) - 1)
        return cast("list[tuple[int, Row]]", self._read(sql, (*bounds, limit)).fetchall())

    def _scan_jobs(self, request: Scan) -> list[tuple[Any, ...]]:
        columns = () if request.order is None else tuple(COLUMNS[path] for path in request.order.fields)
        lower, upper = (native(cut, columns) for cut in request.interval)
        begin = upper if request.descending else lower
        if len(begin.values) < len(columns) or begin.id is None or not columns:
            return self._scan_part(columns, lower, upper, request.descending, request.limit)
        # The scan begins after one of many rows with equal values. For a row comparison, SQLite would first read all
        # rows with these values. So these rows are a scan of their own, with equality in its WHERE.
        rows = self._scan_part(columns, lower, upper, request.descending, request.limit, equal=True)
        if len(rows) < request.limit:
            rest = Cut(begin.values, after=not request.descending)
            lower, upper = (lower, rest) if request.descending else (rest, upper)
            rows += self._scan_part(columns, lower, upper, request.descending, request.limit - len(rows))
        return rows

    def _scan_part(
        self, columns: tuple[str, ...], lower: Cut, upper: Cut, descending: bool, limit: int, equal: bool = False
    ) -> list[tuple[Any, ...]]:
        sql = _scan_jobs(columns, shape(lower), shape(upper), descending, equal)
        below, above = bound(lower), bound(upper)
        if equal and descending:  # the values come first, then both bounds; a lower bound has them before its id
            below, above = (*upper.values, *below), above[-1:]
        return self._read(sql, (*below, *above, limit)).fetchall()


# Names and bounds.


def table_name(table: Table) -> str:
    return f"t{table.number}_{table.name}"


def index_name(index: Index) -> str:
    return f"i{index.number}_{index.name}"


@lru_cache(1024)
def _get_document(number: int, name: str) -> str:
    return f"SELECT document FROM t{number}_{name} WHERE id = ?"


@lru_cache(256)
def _scan_jobs(
    columns: tuple[str, ...], lower: tuple[int, bool], upper: tuple[int, bool], descending: bool, equal: bool
) -> str:
    names, direction = (*columns, "id"), "DESC" if descending else "ASC"
    conditions = [f"{column} = ?" for column in columns] if equal else []
    for (length, after), inside, outside, is_first in (
        (lower, ">=", ">", not descending),
        (upper, "<", "<=", descending),
    ):
        compared = ("id",) if equal and is_first else names[:length]
        if compared:
            left, right = ", ".join(compared), ", ".join("?" * len(compared))
            conditions.append(f"({left}) {outside if after else inside} ({right})")
        elif after == (inside == ">="):
            conditions.append("false")  # after all rows, or before all rows
    order = ", ".join(f"{name} {direction}" for name in names)
    where = " AND ".join(conditions) or "true"
    return f"SELECT {JOB_COLUMNS} FROM scheduled_functions WHERE {where} ORDER BY {order} LIMIT ?"


# SQL.

_GET_VERSION: Final = "SELECT version, epoch, data_version FROM duly_store, pragma_data_version"
_SCAN_TABLE: Final = "SELECT id, document FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id {direction} LIMIT ?"
_SCAN_INDEX: Final = """
SELECT t.id, t.document FROM {index} i CROSS JOIN {table} t ON t.id = i.id
WHERE i.key >= ? AND i.key < ? ORDER BY i.key {direction} LIMIT ?
"""
JOB_COLUMNS: Final = ", ".join(JOB_FIELDS)
_GET_JOB: Final = f"SELECT {JOB_COLUMNS} FROM scheduled_functions WHERE id = ?"
_COMPLETED: Final = f"""
SELECT {JOB_COLUMNS.replace("args", "'' AS args")} FROM scheduled_functions WHERE completed_time IS NOT NULL
ORDER BY completed_time LIMIT ?
"""
_COUNT_JOBS: Final = """
SELECT count(*), min(due), (SELECT count(*) FROM scheduled_functions WHERE state = 'inProgress')
FROM scheduled_functions WHERE lane IN ('mutation', 'action') AND due <= ?
"""
_DUE: Final = f"""
SELECT {JOB_COLUMNS} FROM scheduled_functions WHERE lane = ? AND due <= ? ORDER BY due, id LIMIT ?
"""
_NEXT_DUE: Final = """
SELECT due FROM scheduled_functions WHERE lane = ? AND due > ? ORDER BY due LIMIT 1
"""
_GET_MANY: Final = "SELECT id, document FROM {table} WHERE id IN carray(?)"
_COUNT_TABLE: Final = "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE id BETWEEN ? AND ? LIMIT ?)"
_COUNT_INDEX: Final = "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE key >= ? AND key < ? LIMIT ?)"
