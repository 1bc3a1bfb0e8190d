"""Scheduled functions: schedule, due, start, end, cancel, recover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from duly.database.batch import Batch
from duly.database.catalog import DUE
from duly.database.reads import Range, ReadSet
from duly.database.transaction import Transaction
from duly.errors import AlreadyCompletedError, InvalidScheduleError
from duly.limits import ERROR_TEXT_LENGTH_MAX
from duly.model.job_state import (
    CANCEL,
    CANCELED,
    COMPLETED,
    FAIL,
    FAILED,
    IN_PROGRESS,
    INTERRUPT,
    PENDING,
    START,
    SUCCEED,
    after,
)
from duly.storage.engine import JOBS, Claim, Claimed, Job, Scan, make_job
from duly.values.keys import Cut, Interval, encode

INTERRUPTED: Final = (
    "interrupted: the process that ran this action ended before the action did. It may have done all, some or"
    " nothing of its work; actions run at most once, so it is not run again"
)
_RECOVERED_AT_ONCE: Final = 1_000


async def schedule(transaction: Transaction, name: str, lane: str, args: str, when: float, parent: int | None) -> int:
    """Add a function that is to run at `when`. Born canceled if the action that schedules it was canceled."""
    id = transaction.new_id()
    if parent is not None and await _is_canceled(transaction, parent):
        now = transaction.now
        job = Job(id, name, args, when, None, CANCELED, lane, parent, completed_time=now)
    else:
        # A time in the past is due now: behind what is already due, not before it.
        job = Job(id, name, args, when, max(when, transaction.now), PENDING, lane, parent)
    transaction.write(JOBS, id, None, job)
    return id


async def _is_canceled(transaction: Transaction, id: int) -> bool:
    job = await transaction.get(JOBS, id)
    return isinstance(job, Job) and job.state == CANCELED


def claim(batch: Batch, mutations: int, actions: int) -> Claimed:
    """The pending functions whose time has come when the batch began, at most so many of each lane."""
    claimed: Claimed = batch.answer(Claim(batch.now, mutations, actions))
    return claimed


def first_due(batch: Batch) -> float | None:
    """When the first becomes due of those that this batch has scheduled."""
    rows = (write.new for write in batch.written(JOBS).values())
    return min((row.due for row in rows if isinstance(row, Job) and row.due is not None), default=None)


def due_before(time_ms: float | None) -> ReadSet:
    """What to watch in order to learn of functions that become due before a time."""
    reads = ReadSet()
    upper = encode(time_ms) if time_ms is not None else b"\xff"
    reads.ranges.append(Range(JOBS.name, DUE.name, encode(0.0), upper))
    return reads


async def start(transaction: Transaction, job: Job, epoch: int) -> None:
    """Mark an action as running in this process."""
    _move(transaction, job, START, epoch=epoch)


async def change_lane(transaction: Transaction, job: Job, lane: str) -> None:
    """Queue a pending function as what it has become."""
    transaction.write(JOBS, job.id, job, job._replace(lane=lane))


async def postpone(transaction: Transaction, job: Job, due: float) -> None:
    """Leave a function that nobody here knows pending for a while."""
    transaction.write(JOBS, job.id, job, job._replace(due=due))


def succeed(transaction: Transaction, job: Job) -> None:
    _move(transaction, job, SUCCEED)


async def fail(transaction: Transaction, job: Job, error: str) -> None:
    text = error[:ERROR_TEXT_LENGTH_MAX].encode("utf-8", "replace").decode()  # an error may hold any text
    _move(transaction, job, FAIL, error=text)


async def end_action(transaction: Transaction, id: int, epoch: int, error: str | None) -> None:
    """Record how an action ended, unless it was canceled meanwhile or is no longer this process's own."""
    job = await transaction.get(JOBS, id)
    if not isinstance(job, Job) or job.state != IN_PROGRESS or job.epoch != epoch:
        return
    if error is None:
        succeed(transaction, job)
    else:
        await fail(transaction, job, error)


async def cancel(transaction: Transaction, id: int, own: int | None) -> None:
    """Cancel a function: pending, it will not run; running, its result and what it schedules are dropped."""
    if id == own:
        raise InvalidScheduleError(
            "got the id of the running mutation itself, expected another: a mutation cannot cancel itself;"
            " raise an error to undo it, or return"
        )
    job = await transaction.get(JOBS, id)
    if not isinstance(job, Job) or job.state in COMPLETED - {CANCELED}:
        found = "has expired" if not isinstance(job, Job) else f"has completed ({job.state})"
        raise AlreadyCompletedError(f"the scheduled function {found}, expected one that is pending or in progress")
    if job.state != CANCELED:
        _move(transaction, job, CANCEL)


RUNNING: Final = Interval(Cut((IN_PROGRESS,), after=False), Cut((IN_PROGRESS,), after=True))
"""All actions in progress, in the order of the index by state."""


async def recover(transaction: Transaction, is_lost: Callable[[int], bool], among: Interval) -> Interval | None:
    """Fail actions that lost processes left running, some at a time. Returns those it has not looked at yet."""
    rows = await transaction.scan(Scan(JOBS, JOBS.indexes[0], among, False, _RECOVERED_AT_ONCE))
    left = [cast("Job", row) for _, row in rows]
    for job in left:
        if job.epoch is not None and is_lost(job.epoch):
            _move(transaction, job, INTERRUPT, error=INTERRUPTED)
    if len(left) < _RECOVERED_AT_ONCE:
        return None
    return among._replace(lower=Cut((IN_PROGRESS, left[-1].scheduled_time), after=True, id=left[-1].id))


def _move(transaction: Transaction, job: Job, event: str, epoch: int | None = None, error: str | None = None) -> None:
    id, name, args, scheduled_time, _, state, lane, parent, *_ = job
    state = after(state, event)
    completed = transaction.now if state in COMPLETED else None
    moved = make_job((id, name, args, scheduled_time, None, state, lane, parent, epoch, error, completed))
    transaction.write(JOBS, id, job, moved)


def document_of(job: Job, id: str, creation_time: float, args: object) -> dict[str, object]:
    """The row as `_scheduled_functions` shows it."""
    state: dict[str, object] = {"kind": job.state}
    if job.state == FAILED:
        state["error"] = job.error
    document: dict[str, object] = {
        "_id": id,
        "_creationTime": creation_time,
        "name": job.name,
        "args": [args],
        "scheduledTime": job.scheduled_time,
        "state": state,
    }
    if job.completed_time is not None:
        document["completedTime"] = job.completed_time
    return document
