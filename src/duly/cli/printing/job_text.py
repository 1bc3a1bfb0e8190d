"""Scheduled functions as text: a table, or all details of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import click
import orjson

from duly.cli.printing.pause_note import note
from duly.cli.printing.times import local, local_and_utc, relative
from duly.limits import OF_ANY_SIZE
from duly.model.job_admin import SEARCHED_MAX
from duly.model.job_state import CANCELED, FAILED, IN_PROGRESS, PENDING, SUCCESS
from duly.model.jobs import document_of
from duly.storage.rows import JOBS, Job
from duly.values.ids import IdCodec, creation_time
from duly.values.json import dumps, loads

_COLORS: Final = {PENDING: "yellow", IN_PROGRESS: "cyan", SUCCESS: "green", FAILED: "red", CANCELED: "bright_black"}
_ID_LENGTH: Final = 32
_NOTE_LENGTH_MAX: Final = 80


def id_of(job: Job, ids: IdCodec) -> str:
    return ids.encode(JOBS.number, job.id)


def as_json(job: Job, ids: IdCodec) -> str:
    """Return the document that `_scheduled_functions` shows, in one line."""
    retry_of = None if job.retry_of is None else ids.encode(JOBS.number, job.retry_of)
    document = document_of(job, id_of(job, ids), creation_time(job.id), loads(job.args), retry_of)
    return dumps(document, OF_ANY_SIZE)


def table(jobs: Sequence[Job], ids: IdCodec, now: float) -> Iterator[str]:
    """Yield a line of titles and a line for each job."""
    width = max((len(job.name) for job in jobs), default=0)
    yield click.style(f"{'id':{_ID_LENGTH}}  {'function':{width}}  {'state':10}  scheduled for", dim=True)
    for job in jobs:
        state = click.style(f"{job.state:10}", fg=_COLORS[job.state])
        time = f"{local(job.scheduled_time)}  {relative(job.scheduled_time, now):10}"
        yield f"{id_of(job, ids)}  {job.name:{width}}  {state}  {time}  {_note(job, now)}".rstrip()


def _note(job: Job, now: float) -> str:
    if job.error is not None:
        line = job.error.partition("\n")[0]
        return line if len(line) <= _NOTE_LENGTH_MAX else f"{line[: _NOTE_LENGTH_MAX - 1]}…"
    if job.due is not None and job.due > max(job.scheduled_time, now):
        return f"postponed, due {relative(job.due, now)}"
    return ""


class Relatives(NamedTuple):
    """The relatives of a scheduled function. For children and retries: whether the search was complete."""

    parent: Job | None
    children: tuple[list[Job], bool]
    original: Job | None
    retries: tuple[list[Job], bool]


def details(job: Job, relatives: Relatives, ids: IdCodec, now: float, paused: float | None) -> Iterator[str]:
    """Yield all details of one job, a name and a value on each line."""
    for name, lines in _fields(job, relatives, ids, now, paused):
        for position, line in enumerate(lines):
            yield click.style(f"{name if position == 0 else '':13}", dim=True) + line


def _fields(
    job: Job, relatives: Relatives, ids: IdCodec, now: float, paused: float | None
) -> Iterator[tuple[str, Iterable[str]]]:
    yield "id", [id_of(job, ids)]
    yield "function", [f"{job.name} ({job.queue})"]
    yield "state", [click.style(job.state, fg=_COLORS[job.state])]
    if job.state == PENDING and paused is not None:
        yield "paused", [note(paused, now)]
    times = {"created": creation_time(job.id), "scheduled": job.scheduled_time, "completed": job.completed_time}
    if job.due not in (None, job.scheduled_time):
        times["due"] = job.due
    for name, time in times.items():
        if time is not None:
            yield name, [f"{local_and_utc(time)}  {relative(time, now)}"]
    if job.attempts:
        yield "refused", ["once by the store" if job.attempts == 1 else f"{job.attempts} times by the store"]
    yield "args", orjson.dumps(orjson.loads(job.args), option=orjson.OPT_INDENT_2).decode().split("\n")
    if job.error is not None:
        yield "error", job.error.split("\n")
    yield from _relatives(job, relatives, ids)


def _relatives(job: Job, relatives: Relatives, ids: IdCodec) -> Iterator[tuple[str, Iterable[str]]]:
    def line(other: Job) -> str:
        return f"{id_of(other, ids)}  {other.name}  {other.state}"

    for name, id, other in (
        ("parent", job.parent, relatives.parent),
        ("retry of", job.retry_of, relatives.original),
    ):
        if id is not None:
            yield name, [line(other) if other else f"{ids.encode(JOBS.number, id)}  (expired)"]
    for name, (found, complete) in (("children", relatives.children), ("retries", relatives.retries)):
        lines = [line(other) for other in found]
        if not complete:
            lines.append(f"({'no more' if found else 'none'} among the {SEARCHED_MAX:,} functions that were searched)")
        if lines:
            yield name, lines
