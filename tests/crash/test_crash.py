"""Processes die at random moments and at every fault point: nothing is lost, doubled, run twice or stuck."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import apsw
import pytest

from duly.model.jobs import INTERRUPTED
from tests.crash.campaign import POINTS, RECOVERED, RESUMED, Fault, Kill, Outcome, rounds, too_slow, too_tame
from tests.crash.checker import DOUBLED, KINDS, LOST, RULES, STUCK, TWICE, WRONG, Violation, check
from tests.crash.child import ROOT
from tests.crash.history import History, Job, Line, Trace, read_history
from tests.crash.load import ON_PURPOSE
from tests.crash.report import add_to_tally, percentile

pytestmark = pytest.mark.crash


# The real thing, in an interpreter of its own: this one has threads, and what has threads must not fork.


def crash(*options: str) -> tuple[dict[str, int], str]:
    """Run `python -m tests.crash`, and return the counts it prints, and all of it."""
    command = [sys.executable, "-W", "error", "-m", "tests.crash", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0, "a crash broke something: see the complaints, and the seed"
    rows = re.findall(r"^ *(\D+?) {2,}([\d,]+) {2,}[\d,]+$", ended.stdout, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}, ended.stdout


def test_kills_at_random_moments_and_at_every_fault_point_lose_and_double_nothing() -> None:
    kills = 2 * len(POINTS)

    counts, output = crash("--kills", str(kills), "--seed", "30")

    assert counts["kills"] == kills
    assert [1] * len(POINTS) == [counts[f"at {point}"] for point in POINTS]
    assert counts["at random moments"] == len(POINTS)
    assert counts["with work in flight"] >= kills // 2
    assert counts["before it had recovered"]
    assert all(counts[name] for name in ("failed on purpose", "interrupted", "cancels undone"))
    assert all(counts[name] for name in ("before it was due", "when it was due", "while it ran", "at birth"))
    assert {counts.get(kind, 0) for kind in KINDS} == {0}
    assert {RECOVERED, RESUMED} == json.loads(output.splitlines()[-1])["milliseconds"].keys()


# What a run must prove, beside that nothing is broken.


def test_of_the_kills_half_are_at_random_and_the_others_at_each_fault_point_in_turn() -> None:
    steps = [step for steps in rounds(500, POINTS, seed=1) for step in steps]
    faults = Counter(step.point for step in steps if isinstance(step, Fault))

    assert [250, 250] == [sum(isinstance(step, kind) for step in steps) for kind in (Kill, Fault)]
    assert set(POINTS) == faults.keys()
    assert 1 >= max(faults.values()) - min(faults.values())


def test_the_same_seed_draws_the_same_kills() -> None:
    assert list(rounds(120, POINTS, seed=7)) == list(rounds(120, POINTS, seed=7))
    assert list(rounds(120, POINTS, seed=7)) != list(rounds(120, POINTS, seed=8))


def test_a_run_that_missed_a_fault_point_fails() -> None:
    outcome = Outcome()
    outcome.counts.update({f"at {point}": 1 for point in POINTS if point != "job.ran"})

    assert ["no process died at job.ran: more kills, or a load that passes it"] == [
        violation.text for violation in too_tame(outcome, POINTS)
    ]


def test_a_run_whose_kills_met_idle_processes_fails() -> None:
    outcome = Outcome()
    outcome.counts.update({"while it worked": 10, "with work in flight": 7})

    assert ["only 7 of 10 processes that worked had work in flight when they died"] == [
        violation.text for violation in too_tame(outcome, ())
    ]


def test_a_run_whose_processes_are_slow_to_resume_fails() -> None:
    outcome = Outcome()
    outcome.times[RESUMED] += [*[100.0] * 98, 2_001.0, 2_001.0]

    assert ["2,001 ms from start to first completed function (p99), expected 2,000"] == [
        violation.text for violation in too_slow(outcome)
    ]
    outcome.times[RESUMED].append(100.0)
    outcome.times[RESUMED].remove(2_001.0)
    assert [] == [*too_slow(outcome)]


def test_a_store_that_was_tampered_with_is_found_out(tmp_path: Path) -> None:
    _, output = crash("--kills", "1", "--seed", "5", "--points", "none", "--keep")
    sound = Path(re.findall(r"^kept: (.+)$", output, re.MULTILINE)[0])
    tampering = {
        LOST: "DELETE FROM t{markers}_markers WHERE id = (SELECT min(id) FROM t{markers}_markers)",
        DOUBLED: "INSERT INTO t{markers}_markers SELECT max(id) + 1, document FROM t{markers}_markers",
        STUCK: "UPDATE scheduled_functions SET state = 'pending', due = 0, completed_time = NULL, error = NULL"
        " WHERE id = (SELECT min(id) FROM scheduled_functions)",
        WRONG: "UPDATE t{markers}_markers SET document = replace(document, '\"number\":', '\"number\":9')",
    }
    try:
        assert [] == check(read_history(sound, 1))
        for kind, sql in tampering.items():
            copy = shutil.copytree(sound, tmp_path / kind)
            tamper(copy / "data.db", sql)
            assert kind in {violation.kind for violation in check(read_history(copy, 1))}
    finally:
        shutil.rmtree(sound)


def tamper(store: Path, sql: str) -> None:
    connection = apsw.Connection(str(store))
    markers = connection.execute("SELECT number FROM duly_tables WHERE name = 'markers'").get
    connection.execute(sql.format(markers=markers))
    connection.close()


# The checker can fail: histories made by hand.


def a_sound_history() -> History:
    """Two processes: the first was killed while action 5 ran, the second, born at 8, let everything end.

    Client call 1 scheduled mutations 2 (with child 3), 4 (which fails), 9 (which cancels 13 and comes late for 4) and 13,
    action 5, action 6 (with follow 7), 8, which was canceled, and action 10, which canceled itself and then left a marker
    and scheduled 11 and 12. Mutation 4 was run again.
    """
    first = ["born 0", "try 1", "acknowledged 1", "try 20", "refused 20", "cancel 8", "canceled 8", "undone 2"]
    first += ["start 5", "try 21"]
    second = ["born 8", "start 6", "end 6", "cancel 2", "late 2", "start 10", "cancel 10", "canceled 10", "end 10"]
    second += ["retry 4", "retried 4"]
    return History(
        jobs=[
            Job(2, "mark", "success", 0.0, 0.0, completed=10.0),
            Job(3, "mark", "success", 10.0, 10.1, parent=2, completed=20.0),
            Job(4, "fail", "failed", 0.0, 0.2, error=ON_PURPOSE, completed=10.0),
            Job(5, "act", "failed", 0.0, 0.3, follow=50, error=INTERRUPTED, completed=9.0),
            Job(6, "act", "success", 0.0, 0.4, follow=7, completed=10.0),
            Job(7, "mark", "success", 0.0, 9.5, parent=6, completed=10.0),
            Job(8, "mark", "canceled", 0.0, 0.5, completed=5.0),
            Job(9, "nest", "success", 0.0, 0.6, completed=10.0),
            Job(10, "act", "canceled", 9.0, 0.7, follow=12, completed=14.0),
            Job(11, "mark", "canceled", 0.0, 16.0, parent=10, completed=16.0),
            Job(12, "mark", "canceled", 0.0, 17.0, parent=10, completed=17.0),
            Job(13, "mark", "canceled", 30.0, 0.8, completed=10.0),
        ],
        effects=[Trace(1, (2, 4, 5, 6, 8, 9, 10, 13))],
        markers=[
            Trace(2, (3,), 10.0),
            Trace(9, (), 10.1, canceled=(13,), late=(4,)),
            Trace(7, (), 10.2),
            Trace(6, (), 9.5),
            Trace(10, (11,), 16.0),
            Trace(3, (), 20.0),
        ],
        counters=[("all", 6)],
        indexed=[2, 3, 6, 7, 9, 10],
        lines=[line(run, text) for run, lines in enumerate((first, second)) for text in lines],
        undisturbed=frozenset({1}),
        retries=[Job(4, "fail", "failed", 18.0, 18.0, error=ON_PURPOSE, completed=19.0)],
    )


def line(run: int, text: str) -> Line:
    deed, number = text.split()
    return Line(run, deed, int(number))


def with_job(number: int, **changes: object) -> Callable[[History], History]:
    return lambda h: h._replace(jobs=[job._replace(**changes) if job.number == number else job for job in h.jobs])


def without_job(number: int) -> Callable[[History], History]:
    return lambda h: h._replace(jobs=[job for job in h.jobs if job.number != number])


def with_marker(marker: Trace) -> Callable[[History], History]:
    return lambda h: h._replace(
        markers=[*h.markers, marker],
        counters=[("all", h.counters[0][1] + 1)],
        indexed=sorted([*h.indexed, marker.number]),
    )


def without_marker(number: int) -> Callable[[History], History]:
    return lambda h: h._replace(
        markers=[marker for marker in h.markers if marker.number != number],
        counters=[("all", h.counters[0][1] - 1)],
        indexed=[other for other in h.indexed if other != number],
    )


def without_lines(number: int) -> Callable[[History], History]:
    return lambda h: h._replace(lines=[line for line in h.lines if line.number != number])


def with_lines(run: int, *texts: str) -> Callable[[History], History]:
    return lambda h: h._replace(lines=[*h.lines, *(line(run, text) for text in texts)])


CORRUPTIONS: dict[str, tuple[str, str, Callable[[History], History]]] = {
    "a marker of mutation 9 is doubled": (DOUBLED, "2 times the marker of 9", with_marker(Trace(9, (), 10.0))),
    "the marker of mutation 9 is lost": (LOST, "nest 9 succeeded and left no marker", without_marker(9)),
    "an acknowledged client call is lost": (
        LOST,
        "client call 1 was acknowledged",
        lambda h: h._replace(effects=[], jobs=[], markers=[]),
    ),
    "a client call happened twice": (
        DOUBLED,
        "2 times the effect of the client call 1",
        lambda h: h._replace(effects=h.effects * 2),
    ),
    "a client call that raised left an effect": (
        WRONG,
        "client call 20 raised",
        lambda h: h._replace(effects=[*h.effects, Trace(20)]),
    ),
    "a client call that the store gave up left an effect": (
        WRONG,
        "client call 22 raised",
        lambda h: with_lines(1, "try 22", "failed 22")(h._replace(effects=[*h.effects, Trace(22)])),
    ),
    "a client call that nobody made": (
        WRONG,
        "client call 22 was never made",
        lambda h: h._replace(effects=[*h.effects, Trace(22)]),
    ),
    "a schedule of a committed call is lost": (LOST, "function 8 was scheduled", without_job(8)),
    "the child of a mutation is lost": (LOST, "function 3 was scheduled", without_job(3)),
    "a schedule is doubled": (DOUBLED, "2 times the schedule of 8", lambda h: h._replace(jobs=[*h.jobs, h.jobs[6]])),
    "a schedule of a call that did not commit": (
        WRONG,
        "function 30 was scheduled by a call that did not commit",
        lambda h: h._replace(jobs=[*h.jobs, Job(30, "mark", "canceled", 0.0, 0.0, completed=1.0)]),
    ),
    "a retry that was acknowledged is lost": (
        LOST,
        "the retry of 4 was acknowledged, and there is none",
        lambda h: h._replace(retries=[]),
    ),
    "a retry is doubled": (DOUBLED, "2 times the retry of 4", lambda h: h._replace(retries=[*h.retries] * 2)),
    "a retry that nobody asked for": (
        WRONG,
        "4 was run again, and nobody asked for it",
        lambda h: h._replace(lines=[line for line in h.lines if line.deed != "retry"]),
    ),
    "a retry succeeded where it must fail": (
        WRONG,
        "the retry of fail 4 is success: None",
        lambda h: h._replace(retries=[job._replace(state="success", error=None) for job in h.retries]),
    ),
    "a retry is left pending": (
        STUCK,
        "fail 4 is pending",
        lambda h: h._replace(retries=[job._replace(state="pending", error=None) for job in h.retries]),
    ),
    "a function is left pending": (STUCK, "nest 9 is pending", with_job(9, state="pending", completed=None)),
    "an action is left in progress": (
        STUCK,
        "act 5 is inProgress",
        with_job(5, state="inProgress", error=None, completed=None),
    ),
    "an action started twice in one process": (TWICE, "2 times the start of action 6", with_lines(1, "start 6")),
    "an interrupted action ran again": (TWICE, "2 times the start of action 5", with_lines(1, "start 5", "end 5")),
    "an action ended twice": (TWICE, "2 times the end of action 6", with_lines(1, "end 6")),
    "an action started after its cancel was acknowledged": (
        WRONG,
        "action 10 started after its cancel was acknowledged",
        lambda h: h._replace(lines=[line(0, "canceled 10"), *h.lines]),
    ),
    "an action started that had completed in an earlier process": (
        WRONG,
        "action 6 started in a process that was born after it was completed",
        with_job(6, completed=5.0),
    ),
    "an action started before one that was due before it": (
        WRONG,
        "act 6 ran after act 10, due later",
        lambda h: h._replace(lines=[line(1, "start 10"), *h.lines]),
    ),
    "an action started before one that was scheduled for at once before it": (
        WRONG,
        "act 6 ran after act 10, scheduled later",
        lambda h: with_job(10, scheduled=0.0)(h._replace(lines=[line(1, "start 10"), *h.lines])),
    ),
    "an action succeeded without having run": (LOST, "act 6 is success and did not do all", without_lines(6)),
    "an action's last step is lost": (LOST, "act 6 is success and did not do all", without_job(7)),
    "an action failed on purpose before its end": (
        LOST,
        "act_and_fail 6 is failed and did not do all",
        lambda h: with_job(6, name="act_and_fail", state="failed", error=ON_PURPOSE)(without_lines(6)(h)),
    ),
    "an action is interrupted in the process that started it": (
        WRONG,
        "act 5 is interrupted, though no process died meanwhile",
        with_job(5, completed=6.0),
    ),
    "an action is interrupted that was due only after the last death": (
        WRONG,
        "act 5 is interrupted, though no process died meanwhile",
        lambda h: with_job(5, scheduled=11.0, completed=12.0)(without_lines(5)(h)),
    ),
    "an action died and is not interrupted": (
        WRONG,
        "act 5 died with its process",
        with_job(5, error="some other error"),
    ),
    "an action is interrupted in a process that nothing happened to": (
        WRONG,
        "nothing happened to its process",
        with_job(6, state="failed", error=INTERRUPTED),
    ),
    "an action is given up by a store that was always there": (
        WRONG,
        "act 6 failed: StoreError: gone",
        with_job(6, state="failed", error="StoreError: gone"),
    ),
    "a mutation that failed left its marker": (
        WRONG,
        "fail 4 is failed and left a marker",
        with_marker(Trace(4, (), 10.0)),
    ),
    "a mutation that was canceled left its marker": (
        WRONG,
        "mark 8 is canceled and left a marker",
        with_marker(Trace(8, (), 10.0)),
    ),
    "a mutation failed for no reason of its own": (
        WRONG,
        "nest 9 is failed: disk I/O error",
        with_job(9, state="failed", error="disk I/O error"),
    ),
    "a failing sub-transaction left a marker": (
        WRONG,
        "marker -9 was written by what failed",
        with_marker(Trace(-9, (), 10.0)),
    ),
    "the counter missed a marker": (LOST, "the counter says 5, of 6", lambda h: h._replace(counters=[("all", 5)])),
    "the counter counted twice": (DOUBLED, "the counter says 7, of 6", lambda h: h._replace(counters=[("all", 7)])),
    "a counter is doubled": (
        DOUBLED,
        "there are 2 counters all",
        lambda h: h._replace(counters=[("all", 2), ("all", 4)]),
    ),
    "the index misses a marker": (WRONG, "the index has 4 keys", lambda h: h._replace(indexed=[2, 3, 6, 7])),
    "a cancel was acknowledged and forgotten": (
        WRONG,
        "the cancel of 9 was acknowledged",
        with_lines(1, "cancel 9", "canceled 9"),
    ),
    "a cancel came late for what was canceled": (
        WRONG,
        "8 had completed when it was canceled",
        with_lines(1, "late 8"),
    ),
    "a function was canceled by nobody": (WRONG, "nobody asked for it", with_job(9, state="canceled")),
    "the cancel of a mutation that committed is forgotten": (
        WRONG,
        "the cancel of 13 was acknowledged, but it is success",
        with_job(13, state="success"),
    ),
    "the cancel of a mutation came late for what was canceled": (
        WRONG,
        "4 had completed when it was canceled, but is canceled",
        with_job(4, state="canceled", error=None),
    ),
    "the cancel of a call that failed was not undone": (
        WRONG,
        "mark 7 is canceled, and nobody asked for it",
        lambda h: with_job(7, state="canceled")(with_lines(1, "undone 7")(h)),
    ),
    "what a canceled action scheduled ran": (
        WRONG,
        "mark 11 is success and not from the start, scheduled 2.0 ms after its parent's cancel",
        with_job(11, state="success"),
    ),
    "what a canceled action scheduled lived for a while": (
        WRONG,
        "mark 12 is canceled and not from the start, scheduled 3.0 ms after its parent's cancel",
        with_job(12, completed=19.0),
    ),
    "what an action scheduled before its cancel was canceled, too": (
        WRONG,
        "mark 11 is canceled, and nobody asked for it",
        with_job(11, created=12.0, completed=12.0),
    ),
    "a function ran before its time": (WRONG, "function 9 ran 4.9 ms before its time", with_job(9, scheduled=15.0)),
    "a function ran before one that was due before it": (
        WRONG,
        "nest 9 ran after mark 7",
        lambda h: with_marker(Trace(7, (), 10.05))(without_marker(7)(h)),
    ),
    "a function ran before one that was scheduled for at once before it": (
        WRONG,
        "mark 2 ran after nest 9",
        lambda h: with_marker(Trace(9, (), 9.9))(without_marker(9)(h)),
    ),
    "the store is damaged": (
        WRONG,
        "the store is damaged: row 3",
        lambda h: h._replace(integrity="row 3 missing from index"),
    ),
}


def test_a_sound_history_breaks_no_rule() -> None:
    assert [] == check(a_sound_history())


def test_an_action_may_be_given_up_by_a_store_that_was_gone_as_other_calls_were() -> None:
    gone = with_lines(1, "try 22", "failed 22")(a_sound_history())

    assert [] == check(with_job(6, state="failed", error="StoreError: gone")(gone))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_history_is_found_out(name: str) -> None:
    kind, complaint, corrupt = CORRUPTIONS[name]

    found = check(corrupt(a_sound_history()))

    assert [True for violation in found if violation.kind == kind and complaint in violation.text]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_some_corruption(rule: Callable[[History], Iterable[Violation]]) -> None:
    assert any([*rule(corrupt(a_sound_history()))] for _, _, corrupt in CORRUPTIONS.values())


def test_the_tally_adds_up_the_runs(tmp_path: Path) -> None:
    add_to_tally(Counter(kills=30, lost=0, runs=1), tmp_path / "tally.json")
    summed = add_to_tally(Counter(kills=500, lost=1, runs=1), tmp_path / "tally.json")

    assert {"kills": 530, "lost": 1, "runs": 2} == dict(summed)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [1, 50, 99, 100] == [percentile([*range(100, 0, -1)], share) for share in (0, 0.5, 0.99, 1)]
