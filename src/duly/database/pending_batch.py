"""The calls of one batch on their way into a commit, and how cautious the next batch is."""

from __future__ import annotations

from collections.abc import Callable

from duly.database.call_queue import Outcome, QueuedCall
from duly.database.changes import Commit
from duly.limits import EXCLUSIVE_BATCHES_MAX, EXCLUSIVE_BATCHES_MIN


class PendingBatch:
    """The calls of one batch, however often they are run."""

    __slots__ = ("on_durable", "commit", "exclusive", "is_new", "outcomes", "calls")

    def __init__(self, first: QueuedCall, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.calls = [first]
        self.is_new = True
        """Whether they have not been run yet; from then on none is added."""
        self.outcomes: list[Outcome] = []
        self.on_durable: list[Callable[[], None]] = []
        self.commit: Commit | None = None
        """What was sent, but for its version."""


class ConflictBackoff:
    """After a conflict batches are exclusive for a while: where there was one, there are more."""

    def __init__(self) -> None:
        self._left = 0
        self._next = EXCLUSIVE_BATCHES_MIN

    def on_conflict(self) -> None:
        self._left = self._next
        self._next = min(2 * self._next, EXCLUSIVE_BATCHES_MAX)

    def on_success(self) -> None:
        """A batch that was not exclusive had no conflict."""
        self._next = EXCLUSIVE_BATCHES_MIN

    def next_is_exclusive(self) -> bool:
        """Whether the next batch is to be exclusive."""
        if self._left == 0:
            return False
        self._left -= 1
        return True
