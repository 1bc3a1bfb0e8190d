"""Rounds of kills on one store each: start, kill, start again on what is left, and at last let it come to rest."""

from __future__ import annotations

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Final, NamedTuple

from duly import faults
from duly.model.jobs import INTERRUPTED
from tests.crash.checker import STUCK, WRONG, Violation, check, is_born_canceled
from tests.crash.child import Child, fork
from tests.crash.history import History, Job, read_diary, read_history
from tests.crash.report import percentile
from tests.crash.worker import COMPLETED, DRAIN_SECONDS, OPEN, Order

KILLS_OF_ONE_ROUND: Final = 50
HANGS_SECONDS: Final = 60.0
RECOVERED: Final = "start to recovered"
RESUMED: Final = "start to first completed function"
RESUMES_MS_MAX: Final = 2_000.0

_NOT_PASSED: Final = (
    "cron.ticked",  # tests/crons/kills.py dies there
    "requests.swept",  # there is no remote client
)
POINTS: Final = tuple(point for point in faults.POINTS if point not in _NOT_PASSED)
_POINTS_SHARE: Final = 0.5
_EARLY_SHARE: Final = 0.25
_EARLY_SECONDS: Final = (0.0, 0.04)
_LATE_SECONDS: Final = (0.005, 0.15)
_FIRST_PASSING_SHARE: Final = 0.25
_PASSINGS_MAX: Final = 12
_PASSED: Final = {
    "recovery.begun": 1,
    "jobs.swept": 2,
    "job.refused": 1,
    "schema.index_created": 3,
    "schema.ready": 3,
    "schema.applied": 3,
}
"""How often a process surely passes those that it does not pass with every call."""
_BUSY_SHARE_MIN: Final = 0.8


class Kill(NamedTuple):
    """Kill the process some time after its first scheduled function completed, or after its very start."""

    seconds: float
    early: bool


class Fault(NamedTuple):
    """Have the process die at a fault point, at its nth passing."""

    point: str
    passing: int


Step = Kill | Fault


