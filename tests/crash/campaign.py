"""Rounds of kills on one store each: start, kill, start again on what is left, and at last let it come to rest."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Final, NamedTuple

from duly.model.jobs import INTERRUPTED
from tests.crash.checker import STUCK, WRONG, Violation, check
from tests.crash.child import fork, spawn
from tests.crash.history import History, Job, read_diary, read_history
from tests.crash.worker import DRAIN_SECONDS, Order

KILLS_OF_ONE_ROUND: Final = 50
HANGS_SECONDS: Final = 15.0
RECOVERED: Final = "restart to first completed function, without the start of the interpreter"

_EARLY_SHARE: Final = 0.1
_EARLY_SECONDS: Final = (0.0, 0.06)
_LATE_SECONDS: Final = (0.005, 0.15)
_PASSINGS_MAX: Final = 8
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


def random_rounds(kills: int, seed: int) -> Iterator[list[Step]]:
    """Kills at random moments, at most so many on one store."""
    chance = Random(seed)
    for done in range(0, kills, KILLS_OF_ONE_ROUND):
        yield [_random_kill(chance) for _ in range(min(KILLS_OF_ONE_ROUND, kills - done))]


def point_round(point: str, seed: int) -> list[Step]:
    """A death at a fault point, of a process that has an earlier one's work to recover."""
    chance = Random(f"{seed} {point}")
    if point == "recovery.begun":  # passed once by each process, and of interest when an action was running
        return [Fault("action.marked", chance.randint(1, _PASSINGS_MAX)), Fault(point, 1)]
    return [Kill(chance.uniform(*_LATE_SECONDS), early=False), Fault(point, chance.randint(1, _PASSINGS_MAX))]


def too_tame(outcome: Outcome) -> Iterator[Violation]:
    """A run proves nothing if most of its kills met an idle process."""
    late = outcome.counts["kills"] - outcome.counts["while it opened the store"]
    busy = outcome.counts["with work in flight"]
    if busy < late * _BUSY_SHARE_MIN:
        yield Violation(WRONG, f"only {busy} of {late} kills met a process with work in flight")


def _random_kill(chance: Random) -> Kill:
    early = chance.random() < _EARLY_SHARE
    return Kill(chance.uniform(*(_EARLY_SECONDS if early else _LATE_SECONDS)), early)


def play(steps: list[Step], seed: str, folder: Path) -> Outcome:
    """Play one round in a folder of its own, and check what it leaves behind."""
    outcome = Outcome()
    for run, step in enumerate(steps):
        order = Order(str(folder), run, seed, drains=False)
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
        if not step.early:
            seconds = child.first_completed(HANGS_SECONDS)
            if seconds is None:
                outcome.violations.append(Violation(STUCK, f"run {order.run} completed nothing"))
            elif order.run:  # the first one had nothing to recover
                outcome.times[RECOVERED].append(seconds * 1000)
        time.sleep(step.seconds)
    finally:
        killed = child.kill()
    if not killed:
        outcome.violations.append(Violation(WRONG, f"run {order.run} ended by itself with {child.wait()}"))
        return
    outcome.counts["kills"] += 1
    outcome.counts["while it opened the store"] += step.early
    outcome.counts["with work in flight"] += bool(in_flight(order))


def _die_at(order: Order, fault: Fault, outcome: Outcome) -> None:
    child = spawn(order, f"{fault.point}:{fault.passing}")
    try:
        died = child.ends_within(HANGS_SECONDS)
    finally:
        child.kill()
    if died and child.wait() == -SIGKILL:
        outcome.points[fault.point] += 1
        outcome.counts["deaths at fault points"] += 1
    else:
        ended = f"ended with {child.wait()}" if died else "went on"
        outcome.violations.append(Violation(WRONG, f"run {order.run} was to die at {fault.point}, and {ended}"))


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


def in_flight(order: Order) -> set[int]:
    """The client calls and the actions of a process that have begun and not ended."""
    begun: set[int] = set()
    for _, deed, number in read_diary(Path(order.folder), order.run):
        if deed in ("try", "start", "cancel"):
            begun.add(number)
        else:
            begun.discard(number)
    return begun


def count(history: History, outcome: Outcome) -> None:
    """What was done, as a history tells it."""
    counts, calls = outcome.counts, ("acknowledged", "refused", "canceled", "late")
    counts["client mutations answered"] += sum(line.deed in calls for line in history.lines)
    counts["client mutations cut off"] += len(set(history.numbers("try")) - _answered(history))
    counts["functions scheduled"] += len(history.jobs)
    counts["scheduled mutations run"] += sum(_has_run(job) for job in history.jobs)
    counts["actions started"] += len(history.numbers("start"))
    counts["actions interrupted"] += sum(job.error == INTERRUPTED for job in history.jobs)
    counts["canceled"] += sum(job.state == "canceled" for job in history.jobs)


def _answered(history: History) -> set[int]:
    return {*history.numbers("acknowledged"), *history.numbers("refused")}


def _has_run(job: Job) -> bool:
    return not job.is_action and job.state in ("success", "failed")
