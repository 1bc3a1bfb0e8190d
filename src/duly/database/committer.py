"""The one place that commits: calls that wait together become one batch, one commit, one flush.

A thread of its own takes what is queued, runs it call by call over one overlay and has the engine write the result
in bulk. Each call sees all earlier ones of its batch and nothing of one that failed, so that a batch is a serial
order. Neither a handler nor the disk ever stalls the event loop.

Where other nodes write to the same store, a batch is a guess: what it has read is compared with what they have
written when it is committed. If it was wrong, the same calls are run again as an exclusive batch, which keeps
everybody else out from its begin on.

There the way to the server takes long, too. While a batch is on it, the next one already runs, on the guess that the
one before will be committed: the engine answers it accordingly, it is not sent before that is known, and if it was
wrong it is run again. Nobody is told anything of a batch before it is durable, nor before the one before it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import MutableSequence, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import attrgetter
from queue import Empty, SimpleQueue
from random import Random
from typing import TypeVar

from duly import faults
from duly.clock import Clock, monotonic, pause
from duly.database.batch import ALL_IDS, Batch, Tracked, drop_due_after
from duly.database.call_queue import Outcome, QueuedCall, StoreTimeout, Work, withdrawable
from duly.database.catalog import Catalog
from duly.database.changes import Commit, RemoteChange
from duly.database.commit_log import CommitLog
from duly.database.driver.watchdog import Watchdog
from duly.database.pending_batch import ConflictBackoff, PendingBatch
from duly.database.read_set import ReadSet
from duly.database.usage import SoftLimits
from duly.errors import StoreError, StoreLostError
from duly.limits import (
    BATCH_CALLS_MAX,
    CALLS_AT_ONCE,
    CATALOGS_MAX,
    STORE_LOST_SECONDS_MAX,
    STORE_PAUSE_SECONDS,
)
from duly.storage.engine import Conflict, Engine, Job, NotExclusive, Overtaken, Unsettled, View
from duly.values.ids import IdCodec, IdSource

T = TypeVar("T")


def closed_error() -> StoreError:
    return StoreError("got a call after the app was closed, expected it inside `async with app:`")


def _lost_error() -> StoreError:
    return StoreError("the process was lost before the commit; nothing of this call is stored")


class Committer:
    """Queues work and commits it in batches, in a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        codec: IdCodec,
        ids: IdSource,
        clock: Clock,
        log: CommitLog,
        limits: SoftLimits,
        random: Random,
        watchdog: Watchdog,
    ) -> None:
        self.catalog = catalog
        """The tables as of the last commit. Replaced, never changed."""
        # The tables of each version that changed them, for those who read an older one.
        self._catalogs = [(log.version, catalog)]
        self._engine = engine
        self._codec = codec
        self._ids = ids
        self._clock = clock
        self._log = log
        self._limits = limits
        self._random = random
        self._watchdog = watchdog
        self._queue: SimpleQueue[QueuedCall | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name="duly-committer", daemon=True)
        self._open = True
        self._abandoned = False
        self._ended = False
        self._tracked: Tracked = {}
        self._left: deque[QueuedCall] = deque()  # taken from the queue, for the next batch
        self._heard: list[Commit] = []
        self._backoff = ConflictBackoff()
        self._store_timeout = StoreTimeout()
        self._turns: list[PendingBatch] = []
        """Those that are being run; before the last one, those that wait for it."""
        self._claimed: dict[int, Job] = {}
        self._flying: PendingBatch | None = None
        """The one whose commit is under way."""
        self._thread.start()

    def submit(
        self, work: Work[T], exclusive: bool = False, args: str = "", is_awaited: bool = True
    ) -> asyncio.Future[T]:
        """Queue work. The future is done once it is durable, or with what it raised.

        Cancelling the future withdraws work that has not begun. What changes tables or indexes must be `exclusive`: it
        comes first in its batch, while nobody else commits, and is run once only. `args` is JSON with ids of documents
        that it will probably read; `is_awaited` is false of what an executor or the store does by itself, which is
        never withdrawn.
        """
        if not self._open:
            raise closed_error()
        future: asyncio.Future[T] = self._loop.create_future()
        todo = withdrawable(work, future) if is_awaited else work
        self._queue.put(QueuedCall(todo, future, exclusive, args, is_awaited, monotonic()))
        return future

    @property
    def is_open(self) -> bool:
        return self._open

    def catalog_of(self, view: View) -> Catalog:
        """The tables as of a view. Conflict where this node does not know them yet.

        Another has changed them, or a server has taken over that lacks all commits this one knows.
        """
        for since, catalog in reversed(self._catalogs):
            if since <= view.version:
                if since < view.reshaped:
                    raise Conflict("another node has changed the tables")
                return catalog
        raise Conflict("the store has gone back to an older version than this node knows")

    def begin_closing(self) -> None:
        """The app is being closed: from now on calls wait for a store that gives no answer for a short time only."""
        self._store_timeout.begin_closing()

    async def close(self) -> None:
        """Commit what is queued and end."""
        self.begin_closing()
        if self._open:
            self._open = False
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def abandon(self) -> None:
        """End without committing what runs or is queued, as a crash does."""
        self._open = False
        self._abandoned = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        left: list[QueuedCall | None] = list(self._left)
        while not self._queue.empty():
            left.append(self._queue.get_nowait())
        self._deliver([], [(queued.future, None, _lost_error()) for queued in left if queued is not None])

    # In the thread.

    def _serve(self) -> None:
        while self._left or not self._ended:
            first = self._left.popleft() if self._left else self._queue.get()
            if first is None:
                break
            self._do(PendingBatch(first, first.exclusive or self._backoff.next_is_exclusive()))
        self._land()

    def _do(self, turn: PendingBatch) -> None:
        """Run the calls of a batch until they are committed, about to be, or refused."""
        self._turns.append(turn)
        while turn.calls:
            try:
                self._attempt(turn)
                break
            except Exception as error:
                self._retreat(turn, error)
        self._turns.pop()

    def _attempt(self, turn: PendingBatch) -> None:
        if turn.exclusive:
            self._land()
        batch = self._begin(turn)
        faults.at("batch.begun")
        turn.outcomes = self._run(batch, turn.calls, turn.is_new)
        turn.on_durable = batch.on_durable
        faults.at("batch.ran")
        if self._abandoned:
            raise _lost_error()
        if not self._land():
            raise Overtaken
        if self._may_fly(turn, batch):
            turn.commit = batch.send()
            self._flying = turn
        else:
            self._done(turn, self._commit(turn, batch))

    def _may_fly(self, turn: PendingBatch, batch: Batch) -> bool:
        """Whether the next batch may run while this one is committed: if calls wait for it, and the tables stay."""
        waits = self._left or not self._queue.empty()
        is_plain = batch.has_changes and batch.catalog is self.catalog and turn.is_new and not turn.exclusive
        return bool(self._engine.is_shared and waits and is_plain)

    def _land(self) -> bool:
        """See the commit that is under way through, if there is one. Whether it went as the next batch took it for."""
        turn, self._flying = self._flying, None
        if turn is None:
            return True
        catalog, went_on = self.catalog, True
        assert turn.commit is not None
        try:
            try:
                version = self._engine.landed()
            except Unsettled as unsettled:
                version, went_on = self._settled(turn, unsettled), False
        except Exception as error:
            self._retreat(turn, error)
            self._do(turn)
            return False
        self._done(turn, turn.commit._replace(version=version))
        return went_on and self.catalog is catalog

    def _done(self, turn: PendingBatch, commit: Commit | None) -> None:
        self._store_timeout.store_answered()
        if not turn.exclusive:
            self._backoff.on_success()
        for act in turn.on_durable:
            act()
        if commit is None:
            self._tell(self._all_heard(), turn.outcomes)
        else:
            faults.at("commit.durable")
            # The next batch may have learnt of later ones already.
            self._tell(sorted([*self._all_heard(), commit], key=attrgetter("version")), turn.outcomes)
            faults.at("commit.answered")

    def _retreat(self, turn: PendingBatch, error: Exception) -> None:
        """Undo a batch that has failed. What is left of its calls is to be run again; the others are told."""
        self._engine.rollback()
        self._land()  # what comes before it
        turn.is_new = False
        self._claimed.clear()  # somebody else may have run it, or canceled it
        if isinstance(error, Overtaken):
            turn.exclusive = turn.exclusive or self._backoff.next_is_exclusive()
        elif isinstance(error, Conflict):
            if not isinstance(error, NotExclusive):
                self._backoff.on_conflict()
            self._wait(turn, StoreLostError(f"the store was lost on the way: {error}"))
            turn.exclusive = True
        elif isinstance(error, StoreLostError):
            self._wait(turn, error)
            if turn.calls:
                pause(STORE_PAUSE_SECONDS)
        else:
            unknown = StoreError(f"a batch could not be stored: {type(error).__name__}: {error}")
            self._refuse(turn.calls, error if isinstance(error, StoreError) else unknown)
            turn.calls.clear()

    def _wait(self, turn: PendingBatch, error: StoreLostError) -> None:
        """Tell those that have waited for long enough, wherever they wait; and who is never run again by itself."""
        if turn.calls and turn.calls[0].exclusive:
            self._refuse([turn.calls.pop(0)], error)
        self._receive()
        for calls in (*(turn.calls for turn in self._turns), turn.calls, self._left):
            self._refuse(self._late(calls), error)

    def _settled(self, turn: PendingBatch, unsettled: Unsettled) -> int:
        """The version that an unsettled commit has made. StoreLostError where it has made none, nor ever will.

        Or where nobody waits for that any more: then the next batch finds out.
        """
        others = [other.calls for other in self._turns if other is not turn]
        while turn.calls:
            pause(STORE_PAUSE_SECONDS)
            self._receive()
            for calls in (*others, self._left):
                self._refuse(self._late(calls), StoreLostError(str(unsettled.__cause__)))
            self._refuse(self._late(turn.calls), StoreError(str(unsettled)))
            try:
                version = self._engine.settle()
            except StoreLostError:
                continue
            if version is not None:
                return version
            break
        raise StoreLostError(str(unsettled.__cause__)) from unsettled

    def _late(self, calls: MutableSequence[QueuedCall]) -> list[QueuedCall]:
        """Take away the calls that do not wait any longer for a store that gives no answer."""
        return self._store_timeout.take_expired(calls, -1.0 if self._abandoned else STORE_LOST_SECONDS_MAX)

    def _refuse(self, calls: Sequence[QueuedCall], error: StoreError) -> None:
        """Tell calls that they are not stored, or that nobody knows."""
        if calls:
            self._tell(self._all_heard(), [(queued.future, None, error) for queued in calls])

    def _begin(self, turn: PendingBatch) -> Batch:
        view = self._engine.begin(turn.exclusive)
        self._ids.node = self._engine.node
        self._hear()
        now = self._clock.now()
        self._ids.check(now)
        return Batch(
            self._engine,
            view,
            self.catalog,
            self._codec,
            self._ids,
            now,
            self._limits,
            self._random,
            self._watchdog.current_thread(),
            self._tracked,
            ReadSet() if self._engine.is_shared and not turn.exclusive else None,
            self._claimed,
            partial(self._is_awaited, turn),
        )

    def _is_awaited(self, turn: PendingBatch) -> bool:
        """Whether others wait for a batch, or behind it.

        Not an executor with more that is due, where the batch is exclusive: it would only wait for the lock once more.
        """
        self._receive()
        if turn.exclusive:
            return any(queued.is_awaited for queued in chain(turn.calls, self._left))
        return len(turn.calls) > 1 or bool(self._left)

    def _run(self, batch: Batch, taken: list[QueuedCall], is_new: bool) -> list[Outcome]:
        """Do the work that was taken, and take more while there is time; what is run again stays the same."""
        outcomes: list[Outcome] = []
        if is_new and self._engine.is_shared:
            while len(taken) < CALLS_AT_ONCE and self._take(taken):
                pass
        batch.prefetch([queued.args for queued in taken if queued.args])
        for work, future, *_ in taken:  # it grows
            try:
                outcomes.append((future, work(batch), None))
            except Exception as error:
                outcomes.append((future, None, error))
            if batch.engine_error is not None:
                raise batch.engine_error  # nobody's work of this batch is done
            if is_new and batch.is_time_up:
                self._left.extendleft(reversed(taken[len(outcomes) :]))
                del taken[len(outcomes) :]
            elif is_new and len(outcomes) == len(taken) < BATCH_CALLS_MAX:
                self._take(taken)
        return outcomes

    def _take(self, taken: list[QueuedCall]) -> bool:
        """Take one more call into the batch, if one waits that may join it."""
        if not self._left:
            self._receive()
        if not self._left or self._left[0].exclusive:
            return False
        taken.append(self._left.popleft())
        return True

    def _receive(self) -> None:
        with suppress(Empty):
            while (queued := self._queue.get_nowait()) is not None:
                self._left.append(queued)
            self._ended = True

    def _commit(self, turn: PendingBatch, batch: Batch) -> Commit | None:
        if not batch.has_changes:
            batch.check()
            self._engine.rollback()
            self._keep(batch)
            return None
        version = batch.version + 1
        if batch.catalog is not self.catalog:
            # Before it is committed: once it is, a snapshot may show it at any moment.
            self._remember(version, batch.catalog)
        try:
            try:
                commit = batch.commit()
            except Unsettled as unsettled:
                commit = batch.committed(self._settled(turn, unsettled))
        except BaseException:
            self._catalogs = [entry for entry in self._catalogs if entry[0] < version]
            raise
        self.catalog, self._tracked = batch.catalog, batch.tracked
        return commit

    def _keep(self, batch: Batch) -> None:
        """What a batch that wrote nothing leaves behind: perhaps another schema, for the version there is."""
        if batch.catalog is not self.catalog:
            self._remember(batch.version, batch.catalog)
        self.catalog, self._tracked = batch.catalog, batch.tracked

    def _remember(self, version: int, catalog: Catalog) -> None:
        self._catalogs = [*self._catalogs[1 - CATALOGS_MAX :], (version, catalog)]

    # Other nodes.

    def _hear(self) -> None:
        """Take note of what other nodes have committed."""
        for news in self._engine.news():
            self._ids.last = max(self._ids.last, news.last_id)  # what comes later has larger ids
            if news.due is not None:
                drop_due_after(self._claimed, news.due)
            if news.tables is not None:
                self.catalog = Catalog(news.tables, self.catalog.schema, news.deploy)
                self._remember(news.version, self.catalog)
            by_number = self.catalog.by_number
            changes = [RemoteChange(by_number[number], news) for number in news.ids if number in by_number]
            for change in changes:
                if change.table in self._tracked:
                    self._tracked[change.table] |= change.ids
            if not news.is_known:
                for ids in self._tracked.values():
                    ids.add(ALL_IDS)
            self._heard.append(Commit(news.version, changes, is_known=news.is_known))

    def _all_heard(self) -> list[Commit]:
        """What the log has not been told yet."""
        self._hear()
        heard, self._heard = self._heard, []
        return heard

    def _tell(self, commits: list[Commit], outcomes: list[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, commits, outcomes)
        except RuntimeError:  # the loop was closed without closing the app: nobody is left to tell
            self._ended = True

    def _deliver(self, commits: list[Commit], outcomes: list[Outcome]) -> None:
        try:
            for commit in commits:
                self._log.append(commit)
        finally:
            for future, value, error in outcomes:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)
