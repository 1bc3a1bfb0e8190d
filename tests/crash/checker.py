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
    return [violation for rule in _RULES for violation in rule(history)]


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


def _everything_scheduled_ends(history: History) -> Iterator[Violation]:
    for job in history.jobs:
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


def _mutations_fail_only_on_purpose(history: History) -> Iterator[Violation]:
    for job in history.jobs:
        if job.is_action or job.state not in ("success", "failed"):
            continue
        if (job.name == "fail") != (job.state == "failed") or (job.error and ON_PURPOSE not in job.error):
            yield Violation(WRONG, f"{job.name} {job.number} is {job.state}: {job.error}")


def _actions_run_at_most_once(history: History) -> Iterator[Violation]:
    yield from _repeated(Counter(history.numbers("start")), TWICE, "start of action")
    yield from _repeated(Counter(history.numbers("end")), TWICE, "end of action")


def _actions_succeed_only_as_a_whole(history: History) -> Iterator[Violation]:
    starts, ends = set(history.numbers("start")), set(history.numbers("end"))
    jobs = {job.number for job in history.jobs}
    for job in (job for job in history.jobs if job.is_action and job.state == "success"):
        if job.number not in starts & ends or job.follow not in jobs:
            yield Violation(LOST, f"{job.name} {job.number} succeeded and did not do all of its work")
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


def _cancels_hold(history: History) -> Iterator[Violation]:
    jobs = {job.number: job for job in history.jobs}
    for number in history.numbers("canceled"):
        if number in jobs and jobs[number].state != "canceled":
            yield Violation(WRONG, f"the cancel of {number} was acknowledged, but it is {jobs[number].state}")
    for number in history.numbers("late"):
        if number in jobs and jobs[number].state not in ("success", "failed"):
            yield Violation(WRONG, f"{number} had completed when it was canceled, but is {jobs[number].state}")
    asked = set(history.numbers("cancel"))
    for job in history.jobs:
        if job.state == "canceled" and job.number not in asked and not _is_orphan(job, jobs):
            yield Violation(WRONG, f"{job.name} {job.number} is canceled, and nobody asked for it")


def _the_canceled_schedule_nothing(history: History) -> Iterator[Violation]:
    jobs = {job.number: job for job in history.jobs}
    for job in history.jobs:
        parent = jobs.get(job.parent or 0)
        if history.in_order and _is_orphan(job, jobs) and parent and parent.completed and job.state != "canceled":
            late = job.created - parent.completed
            if late > _SAME_MOMENT_MS:
                yield Violation(
                    WRONG, f"{job.name} {job.number} is {job.state}, scheduled {late:.1f} ms after its parent's cancel"
                )


def _nothing_runs_early(history: History) -> Iterator[Violation]:
    jobs = {job.number: job for job in history.jobs}
    for marker in history.markers:
        early = jobs[marker.number].scheduled - marker.created if marker.number in jobs else 0.0
        if early > _SAME_MOMENT_MS:
            yield Violation(WRONG, f"function {marker.number} ran {early:.1f} ms before its time")


def _is_orphan(job: Job, jobs: dict[int, Job]) -> bool:
    return job.parent in jobs and jobs[job.parent].state == "canceled"


def _repeated(counts: Counter[int], kind: str, what: str) -> Iterator[Violation]:
    for number, count in counts.items():
        if count > 1:
            yield Violation(kind, f"{count} times the {what} {number}")


_RULES: Final[Iterable[Callable[[History], Iterator[Violation]]]] = (
    _the_store_is_sound,
    _client_calls_happen_once,
    _schedules_are_part_of_their_transaction,
    _everything_scheduled_ends,
    _markers_belong_to_success,
    _the_counter_counts_the_markers,
    _the_index_has_every_marker,
    _what_fails_leaves_nothing,
    _mutations_fail_only_on_purpose,
    _actions_run_at_most_once,
    _actions_succeed_only_as_a_whole,
    _actions_fail_only_on_purpose_or_with_their_process,
    _cancels_hold,
    _the_canceled_schedule_nothing,
    _nothing_runs_early,
)
