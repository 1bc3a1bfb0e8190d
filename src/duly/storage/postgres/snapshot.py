"""Reads from one snapshot of PostgreSQL, and claims of due jobs.

A claim begins where the claim before it ended (`ClaimCursor`). Many dead index entries may lie before that place: the
entries of jobs that ran or were canceled stay until PostgreSQL vacuums them. It vacuums only after the oldest
transaction of the server, such as a backup, has ended.
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from asyncpg import UndefinedTableError  # type: ignore[import-not-found, import-untyped, unused-ignore]

from duly.errors import StoreError
from duly.storage.conflicts import Conflict
from duly.storage.job_bounds import COLUMNS, bound, first_id, native, shape
from duly.storage.postgres.ddl import index_name, table_name
from duly.storage.requests import (
    NOTHING_CACHED,
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
from duly.storage.rows import ACTION, JOBS, Job, Row, make_job
from duly.values.ids import ID_MAX
from duly.values.index_keys import Cut
from duly.values.schema.tables import Table

Fetch = Callable[..., list[Any]]
"""Runs a statement with values and returns its rows."""


class Partition(NamedTuple):
    """The share of the pending jobs that a node runs: those whose hash is `number` modulo `nodes`."""

    number: int
    nodes: int


UNPARTITIONED: Final = Partition(0, 1)


class QueueStart(NamedTuple):
    """Due times at which jobs of one queue may be pending: from `first` to the time of the claim, then from `next`."""

    first: float = -math.inf
    next: float = -math.inf


class ClaimCursor(NamedTuple):
    """Where the next claim of a partition begins: what the last claim found, at a time and a version of the store."""

    partition: Partition = UNPARTITIONED
    now: float = math.inf
    version: int = 0
    mutations: QueueStart = QueueStart()
    actions: QueueStart = QueueStart()


CURSOR_START: Final = ClaimCursor()


class PostgresSnapshot:
    """One snapshot, read through a connection that has a transaction open."""

    cached = NOTHING_CACHED

    def __init__(
        self, fetch: Fetch, schema: str, version: int, partition: Partition = UNPARTITIONED, catalog_version: int = 0
    ) -> None:
        self.version = version
        self.catalog_version = catalog_version
        self._fetch = fetch
        self._schema = schema
        self._partition = partition

    def answer(self, request: Request) -> Any:
        try:
            if type(request) is Get:
                return self._get(request.table, request.id)
            if type(request) is Scan:
                return self._scan(request)
            if type(request) is GetMany:
                return self._get_many(*request)
            if type(request) is Count:
                return self._count(request)
        except StoreError as error:
            if isinstance(error.__cause__, UndefinedTableError):  # a dropped table vanishes from all snapshots
                raise Conflict("another node has dropped an index") from error
            raise
        if type(request) is Claim:
            return self.claim(request, CURSOR_START)[0]
        if type(request) is ListCompleted:
            return self._list_completed(request.limit)
        assert isinstance(request, CountJobs)
        return self._count_jobs(request)

    def _get(self, table: Table, id: int) -> Row | None:
        if table is JOBS:
            rows = self._fetch(_GET_JOB.format(schema=self._schema), id)
            return make_job(rows[0]) if rows else None
        rows = self._fetch(_get_document(self._schema, table_name(table)), id)
        return rows[0][0] if rows else None

    def _scan(self, request: Scan) -> list[tuple[int, Row]]:
        table, index, interval, descending, limit = request
        direction = "DESC" if descending else "ASC"
        if table is JOBS:
            return self._scan_jobs(request, direction)
        if index is not None:
            sql = _SCAN_INDEX
            bounds: tuple[object, ...] = (interval.lower.key(), interval.upper.key())
        else:
            sql = _SCAN_TABLE
            bounds = (min(first_id(interval.lower), ID_MAX), first_id(interval.upper) - 1)
        sql = sql.format(
            schema=self._schema,
            table=table_name(table),
            index=index_name(index) if index is not None else "",
            direction=direction,
        )
        return [(id, row) for id, row in self._fetch(sql, *bounds, limit)]

    def _get_many(self, table: Table, ids: tuple[int, ...]) -> dict[int, Row]:
        return dict(self._fetch(_GET_MANY.format(schema=self._schema, table=table_name(table)), ids))

    def _count(self, request: Count) -> int:
        table, index, (lower, upper), limit = request
        if index is not None:
            sql, name = _COUNT_INDEX, index_name(index)
            bounds: tuple[object, ...] = (lower.key(), upper.key())
        else:
            sql, name = _COUNT_TABLE, table_name(table)
            bounds = (min(first_id(lower), ID_MAX), first_id(upper) - 1)
        counted: int = self._fetch(sql.format(schema=self._schema, table=name), *bounds, limit)[0][0]
        return counted

    def _scan_jobs(self, request: Scan, direction: str) -> list[tuple[int, Row]]:
        columns = () if request.order is None else tuple(COLUMNS[path] for path in request.order.fields)
        lower, upper = (_without_nul(native(cut, columns)) for cut in request.interval)
        sql = _scan_jobs_sql(self._schema, columns, shape(lower), shape(upper), direction)
        rows = self._fetch(sql, *bound(lower), *bound(upper), request.limit)
        return [(row[0], make_job(row)) for row in rows]

    def claim(self, request: Claim, known: ClaimCursor) -> tuple[Claimed, ClaimCursor]:
        """Return the due jobs, and where the next claim of the same partition begins."""
        now, *limits = request
        if known.partition != self._partition or known.now > now:
            known = CURSOR_START
        firsts, nexts = zip(known.mutations, known.actions, strict=True)
        *rows, of_mutations, of_actions = self._fetch(
            _CLAIM.format(schema=self._schema), *(*request, *self._partition, firsts, nexts, known.version)
        )
        jobs = list(map(make_job, rows))
        mutations_end = bisect_left(jobs, True, key=lambda job: job.queue == ACTION)
        queues = jobs[:mutations_end], jobs[mutations_end:]
        dues = [end["due"] for end in (of_mutations, of_actions)]
        mutations, actions = (_queue_start(*queue) for queue in zip(queues, limits, dues, strict=True))
        next_due = min((due for due in dues if due is not None), default=None)
        cursor = ClaimCursor(self._partition, now, of_mutations["id"], mutations, actions)
        return Claimed(queues[0], queues[1], next_due), cursor

    def _count_jobs(self, request: CountJobs) -> JobCounts:
        [row] = self._fetch(_COUNT_JOBS.format(schema=self._schema), request.now)
        return JobCounts(*row)

    def _list_completed(self, limit: int) -> list[Job]:
        rows = self._fetch(_SCAN_COMPLETED.format(schema=self._schema), limit) if self._partition.number == 0 else []
        return list(map(make_job, rows))


def _queue_start(claimed: list[Job], limit: int, next_due: float | None) -> QueueStart:
    """Return where a queue begins, given its claimed jobs."""
    next = math.inf if next_due is None else next_due
    if claimed and claimed[0].due is not None:
        return QueueStart(claimed[0].due, next)
    return QueueStart(next if limit else -math.inf, next)


def _without_nul(cut: Cut) -> Cut:
    """Return the same cut without NUL. PostgreSQL text cannot contain NUL, and no name contains it either."""
    for position, value in enumerate(cut.values):
        if isinstance(value, str) and "\0" in value:
            return Cut((*cut.values[:position], value.partition("\0")[0]), after=True)
    return cut


# SQL.

BEGIN_SNAPSHOT: Final = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL jit = off;
SET LOCAL plan_cache_mode = force_generic_plan
"""
"""Every read has an index in its order. Without statistics PostgreSQL might read and sort the whole table instead.

With these settings a read without an index, such as that of the only row of `store`, has so high a cost estimate that
PostgreSQL would compile its plan each time, which takes longer than anything else. So jit is off.
"""

