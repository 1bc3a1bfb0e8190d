"""What happens to the nodes and to PostgreSQL, drawn by a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random
from signal import SIGCONT, SIGSTOP
from typing import Final, Literal

from duly.faults import POINTS
from duly.limits import NODE_FRESH_SECONDS, STORE_LOST_SECONDS_MAX
from tests.crash.campaign import Outcome
from tests.crash.nodes.cluster import Cluster, Node, Trouble, until
from tests.crash.nodes.node import LOST_SECONDS
from tests.crash.nodes.probe import EVERYTHING, Probe, Share
from tests.nodes.proxy import Loss

STUCK_SECONDS: Final = 60.0
"""What has not come after that long does not come any more."""
SLOW_SECONDS: Final = 1.7
"""What takes longer is worth a look."""
SETTLES_SECONDS: Final = 3.0
"""So long it may take until all nodes know of all nodes, after one has come back."""
TAKEN_OVER: Final = "loss of a node to first mutation of its part"
RESUMED: Final = "restart of PostgreSQL to first mutation"
ALL_RESUMED: Final = "restart of PostgreSQL to a commit of every node"
GONE_FOR_LONG: Final = "PostgreSQL gone longer than calls wait"

_OPENING: Final = ("schema.ready", "schema.applied", "recovery.begun")  # each process passes them once
_NOT_PASSED: Final = (
    "job.refused",  # the disk of the server is not full
    "jobs.swept",  # nothing is old enough
    "requests.swept",  # there is no remote client
    "executor.paused",  # nobody pauses
    "cron.ticked",  # there is no cron; tests/crons/kills.py dies there
)
"""Fault points that nodes do not pass while they work, beside those that they pass while they open the store."""
_WORKING: Final = tuple(
    point for point in POINTS if not point.startswith(("schema.", "recovery.")) and point not in _NOT_PASSED
)
_PASSINGS_MAX: Final = 8
_OPENING_SHARE: Final = 0.3
_DURING_SHARE: Final = 0.3
_SHORT: Final = ("connections cut", "commit: answer lost", "PostgreSQL stopped, immediate")


class Faults:
    """Strikes, and sees to it that what was struck comes back."""

    def __init__(self, cluster: Cluster, probe: Probe, chance: Random, outcome: Outcome) -> None:
        self._cluster = cluster
        self._probe = probe
        self._chance = chance
        self._outcome = outcome
        self._down: set[Node] = set()
        """Those that cannot do anything now."""
        self._acts: dict[str, Callable[[], None]] = {
            "node killed": self._kill,
            "node died at a fault point": self._die,
            "node stopped beyond its lease": lambda: self._stop(LOST_SECONDS + chance.uniform(0.3, 1.5)),
            "node stopped for a moment": lambda: self._stop(chance.uniform(0.1, LOST_SECONDS - 0.5)),
            "node left and came back": self._leave,
            "connections cut": lambda: self._victim().proxy.cut(),
            "connections silent": self._silence,
            "commit: request lost": lambda: self._lose_commit("request"),
            "commit: answer lost": lambda: self._lose_commit("answer"),
            "commit: request late": lambda: self._lose_commit("late"),
            "PostgreSQL killed": lambda: self._restart("kill"),
            "PostgreSQL stopped, immediate": lambda: self._restart("immediate"),
            "PostgreSQL stopped, fast": lambda: self._restart("fast"),
            GONE_FOR_LONG: lambda: self._restart("kill", STORE_LOST_SECONDS_MAX + 3.0),
        }

    def strike(self, kind: str) -> None:
        """Let a fault happen, and wait until its consequences are seen."""
        self._cluster.note(kind)
        self._acts[kind]()
        self._outcome.counts[kind] += 1
        self._outcome.counts["faults"] += 1

    # What happens to a node.

    def _kill(self) -> None:
        victim = self._victim()
        with self._struck(victim) as share:
            victim.kill()
            self._taken_over(victim, share)
        if self._chance.random() < _OPENING_SHARE:
            point = self._chance.choice(_OPENING)
            self._cluster.start(victim, f"{point}:1")
            self._must_die(victim, point)
        self._cluster.start(victim)

    def _die(self) -> None:
        victim = self._victim()
        point = self._chance.choice(_WORKING)
        with self._struck(victim) as share:
            victim.tell(f"{point}:{self._chance.randint(1, _PASSINGS_MAX)}")
            self._must_die(victim, point)
            self._taken_over(victim, share)
        self._cluster.start(victim)

    def _must_die(self, victim: Node, point: str) -> None:
        if not victim.dies(STUCK_SECONDS):
            raise Trouble(f"{victim} was to die at {point}, and did not")
        self._outcome.points[point] += 1

    def _stop(self, seconds: float) -> None:
        victim = self._victim()
        with self._struck(victim) as share:
            victim.signal(SIGSTOP)
            try:
                self._meanwhile(victim, share, seconds)
            finally:
                victim.signal(SIGCONT)

    def _silence(self) -> None:
        victim = self._victim()
        with self._struck(victim) as share:
            victim.proxy.black_hole()
            self._meanwhile(victim, share, self._chance.uniform(0.3, 4.0))
            victim.proxy.heal()

    def _meanwhile(self, victim: Node, share: Share | None, seconds: float) -> None:
        """See the others take over, or strike them as well."""
        began = time.monotonic()
        if self._chance.random() < _DURING_SHARE:
            time.sleep(self._chance.uniform(0, seconds / 2))
            self.strike(self._chance.choice(_SHORT))
        elif seconds > LOST_SECONDS:
            self._taken_over(victim, share)
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def _leave(self) -> None:
        victim = self._victim()
        with self._struck(victim):
            self._cluster.rest([victim], STUCK_SECONDS)
            victim.end()
        self._cluster.start(victim)

    def _lose_commit(self, loss: Loss) -> None:
        victim, late = self._victim(), self._chance.choice((0.0, 0.3, 3.0))
        lost = victim.proxy.lose_commit(loss, self._chance.uniform(0.0, late))
        if not until(lost.done, STUCK_SECONDS, pause=0.002):
            raise Trouble(f"{victim} commits nothing any more")

    # What happens to PostgreSQL.

    def _restart(self, how: Literal["kill", "immediate", "fast"], least_seconds: float = 0.0) -> None:
        nodes = [node for node in self._cluster.opened() if node not in self._down]
        self._cluster.stop_server(how)
        down = _now_ms()
        time.sleep(least_seconds + self._chance.uniform(0.0, 1.0))
        self._cluster.server.start()
        up, version = time.monotonic(), self._probe.version()
        if not until(lambda: self._probe.is_completed(EVERYTHING, down), STUCK_SECONDS):
            raise Trouble("nothing was completed after PostgreSQL was restarted")
        self._took(RESUMED, up)
        self.all_work(nodes, version)
        self._took(ALL_RESUMED, up)

    # What comes of it.

    def all_work(self, nodes: list[Node], version: int) -> None:
        """See every one of some nodes commit something after a version."""
        for node in nodes:
            if not until(lambda node=node: self._probe.version_of(node.pid) > version, STUCK_SECONDS):
                raise Trouble(f"{node} commits nothing any more")

    def _victim(self) -> Node:
        """A node that works, so that its loss is felt."""
        found: list[Node] = []

        def find() -> list[Node]:
            found[:] = [node for node in self._cluster.opened() if node not in self._down]
            return found

        if not until(find, STUCK_SECONDS):
            raise Trouble("no node has opened the store again")
        return self._chance.choice(found)

    @contextmanager
    def _struck(self, victim: Node) -> Generator[Share | None]:
        """The share it has, if all nodes know of all nodes: then its loss can be measured."""
        settled = not self._down and until(
            lambda: self._cluster.settled_seconds > NODE_FRESH_SECONDS,
            self._chance.choice((0.0, SETTLES_SECONDS)),
        )
        self._down.add(victim)
        try:
            yield self._probe.share_of(victim.pid, len(self._cluster.nodes)) if settled else None
        finally:
            self._down.discard(victim)

    def _taken_over(self, victim: Node, share: Share | None) -> None:
        lost, began = _now_ms(), time.monotonic()
        if share is None:
            return
        if not until(lambda: self._probe.is_completed(share, lost), SLOW_SECONDS):
            self._cluster.note(f"slow: {self._probe.circumstances()}")
            if not until(lambda: self._probe.is_completed(share, lost), STUCK_SECONDS):
                raise Trouble(f"nobody took over what {victim} was to do")
        self._took(TAKEN_OVER, began)

    def _took(self, what: str, began: float) -> None:
        milliseconds = (time.monotonic() - began) * 1000
        self._outcome.times[what].append(milliseconds)
        self._cluster.note(f"{milliseconds:,.0f} ms from {what}")


def _now_ms() -> float:
    return time.time() * 1000
