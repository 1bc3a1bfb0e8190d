"""Reads what a round left behind: the store, past duly itself, and the diaries of its processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from duly.values.ids import creation_time


class Job(NamedTuple):
    """A scheduled function. Times are milliseconds since 1970."""

    number: int
    name: str
    state: str
    scheduled: float
    created: float
    parent: int | None = None
    """The number of the function that scheduled it; None is a client."""
    follow: int | None = None
    """The number of the function that it, an action, schedules by itself."""
    error: str | None = None
    completed: float | None = None

    @property
    def is_action(self) -> bool:
        return self.name.startswith("act")

    @property
    def due(self) -> float:
        """What was scheduled for the past is due when it was scheduled."""
        return max(self.scheduled, self.created)


class Trace(NamedTuple):
    """The row that a client's call or a scheduled function leaves: what it has scheduled and canceled."""

    number: int
    scheduled: tuple[int, ...] = ()
    created: float = 0.0
    canceled: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    """What had completed when it was to be canceled."""


class Line(NamedTuple):
    """A line of a diary."""

    run: int
    deed: str
    number: int


class History(NamedTuple):
    """Everything a round left behind."""

    jobs: list[Job]
    effects: list[Trace]
    """Of client calls."""
    markers: list[Trace]
    """Of scheduled functions."""
    counters: list[tuple[str, int]]
    """What has been counted, by the name of the counter."""
    indexed: list[int]
    """The numbers of the markers, as their index has them."""
    lines: list[Line]
    undisturbed: frozenset[int]
    """The processes that nothing has happened to."""
    retries: Sequence[Job] = ()
    """Second runs of functions that have failed, with the numbers of the first."""
    integrity: str = "ok"
    in_order: bool = True
    """Whether what commits later has a later time, as the batches of one process have."""

    def numbers(self, deed: str) -> list[int]:
        return [line.number for line in self.lines if line.deed == deed]


def read_history(folder: Path, last_run: int) -> History:
    connection = apsw.Connection(str(folder / "data.db"))
    try:
        integrity = "; ".join(str(text) for (text,) in connection.execute("PRAGMA integrity_check"))
        return History(
            jobs=_jobs(connection, "retry_of IS NULL"),
            effects=[trace_of(*row) for row in _documents(connection, "effects")],
            markers=[trace_of(*row) for row in _documents(connection, "markers")],
            counters=[(d["name"], d["markers"]) for _, d in _documents(connection, "counters")],
            indexed=_indexed(connection),
            lines=[line for run in range(last_run + 1) for line in read_diary(folder, run)],
            undisturbed=frozenset({last_run}),
            retries=_jobs(connection, "retry_of IS NOT NULL"),
            integrity=integrity,
        )
    finally:
        connection.close()


def read_diary(folder: Path, run: int) -> list[Line]:
    """The lines of one process. One that was killed while it wrote may have left half a line: that says nothing."""
    path = folder / f"diary-{run}"
    lines = path.read_text("ascii").split("\n")[:-1] if path.exists() else []
    return [Line(run, deed, int(number)) for deed, number in (line.split() for line in lines)]


def _documents(connection: apsw.Connection, table: str) -> list[tuple[float, dict[str, Any]]]:
    """The documents of a table with the times of their creation; none if it was never made."""
    number = connection.execute("SELECT number FROM duly_tables WHERE name = ?", (table,)).get
    rows: Iterable[Any] = () if number is None else connection.execute(f"SELECT id, document FROM t{number}_{table}")
    return [(creation_time(id), json.loads(document)) for id, document in rows]


def _indexed(connection: apsw.Connection) -> list[int]:
    """The numbers of the markers in the order of their index; 0 for a key that leads nowhere."""
    found: Any = connection.execute(
        "SELECT i.number, t.number FROM duly_indexes i JOIN duly_tables t ON t.number = i.table_number"
        " WHERE i.name = 'by_number'"
    ).fetchone()
    if found is None:
        return []
    rows: Any = connection.execute(
        f"SELECT m.document FROM i{found[0]}_by_number LEFT JOIN t{found[1]}_markers m USING (id) ORDER BY key"
    )
    return [json.loads(document or '{"number": 0}')["number"] for (document,) in rows]


def _jobs(connection: apsw.Connection, which: str) -> list[Job]:
    rows: list[Any] = connection.execute(
        "SELECT id, name, args, state, scheduled_time, parent, error, completed_time FROM scheduled_functions"
        f" WHERE name <> 'load:expired' AND {which}"
    ).fetchall()
    number_of = {row[0]: json.loads(row[2])["number"] for row in rows}
    return [job_of(row, number_of) for row in rows]


def trace_of(created: float, document: dict[str, Any]) -> Trace:
    """The trace that a document is."""
    scheduled, canceled, late = (tuple(document[field]) for field in ("children", "canceled", "late"))
    return Trace(document["number"], scheduled, created, canceled, late)


def job_of(row: Any, number_of: Mapping[int, int]) -> Job:
    """The job of a row, which names its parent by id."""
    id, name, args, state, scheduled, parent, error, completed = row
    return Job(
        number=number_of[id],
        name=name.removeprefix("load:"),
        state=state,
        scheduled=scheduled,
        created=creation_time(id),
        parent=None if parent is None else number_of.get(parent, 0),
        follow=json.loads(args).get("follow", {"args": {"number": None}})["args"]["number"],
        error=error,
        completed=completed,
    )