BEGIN_EXCLUSIVE: Final = """
BEGIN; SET LOCAL idle_in_transaction_session_timeout = {idle}; SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL jit = off;
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT pg_advisory_xact_lock({lock})
"""

_JOB: Final = (
    "id, name, args, scheduled_time, due, state, lane, parent, epoch, NULL AS error, NULL AS completed_time,"
    " attempts, retry_of, cron"
)
_COMPLETED: Final = (
    "id, name, args, scheduled_time, NULL AS due, state, lane, parent, NULL AS epoch, error, completed_time,"
    " 0 AS attempts, retry_of, NULL AS cron"
)
_CLAIM: Final = (
    f"SELECT {_JOB.replace('epoch', 'NULL::bigint AS epoch')} FROM {{schema}}.claim_1($1, $2, $3, $4, $5, $6, $7, $8)"
)
"""All columns of a job: those that a pending one does not have cost less as nulls than to be put in here."""
_GET_JOB: Final = (
    f"SELECT {_JOB} FROM {{schema}}.jobs WHERE id = $1"
    f" UNION ALL SELECT {_COMPLETED} FROM {{schema}}.completed_jobs WHERE id = $1"
)
_SCAN_COMPLETED: Final = f"""
SELECT {_COMPLETED.replace("args", "'' AS args")} FROM {{schema}}.completed_jobs ORDER BY completed_time LIMIT $1
"""
_COUNT_JOBS: Final = """
SELECT due.jobs, due.oldest, (SELECT count(*) FROM {schema}.jobs WHERE state = 'inProgress') FROM (
    SELECT count(*) AS jobs, min(due) AS oldest FROM {schema}.jobs
    WHERE lane IN ('mutation', 'action') AND due IS NOT NULL AND due <= $1
) AS due
"""
_SCAN_TABLE: Final = """
SELECT id, document FROM {schema}."{table}" WHERE id BETWEEN $1 AND $2 ORDER BY id {direction} LIMIT $3
"""
_GET_MANY: Final = 'SELECT id, document FROM {schema}."{table}" WHERE id = ANY ($1)'
_COUNT_TABLE: Final = """
SELECT count(*) FROM (SELECT 1 FROM {schema}."{table}" WHERE id BETWEEN $1 AND $2 LIMIT $3) AS found
"""
_COUNT_INDEX: Final = """
SELECT count(*) FROM (SELECT 1 FROM {schema}."{table}" WHERE key >= $1 AND key < $2 LIMIT $3) AS found
"""
_SCAN_INDEX: Final = """
SELECT found.id, found.document FROM (
    SELECT key, id FROM {schema}."{index}" WHERE key >= $1 AND key < $2 ORDER BY key {direction} LIMIT $3
) AS entry CROSS JOIN LATERAL (
    SELECT id, document FROM {schema}."{table}" AS document WHERE document.id = entry.id OFFSET 0
) AS found ORDER BY entry.key {direction}
"""


