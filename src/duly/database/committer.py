"""The one place that commits: calls that wait together become one batch, one write transaction, one flush.

A thread of its own takes what is queued, runs it call by call over one overlay, writes the result in bulk and
commits. Each call sees all earlier ones of its batch and nothing of one that failed, so that a batch is a serial
order. Neither a handler nor the disk ever stalls the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from queue import Empty, SimpleQueue
from random import Random
from typing import Any, Final, TypeVar

from duly import faults
from duly.clock import Clock, monotonic
from duly.database.asking import drive
from duly.database.catalog import Catalog
from duly.database.log import Commit, Log
from duly.database.transaction import Transaction, merge_writes
from duly.database.usage import Quota, Usage
from duly.database.watchdog import Watchdog, Watched
from duly.errors import StoreError
from duly.limits import BATCH_CALLS_MAX, BATCH_SECONDS_ALONE_MAX, BATCH_SECONDS_MAX, CATALOGS_MAX
from duly.storage.engine import JOBS, Engine, Get, Job, Request, Row, Scan, Write
from duly.values.ids import IdSource
from duly.values.schema import Index, SchemaDefinition, Table

T = TypeVar("T")
Work = Callable[["Batch"], T]
"""What a caller queues: it makes attempts in a batch and returns a result, or raises."""
Tracked = dict[str, set[int]]
"""Ids of documents that were written, by table."""


class Batch:
    """The calls of one commit: each attempt is a transaction of its own over those before it.

    Time stands still in a batch: `now` is when it began.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        ids: IdSource,
        clock: Clock,
        quota: Quota,
        seed: int,
        watched: Watched,
        tracked: Tracked,
        alone: Callable[[], bool],
    ) -> None:
        self.catalog = catalog
        self.now = clock.now()
        self.tracked = tracked
        """What earlier batches have written to the tables that are tracked."""
        self._reshaped: set[str] = set()  # the tables whose indexes it has changed, also there and back
        self._stored = catalog  # the tables that the engine has
        self._engine = engine
        self._ids = ids
        self._quota = quota
        self._seed = seed
        self._watched = watched
        self._unflushed: dict[str, dict[int, Write]] = {}
        self._flushed: dict[str, dict[int, Write]] = {}
        self._engine_changed = False
        self._alone = alone
        self._began = monotonic()
        self._view = engine.begin()
        self.version = self._view.version + 1
        self.broken: Exception | None = None
        """What the engine refused: from then on the write transaction is in doubt, and nothing of it is kept."""

    @property
    def spent(self) -> bool:
        """Whether the batch has taken its time; what is left goes into the next."""
        seconds = monotonic() - self._began
        return seconds >= BATCH_SECONDS_MAX and (seconds >= BATCH_SECONDS_ALONE_MAX or not self._alone())

    @property
    def changed(self) -> bool:
        return bool(self._unflushed) or self._engine_changed

    def attempt(self, unit: Callable[..., Coroutine[Any, Any, T]], *args: object, handler: str = "") -> T:
        """Run `unit(transaction, *args)` as one transaction. If it raises, it leaves nothing behind.

        With the name of a `handler`, whose code it runs, its time is limited.
        """
        transaction = Transaction(self.catalog, self.now, self._ids, Usage(self._quota), self._seed)
        self._seed += 1
        value = drive(unit(transaction, *args), self.answer, self._watched, handler)
        if transaction.writes:
            self.catalog = transaction.catalog
            for table, writes in transaction.writes.items():
                earlier = self._unflushed.get(table)
                if earlier is None:
                    self._unflushed[table] = writes
                else:
                    merge_writes(earlier, writes)
        return value

    def rehearse(self, unit: Callable[..., Coroutine[Any, Any, Any]], *args: object, handler: str) -> None:
        """Run a unit as the next attempt would, with the same ids and the same chance, and keep nothing of it."""
        transaction = Transaction(self.catalog, self.now, self._ids.copy(), Usage(self._quota), self._seed)
        transaction.is_rehearsal = True
        drive(unit(transaction, *args), self.answer, self._watched, handler)

    def latest(self, table: Table, id: int, row: Row | None) -> Row | None:
        """The row as the batch has left it so far; `row` is what its view said."""
        for overlay in (self._unflushed, self._flushed):
            write = overlay.get(table.name, _NOTHING).get(id)
            if write is not None:
                return write.new
        return row

    def answer(self, request: Request) -> Any:
        """What a transaction reads where its own overlay has no answer."""
        if type(request) is Get:
            table, id = request
            write = self._unflushed.get(table.name, _NOTHING).get(id)
            if write is not None:
                return write.new
            if table.name not in self._stored.tables:
                return None
        else:
            self._flush(request.table if type(request) is Scan else JOBS)
        try:
            return self._view.answer(request)
        except Exception as error:
            self.broken = error
            raise

    def _flush(self, table: Table) -> None:
        """Write what is still in memory, so that the engine's own scans see it."""
        self._create_tables()
        writes = self._unflushed.pop(table.name, None)
        if writes:
            self._change(self._engine.write, table, writes)
            merge_writes(self._flushed.setdefault(table.name, {}), writes)

    def flush(self) -> None:
        """Write all that is still in memory."""
        for name in tuple(self._unflushed):
            self._flush(self.catalog.tables[name])
        self._create_tables()

    def commit(self) -> Commit:
        self.flush()
        faults.at("commit.flushed")
        self._engine.commit(self.version, self._ids.last)
        written: list[tuple[Table, Mapping[int, Write]]] = [
            (self.catalog.tables[name], writes) for name, writes in self._flushed.items()
        ]
        for table, writes in written:
            if table.name in self.tracked:
                self.tracked[table.name].update(writes)
        weight = sum(_weight(writes) for _, writes in written)
        return Commit(self.version, written, weight, frozenset(self._reshaped))

    def _create_tables(self) -> None:
        if self.catalog is not self._stored:
            for name in self.catalog.tables.keys() - self._stored.tables.keys():
                self._change(self._engine.create_table, self.catalog.tables[name])
            self._stored = self.catalog

    # For whoever applies a schema.

    def put_table(self, table: Table) -> None:
        """Make the store have a table, or another state of it: these indexes and no others, this declaration."""
        before = self.catalog.tables.get(table.name)
        if before == table:
            return
        self.flush()  # what is in memory has the keys of the indexes there were
        self.catalog = self.catalog.with_table(table)
        self._create_tables()
        if before is not None and before.indexes != table.indexes:
            self._reshaped.add(table.name)
        known = {index.number: index for index in before.indexes} if before is not None else {}
        for number in known.keys() - {index.number for index in table.indexes}:
            self._change(self._engine.drop_index, known[number])
        for index in table.indexes:
            if index.number not in known:
                self._change(self._engine.create_index, table, index)
            elif index != known[index.number]:
                self._change(self._engine.finish_index, index)
        if before is not None and before.declared != table.declared:
            self._change(self._engine.declare_table, table)

    def put_schema(self, schema: SchemaDefinition) -> None:
        """Validate by another schema from the next call on."""
        self.catalog = self.catalog.with_schema(schema)

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        """Add keys of documents that are older than an index that is being built."""
        self._change(self._engine.fill_index, index, keys)

    def track(self, *tables: str) -> Tracked:
        """From now on keep the ids of what is written to these tables, and to no others.

        Returns those kept so far, with all that this batch has written.
        """
        kept = {name: ids | self._written(name) for name, ids in self.tracked.items()}
        self.tracked = {name: set[int]() for name in tables}
        return kept

    def _written(self, table: str) -> set[int]:
        return self._unflushed.get(table, _NOTHING).keys() | self._flushed.get(table, _NOTHING).keys()

    def _change(self, act: Callable[..., None], *args: object) -> None:
        self._engine_changed = True
        try:
            act(*args)
        except Exception as error:
            self.broken = error
            raise