class Outcome:
    """What a round, or several, did and found."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        """The fault points at which a process died."""
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        """Milliseconds from one thing to another."""
        self.violations: list[Violation] = []
        self.kept: list[Path] = []
        """The folders of rounds that found something."""

    def add(self, other: Outcome) -> None:
        self.counts += other.counts
        self.points += other.points
        for name, times in other.times.items():
            self.times[name] += times
        self.violations += other.violations
        self.kept += other.kept


def rounds(kills: int, points: Iterable[str], seed: int) -> Iterator[list[Step]]:
    """Kills at random moments, and as many at fault points, each its share; at most so many on one store."""
    chance, points = Random(seed), list(points)
    at_points = round(kills * _POINTS_SHARE) if points else 0
    steps: list[Step] = [_fault(point, chance) for point in itertools.islice(itertools.cycle(points), at_points)]
    steps += [_random_kill(chance) for _ in range(kills - at_points)]
    chance.shuffle(steps)
    for done in range(0, kills, KILLS_OF_ONE_ROUND):
        yield steps[done : done + KILLS_OF_ONE_ROUND]


def _random_kill(chance: Random) -> Kill:
    early = chance.random() < _EARLY_SHARE
    return Kill(chance.uniform(*(_EARLY_SECONDS if early else _LATE_SECONDS)), early)


def _fault(point: str, chance: Random) -> Fault:
    """The first passing of most points is in the recovery of what an earlier death has left."""
    first = chance.random() < _FIRST_PASSING_SHARE
    return Fault(point, 1 if first else chance.randint(1, _PASSED.get(point, _PASSINGS_MAX)))


def too_tame(outcome: Outcome, points: Iterable[str]) -> Iterator[Violation]:
    """A run proves nothing if it missed a fault point, or if most of its kills met an idle process."""
    for point in points:
        if not outcome.counts[f"at {point}"]:
            yield Violation(WRONG, f"no process died at {point}: more kills, or a load that passes it")
    late = outcome.counts["while it worked"]
    busy = outcome.counts["with work in flight"]
    if busy < late * _BUSY_SHARE_MIN:
        yield Violation(WRONG, f"only {busy} of {late} processes that worked had work in flight when they died")


def too_slow(outcome: Outcome) -> Iterator[Violation]:
    times = outcome.times.get(RESUMED)
    if times and percentile(times, 0.99) > RESUMES_MS_MAX:
        yield Violation(
            STUCK, f"{percentile(times, 0.99):,.0f} ms from {RESUMED} (p99), expected {RESUMES_MS_MAX:,.0f}"
        )


def play(steps: list[Step], seed: str, folder: Path) -> Outcome:
    """Play one round in a folder of its own, and check what it leaves behind."""
    outcome = Outcome()
    for run, step in enumerate(steps):
        order = Order(str(folder), run, seed)
        if isinstance(step, Kill):
            _kill(order, step, outcome)
        else:
            _die_at(order, step, outcome)
        if outcome.violations:
            break  # what follows would only say the same, and may take long to say it
    _drain(Order(str(folder), len(steps), seed, drains=True), outcome)
    history = read_history(folder, len(steps))
    count(history, outcome)
    outcome.violations += check(history)
    if outcome.violations:
        outcome.kept.append(folder)
    return outcome


def _kill(order: Order, step: Kill, outcome: Outcome) -> None:
    child = fork(order)
    try:
        if not step.early and not child.tells(COMPLETED, HANGS_SECONDS):
            outcome.violations.append(Violation(STUCK, f"run {order.run} completed nothing"))
        time.sleep(step.seconds)
    finally:
        killed = child.kill()
    if killed:
        _died("at random moments", order, child, outcome)
    else:
        outcome.violations.append(Violation(WRONG, f"run {order.run} ended by itself with {child.wait()}"))


def _die_at(order: Order, fault: Fault, outcome: Outcome) -> None:
    child = fork(order._replace(fault=f"{fault.point}:{fault.passing}"))
    try:
        died = child.ends_within(HANGS_SECONDS)
    finally:
        child.kill()
    if died and child.wait() == -SIGKILL:
        outcome.points[fault.point] += 1
        _died(f"at {fault.point}", order, child, outcome)
    else:
        ended = f"ended with {child.wait()}" if died else "went on"
        outcome.violations.append(Violation(WRONG, f"run {order.run} was to die at {fault}, and {ended}"))


def _died(how: str, order: Order, child: Child, outcome: Outcome) -> None:
    worked = OPEN in child.told
    outcome.counts["kills"] += 1
    outcome.counts[how] += 1
    outcome.counts["before it had recovered"] += not worked and order.run > 0
    outcome.counts["while it worked"] += worked
    outcome.counts["with work in flight"] += worked and bool(_in_flight(order))
    # The first had nothing to recover, and who is to die over expired rows has made them before it began.
    if order.run and how != "at jobs.swept":
        for name, what in ((RECOVERED, OPEN), (RESUMED, COMPLETED)):
            if what in child.told:
                outcome.times[name].append(child.told[what] * 1000)


def _drain(order: Order, outcome: Outcome) -> None:
    child = fork(order)
    try:
        ended = child.ends_within(DRAIN_SECONDS + HANGS_SECONDS)
    finally:
        child.kill()
    if not ended:
        outcome.violations.append(Violation(STUCK, "the last run did not end"))
    elif child.wait() != 0:
        outcome.violations.append(Violation(WRONG, f"the last run ended with {child.wait()}"))


def _in_flight(order: Order) -> set[int]:
    """The client calls and the actions of a process that have begun and not ended."""
    begun: set[int] = set()
    for _, deed, number in read_diary(Path(order.folder), order.run):
        if deed in ("try", "start"):
            begun.add(number)
        elif deed in ("acknowledged", "refused", "end"):
            begun.discard(number)
    return begun


def count(history: History, outcome: Outcome) -> None:
    """What was done, as a history tells it."""
    counts, jobs = outcome.counts, {job.number: job for job in history.jobs}
    answers, started = ("acknowledged", "canceled", "refused", "late", "undone"), set(history.numbers("start"))
    counts["calls acknowledged"] += sum(line.deed in answers[:2] for line in history.lines)
    counts["calls refused"] += sum(line.deed in answers[2:] for line in history.lines)
    counts["calls cut off"] += len(set(history.numbers("try")) - _answered(history))
    counts["functions scheduled"] += len(jobs)
    counts["mutations run"] += sum(not job.is_action and job.state in ("success", "failed") for job in history.jobs)
    counts["actions started"] += len(started)
    counts["failed on purpose"] += sum(job.state == "failed" and job.error != INTERRUPTED for job in history.jobs)
    counts["interrupted"] += sum(job.error == INTERRUPTED for job in history.jobs)
    counts["canceled"] += sum(job.state == "canceled" for job in history.jobs)
    counts.update(_when(job, jobs, started, history) for job in history.jobs if job.state == "canceled")
    counts["run again by retry"] += len(history.retries)
    counts["cancels undone"] += len(history.numbers("undone"))


def _when(job: Job, jobs: dict[int, Job], started: set[int], history: History) -> str:
    """When a function was canceled, in its life."""
    if is_born_canceled(job, jobs, history.in_order):
        return "at birth"
    if job.number in started:
        return "while it ran"
    return "before it was due" if job.completed is None or job.completed < job.due else "when it was due"


def _answered(history: History) -> set[int]:
    return {*history.numbers("acknowledged"), *history.numbers("refused")}
