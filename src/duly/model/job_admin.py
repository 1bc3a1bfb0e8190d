"""Administration of jobs: selections of scheduled functions, perhaps millions, and the relatives of one function.

A selection is read page by page, each page in its own transaction, so that other commits need not wait for it. All
scans are untracked: a cancel compares the state of each row that it moves. A range in the read set would conflict with
every function that is written meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, cast

from duly.database.database import Database
from duly.database.index_scan import interval_after
from duly.database.indexes.row_keys import values_in
from duly.database.transaction import Transaction
from duly.limits import DEFAULTS
from duly.model import jobs
from duly.model.job_state import CANCELED, FAILED, IN_PROGRESS, PENDING, SUCCESS
from duly.storage.requests import Scan
from duly.storage.rows import JOBS, MUTATION, Job
from duly.values.ids import NODE_BITS, tick_of
from duly.values.index_keys import EVERYTHING, Cut, Interval
from duly.values.schema.tables import Index

T = TypeVar("T")

ROWS_AT_ONCE: Final = 500
"""The rows that one transaction reads, cancels or retries. Other calls wait for the transaction."""
CANCELABLE: Final = (PENDING, IN_PROGRESS)
SEARCHED_MAX: Final = 10_000
"""The rows that are searched for relatives of a function: no index leads to the relatives."""
_LATE_MS: Final = 1_000.0  # ids may be ahead of the time of their commit, after the clock was set back

_BY_STATE, _BY_NAME = JOBS.indexes

Position = tuple[float, int]
"""The position of a function in a selection: its scheduled time (0 in the order of creation), and its id."""


async def read(database: Database, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
    """Run a transaction that only reads. Return its value or raise its error."""
    outcome = await database.read(unit)
    if outcome.error is not None:
        raise outcome.error
    return cast("T", outcome.value)


async def commit(database: Database, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
    return await database.commit(lambda batch: batch.attempt(unit))


# Selections.


class Selection(NamedTuple):
    """The scheduled functions that match all fields that are given, by scheduled time.

    Without a state and a name, they are in the order of creation.
    """

    state: str | None = None
    name: str | None = None
    before: float | None = None
    """Only functions whose scheduled time is before this."""
    completed_after: float | None = None
    """Only functions that completed then or later."""
    newest: int | None = None
    """The highest id: functions that are scheduled later do not belong to the selection."""
    descending: bool = False

    def fits(self, job: Job) -> bool:
        return (
            job.cron is None
            and self.state in (None, job.state)
            and self.name in (None, job.name)
            and (self.before is None or job.scheduled_time < self.before)
            and (self.completed_after is None or (job.completed_time or 0.0) >= self.completed_after)
            and (self.newest is None or job.id <= self.newest)
        )

    def index_ranges(self) -> list[tuple[Index | None, Interval]]:
        """Return the indexes that hold the selection in order, each with the interval that contains the selection."""
        if self.state is None and self.name is None:
            return [(None, EVERYTHING)]
        values = ((_BY_STATE, self.state), (_BY_NAME, self.name))
        return [(index, self._interval(value)) for index, value in values if value is not None]

    def _interval(self, value: str) -> Interval:
        end = Cut((value,), after=True) if self.before is None else Cut((value, self.before), after=False)
        return Interval(Cut((value,), after=False), end)

    def position(self, job: Job) -> Position:
        return 0.0 if self.state is None and self.name is None else job.scheduled_time, job.id


async def select_some(
    transaction: Transaction, selection: Selection, after: Position | None = None, rows: int = ROWS_AT_ONCE
) -> tuple[list[Job], Position | None]:
    """Return a page of a selection after a position, and the position where the page ends; None at the end.

    A selection by state and name is read from both indexes. Each page is complete up to its own last position, so the
    next page starts at the further one: a rare state or a rare name is found soon.
    """
    found: dict[int, Job] = {}
    positions: list[Position] = []
    ended = False
    for index, interval in selection.index_ranges():
        if after is not None:
            values = () if index is None else (*interval.lower.values, after[0])
            interval = interval_after(interval, selection.descending, values, after[1])
        read = await _rows(transaction, index, interval, selection.descending, rows)
        found.update((job.id, job) for job in read if selection.fits(job))
        positions += map(selection.position, read[-1:])
        ended = ended or len(read) < rows
    furthest = None if ended else (min if selection.descending else max)(positions)
    return sorted(found.values(), key=selection.position, reverse=selection.descending), furthest


async def _rows(
    transaction: Transaction, index: Index | None, interval: Interval, descending: bool, rows: int
) -> list[Job]:
    found = await transaction.scan_untracked(Scan(JOBS, index, interval, descending, rows))
    return [cast("Job", row) for _, row in found]


async def select_all(
    database: Database, selection: Selection, wanted: int = ROWS_AT_ONCE, after: Position | None = None
) -> AsyncGenerator[Job]:
    """Iterate over a selection, read page by page. `wanted` is the expected number, which sizes the first page."""
    rows = min(wanted, ROWS_AT_ONCE)
    while True:
        found, after = await read(database, partial(select_some, selection=selection, after=after, rows=rows))
        for job in found:
            yield job
        if after is None:
            return
        rows = min(2 * rows, ROWS_AT_ONCE)


async def newest(transaction: Transaction) -> int:
    """Return the id of the function that was scheduled last, 0 if there is none."""
    last = await _rows(transaction, None, EVERYTHING, True, 1)
    return last[0].id if last else 0


async def count(database: Database, selection: Selection, limit: int) -> int:
    """Count a selection, up to `limit`."""
    counted = 0
    async with aclosing(select_all(database, selection)) as found:
        async for _ in found:
            counted += 1
            if counted == limit:
                break
    return counted


async def cancel_selected(database: Database, selection: Selection) -> int:
    """Cancel a selection of functions that are pending or in progress, page by page. Return how many."""
    canceled, position = 0, None
    while True:
        found, position = await commit(database, partial(_cancel_some, selection=selection, after=position))
        canceled += found
        if position is None:
            return canceled


async def _cancel_some(
    transaction: Transaction, selection: Selection, after: Position | None
) -> tuple[int, Position | None]:
    found, position = await select_some(transaction, selection, after)
    await jobs.cancel_all(transaction, found)
    return len(found), position


async def unretried(database: Database, selection: Selection) -> list[Job]:
    """Return the failed functions of a selection, which has a name, that were not retried, without their arguments."""
    failed = [job._replace(args="") async for job in select_all(database, selection)]
    if not failed:
        return []
    since = min(job.completed_time or 0.0 for job in failed)
    retried = {job.retry_of async for job in select_all(database, Selection(name=selection.name), after=(since, 0))}
    return [job for job in failed if job.id not in retried]


# Relatives.


async def children(transaction: Transaction, job: Job) -> tuple[list[Job], bool]:
    """Return the functions that a function has scheduled, and whether the search was complete.

    Only the order of ids leads to them: a mutation makes them in its commit, an action between its scheduled time and
    its end.
    """
    if job.state == PENDING or (job.queue == MUTATION and job.state != SUCCESS):
        return [], True
    ended = transaction.now if job.completed_time is None else job.completed_time
    began = ended if job.queue == MUTATION else job.scheduled_time
    late = DEFAULTS.action_seconds_max * 1000 if job.state == CANCELED else _LATE_MS  # it may have gone on
    first, last = max((tick_of(began) << NODE_BITS) - 1, job.id), tick_of(ended + late) << NODE_BITS
    interval = Interval(Cut((), after=True, id=first), Cut((), after=True, id=last))
    found, complete = await _search(
        transaction, None, interval, job.queue != MUTATION, lambda other: other.parent == job.id
    )
    return sorted(found), complete


async def retries(transaction: Transaction, job: Job) -> tuple[list[Job], bool]:
    """Return the retries of a failed function, and whether the search was complete."""
    if job.state != FAILED:
        return [], True
    interval = Interval(Cut((job.name, job.completed_time), after=False), Cut((job.name, transaction.now), after=True))
    return await _search(transaction, _BY_NAME, interval, False, lambda other: other.retry_of == job.id)


async def _search(
    transaction: Transaction, index: Index | None, interval: Interval, descending: bool, fits: Callable[[Job], bool]
) -> tuple[list[Job], bool]:
    found: list[Job] = []
    for _ in range(0, SEARCHED_MAX, ROWS_AT_ONCE):
        read = await _rows(transaction, index, interval, descending, ROWS_AT_ONCE)
        found += filter(fits, read)
        if len(read) < ROWS_AT_ONCE:
            return found, True
        interval = interval_after(interval, descending, values_in(index, read[-1]), read[-1].id)
    return found, False