_NOTHING: dict[int, Write] = {}
_ROW_BYTES: Final = 500  # of a row beside its text


def _weight(writes: Mapping[int, Write]) -> int:
    rows = (row for write in writes.values() for row in (write.old, write.new) if row is not None)
    return len(writes) * _ROW_BYTES + sum(len(row.args if isinstance(row, Job) else row) for row in rows)


def closed() -> StoreError:
    return StoreError("got a call after the app was closed, expected it inside `async with app:`")


def _lost() -> StoreError:
    return StoreError("the process was lost before the commit; nothing of this call is stored")


class Committer:
    """Queues work and commits it in batches, in a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        ids: IdSource,
        clock: Clock,
        log: Log,
        quota: Quota,
        random: Random,
        watchdog: Watchdog,
    ) -> None:
        self.catalog = catalog
        """The tables as of the last commit. Replaced, never changed."""
        # The tables of each version that changed them, for those who read an older one.
        self._catalogs = [(log.version, catalog)]
        self._engine = engine
        self._ids = ids
        self._clock = clock
        self._log = log
        self._quota = quota
        self._random = random
        self._watchdog = watchdog
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name="duly-committer", daemon=True)
        self._open = True
        self._abandoned = False
        self._ended = False
        self._tracked: Tracked = {}
        self._thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue work. The future is done once it is durable, or with what it raised.

        Cancelling the future does not take the work back.
        """
        if not self._open:
            raise closed()
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((work, future))
        return future

    @property
    def is_open(self) -> bool:
        return self._open

    def catalog_of(self, version: int) -> Catalog:
        """The tables as of a version."""
        return next(catalog for since, catalog in reversed(self._catalogs) if since <= version)

    async def close(self) -> None:
        """Commit what is queued and end."""
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
        while not self._queue.empty():
            queued = self._queue.get_nowait()
            if queued is not None:
                self._deliver(None, [(queued[1], None, _lost())])

    # In the thread.

    def _serve(self) -> None:
        while not self._ended and (first := self._queue.get()) is not None:
            self._commit_batch(first)

    def _commit_batch(self, first: _Queued) -> None:
        outcomes: list[_Outcome] = []
        try:
            seed = self._random.getrandbits(63)
            watched, alone = self._watchdog.watched(), self._queue.empty
            batch = Batch(
                self._engine, self.catalog, self._ids, self._clock, self._quota, seed, watched, self._tracked, alone
            )
            faults.at("batch.begun")
            self._run(batch, first, outcomes)
            faults.at("batch.ran")
            if self._abandoned:
                raise _lost()
            if batch.changed:
                commit = self._commit(batch)
                faults.at("commit.durable")
                self._tell(commit, outcomes)
                faults.at("commit.told")
            else:
                self._engine.rollback()
                self._keep(batch)
                self._tell(None, outcomes)
        except Exception as error:
            self._engine.rollback()
            if not isinstance(error, StoreError):
                error = StoreError(f"a batch could not be stored: {type(error).__name__}: {error}")
            failed: list[_Outcome] = [(future, None, error) for future, _, _ in outcomes] or [(first[1], None, error)]
            self._tell(None, failed)

    def _commit(self, batch: Batch) -> Commit:
        if batch.catalog is not self.catalog:
            # Before it is committed: once it is, a snapshot may show it at any moment.
            self._remember(batch.version, batch.catalog)
        try:
            commit = batch.commit()
        except BaseException:
            self._catalogs = [entry for entry in self._catalogs if entry[0] < batch.version]
            raise
        self.catalog, self._tracked = batch.catalog, batch.tracked
        return commit

    def _keep(self, batch: Batch) -> None:
        """What a batch that wrote nothing leaves behind: perhaps another schema, for the version there is."""
        if batch.catalog is not self.catalog:
            self._remember(batch.version - 1, batch.catalog)
        self.catalog, self._tracked = batch.catalog, batch.tracked

    def _remember(self, version: int, catalog: Catalog) -> None:
        self._catalogs = [*self._catalogs[1 - CATALOGS_MAX :], (version, catalog)]

    def _run(self, batch: Batch, queued: _Queued | None, outcomes: list[_Outcome]) -> None:
        while queued is not None:
            work, future = queued
            try:
                outcomes.append((future, work(batch), None))
            except Exception as error:
                outcomes.append((future, None, error))
            if batch.broken is not None:
                raise batch.broken  # nobody's work of this batch is done
            if batch.spent or len(outcomes) >= BATCH_CALLS_MAX:
                return
            try:
                queued = self._queue.get_nowait()
            except Empty:
                return
        self._ended = True

    def _tell(self, commit: Commit | None, outcomes: list[_Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, commit, outcomes)
        except RuntimeError:  # the loop was closed without closing the app: nobody is left to tell
            self._ended = True

    def _deliver(self, commit: Commit | None, outcomes: list[_Outcome]) -> None:
        try:
            if commit is not None:
                self._log.append(commit)
        finally:
            for future, value, error in outcomes:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)


_Queued = tuple[Work[Any], asyncio.Future[Any]]
_Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]
