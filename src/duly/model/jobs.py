"""Scheduled functions as rows: schedule, claim, start, postpone, end, cancel, recover, retry, expire."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, cast

from duly import faults
from duly.database.batch import Batch
from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import DUE
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction
from duly.errors import AlreadyCompletedError, InvalidScheduleError
from duly.limits import BACKOFF_MS_MAX, BACKOFF_MS_MIN, ERROR_TEXT_LENGTH_MAX, RETENTION_MS, SWEPT_AT_ONCE
from duly.model import crons
from duly.model.cron_log import NO_RECORD, RunRecord, to_ascii
from duly.model.job_state import (
    CANCEL,
    CANCELED,
    COMPLETED,
    EXPIRE,
    FAIL,
    FAILED,
    IN_PROGRESS,
    INTERRUPT,
    NOTHING,
    PENDING,
    POSTPONE,
    SCHEDULE,
    SCHEDULE_CANCELED,
    START,
    SUCCEED,
    after,
)
from duly.storage.requests import Claim, Claimed, ListCompleted, Scan
from duly.storage.rows import JOBS, SUCCESS, Job, Row, make_job
from duly.values.index_keys import Cut, Interval, encode

INTERRUPTED: Final = (
    "interrupted: the process that ran this action ended before the action did. It may have done all, some or"
    " nothing of its work; actions run at most once, so it is not run again"
)
_RECOVERED_AT_ONCE: Final = 1_000
_SCHEDULED: Final = after(NOTHING, SCHEDULE)
assert after(PENDING, SUCCEED) == after(IN_PROGRESS, SUCCEED) == SUCCESS  # what `succeed` leaves to the batch


def schedule(transaction: Transaction, name: str, queue: str, args: str, when: float, parent: int | None) -> int:
    """Add a function that is due at `when`. If its parent, an action, was canceled, it is canceled from the start."""
    id = transaction.new_id()
    if parent is not None and is_canceled(transaction.row(JOBS, parent)):
        now = transaction.now
        state = after(NOTHING, SCHEDULE_CANCELED)
        job = Job(id, name, args, when, None, state, queue, parent, completed_time=now)
    else:
        if when < transaction.now:
            transaction.overdue = min(transaction.overdue, when)
        job = make_job((id, name, args, when, when, _SCHEDULED, queue, parent, None, None, None, 0, None, None))
    transaction.write(JOBS, id, None, job)
    return id


def is_canceled(row: Row | None) -> bool:
    return isinstance(row, Job) and row.state == CANCELED


def claim(batch: Batch, mutations: int, actions: int) -> Claimed:
    """Return the pending functions that were due when the batch began, at most the given number of each queue."""
    claimed: Claimed = batch.answer(Claim(batch.now, mutations, actions))
    return claimed


def first_due(batch: Batch) -> float | None:
    """Return the earliest due time among the functions that this batch has scheduled."""
    rows = (write.new for write in batch.writes_to(JOBS).values())
    return min((row.due for row in rows if isinstance(row, Job) and row.due is not None), default=None)


def due_before(time_ms: float | None) -> ReadSet:
    """Return the read set of a watch for functions that become due before a time."""
    reads = ReadSet()
    upper = encode(time_ms) if time_ms is not None else b"\xff"
    reads.ranges.append(KeyRange(JOBS.name, DUE.name, encode(0.0), upper))
    return reads


def start(batch: Batch, job: Job, epoch: int) -> None:
    """Mark an action as running in this process."""
    batch.write_job(job, _moved(job, START, batch.now, epoch=epoch))


async def change_queue(transaction: Transaction, job: Job, queue: str) -> None:
    """Move a pending function to the other queue: its kind has changed."""
    transaction.write(JOBS, job.id, job, job._replace(queue=queue))


async def postpone(transaction: Transaction, job: Job, due: float) -> None:
    """Postpone a function that this version of the application does not know."""
    transaction.write(JOBS, job.id, job, job._replace(due=due, state=after(job.state, POSTPONE)))


async def back_off(transaction: Transaction, id: int, share: float) -> float:
    """Postpone a function that the store has refused, each time for longer. Return the delay in milliseconds.

    `share`, random between 0 and 1, spreads the functions that were refused together ("full jitter").
    """
    job = await transaction.get(JOBS, id)
    if not isinstance(job, Job) or job.state != PENDING:
        return 0.0
    delay = min(BACKOFF_MS_MIN * 2.0 ** min(job.attempts, 100), BACKOFF_MS_MAX) * share
    state, due = after(job.state, POSTPONE), transaction.now + delay
    transaction.write(JOBS, id, job, job._replace(due=due, state=state, attempts=job.attempts + 1))
    return delay


def succeed(transaction: Transaction, job: Job) -> None:
    """End a function successfully. The run of a cron is ended by `crons.end_run`."""
    if transaction.writes and job.id in transaction.writes.get(JOBS.name, ()):
        _move(transaction, job, SUCCEED)
    else:
        transaction.succeeded = job  # the batch ends it together with others


async def fail(transaction: Transaction, job: Job, error: str, record: RunRecord = NO_RECORD) -> None:
    # An error may hold text that no engine stores, such as lone surrogates.
    text = error[:ERROR_TEXT_LENGTH_MAX].encode("utf-8", "replace").decode().replace("\0", "?")
    if job.attempts:  # the store has refused its writes, perhaps because of this text
        text, record = to_ascii(text)[:ERROR_TEXT_LENGTH_MAX], record.in_ascii
    if job.cron is not None:
        await crons.end_run(transaction, job, after(job.state, FAIL), text, record)
    else:
        _move(transaction, job, FAIL, error=text)


def end_action(batch: Batch, id: int, epoch: int, error: str | None, record: RunRecord = NO_RECORD) -> None:
    """Record how an action ended, unless it was canceled or this process no longer owns it."""
    job = batch.row(JOBS, id)
    if not isinstance(job, Job) or job.state != IN_PROGRESS or job.epoch != epoch:
        return
    if error is not None:
        batch.attempt(fail, job, error, record)
    elif job.cron is not None:
        batch.attempt(crons.end_run, job, after(job.state, SUCCEED), None, record)
    else:
        batch.succeed(job)


async def cancel(transaction: Transaction, id: int, own: int | None, missing_ok: bool = False) -> bool:
    """Cancel a function. A pending one will not run; the result of a running one and what it schedules are dropped.

    Return False if it was canceled before. Also return False if it has completed or expired and `missing_ok` is set.
    """
    job = await transaction.get(JOBS, id)
    if id == own and isinstance(job, Job) and job.state == PENDING:
        # A running mutation is pending until its commit. A running action may be canceled by a mutation it calls.
        raise InvalidScheduleError(
            "got the id of the running mutation itself, expected another: a mutation cannot cancel itself;"
            " raise an error to undo it, or return"
        )
    if not isinstance(job, Job) or job.state in COMPLETED - {CANCELED}:
        if missing_ok:
            return False
        found = "has expired" if not isinstance(job, Job) else f"has completed ({job.state})"
        raise AlreadyCompletedError(f"the scheduled function {found}, expected one that is pending or in progress")
    if job.state == CANCELED:
        return False
    _move(transaction, job, CANCEL)
    return True


async def cancel_all(transaction: Transaction, found: Iterable[Job]) -> None:
    """Cancel functions that this transaction has found pending or in progress."""
    for job in found:
        _move(transaction, job, CANCEL)


async def retry(transaction: Transaction, id: int) -> int:
    """Schedule a failed function again with its arguments, due now. Return the id of the new one."""
    job = await transaction.get(JOBS, id)
    if not isinstance(job, Job) or job.state != FAILED:
        found = f"{job.name}, which is {job.state}" if isinstance(job, Job) else "one that has expired"
        raise InvalidScheduleError(f"got {found}, expected a scheduled function that has failed")
    new, now, state = transaction.new_id(), transaction.now, after(NOTHING, SCHEDULE)
    transaction.write(JOBS, new, None, Job(new, job.name, job.args, now, now, state, job.queue, retry_of=id))
    return new


def sweep(batch: Batch) -> float:
    """Delete some functions that completed long ago. Return when to sweep next: now, if some are left."""
    first: list[Job] = batch.answer(ListCompleted(SWEPT_AT_ONCE + 1))
    expired = [job for job in first[:SWEPT_AT_ONCE] if _expires(job) <= batch.now]
    if expired:
        batch.attempt(_expire, expired)
        faults.at("jobs.swept")
    left = first[len(expired) :]
    return _expires(left[0]) if left else batch.now + RETENTION_MS


def _expires(job: Job) -> float:
    return (job.completed_time or 0.0) + RETENTION_MS


async def _expire(transaction: Transaction, expired: list[Job]) -> None:
    for job in expired:
        assert after(job.state, EXPIRE) == NOTHING
        transaction.write(JOBS, job.id, job, None)


RUNNING: Final = Interval(Cut((IN_PROGRESS,), after=False), Cut((IN_PROGRESS,), after=True))
"""All actions in progress, in the order of the index by state."""


async def recover(
    transaction: Transaction, is_lost: Callable[[int], bool], among: Interval
) -> tuple[list[Job], Interval | None]:
    """Fail some of the actions that lost processes left running.

    Return them, and the interval of those that are left to look at; None at the end.
    """
    # Untracked: a move compares the state of its own row. A range in the read set would conflict with every other move.
    rows = await transaction.scan_untracked(Scan(JOBS, JOBS.indexes[0], among, False, _RECOVERED_AT_ONCE))
    running = [cast("Job", row) for _, row in rows]
    lost = [job for job in running if job.epoch is not None and is_lost(job.epoch)]
    for job in lost:
        await _interrupt(transaction, job)
    if len(running) < _RECOVERED_AT_ONCE:
        return lost, None
    last = running[-1]
    return lost, among._replace(lower=Cut((IN_PROGRESS, last.scheduled_time), after=True, id=last.id))


async def _interrupt(transaction: Transaction, job: Job) -> None:
    if job.cron is not None:
        await crons.end_run(transaction, job, after(job.state, INTERRUPT), INTERRUPTED)
    else:
        _move(transaction, job, INTERRUPT, error=INTERRUPTED)


def _move(transaction: Transaction, job: Job, event: str, epoch: int | None = None, error: str | None = None) -> None:
    transaction.write(JOBS, job.id, job, _moved(job, event, transaction.now, epoch, error))


def _moved(job: Job, event: str, now: float, epoch: int | None = None, error: str | None = None) -> Job:
    id, name, args, scheduled_time, _, state, queue, parent, *_, retry_of, cron = job
    state = after(state, event)
    completed = now if state in COMPLETED else None
    return make_job(
        (id, name, args, scheduled_time, None, state, queue, parent, epoch, error, completed, 0, retry_of, cron)
    )


def document_of(
    job: Job, id: str, creation_time: float, args: object, retry_of: str | None = None
) -> dict[str, object]:
    """Return the row as `_scheduled_functions` shows it."""
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
    if retry_of is not None:
        document["retryOf"] = retry_of
    return document
