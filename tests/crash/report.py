"""The counts of one run as a table, and those of all runs so far, kept in a file."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.crash.checker import KINDS, WRONG

if TYPE_CHECKING:
    from tests.crash.campaign import Outcome

TALLY: Final = Path(__file__).parents[2] / ".crash-tally.json"

KILLS: Final = (
    "kills",
    "while it worked",
    "with work in flight",
    "before it had recovered",
    "at random moments",
)
WORK: Final = (
    "calls acknowledged",
    "calls refused",
    "calls cut off",
    "functions scheduled",
    "mutations run",
    "actions started",
    "failed on purpose",
    "interrupted",
    "canceled",
    "before it was due",
    "when it was due",
    "while it ran",
    "at birth",
    "cancels undone",
    "run again by retry",
)
_INDENTED: Final = {*KILLS[1:], "before it was due", "when it was due", "while it ran", "at birth"}
_NAMES: Final = {WRONG: "otherwise wrong"}
_SHOWN_OF_A_KIND: Final = 8


def totals(outcome: Outcome, names: Iterable[str]) -> Counter[str]:
    """The counts of a run, one for each kind of violation among them."""
    counts = Counter({name: outcome.counts[name] for name in names})
    counts.update(dict.fromkeys(KINDS, 0))
    counts.update(violation.kind for violation in outcome.violations)
    counts["runs"] = 1
    return counts


def tally_of(engine: str) -> Path:
    """The file with the counts of all runs on an engine."""
    return TALLY if engine == "sqlite" else TALLY.with_stem(f"{TALLY.stem}-{engine}")


def add_to_tally(counts: Counter[str], path: Path = TALLY) -> Counter[str]:
    """Add a run to those so far, and return their sum. Several processes may do so at once."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        summed: Counter[str] = Counter(json.loads(text) if text else {})
        summed.update(counts)
        file.seek(0)
        file.truncate()
        json.dump(summed, file, indent=1)
    return summed


def table(counts: Counter[str], summed: Counter[str], names: Iterable[str], seed: int) -> Iterator[str]:
    """The lines of a report."""
    runs = f"all {summed['runs']:,} runs"
    yield f"{f'seed {seed}':<30}{'this run':>12}{runs:>16}"
    for name in (*names, *KINDS):
        label = ("  " if name in _INDENTED or name.startswith("at ") else "") + _NAMES.get(name, name)
        yield f"{label:<30}{counts[name]:>12,}{summed[name]:>16,}"
    deaths = sum(summed[name] for name in ("kills", "faults"))
    if deaths and not any(summed[kind] for kind in KINDS):
        yield f"nothing broken in {deaths:,} faults: at 95 % confidence, fewer than 3 in {deaths:,} break something"


def durations(outcome: Outcome) -> Iterator[str]:
    """How long things took."""
    for name, values in outcome.times.items():
        p50, p99 = (percentile(values, share) for share in (0.50, 0.99))
        yield f"{name}: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms, longest {max(values):,.0f} ms ({len(values):,} times)"


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    return sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]


def complaints(outcome: Outcome) -> Iterator[str]:
    """What was found broken, and where it was kept."""
    for kind in KINDS:
        texts = [violation.text for violation in outcome.violations if violation.kind == kind]
        yield from (f"{_NAMES.get(kind, kind)}: {text}" for text in texts[:_SHOWN_OF_A_KIND])
        if len(texts) > _SHOWN_OF_A_KIND:
            yield f"{_NAMES.get(kind, kind)}: … and {len(texts) - _SHOWN_OF_A_KIND:,} more"
    for folder in outcome.kept:
        yield f"kept: {folder}"
