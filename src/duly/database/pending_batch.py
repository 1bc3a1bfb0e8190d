"""Pending batches: the calls of one batch from the queue to their answers, however often they run.

The life of a pending batch:

                 run              send                answer
      QUEUED ──────────► RUN ─────────────► IN_FLIGHT ────────► DURABLE
        │                │ │                    │                  ▲
        │                │ └── commit ──────────┼──────────────────┘
        │ error          │ error                │ error
        ▼                ▼                      ▼
      FAILED ◄───────────┴──────────────────────┘
        │
        └── run again ──► RUN, while calls are left

- QUEUED: no call has run yet. While the batch runs, calls that wait may join it.
- RUN: all calls have run in a batch of the engine that is still open; nothing is sent. From now on the calls stay the
  same, except that those that have waited too long are answered with an error.
- IN_FLIGHT: on a store on a server, the batch is sent, and the next batch runs while the server commits this one. At
  most one batch is in flight, and the next one is not sent before this one is durable.
- DURABLE: committed, or nothing was to commit. The calls get their answers.
- FAILED: the attempt was rolled back, and nothing of it is stored. The calls that are left run again; a batch without
  calls is over. Errors and what follows from them:

  | error                            | calls that are left                                         |
  | -------------------------------- | ----------------------------------------------------------- |
  | SpeculationFailed                | run again: the batch before this one was not what it assumed |
  | Conflict                         | run again in an exclusive batch                              |
  | StoreLostError                   | run again after a pause, until their time is over            |
  | any other                        | none: all get the error                                      |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from enum import Enum
from typing import Final

from duly.database.call_queue import Outcome, QueuedCall
from duly.database.changes import Commit
from duly.limits import EXCLUSIVE_BATCHES_MAX, EXCLUSIVE_BATCHES_MIN


class BatchState(Enum):
    QUEUED = "queued"
    RUN = "run"
    IN_FLIGHT = "in flight"
    DURABLE = "durable"
    FAILED = "failed"


NEXT: Final[Mapping[BatchState, Set[BatchState]]] = {
    BatchState.QUEUED: {BatchState.RUN, BatchState.FAILED},
    BatchState.RUN: {BatchState.IN_FLIGHT, BatchState.DURABLE, BatchState.FAILED},
    BatchState.IN_FLIGHT: {BatchState.DURABLE, BatchState.FAILED},
    BatchState.FAILED: {BatchState.RUN, BatchState.FAILED},
    BatchState.DURABLE: set(),
}
"""The states that may follow each state."""


class PendingBatch:
    """The calls of one batch, and their outcomes when they ran last. Used in the committer's thread only."""

    __slots__ = ("begun", "calls", "commit", "exclusive", "failures", "on_durable", "outcomes", "state")

    def __init__(self, first: QueuedCall, exclusive: bool) -> None:
        self.state = BatchState.QUEUED
        self.exclusive = exclusive
        self.calls = [first]
        self.begun = 0
        """How many of them have begun, in this or an earlier attempt: such a call cannot be withdrawn any more."""
        self.failures = 0
        """How many attempts were rolled back. A batch that has failed takes no more calls, and is not sent ahead."""
        self.outcomes: list[Outcome] = []
        self.on_durable: list[Callable[[], None]] = []
        self.commit: Commit | None = None
        """In flight: what was sent; its version is not known yet."""

    def move(self, state: BatchState) -> None:
        """Move to the next state, one that `NEXT` allows."""
        assert state in NEXT[self.state], f"{self.state} -> {state}"
        self.state = state

    def fail(self) -> None:
        """Record that an attempt was rolled back. Never raises: the committer's thread must go on."""
        self.state = BatchState.FAILED
        self.failures += 1


class ConflictBackoff:
    """Makes batches exclusive for a while after a conflict: more conflicts are likely then."""

    def __init__(self) -> None:
        self._left = 0
        self._next = EXCLUSIVE_BATCHES_MIN

    def on_conflict(self) -> None:
        """Make the next batches exclusive: twice as many as the last time, if none succeeded since."""
        self._left = self._next
        self._next = min(2 * self._next, EXCLUSIVE_BATCHES_MAX)

    def on_success(self) -> None:
        """Reset the number: a batch that was not exclusive had no conflict."""
        self._next = EXCLUSIVE_BATCHES_MIN

    def take_exclusive(self) -> bool:
        """Return whether the next batch must be exclusive, and count it."""
        if self._left == 0:
            return False
        self._left -= 1
        return True