@lru_cache(1024)
def _get_document(schema: str, table: str) -> str:
    return f'SELECT document FROM {schema}."{table}" WHERE id = $1'


@lru_cache(1024)
def _scan_jobs_sql(
    schema: str, columns: tuple[str, ...], lower: tuple[int, bool], upper: tuple[int, bool], direction: str
) -> str:
    by = (*columns, "id")
    conditions: list[str] = []
    values = iter(range(1, lower[0] + upper[0] + 1))
    for (length, after), inside, outside in ((lower, ">=", ">"), (upper, "<", "<=")):
        if length:
            left, right = ", ".join(by[:length]), ", ".join(f"${next(values)}" for _ in range(length))
            conditions.append(f"({left}) {outside if after else inside} ({right})")
        elif after == (inside == ">="):
            conditions.append("false")  # after all rows, or before all rows
    order = ", ".join(f"{name} {direction}" for name in by)
    end = f"WHERE {' AND '.join(conditions) or 'true'} ORDER BY {order} LIMIT ${lower[0] + upper[0] + 1}"
    return (
        f"(SELECT {_JOB} FROM {schema}.jobs {end}) UNION ALL"
        f" (SELECT {_COMPLETED} FROM {schema}.completed_jobs {end})"
        f" ORDER BY {order} LIMIT ${lower[0] + upper[0] + 1}"
    )
