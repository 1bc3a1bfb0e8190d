"""The invariants, as rules over a history: each tells what it finds broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from duly.model.jobs import INTERRUPTED
from tests.crash.history import History, Job
from tests.crash.load import ON_PURPOSE

LOST: Final = "lost"
DOUBLED: Final = "doubled"
TWICE: Final = "run twice"
STUCK: Final = "stuck"
WRONG: Final = "wrong"
KINDS: Final = (LOST, DOUBLED, TWICE, STUCK, WRONG)

_SAME_MOMENT_MS: Final = 1.0  # two readings of the clock and of an id's tick may lie this far apart


class Violation(NamedTuple):
    kind: str
    text: str


def check(history: History) -> list[Violation]:
    """Everything that is broken in a history."""
    return [violation for rule in RULES for violation in rule(history)]


def _the_store_is_sound(history: History) -> Iterator[Violation]:
    if history.integrity != "ok":
        yield Violation(WRONG, f"the store is damaged: {history.integrity}")


def _client_calls_happen_once(history: History) -> Iterator[Violation]:
    effects = Counter(effect.number for effect in history.effects)
    yield from _repeated(effects, DOUBLED, "effect of the client call")
    for number in set(history.numbers("acknowledged")) - effects.keys():
        yield Violation(LOST, f"client call {number} was acknowledged and left no effect")
    for number in {*history.numbers("refused"), *history.numbers("failed")} & effects.keys():
        yield Violation(WRONG, f"client call {number} raised and left an effect")
    for number in effects.keys() - set(history.numbers("try")):
        yield Violation(WRONG, f"client call {number} was never made and left an effect")


def _schedules_are_part_of_their_transaction(history: History) -> Iterator[Violation]:
    """A function is scheduled exactly if the call that schedules it has left its trace."""
    jobs = {job.number: job for job in history.jobs}
    yield from _repeated(Counter(job.number for job in history.jobs), DOUBLED, "schedule of")
    promised: dict[int, int | None] = {n: None for effect in history.effects for n in effect.scheduled}
    promised |= {n: marker.number for marker in history.markers for n in marker.scheduled}
    for number in promised.keys() - jobs.keys():
        yield Violation(LOST, f"function {number} was scheduled by a call that committed, and does not exist")
    promised |= {job.follow: job.number for job in history.jobs if job.follow is not None}
    for number, job in jobs.items():
        if promised.get(number, number) != job.parent:
            yield Violation(WRONG, f"function {number} was scheduled by a call that did not commit")


def _retries_happen_once(history: History) -> Iterator[Violation]:
    retries = Counter(job.number for job in history.retries)
    yield from _repeated(retries, DOUBLED, "retry of")
    for number in set(history.numbers("retried")) - retries.keys():
        yield Violation(LOST, f"the retry of {number} was acknowledged, and there is none")
    for number in retries.keys() - set(history.numbers("retry")):
        yield Violation(WRONG, f"{number} was run again, and nobody asked for it")
    for job in history.retries:
        if job.state in ("success", "canceled") or (job.error and ON_PURPOSE not in job.error):
            yield Violation(WRONG, f"the retry of {job.name} {job.number} is {job.state}: {job.error}")


def _everything_scheduled_ends(history: History) -> Iterator[Violation]:
    for job in [*history.jobs, *history.retries]:
        if job.state not in ("success", "failed", "canceled"):
            yield Violation(STUCK, f"{job.name} {job.number} is {job.state}")


def _markers_belong_to_success(history: History) -> Iterator[Violation]:
    markers = Counter(marker.number for marker in history.markers)
    yield from _repeated(markers, DOUBLED, "marker of")
    for job in history.jobs:
        if job.state == "success" and job.number not in markers:
            yield Violation(LOST, f"{job.name} {job.number} succeeded and left no marker")
        # An action that failed or was canceled may have called its mutation before.
        if job.state != "success" and job.number in markers and not job.is_action:
            yield Violation(WRONG, f"{job.name} {job.number} is {job.state} and left a marker")
    for number in markers.keys() - {job.number for job in history.jobs}:
        yield Violation(WRONG, f"a marker of {number}, which was never scheduled")


def _the_counter_counts_the_markers(history: History) -> Iterator[Violation]:
    counted, markers = sum(count for _, count in history.counters), len(history.markers)
    for name, count in Counter(name for name, _ in history.counters).items():
        if count > 1:
            yield Violation(DOUBLED, f"there are {count} counters {name}")
    if counted != markers:
        yield Violation(LOST if counted < markers else DOUBLED, f"the counter says {counted}, of {markers} markers")


def _the_index_has_every_marker(history: History) -> Iterator[Violation]:
    if history.indexed != sorted(marker.number for marker in history.markers):
        yield Violation(
            WRONG, f"the index has {len(history.indexed)} keys, not those of the {len(history.markers)} markers"
        )


def _what_fails_leaves_nothing(history: History) -> Iterator[Violation]:
    for what, found in (("effect", history.effects), ("marker", history.markers), ("function", history.jobs)):
        for number in (one.number for one in found if one.number < 0):
            yield Violation(WRONG, f"{what} {number} was written by what failed")


def _mutations_run_in_the_order_in_which_they_are_due(history: History) -> Iterator[Violation]:
    jobs = {job.number: job for job in history.jobs if not job.is_action}
    markers = sorted(history.markers, key=lambda marker: marker.created)
    if history.in_order:
        yield from _disordered((jobs[marker.number], marker.created) for marker in markers if marker.number in jobs)


def _actions_start_in_the_order_in_which_they_are_due(history: History) -> Iterator[Violation]:
    """Those of one process, but for those in threads."""
    jobs = {job.number: job for job in history.jobs if job.is_action and job.name != "act_in_thread"}
    starts = [line for line in history.lines if line.deed == "start" and line.number in jobs and history.in_order]
    for run in {line.run for line in starts}:
        of_run = (jobs[line.number] for line in starts if line.run == run)
        yield from _disordered((job, job.due) for job in of_run)  # when it started is not known: not before that


def _disordered(runs: Iterable[tuple[Job, float]]) -> Iterator[Violation]:
    """Those that run after one that is scheduled for later, or for the same time and was so later.

    Each comes with a time at which it had not begun yet. Only what waited then could have run before it: what is
    scheduled for a time that has passed is due before what is there by then, and cannot run before what has run.
    """
    ran: list[tuple[Job, float]] = []
    twins: dict[float, Job] = {}
    for job, moment in runs:
        twin = twins.setdefault(job.scheduled, job)
        time, created = job.scheduled + _SAME_MOMENT_MS, job.created + _SAME_MOMENT_MS
        for other, began in ran:
            if time < other.scheduled and created < began:
                yield Violation(WRONG, f"{job.name} {job.number} ran after {other.name} {other.number}, due later")
                break
        if job.created < twin.created:
            yield Violation(WRONG, f"{job.name} {job.number} ran after {twin.name} {twin.number}, scheduled later")
        twins[job.scheduled] = job
        ran.append((job, moment))


def _mutations_fail_only_on_purpose(history: History) -> Iterator[Violation]:
    for job in history.jobs:
        if job.is_action or job.state not in ("success", "failed"):
            continue
        if (job.name == "fail") != (job.state == "failed") or (job.error and ON_PURPOSE not in job.error):
            yield Violation(WRONG, f"{job.name} {job.number} is {job.state}: {job.error}")


def _actions_run_at_most_once(history: History) -> Iterator[Violation]:
    yield from _repeated(Counter(history.numbers("start")), TWICE, "start of action")
    yield from _repeated(Counter(history.numbers("end")), TWICE, "end of action")


def _actions_end_only_as_a_whole(history: History) -> Iterator[Violation]:
    """Those that succeed, and those that fail on purpose, which they do at the very end."""
    starts, ends = set(history.numbers("start")), set(history.numbers("end"))
    jobs, markers = {job.number for job in history.jobs}, {marker.number for marker in history.markers}
    for job in history.jobs:
        is_whole = job.is_action and (job.state == "success" or ON_PURPOSE in (job.error or ""))
        if is_whole and not (job.number in starts & ends & markers and job.follow in jobs):
            yield Violation(LOST, f"{job.name} {job.number} is {job.state} and did not do all of its work")
    for number in starts - {job.number for job in history.jobs if job.is_action}:
        yield Violation(WRONG, f"action {number} started and was never scheduled")


def _actions_fail_only_on_purpose_or_with_their_process(history: History) -> Iterator[Violation]:
    started = {line.number: line.run for line in history.lines if line.deed == "start"}
    ends = set(history.numbers("end"))
    gone = history.numbers("failed") or history.numbers("unknown")  # the store was, so long that calls were given up
    for job in (job for job in history.jobs if job.is_action):
        interrupted = job.error == INTERRUPTED
        on_purpose = job.name == "act_and_fail" and ON_PURPOSE in (job.error or "")
        given_up = gone and (job.error or "").startswith(("StoreError: ", "StoreLostError: "))
        if job.state == "failed" and not (interrupted or on_purpose or given_up):
            yield Violation(WRONG, f"{job.name} {job.number} failed: {job.error}")
        if job.name == "act_and_fail" and job.state == "success":
            yield Violation(WRONG, f"{job.name} {job.number} succeeded")
        if interrupted and started.get(job.number) in history.undisturbed:
            yield Violation(WRONG, f"{job.name} {job.number} is interrupted, but nothing happened to its process")
        cut_off = job.number in started and job.number not in ends
        if cut_off and not (interrupted or given_up) and job.state != "canceled":
            yield Violation(WRONG, f"{job.name} {job.number} died with its process and is {job.state}, not interrupted")


def _actions_are_interrupted_only_by_a_death(history: History) -> Iterator[Violation]:
    """An interrupted action has been due before a process was born, and was found by that one or a later one."""
    births = _births(history)
    started = {line.number: line.run for line in history.lines if line.deed == "start"}
    for job in history.jobs:
        if job.error == INTERRUPTED and job.completed is not None and births:
            finder = max((run for run, born in births.items() if born <= job.completed + _SAME_MOMENT_MS), default=0)
            if started.get(job.number, finder - 1) >= finder or job.due > births.get(finder, 0.0) + _SAME_MOMENT_MS:
                yield Violation(WRONG, f"{job.name} {job.number} is interrupted, though no process died meanwhile")


def _what_has_ended_does_not_start(history: History) -> Iterator[Violation]:
    """Not after its cancel was acknowledged, and not in a process that was born later."""
    births, canceled = _births(history), dict[int, int]()
    # But for those in threads: one that was marked as started may still wait for its thread.
    jobs = {job.number: job for job in history.jobs if job.name != "act_in_thread"}
    for run, deed, number in history.lines:
        if deed == "canceled":
            canceled.setdefault(number, run)
        elif deed != "start" or number not in jobs:
            continue
        elif number in canceled and (history.in_order or canceled[number] == run):
            yield Violation(WRONG, f"action {number} started after its cancel was acknowledged")
        else:
            completed = jobs[number].completed
            if completed is not None and completed + _SAME_MOMENT_MS < births.get(run, 0.0):
                yield Violation(WRONG, f"action {number} started in a process that was born after it was completed")


def _cancels_hold(history: History) -> Iterator[Violation]:
    jobs, traces = {job.number: job for job in history.jobs}, [*history.effects, *history.markers]
    committed = {number for trace in traces for number in trace.canceled}
    for number in {*history.numbers("canceled"), *committed}:
        if number in jobs and jobs[number].state != "canceled":
            yield Violation(WRONG, f"the cancel of {number} was acknowledged, but it is {jobs[number].state}")
    for number in {*history.numbers("late"), *(number for trace in traces for number in trace.late)}:
        if number in jobs and jobs[number].state not in ("success", "failed"):
            yield Violation(WRONG, f"{number} had completed when it was canceled, but is {jobs[number].state}")
    asked = {*history.numbers("cancel"), *committed}
    for job in history.jobs:
        if job.state == "canceled" and job.number not in asked and not is_born_canceled(job, jobs, history.in_order):
            yield Violation(WRONG, f"{job.name} {job.number} is canceled, and nobody asked for it")


def _the_canceled_schedule_nothing(history: History) -> Iterator[Violation]:
    """What an action schedules after its cancel never lives."""
    jobs = {job.number: job for job in history.jobs}
    for job in history.jobs if history.in_order else ():
        parent = jobs.get(job.parent or 0)
        if parent is None or parent.state != "canceled" or parent.completed is None:
            continue
        late = job.created - parent.completed
        if late > _SAME_MOMENT_MS and not is_born_canceled(job, jobs, history.in_order):
            text = f"{job.name} {job.number} is {job.state} and not from the start, scheduled {late:.1f} ms after its"
            yield Violation(WRONG, f"{text} parent's cancel")


def _nothing_runs_early(history: History) -> Iterator[Violation]:
    jobs = {job.number: job for job in history.jobs}
    for marker in history.markers:
        early = jobs[marker.number].scheduled - marker.created if marker.number in jobs else 0.0
        if early > _SAME_MOMENT_MS:
            yield Violation(WRONG, f"function {marker.number} ran {early:.1f} ms before its time")


def is_born_canceled(job: Job, jobs: dict[int, Job], in_order: bool) -> bool:
    """Whether it was scheduled by an action that was canceled before, and did not live."""
    parent = jobs.get(job.parent or 0)
    if job.state != "canceled" or job.completed is None or parent is None or parent.state != "canceled":
        return False
    is_later = not in_order or (parent.completed or 0.0) <= job.created + _SAME_MOMENT_MS
    return is_later and job.completed <= job.created + _SAME_MOMENT_MS


def _births(history: History) -> dict[int, float]:
    """When each process began, where they came one after the other."""
    return {line.run: float(line.number) for line in history.lines if line.deed == "born" and history.in_order}


def _repeated(counts: Counter[int], kind: str, what: str) -> Iterator[Violation]:
    for number, count in counts.items():
        if count > 1:
            yield Violation(kind, f"{count} times the {what} {number}")


RULES: Final[Iterable[Callable[[History], Iterator[Violation]]]] = (
    _the_store_is_sound,
    _client_calls_happen_once,
    _schedules_are_part_of_their_transaction,
    _retries_happen_once,
    _everything_scheduled_ends,
    _markers_belong_to_success,
    _the_counter_counts_the_markers,
    _the_index_has_every_marker,
    _what_fails_leaves_nothing,
    _mutations_fail_only_on_purpose,
    _mutations_run_in_the_order_in_which_they_are_due,
    _actions_start_in_the_order_in_which_they_are_due,
    _actions_run_at_most_once,
    _actions_end_only_as_a_whole,
    _actions_fail_only_on_purpose_or_with_their_process,
    _actions_are_interrupted_only_by_a_death,
    _what_has_ended_does_not_start,
    _cancels_hold,
    _the_canceled_schedule_nothing,
    _nothing_runs_early,
)
