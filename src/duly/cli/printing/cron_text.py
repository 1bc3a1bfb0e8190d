"""Crons as text: a table, or all details of one; and the next runs of a schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, timedelta
from itertools import chain, islice
from typing import Final, NamedTuple

import click
import orjson

from duly.cli.printing.times import duration, local_and_utc, relative
from duly.clock import to_datetime, to_milliseconds
from duly.errors import InvalidScheduleError
from duly.limits import OF_ANY_SIZE
from duly.model import cron_schedule
from duly.model.cron_log import SKIPPED, Log
from duly.model.cron_policy import admit, due_slots
from duly.model.cron_schedule import FixedInterval, Schedule, Slot
from duly.model.crons import CODE, Cron, document_of, options_of
from duly.storage.rows import CRONS, Job
from duly.values.ids import IdCodec, creation_time
from duly.values.json import dumps

UPCOMING: Final = 10
"""How many of the next runs are printed."""

_COLORS: Final = {"success": "green", "failed": "red", "skipped": "bright_black"}
_NOTE_LENGTH_MAX: Final = 80
_CELL_LENGTH_MAX: Final = 48  # so that a line fits a wide terminal; `show` prints all
_TITLES: Final = ("name", "schedule", "zone", "next run", "last result")


class CronDetails(NamedTuple):
    """A cron, with its log and its runs."""

    id: int
    cron: Cron
    logs: Sequence[Log]
    """The newest rows of its log, newest first."""
    runs: Sequence[Job] = ()
    """The runs that have not ended."""


def as_json(id: int, cron: Cron, ids: IdCodec) -> str:
    """Return the document that `_cron_jobs` shows, in one line."""
    return dumps(document_of(cron, _id(id, ids), creation_time(id)), OF_ANY_SIZE)


def _id(id: int, ids: IdCodec) -> str:
    return ids.encode(CRONS.number, id)


# The table.


def table(found: Sequence[CronDetails], now: float) -> Iterator[str]:
    """Yield a line of titles and a line for each cron."""
    rows = [_cells(entry, now) for entry in found]
    widths = [max(map(len, column)) for column in zip(_TITLES, *rows, strict=True)]
    widths[-1] = 0
    yield click.style(_line(_TITLES, widths), dim=True)
    for row in rows:
        yield _line(row, widths)


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _schedule_of(cron: Cron) -> Schedule | InvalidScheduleError:
    """Return the schedule, or its error: the machine that runs it may have a time zone that this one lacks."""
    try:
        return cron_schedule.parse(cron["schedule"])
    except InvalidScheduleError as error:
        return error


def _cells(entry: CronDetails, now: float) -> tuple[str, ...]:
    cron, schedule = entry.cron, _schedule_of(entry.cron)
    last = f"{_outcome(entry.logs[0])}, {relative(entry.logs[0]['completedTime'], now)}" if entry.logs else "none yet"
    if entry.logs and (why := _why(entry.logs[0])):
        last += f"  {why}"
    running = "runs now; " if cron["runs"] else ""
    name, words = _cut(cron["name"], _CELL_LENGTH_MAX), _cut(_words(cron, schedule), _CELL_LENGTH_MAX)
    return name, words, _zone(cron), _next_run(cron, schedule, now), f"{running}{last}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _words(cron: Cron, schedule: Schedule | InvalidScheduleError) -> str:
    return cron["schedule"]["cron"] if isinstance(schedule, InvalidScheduleError) else cron_schedule.words(schedule)


def _zone(cron: Cron) -> str:
    zone: str = cron["schedule"].get("tz", "")
    return zone


def _next_run(cron: Cron, schedule: Schedule | InvalidScheduleError, now: float) -> str:
    if "nextRunTime" not in cron:
        return "gave up" if "error" in cron else "paused"
    return f"{_time(cron['nextRunTime'], schedule)}  {relative(cron['nextRunTime'], now)}"


def _time(time_ms: float, schedule: Schedule | InvalidScheduleError) -> str:
    """Format a time in the zone of the schedule; UTC for an interval, the local zone if that zone is unknown."""
    zone = None if isinstance(schedule, InvalidScheduleError) else cron_schedule.zone_of(schedule)
    return to_datetime(time_ms).astimezone(zone).isoformat(" ", "seconds")


def _outcome(log: Log) -> str:
    status = log["status"]
    return f"skipped {status['count']:,}" if status["kind"] == SKIPPED else status["kind"]


def _why(log: Log) -> str:
    """Return the error or the result of a run, in one line."""
    return _cut(str(log["status"].get("error", log.get("result", ""))).partition("\n")[0], _NOTE_LENGTH_MAX)


# The details of one.


def details(entry: CronDetails, ids: IdCodec, now: float) -> Iterator[str]:
    """Yield all details: a name and a value on each line, with the next runs and the log."""
    for name, lines in _fields(entry, ids, now):
        for position, line in enumerate(lines):
            yield click.style(f"{name if position == 0 else '':13}", dim=True) + line


def _fields(entry: CronDetails, ids: IdCodec, now: float) -> Iterator[tuple[str, Iterable[str]]]:
    cron, schedule = entry.cron, _schedule_of(entry.cron)
    yield "name", [cron["name"]]
    yield "id", [_id(entry.id, ids)]
    yield "function", [f"{cron['function']} ({cron['lane']})"]
    yield "schedule", [_schedule(cron, schedule)]
    yield "missed", [cron["missed"]]
    yield "overlap", [cron["overlap"]]
    if cron["jitter"]:
        yield "jitter", [f"up to {cron['jitter']:,.0f} ms"]
    yield "declared", ["in crons.py" if cron["source"] == CODE else "at run time"]
    yield "created", [f"{local_and_utc(creation_time(entry.id))}  {relative(creation_time(entry.id), now)}"]
    yield "args", orjson.dumps(orjson.loads(cron["args"]), option=orjson.OPT_INDENT_2).decode().split("\n")
    if entry.runs:
        yield "running", [f"{run.state}, for {local_and_utc(run.scheduled_time)}" for run in entry.runs]
    if cron["queue"]:
        yield "waiting", [f"{len(cron['queue']):,} of its slots, until what runs has ended"]
    yield "next runs", _next_runs(cron, schedule, now)
    yield "history", [line for log in entry.logs for line in _log_lines(log, schedule, now)] or ["none yet"]


def _schedule(cron: Cron, schedule: Schedule | InvalidScheduleError) -> str:
    if isinstance(schedule, InvalidScheduleError):
        return f"{_words(cron, schedule)}, {_zone(cron)}"
    if isinstance(schedule, FixedInterval):
        return cron_schedule.words(schedule)
    return f"{cron_schedule.words(schedule)} ({schedule.cron}), {schedule.tz}"


def _next_runs(cron: Cron, schedule: Schedule | InvalidScheduleError, now: float) -> Iterator[str]:
    if "error" in cron:
        return iter(["none: its clock could not go on, until it is changed or resumed", *cron["error"].split("\n")])
    if "nextRunTime" not in cron:
        return iter(["none while it is paused"])
    if isinstance(schedule, InvalidScheduleError):
        return iter([f"{_next_run(cron, schedule, now)}; those after it are not known here: {schedule}"])
    if cron["nextRunTime"] > now:
        return upcoming(schedule, cron["nextRunTime"], now)
    due = due_slots(schedule, cron["nextRunTime"], now)
    started, waiting = admit(options_of(cron), due, now, len(cron["runs"]), len(cron["queue"]))
    slots = "the slot that has passed" if due.total == 1 else f"the {due.total:,} slots that have passed"
    count = len(started) + len(waiting)
    first = f"{count} as soon as an executor runs, for {slots}" if count else f"none for {slots}"
    return chain([first], upcoming(schedule, due.next, now))


def _log_lines(log: Log, schedule: Schedule | InvalidScheduleError, now: float) -> Iterator[str]:
    """Yield a row of the log as text: its slot, outcome, duration and result; below that its log lines."""
    kind = log["status"]["kind"]
    time = f"{_time(log['scheduledTime'], schedule)}  {relative(log['scheduledTime'], now):10}"
    outcome = click.style(_outcome(log), fg=_COLORS[kind]) + " " * (10 - len(_outcome(log)))
    took = "" if kind == SKIPPED else f"{(log['completedTime'] - log['startedTime']) / 1000:,.3f} s"
    yield f"{time}  {outcome}  {took:>9}  {_why(log)}".rstrip()
    for line in "\n".join(log.get("logLines", [])).splitlines():
        yield f"  {click.style('│', dim=True)} {line}"


# The next runs.


def upcoming(schedule: Schedule, first: float, now: float) -> Iterator[str]:
    """Yield the next slots in the zone of the schedule and in UTC. A mark says that the clock was set before a slot."""
    for slot in islice(cron_schedule.upcoming(schedule, first, now), UPCOMING):
        yield _slot(slot, now)


def _slot(slot: Slot, now: float) -> str:
    utc = slot.time.astimezone(UTC)
    time = f"{slot.time:%a} {slot.time.isoformat(' ', 'seconds')}"
    if slot.time.tzname() != "UTC":
        time += f"  {utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
    return f"{time}  {relative(to_milliseconds(utc), now):10}  {_change(slot.change)}".rstrip()


def _change(change: timedelta) -> str:
    if not change:
        return ""
    direction = "ahead" if change > timedelta() else "back"
    return click.style(
        f"← the clock was set {direction} by {duration(abs(change) / timedelta(milliseconds=1))}", fg="yellow"
    )
