"""The log of a cron: one row for each run that has ended, and one for consecutive slots that were skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from duly.database.transaction import Transaction
from duly.limits import CRON_LOG_TEXT_MAX, CRON_LOGS_MAX
from duly.model.job_state import PENDING
from duly.storage.requests import Scan
from duly.storage.rows import CRON_LOGS, Job, Row
from duly.values.ids import creation_time
from duly.values.index_keys import Cut, Interval
from duly.values.json import dumps, loads

SKIPPED: Final = "skipped"
Cron = dict[str, Any]
"""A row of `_cron_jobs`, see `model/crons.py`."""
Log = dict[str, Any]
"""A row of `_cron_job_logs`."""


class RunRecord(NamedTuple):
    """What the log of a cron keeps of a run."""

    result: str | None = None
    """What the function returned, as JSON."""
    lines: Sequence[str] = ()
    """The lines it wrote to `ctx.log`."""
    started: float | None = None
    """When its handler started; None if it never did, or if its process was lost."""
    ended: float | None = None

    @property
    def in_ascii(self) -> RunRecord:
        """The same record in ASCII, for a store that cannot hold every character."""
        return self._replace(result=self.result and to_ascii(self.result), lines=[*map(to_ascii, self.lines)])


def to_ascii(text: str) -> str:
    """Escape all other characters: every store can hold ASCII.

    >>> to_ascii("no more ☕")
    'no more \\\\u2615'
    """
    return text.encode("ascii", "backslashreplace").decode()


NO_RECORD: Final = RunRecord()


async def history(transaction: Transaction, cron: Cron, count: int) -> list[Log]:
    """Return the newest rows of the log of a cron, newest first."""
    return [loads(cast("str", row)) for _, row in await _rows(transaction, cron, count, newest_first=True)]


async def delete_log(transaction: Transaction, cron: Cron) -> None:
    """Delete the log of a cron."""
    for id, row in await _rows(transaction, cron, CRON_LOGS_MAX):
        transaction.write(CRON_LOGS, id, row, None)


# Writing. Each function returns the number of rows of the log, which the row of the cron keeps as `logged`.


async def log_run(transaction: Transaction, cron: Cron, run: Job, status: dict[str, Any], record: RunRecord) -> int:
    """Log a run that has ended."""
    ended, started = record.ended or transaction.now, record.started
    if started is None:  # it never began: no duration. Or its process was lost: count from when its row was made
        started = ended if run.state == PENDING else creation_time(run.id)
    # If the clock was set back during the run, its duration is 0.
    row = _row(cron, run.scheduled_time, min(started, ended), ended, status)
    if record.result is not None and record.result != "null":
        row["result"] = _shortened(record.result)
    if record.lines:
        row["logLines"] = _first_lines(record.lines)
    return await _add(transaction, cron, row)


async def log_failure(transaction: Transaction, cron: Cron, slot: float, error: str) -> int:
    """Log a slot that could not run."""
    now = transaction.now
    return await _add(transaction, cron, _row(cron, slot, now, now, {"kind": "failed", "error": error}))


async def log_skipped(transaction: Transaction, cron: Cron, first: float, count: int) -> int:
    """Log `count` skipped slots, which may be 0.

    The count is added to the newest row if that row counts skipped slots, too: rows of its own would displace runs.
    """
    now = transaction.now
    logged: int = cron["logged"]
    if not count:
        return logged
    for id, text in await _rows(transaction, cron, 1, newest_first=True):
        row: Log = loads(cast("str", text))
        if row["status"]["kind"] == SKIPPED:
            row["scheduledTime"] = min(row["scheduledTime"], first)
            row["completedTime"] = max(row["startedTime"], now)
            row["status"]["count"] += count
            transaction.write(CRON_LOGS, id, text, dumps(row))
            return logged
    return await _add(transaction, cron, _row(cron, first, now, now, {"kind": SKIPPED, "count": count}))


def _row(cron: Cron, slot: float, started: float, completed: float, status: dict[str, Any]) -> Log:
    times = {"scheduledTime": slot, "startedTime": started, "completedTime": completed}
    return {"name": cron["name"], **times, "status": status}


async def _add(transaction: Transaction, cron: Cron, row: Log) -> int:
    """Add a row; delete the oldest one if there are too many."""
    transaction.write(CRON_LOGS, transaction.new_id(), None, dumps(row))
    logged: int = cron["logged"]
    if logged < CRON_LOGS_MAX:
        return logged + 1
    [(oldest, text)] = await _rows(transaction, cron, 1)
    transaction.write(CRON_LOGS, oldest, text, None)
    return logged


async def _rows(transaction: Transaction, cron: Cron, count: int, newest_first: bool = False) -> list[tuple[int, Row]]:
    name = (cron["name"],)
    named = Interval(Cut(name, after=False), Cut(name, after=True))
    return await transaction.scan(Scan(CRON_LOGS, CRON_LOGS.indexes[0], named, newest_first, count))


def _shortened(text: str) -> str:
    return text if len(text) <= CRON_LOG_TEXT_MAX else f"{text[:CRON_LOG_TEXT_MAX]}… ({len(text):,} characters)"


def _first_lines(lines: Sequence[str]) -> list[str]:
    """Keep the first lines that fit; a last line says how many are left out."""
    kept: list[str] = []
    for written in lines:
        line = written.encode("utf-8", "replace").decode()  # it may hold lone surrogates
        if sum(map(len, kept)) + len(line) > CRON_LOG_TEXT_MAX:
            return [*kept, f"… and {len(lines) - len(kept):,} more lines"]
        kept.append(line)
    return kept
