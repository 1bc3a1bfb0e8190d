"""`python -m tests.crons.kills --engine postgres --kills 100`: kills crons at work, on one process or three nodes."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import apsw

from tests import postgres
from tests.crons.node import LOST_SECONDS, Node, Order
from tests.crons.slot_audit import Log, SlotAudit

POINTS: Final = (
    "cron.ticked",
    "batch.begun",
    "batch.ran",
    "commit.flushed",
    "commit.durable",
    "commit.answered",
    "job.claimed",
    "job.ran",
    "action.marked",
    "action.ran",
    "action.recorded",
)
"""What a process passes with every tick, every run, and every run of an action."""
NODES: Final = 3
_PASSINGS_MAX: Final = 30
_STUCK_SECONDS: Final = 60.0
_LOGS: Final = "t4__cron_job_logs"
_NOTES: Final = "t100_notes"  # the first table of the application
_Read = Callable[[str], list[tuple[int, dict[str, Any]]]]


class Outcome(NamedTuple):
    counts: Counter[str]
    violations: list[str]


class Campaign:
    """Kills on one store."""

    def __init__(self, store: str, read: _Read, folder: Path, seed: int) -> None:
        self._order = Order(store, time.time(), folder / "log")
        self._read = read
        self._rng = Random(seed)
        self._audit = SlotAudit()
        self._counts: Counter[str] = Counter()
        self._violations: list[str] = []

    def of_one_process(self, kills: int) -> Outcome:
        """Half of the kills at fault points, each in its turn; half at random moments."""
        for number in range(kills):
            if number % 2:
                self._kill()
            else:
                self._die_at(POINTS[number // 2 % len(POINTS)])
            self._audit.add(self._read(_LOGS))
        return self._drained([self._start()])

    def of_three_nodes(self, faults: int) -> Outcome:
        nodes = [self._start() for _ in range(NODES)]
        for _ in range(faults):
            place = self._rng.randrange(NODES)
            strike = self._rng.choices((self._replace, self._replace_at_point, self._stall), (4, 4, 2))[0]
            nodes[place] = strike(nodes[place])
            until = time.monotonic() + self._rng.uniform(0, 0.6)
            while time.monotonic() < until:
                self._audit.add(self._read(_LOGS))
                time.sleep(0.05)
        return self._drained(nodes)

    def _start(self, fault: str = "") -> Node:
        node = Node(self._order._replace(fault=fault))
        if not fault and not node.opens_within(_STUCK_SECONDS):
            self._violations.append("a process did not open the store")
        return node

    def _kill(self) -> None:
        node = self._start()
        time.sleep(self._rng.uniform(0, 0.5))
        self._killed("at random moments", node.kill())

    def _die_at(self, point: str) -> None:
        node = self._start(f"{point}:{self._rng.randint(1, _PASSINGS_MAX)}")
        self._killed(f"at {point}", node.dies_within(_STUCK_SECONDS))
        node.kill()

    def _killed(self, how: str, done: bool) -> None:
        if done:
            self._counts[how] += 1
        else:
            self._violations.append(f"a process that was to be killed {how} was not")

    def _replace(self, node: Node) -> Node:
        self._killed("at random moments", node.kill())
        return self._start()

    def _replace_at_point(self, node: Node) -> Node:
        """Have a process die at a fault point in the place of another."""
        self._killed("at random moments", node.kill())
        self._die_at(self._rng.choice(POINTS))
        return self._start()

    def _stall(self, node: Node) -> Node:
        """Stop it for a moment, or for longer than its lease."""
        beyond = self._rng.random() < 0.5
        node.stop()
        until = time.monotonic() + (LOST_SECONDS + 1.0 if beyond else self._rng.uniform(0.05, 0.5))
        while time.monotonic() < until:
            self._audit.add(self._read(_LOGS))
            time.sleep(0.05)
        node.go_on()
        self._counts["stopped beyond the lease" if beyond else "stopped for a moment"] += 1
        return node

    def _drained(self, nodes: list[Node]) -> Outcome:
        time.sleep(0.5)
        self._audit.add(self._read(_LOGS))
        before = nodes[0].rests()
        self._violations += [f"a process ended with {code}" for code in [node.ends() for node in nodes] if code]
        self._audit.add(self._read(_LOGS))
        notes = Counter(note["cron"] for _, note in self._read(_NOTES))
        self._violations += self._audit.check(before, notes)
        return Outcome(self._counts + self._audit.counts, self._violations)


def in_sqlite(folder: Path, kills: int, seed: int) -> Outcome:
    """Kill one process after the other, on a file."""
    file = folder / "data.db"

    def read(table: str) -> list[tuple[int, Log]]:
        if not file.exists():
            return []
        connection = apsw.Connection(str(file))
        try:
            rows: Any = connection.execute(f"SELECT id, document FROM {table}")
            return [(id, json.loads(document)) for id, document in rows]
        except apsw.SQLError:  # it was killed before there was any table
            return []
        finally:
            connection.close()

    return Campaign(f"sqlite:///{file}", read, folder, seed).of_one_process(kills)


def in_postgres(store: str, folder: Path, kills: int, seed: int, nodes: int = NODES) -> Outcome:
    """Kill one process after the other, or some of three nodes, on a schema."""
    from duly.errors import StoreError
    from tests.crash.nodes.probe import Probe  # it needs the driver

    probe = Probe(store)

    def read(table: str) -> list[tuple[int, Log]]:
        try:
            rows = probe.fetch(f"SELECT id, document FROM duly.{table}")
        except StoreError:  # there is no table yet
            rows = []
        return [(id, json.loads(document)) for id, document in rows]

    try:
        campaign = Campaign(store, read, folder, seed)
        return campaign.of_one_process(kills) if nodes == 1 else campaign.of_three_nodes(kills)
    finally:
        probe.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crons.kills", description="Kill crons at work and count.")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--nodes", type=int, choices=(1, NODES), default=NODES, help="on PostgreSQL (default: 3)")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="duly-crons-")))
        if options.engine == "sqlite":
            outcome = in_sqlite(folder, options.kills, options.seed)
        else:
            server = stack.enter_context(postgres.Server(durable=True))
            store = postgres.new_store(server.address())
            outcome = in_postgres(store, folder, options.kills, options.seed, options.nodes)
    for name, count in outcome.counts.items():
        print(f"{name:<30}{count:>10,}")
    print(f"{'violations':<30}{len(outcome.violations):>10,}")
    print(f"took {time.monotonic() - began:.0f} s")
    for violation in outcome.violations[:50]:
        print(violation)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
