"""Calls on their way into a batch: the queue from the event loop to the committer, and how long a call waits there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, MutableSequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from duly.clock import monotonic
from duly.database.batch import Batch
from duly.limits import STORE_LOST_CLOSING_SECONDS_MAX

T = TypeVar("T")
Work = Callable[[Batch], T]
"""What a caller queues: it makes attempts in a batch, and returns a result or raises. It may run again."""


class QueuedCall(NamedTuple):
    """A call that waits for its commit."""

    work: Work[Any]
    future: asyncio.Future[Any]
    exclusive: bool
    """Whether its batch must be exclusive, because the call changes tables or indexes. Such a call runs only once."""
    args: str
    """JSON with the ids of documents that the call will probably read."""
    is_awaited: bool
    """False for calls of an executor or of the store itself, which are never withdrawn."""
    queued_at: float
    """When it was queued, by `monotonic`."""


make_call: Final[Callable[[Iterable[Any]], QueuedCall]] = partial(tuple.__new__, QueuedCall)  # pyright: ignore[reportUnknownMemberType]
"""Make a queued call from all its fields, in half the time of `QueuedCall(…)`."""

Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]
"""The future of a call, with its result or its error."""


class CallQueue:
    """Calls from the event loop to the committer's thread.

    The event loop calls `put` and `end`; everything else belongs to the committer's thread. After that thread has
    ended, the event loop may call `take_all`.
    """

    __slots__ = ("_has_ended", "_inbox", "put", "waiting")

    def __init__(self) -> None:
        self._inbox: SimpleQueue[QueuedCall | None] = SimpleQueue()
        self._has_ended = False
        self.put: Callable[[QueuedCall], None] = self._inbox.put
        self.waiting: deque[QueuedCall] = deque()
        """Calls received and not yet in a batch, in their order."""

    def end(self) -> None:
        """Mark the end: the queue accepts no call after it."""
        self._inbox.put(None)

    def cut_off(self) -> None:
        """End without such a mark, after the calls that were received: the event loop is gone."""
        self._has_ended = True

    def next(self) -> QueuedCall | None:
        """Wait for the next call; None at the end."""
        if self.waiting:
            return self.waiting.popleft()
        return None if self._has_ended else self._inbox.get()

    def take_into(self, calls: list[QueuedCall]) -> bool:
        """Move one more call to the calls of a batch. False if no call waits, or the next one needs its own batch."""
        if not self.waiting:
            self.receive()
        if not self.waiting or self.waiting[0].exclusive:
            return False
        calls.append(self.waiting.popleft())
        return True

    def put_back(self, calls: list[QueuedCall]) -> None:
        """Return calls to the front, in their order."""
        self.waiting.extendleft(reversed(calls))

    def receive(self) -> None:
        """Move all calls from the inbox to `waiting`."""
        try:
            while (call := self._inbox.get_nowait()) is not None:
                self.waiting.append(call)
        except Empty:
            return
        self._has_ended = True

    def has_more(self) -> bool:
        """Return whether a call waits, received or not; the mark of the end counts as one."""
        return bool(self.waiting) or not self._inbox.empty()

    def take_all(self) -> list[QueuedCall]:
        """Take all calls that are left."""
        calls = list(self.waiting)
        self.waiting.clear()
        while not self._inbox.empty():
            call = self._inbox.get_nowait()
            if call is not None:
                calls.append(call)
        return calls


class StoreTimeout:
    """How long calls wait for a store that gives no answer.

    The time of a call counts from when it was queued, or from the last answer of the store after that. Until that
    answer, the call did not wait for the store.
    """

    def __init__(self) -> None:
        self._answered = monotonic()
        self._ends = float("inf")

    def store_answered(self) -> None:
        self._answered = monotonic()

    def begin_closing(self) -> None:
        """Limit the time of all calls: the app is being closed."""
        self._ends = min(self._ends, monotonic() + STORE_LOST_CLOSING_SECONDS_MAX)

    def take_expired(self, calls: MutableSequence[QueuedCall], seconds: float) -> list[QueuedCall]:
        """Remove the calls that have waited longer than `seconds`, and return them."""
        now = monotonic()
        if now > self._ends:
            expired = list(calls)
        else:
            expired = [call for call in calls if now > max(call.queued_at, self._answered) + seconds]
        if expired:
            gone = set(map(id, expired))
            kept = [call for call in calls if id(call) not in gone]
            calls.clear()
            calls.extend(kept)
        return expired
