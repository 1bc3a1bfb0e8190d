"""Reads what a round left behind: the store, past duly itself, and the diaries of its processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from duly.values.ids import creation_time
from tests.crash.history import History, Job, Line, job_of, read_diary, trace_of
from tests.crash.nodes.probe import Probe


def read_history(folder: Path, probe: Probe, runs: int, disturbed: set[int]) -> History:
    lines = [line for run in range(runs) for line in read_diary(folder, run)]
    joined = Counter(line.run for line in lines if line.deed == "epoch")
    return History(
        jobs=_jobs(probe),
        effects=[trace_of(*row) for row in _documents(probe, "effects")],
        markers=[trace_of(*row) for row in _documents(probe, "markers")],
        counters=[(d["name"], d["markers"]) for _, d in _documents(probe, "counters")],
        indexed=_indexed(probe),
        lines=lines,
        # Who has joined anew was taken for lost.
        undisturbed=frozenset(run for run in range(runs) if run not in disturbed and joined[run] == 1),
        integrity=_soundness(probe, lines),
        in_order=False,
    )


def _documents(probe: Probe, table: str) -> list[tuple[float, dict[str, Any]]]:
    """The documents of a table with the times of their creation; none if it was never made."""
    numbers = probe.fetch("SELECT number FROM duly.tables WHERE name = $1", table)
    rows = probe.fetch(f'SELECT id, document FROM duly."t{numbers[0][0]}_{table}"') if numbers else []
    return [(creation_time(id), json.loads(document)) for id, document in rows]


def _indexed(probe: Probe) -> list[int]:
    """The numbers of the markers in the order of their index; 0 for a key that leads nowhere."""
    [(table, index)] = probe.fetch("SELECT table_number, number FROM duly.indexes WHERE name = 'by_number'")
    rows = probe.fetch(
        f'SELECT document FROM duly."i{index}_by_number" LEFT JOIN duly."t{table}_markers" USING (id) ORDER BY key'
    )
    return [json.loads(document or '{"number": 0}')["number"] for (document,) in rows]


def _jobs(probe: Probe) -> list[Job]:
    rows = probe.fetch(_JOBS)
    number_of = {row[0]: json.loads(row[2])["number"] for row in rows}
    return [job_of(row, number_of) for row in rows]


def _soundness(probe: Probe, lines: list[Line]) -> str:
    """What no check of documents sees."""
    [(gaps, left)] = probe.fetch(_SOUNDNESS)
    epochs = Counter(line.number for line in lines if line.deed == "epoch")
    shared = [epoch for epoch, count in epochs.items() if count > 1]
    problems = [
        f"the log lacks {gaps} versions" if gaps else "",
        f"{left} scheduled functions are in both tables" if left else "",
        f"the epochs {shared} were given twice" if shared else "",
    ]
    return "; ".join(filter(None, problems)) or "ok"


_JOBS: Final = """
SELECT id, name, args, state, scheduled_time, parent, NULL AS error, NULL AS completed_time FROM duly.jobs
UNION ALL SELECT id, name, args, state, scheduled_time, parent, error, completed_time FROM duly.completed_jobs
"""
_SOUNDNESS: Final = """
SELECT (SELECT max(version) - min(version) + 1 - count(*) FROM duly.log),
    (SELECT count(*) FROM duly.jobs JOIN duly.completed_jobs USING (id))
"""
