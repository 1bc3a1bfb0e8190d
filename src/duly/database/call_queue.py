"""Calls on their way into a commit: those that wait, and how long they wait for a store that gives no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableSequence
from typing import Any, NamedTuple, TypeVar

from duly.clock import monotonic
from duly.database.batch import Batch
from duly.limits import STORE_LOST_CLOSING_SECONDS_MAX

T = TypeVar("T")
Work = Callable[[Batch], T]
"""What a caller queues: it makes attempts in a batch and returns a result, or raises. It may be run again."""


class QueuedCall(NamedTuple):
    """A call that waits."""

    work: Work[Any]
    future: asyncio.Future[Any]
    exclusive: bool
    args: str
    is_awaited: bool
    queued_at: float
    """When it was queued, by `monotonic`."""


Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


def withdrawable(work: Callable[[Batch], T], future: asyncio.Future[Any]) -> Callable[[Batch], T | None]:
    """The work, or none where the future was cancelled before that was run first; it may be run again."""
    has_begun = False

    def begin(batch: Batch) -> T | None:
        nonlocal has_begun
        if not has_begun and future.cancelled():
            return None
        has_begun = True
        return work(batch)

    return begin


class StoreTimeout:
    """How long calls wait for a store that gives no answer: each counts from itself, or from the last answer after it.

    Before that it was not the store that it waited for.
    """

    def __init__(self) -> None:
        self._answered = monotonic()
        self._ends = float("inf")

    def store_answered(self) -> None:
        """The store has answered."""
        self._answered = monotonic()

    def begin_closing(self) -> None:
        """The app is being closed: soon there is no patience left."""
        self._ends = min(self._ends, monotonic() + STORE_LOST_CLOSING_SECONDS_MAX)

    def take_expired(self, calls: MutableSequence[QueuedCall], seconds: float) -> list[QueuedCall]:
        """Take away those of the calls that have waited for so long."""
        now = monotonic()
        if now > self._ends:
            late = list(calls)
        else:
            late = [queued for queued in calls if now > max(queued.queued_at, self._answered) + seconds]
        if late:
            gone = set(map(id, late))
            kept = [queued for queued in calls if id(queued) not in gone]
            calls.clear()
            calls.extend(kept)
        return late
