"""The reads that a store answers. A coroutine yields a request; the view of an engine answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from duly.storage.rows import Job, Row
from duly.values.index_keys import Interval
from duly.values.schema.tables import Index, Table


class Get(NamedTuple):
    """Read the row with an id."""

    table: Table
    id: int


class Scan(NamedTuple):
    """Read at most `limit` rows of an interval, in the order of an index, or of creation if there is no index."""

    table: Table
    order: Index | None
    interval: Interval
    descending: bool
    limit: int


class GetMany(NamedTuple):
    """Read the documents with several ids at once."""

    table: Table
    ids: tuple[int, ...]


class Count(NamedTuple):
    """Count the documents of an interval, up to `limit`."""

    table: Table
    order: Index | None
    interval: Interval
    limit: int


class Claim(NamedTuple):
    """Read the pending jobs that are due at `now`: those of each queue, ordered by due time and then by id."""

    now: float
    mutations: int
    """The maximum number of mutations."""
    actions: int
    """The maximum number of actions."""


class Claimed(NamedTuple):
    """The answer to a Claim."""

    mutations: list[Job]
    actions: list[Job]
    next_due: float | None
    """The earliest due time of the jobs that are not due yet; None if there are none."""


class ListCompleted(NamedTuple):
    """Read the jobs that completed first, without their arguments, in the order of completion.

    Where nodes share the store, one node gets them and the others get none: the request is for the sweeper.
    """

    limit: int


class CountJobs(NamedTuple):
    """Count the jobs that are due at `now`, and those in progress."""

    now: float


class JobCounts(NamedTuple):
    """The answer to a CountJobs."""

    due: int
    oldest_due: float | None
    """The due time of the job that has waited longest."""
    running: int


Request = Get | GetMany | Scan | Count | Claim | ListCompleted | CountJobs


NOTHING_CACHED: Final[Mapping[str, Mapping[int, Row | None]]] = {}


class View(Protocol):
    """One consistent state of the store."""

    @property
    def version(self) -> int:
        """The number of the commit that it shows."""
        ...

    @property
    def catalog_version(self) -> int:
        """The last commit of another node that changed tables or indexes; 0 if there was none."""
        ...

    @property
    def cached(self) -> Mapping[str, Mapping[int, Row | None]]:
        """Rows that it has without a request, by the name of their table and by id; None where there is no row.

        Where the engine is shared, whoever reads one by its id adds that to `SharedEngine.points`.
        """
        ...

    def answer(self, request: Request) -> Any:
        """Answer a request.

        | request | answer |
        |---|---|
        | Get | a row, or None |
        | GetMany | the rows that exist, by id |
        | Scan | (id, row) pairs |
        | Count | a number |
        | Claim | Claimed |
        | ListCompleted | jobs |
        | CountJobs | JobCounts |
        """
        ...
