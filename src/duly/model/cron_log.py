"""The log of a cron: a row for each run that has ended, and one for slots that were skipped one after the other."""

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
    """What a run leaves to the log of its cron."""

    result: str | None = None
    """What the function returned, as JSON."""
    lines: Sequence[str] = ()
    """What it wrote to `ctx.log`."""
    started: float | None = None
    """When its first line ran; None where nobody is left who knows."""
    ended: float | None = None

    @property
    def in_ascii(self) -> RunRecord:
        """The same for a store that cannot hold every character."""
        return self._replace(result=self.result and to_ascii(self.result), lines=[*map(to_ascii, self.lines)])


def to_ascii(text: str) -> str:
    """The text in ASCII, which every store can hold.

    >>> to_ascii("no more ☕")
    'no more \\\\u2615'
    """
    return text.encode("ascii", "backslashreplace").decode()


NO_RECORD: Final = RunRecord()


async def history(transaction: Transaction, cron: Cron, count: int) -> list[Log]:
    """The newest rows of the log of a cron, the last one first."""
    return [loads(cast("str", row)) for _, row in await _rows(transaction, cron, count, newest_first=True)]


async def delete_log(transaction: Transaction, cron: Cron) -> None:
    """Delete the log of a cron."""
    for id, row in await _rows(transaction, cron, CRON_LOGS_MAX):
        transaction.write(CRON_LOGS, id, row, None)


# What is told. Each returns how many rows the log has then, which the cron's row keeps as `logged`.


async def log_run(transaction: Transaction, cron: Cron, run: Job, status: dict[str, Any], record: RunRecord) -> int:
    """A run has ended."""
    ended, started = record.ended or transaction.now, record.started
    if started is None:  # it never began; or its process was lost, and all one knows is since when it was to run
        started = ended if run.state == PENDING else creation_time(run.id)
    # Where the clock was set back meanwhile, it took no time.
    row = _row(cron, run.scheduled_time, min(started, ended), ended, status)
    if record.result is not None and record.result != "null":
        row["result"] = _shortened(record.result)
    if record.lines:
        row["logLines"] = _first_lines(record.lines)
    return await _add(transaction, cron, row)


async def log_failure(transaction: Transaction, cron: Cron, slot: float, error: str) -> int:
    """A slot could not be run."""
    now = transaction.now
    return await _add(transaction, cron, _row(cron, slot, now, now, {"kind": "failed", "error": error}))


async def log_skipped(transaction: Transaction, cron: Cron, first: float, count: int) -> int:
    """So many slots were skipped, of which this is the first; they may be none.

    They are added to those of the row before, if that tells of skipped ones too: else they would push the runs out.
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
    """One more row; the oldest one goes if there are too many."""
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
    """The first ones, as many as are kept whole; the last line says how many are left out."""
    kept: list[str] = []
    for written in lines:
        line = written.encode("utf-8", "replace").decode()  # it may hold what is no text
        if sum(map(len, kept)) + len(line) > CRON_LOG_TEXT_MAX:
            return [*kept, f"… and {len(lines) - len(kept):,} more lines"]
        kept.append(line)
    return kept
