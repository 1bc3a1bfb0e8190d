"""The committer: the one place that commits. Calls that wait together become one batch, one commit, one flush.

A thread of its own takes the queued calls, runs them one by one over one overlay, and has the engine write the result
in bulk. Each call sees all earlier calls of its batch and nothing of one that failed, so the order of a batch is a
serial order. Neither a handler nor the disk ever blocks the event loop.

Where other nodes write to the same store, a batch is optimistic: the engine compares what it has read with what other
nodes have committed since. On a conflict the same calls run again in an exclusive batch, during which no other node
can commit.

On a server, a commit also takes a round trip. While one batch is in flight, the next one already runs, and assumes
that the batch in flight will be committed: the engine answers its reads accordingly. The next batch is sent only after
the first one is known to be committed, and runs again if the assumption was wrong. No call is answered before its own
batch and the batch before it are durable. `pending_batch` draws the states of a batch.

Which thread uses what. The event loop's thread calls `submit`, `close` and the like, the committer's thread runs
`_serve`; "replaced" means that a field gets a new object, and no object is changed that another thread may hold.

| field                                            | written by                       | read by               |
| ------------------------------------------------ | -------------------------------- | --------------------- |
| `_phase`                                         | event loop                       | both                  |
| `_calls`                                         | both: see `CallQueue`            | both                  |
| `catalogs`                                       | committer, replaced              | all, readers included |
| `_carried` `_running` `_in_flight` `_backoff`    | committer                        | committer             |
| `_remote`, `ids` of the environment              | committer                        | committer             |
| `_timeout`                                       | event loop: its end; committer   | committer             |
| `_commit_log`, the futures of calls              | event loop, by `_deliver`        | event loop            |
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableSequence, Sequence
from enum import Enum
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from duly import faults
from duly.clock import monotonic, pause
from duly.database.batch import Batch
from duly.database.call_queue import CallQueue, Outcome, QueuedCall, StoreTimeout, Work, make_call
from duly.database.catalog import Catalog, CatalogHistory
from duly.database.changes import Commit
from duly.database.commit_log import CommitLog
from duly.database.environment import CarriedOver, Environment
from duly.database.pending_batch import BatchState, ConflictBackoff, PendingBatch
from duly.database.read_set import ReadSet
from duly.errors import StoreError, StoreLostError
from duly.limits import BATCH_CALLS_MAX, CALLS_AT_ONCE, STORE_LOST_SECONDS_MAX, STORE_PAUSE_SECONDS
from duly.storage.conflicts import CommitInDoubt, Conflict, NotExclusive, SpeculationFailed

T = TypeVar("T")


def closed_error() -> StoreError:
    """Return the error of a call after the app was closed."""
    return StoreError("got a call after the app was closed, expected it inside `async with app:`")


def _lost_error() -> StoreError:
    return StoreError("the process was lost before the commit; nothing of this call is stored")


class Phase(Enum):
    """How far a committer has come. It never goes back."""

    OPEN = "open"
    """It takes calls."""
    CLOSING = "closing"
    """It takes no calls; it commits those that are queued, and ends."""
    ABANDONED = "abandoned"
    """It takes no calls, commits nothing more, and ends."""


class Committer:
    """Queues calls and commits them in batches, in a thread of its own."""

    def __init__(self, environment: Environment, catalog: Catalog, commit_log: CommitLog) -> None:
        self.catalogs = CatalogHistory(commit_log.version, catalog)
        self._environment = environment
        self._engine = environment.engine
        self._shared = environment.engine.shared
        self._commit_log = commit_log
        self._phase = Phase.OPEN
        self._calls = CallQueue()
        self._carried = CarriedOver(self.catalogs)
        self._remote: list[Commit] = []
        """Commits of other nodes that the commit log does not have yet."""
        self._running: list[PendingBatch] = []
        """The batch that runs is the last one. A batch before it waits until the last one has run again."""
        self._in_flight: PendingBatch | None = None
        self._backoff = ConflictBackoff()
        self._timeout = StoreTimeout()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name="duly-committer", daemon=True)
        self._thread.start()

    # In the event loop.

    def submit(
        self, work: Work[T], exclusive: bool = False, args: str = "", is_awaited: bool = True
    ) -> asyncio.Future[T]:
        """Queue work. The future is done once the work is durable, or with the error that it raised.

        Cancelling the future withdraws work that has not begun. Work that changes tables or indexes must be
        `exclusive`: it comes first in its batch, while no other node commits, and runs only once. `args` is JSON with
        ids of documents that it will probably read. `is_awaited` is false for work of an executor or of the store
        itself, which is never withdrawn.
        """
        if self._phase is not Phase.OPEN:
            raise closed_error()
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(make_call((work, future, exclusive, args, is_awaited, monotonic())))
        return future

    @property
    def is_open(self) -> bool:
        return self._phase is Phase.OPEN

    def begin_closing(self) -> None:
        """Let calls wait for a short time only, from now on, if the store gives no answer: the app is being closed."""
        self._timeout.begin_closing()

    async def close(self) -> None:
        """Commit what is queued and end."""
        self.begin_closing()
        if self._phase is Phase.OPEN:
            self._phase = Phase.CLOSING
            self._calls.end()
            await asyncio.to_thread(self._thread.join)

    async def abandon(self) -> None:
        """End without committing what runs or is queued, as a crash does."""
        self._phase = Phase.ABANDONED
        self._calls.end()
        await asyncio.to_thread(self._thread.join)
        self._deliver([], [(call.future, None, _lost_error()) for call in self._calls.take_all()])

    def _deliver(self, commits: list[Commit], outcomes: list[Outcome]) -> None:
        try:
            for commit in commits:
                self._commit_log.append(commit)
        finally:
            for future, value, error in outcomes:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

    # In the committer's thread: the life of a batch.

    def _serve(self) -> None:
        while (first := self._calls.next()) is not None:
            self._process(PendingBatch(first, first.exclusive or self._backoff.take_exclusive()))
        self._await_in_flight()

    def _process(self, pending: PendingBatch) -> None:
        """Run the calls of a batch until the batch is durable or in flight, or has no calls left."""
        self._running.append(pending)
        while pending.calls:
            try:
                self._attempt(pending)
                break
            except Exception as error:
                self._recover_or_fail(pending, error)
        self._running.pop()

    def _attempt(self, pending: PendingBatch) -> None:
        if pending.exclusive:
            self._await_in_flight()
        batch = self._begin(pending)
        faults.at("batch.begun")
        pending.outcomes = self._run(pending, batch)
        pending.on_durable = batch.on_durable
        faults.at("batch.ran")
        if self._phase is Phase.ABANDONED:
            raise _lost_error()
        pending.move(BatchState.RUN)
        if not self._await_in_flight():
            raise SpeculationFailed
        if self._may_send(pending, batch):
            pending.commit = batch.send()
            pending.move(BatchState.IN_FLIGHT)
            self._in_flight = pending
        else:
            self._finish(pending, self._commit(pending, batch))

    def _may_send(self, pending: PendingBatch, batch: Batch) -> bool:
        """Return whether the next batch may run while this one is in flight: calls wait, and no table changes."""
        is_plain = batch.has_changes and batch.catalog is self.catalogs.current
        is_first_attempt = pending.failures == 0 and not pending.exclusive
        return self._shared is not None and self._calls.has_more() and is_plain and is_first_attempt

    def _await_in_flight(self) -> bool:
        """Wait until the batch in flight is durable, if there is one. Return whether the next batch assumed right.

        A batch in flight that has failed runs again here, because it comes before the next one.
        """
        pending, self._in_flight = self._in_flight, None
        if pending is None:
            return True
        catalog, as_assumed = self.catalogs.current, True
        assert pending.commit is not None
        assert self._shared is not None  # only shared engines have a batch in flight
        try:
            try:
                version = self._shared.await_commit()
            except CommitInDoubt as doubt:
                version, as_assumed = self._resolve(pending, doubt), False
        except Exception as error:
            self._recover_or_fail(pending, error)
            self._process(pending)
            return False
        self._finish(pending, pending.commit._replace(version=version))
        return as_assumed and self.catalogs.current is catalog

    def _finish(self, pending: PendingBatch, commit: Commit | None) -> None:
        """Answer the calls of a batch that is durable, with the commits that the log does not have yet."""
        pending.move(BatchState.DURABLE)
        self._timeout.store_answered()
        if not pending.exclusive:
            self._backoff.on_success()
        for act in pending.on_durable:
            act()
        if commit is None:
            self._publish(self._take_remote(), pending.outcomes)
        else:
            faults.at("commit.durable")
            # Sorted: the next batch may have read later commits of other nodes already.
            self._publish(sorted([*self._take_remote(), commit], key=attrgetter("version")), pending.outcomes)
            faults.at("commit.answered")

    # When an attempt fails.

    def _recover_or_fail(self, pending: PendingBatch, error: Exception) -> None:
        """Roll back a batch that has failed. Answer calls that cannot run again; leave the others in the batch."""
        self._engine.rollback()
        self._await_in_flight()  # the batch before it
        pending.fail()
        self._carried.claimed.clear()  # another node may have run or canceled them
        if isinstance(error, SpeculationFailed):
            pending.exclusive = pending.exclusive or self._backoff.take_exclusive()
        elif isinstance(error, Conflict):
            if not isinstance(error, NotExclusive):
                self._backoff.on_conflict()
            self._fail_expired(pending, StoreLostError(f"the store was lost on the way: {error}"))
            pending.exclusive = True
        elif isinstance(error, StoreLostError):
            self._fail_expired(pending, error)
            if pending.calls:
                pause(STORE_PAUSE_SECONDS)
        else:
            unknown = StoreError(f"a batch could not be stored: {type(error).__name__}: {error}")
            self._fail(pending.calls, error if isinstance(error, StoreError) else unknown)
            pending.calls.clear()

    def _fail_expired(self, pending: PendingBatch, error: StoreLostError) -> None:
        """Answer all calls that have waited too long, wherever they are, and a call that must not run again."""
        if pending.calls and pending.calls[0].exclusive:
            self._fail([pending.calls.pop(0)], error)
        self._calls.receive()
        for calls in (*(running.calls for running in self._running), pending.calls, self._calls.waiting):
            self._fail(self._take_expired(calls), error)

    def _resolve(self, pending: PendingBatch, doubt: CommitInDoubt) -> int:
        """Wait for the version of a commit whose answer was lost. Raises StoreLostError if it was not committed.

        Also raises it if no call of the batch waits any more: then the next batch finds out the outcome.
        """
        assert self._shared is not None  # only shared engines leave a commit in doubt
        others = [running.calls for running in self._running if running is not pending]
        while pending.calls:
            pause(STORE_PAUSE_SECONDS)
            self._calls.receive()
            for calls in (*others, self._calls.waiting):
                self._fail(self._take_expired(calls), StoreLostError(str(doubt.__cause__)))
            self._fail(self._take_expired(pending.calls), StoreError(str(doubt)))
            try:
                version = self._shared.resolve_commit()
            except StoreLostError:
                continue
            if version is not None:
                return version
            break
        raise StoreLostError(str(doubt.__cause__)) from doubt

    def _take_expired(self, calls: MutableSequence[QueuedCall]) -> list[QueuedCall]:
        """Remove the calls that must not wait any longer for a store that gives no answer, and return them."""
        seconds = -1.0 if self._phase is Phase.ABANDONED else STORE_LOST_SECONDS_MAX
        return self._timeout.take_expired(calls, seconds)

    def _fail(self, calls: Sequence[QueuedCall], error: StoreError) -> None:
        """Answer calls with an error: the calls are not stored, or it is not known whether they are."""
        if calls:
            self._publish(self._take_remote(), [(call.future, None, error) for call in calls])

    # Running and committing.

    def _begin(self, pending: PendingBatch) -> Batch:
        environment = self._environment
        view = self._engine.begin(pending.exclusive)
        environment.ids.node = self._engine.node
        self._read_remote()
        now = environment.clock.now()
        environment.ids.check(now)
        reads = ReadSet(self._shared.points) if self._shared is not None and not pending.exclusive else None
        return Batch(environment, self._carried, view, now, reads, partial(self._others_wait, pending))

    def _others_wait(self, pending: PendingBatch) -> bool:
        """Return whether other calls wait for a batch to end, in it or behind it.

        In an exclusive batch, an executor with more due functions does not count: it would only wait for the lock.
        """
        self._calls.receive()
        if pending.exclusive:
            return any(call.is_awaited for call in chain(pending.calls, self._calls.waiting))
        return len(pending.calls) > 1 or bool(self._calls.waiting)

    def _run(self, pending: PendingBatch, batch: Batch) -> list[Outcome]:
        """Run the calls of a batch. In its first attempt, more calls join it while there is time."""
        calls, take_into, may_grow = pending.calls, self._calls.take_into, pending.failures == 0
        outcomes: list[Outcome] = []
        if may_grow and self._shared is not None:
            while len(calls) < CALLS_AT_ONCE and take_into(calls):
                pass
        batch.prefetch([call.args for call in calls if call.args])
        while len(outcomes) < len(calls):  # the list changes meanwhile
            work, future, _, _, is_awaited, _ = calls[len(outcomes)]
            if is_awaited:
                batch.has_caller = True
                if len(outcomes) >= pending.begun and future.cancelled():
                    del calls[len(outcomes)]  # withdrawn
                    continue
            if len(outcomes) == pending.begun:
                pending.begun += 1
            try:
                outcomes.append((future, work(batch), None))
            except Exception as error:
                outcomes.append((future, None, error))
            if batch.engine_error is not None:
                raise batch.engine_error  # nothing of this batch counts
            if may_grow and batch.is_time_up():
                self._calls.put_back(calls[len(outcomes) :])
                del calls[len(outcomes) :]
            elif may_grow and len(outcomes) == len(calls) < BATCH_CALLS_MAX:
                take_into(calls)
        return outcomes

    def _commit(self, pending: PendingBatch, batch: Batch) -> Commit | None:
        """Commit a batch and return what was committed; None if it has changed nothing."""
        catalogs = self.catalogs
        if not batch.has_changes:
            batch.check_reads()
            self._engine.rollback()
            if batch.catalog is not catalogs.current:  # the schema has changed
                catalogs.add(batch.version, batch.catalog)
            self._carried.replace(batch.catalog, batch.tracked)
            return None
        version = batch.version + 1
        if batch.catalog is not catalogs.current:
            catalogs.add(version, batch.catalog)
        try:
            try:
                commit = batch.commit()
            except CommitInDoubt as doubt:
                commit = batch.record_commit(self._resolve(pending, doubt))
        except BaseException:
            catalogs.drop_from(version)
            raise
        self._carried.replace(batch.catalog, batch.tracked)
        return commit

    # Other nodes, and answers.

    def _read_remote(self) -> None:
        """Apply what other nodes have committed."""
        if self._shared is None:
            return
        ids = self._environment.ids
        for remote in self._shared.remote_commits():
            ids.last = max(ids.last, remote.last_id)  # ids made later must be larger
            self._remote.append(self._carried.apply(remote))

    def _take_remote(self) -> list[Commit]:
        """Return the commits of other nodes that the commit log does not have yet."""
        self._read_remote()
        remote, self._remote = self._remote, []
        return remote

    def _publish(self, commits: list[Commit], outcomes: list[Outcome]) -> None:
        """Add commits to the log and answer calls, both in the event loop."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, commits, outcomes)
        except RuntimeError:  # the event loop was closed before the app: no caller is left
            self._calls.cut_off()
