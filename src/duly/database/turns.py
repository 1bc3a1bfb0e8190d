"""Calls on their way into a commit: those that wait, those of one batch, and how cautious the next batch is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableSequence
from typing import Any, NamedTuple, TypeVar

from duly.clock import monotonic
from duly.database.batch import Batch
from duly.database.log import Commit
from duly.limits import EXCLUSIVE_BATCHES_MAX, EXCLUSIVE_BATCHES_MIN, STORE_LOST_CLOSING_SECONDS_MAX

T = TypeVar("T")
Work = Callable[[Batch], T]
"""What a caller queues: it makes attempts in a batch and returns a result, or raises. It may be run again."""


class Queued(NamedTuple):
    """A call that waits."""

    work: Work[Any]
    future: asyncio.Future[Any]
    exclusive: bool
    args: str
    is_awaited: bool
    asked: float
    """When it was queued, by `monotonic`."""


Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


class Turn:
    """The calls of one batch, however often they are run."""

    __slots__ = ("afterwards", "commit", "exclusive", "is_new", "outcomes", "taken")

    def __init__(self, first: Queued, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.taken = [first]
        self.is_new = True
        """Whether they have not been run yet; from then on none is added."""
        self.outcomes: list[Outcome] = []
        self.afterwards: list[Callable[[], None]] = []
        self.commit: Commit | None = None
        """What was sent, but for its version."""


class Patience:
    """How long calls wait for a store that gives no answer: each counts from itself, or from the last answer after it.

    Before that it was not the store that it waited for.
    """

    def __init__(self) -> None:
        self._answered = monotonic()
        self._ends = float("inf")

    def answered(self) -> None:
        """The store has answered."""
        self._answered = monotonic()

    def hurry(self) -> None:
        """The app is being closed: soon there is no patience left."""
        self._ends = min(self._ends, monotonic() + STORE_LOST_CLOSING_SECONDS_MAX)

    def late(self, calls: MutableSequence[Queued], seconds: float) -> list[Queued]:
        """Take away those of the calls that have waited for so long."""
        now = monotonic()
        if now > self._ends:
            late = list(calls)
        else:
            late = [queued for queued in calls if now > max(queued.asked, self._answered) + seconds]
        if late:
            gone = set(map(id, late))
            kept = [queued for queued in calls if id(queued) not in gone]
            calls.clear()
            calls.extend(kept)
        return late


class Caution:
    """After a conflict batches are exclusive for a while: where there was one, there are more."""

    def __init__(self) -> None:
        self._left = 0
        self._next = EXCLUSIVE_BATCHES_MIN

    def conflicted(self) -> None:
        self._left = self._next
        self._next = min(2 * self._next, EXCLUSIVE_BATCHES_MAX)

    def succeeded(self) -> None:
        """A batch that was not exclusive had no conflict."""
        self._next = EXCLUSIVE_BATCHES_MIN

    def is_due(self) -> bool:
        """Whether the next batch is to be exclusive."""
        if self._left == 0:
            return False
        self._left -= 1
        return True
