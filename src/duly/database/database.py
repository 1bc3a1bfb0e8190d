"""The database: one opened store with its readers, its committer, its commit log and its peers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from random import Random
from typing import Any, Final, Generic, NamedTuple, TypeVar

from duly.clock import Clock, monotonic
from duly.database.batch import Batch
from duly.database.call_queue import Work
from duly.database.catalog import Catalog
from duly.database.commit_log import CommitLog, Watch
from duly.database.committer import Committer, closed_error
from duly.database.driver.trampoline import drive, driving_thread
from duly.database.driver.watchdog import UNWATCHED, Watchdog, WatchedThread
from duly.database.environment import Environment
from duly.database.peer_listener import PeerListener
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction, begin
from duly.database.usage import SoftLimits, usage_of
from duly.errors import FunctionError, StoreError, StoreGoneError, StoreInUseError, StoreLostError
from duly.limits import (
    DEFAULTS,
    OWNER_OVERTIME_SECONDS,
    OWNER_POLL_SECONDS,
    READERS_MAX,
    STORE_LOST_SECONDS_MAX,
    STORE_PAUSE_SECONDS,
    Limits,
)
from duly.logs import log_of
from duly.storage.conflicts import Conflict
from duly.storage.engine import Engine, Header, PeerUpdate
from duly.storage.requests import Get, View
from duly.storage.rows import Row
from duly.values.ids import IdCodec, IdSource
from duly.values.schema.tables import Table

T = TypeVar("T")

_log: Final = log_of("duly.store")

Read = tuple[Callable[[Transaction], Coroutine[Any, Any, T]], str]
"""A read-only transaction, and the name of the handler whose code it runs; empty if it runs none."""


class QueryOutcome(NamedTuple, Generic[T]):
    """The outcome of a query: its result or error, its read set, and the version that it has read."""

    value: T | None
    error: Exception | None
    reads: ReadSet
    version: int


class Database:
    """An opened store. Made by `Database.open`, inside a running event loop.

    Its event loop uses it. Other threads run `_read`, for queries, and `_refresh_in_batch`, in the committer.
    """

    @classmethod
    async def open(
        cls,
        engine: Engine,
        clock: Clock,
        limits: Limits = DEFAULTS,
        random: Random | None = None,
        wait_for_owner: float = 0.0,
    ) -> Database:
        """Open the store of an engine. Raises StoreError.

        If another process or app owns the store, it waits for `wait_for_owner` seconds, then raises StoreInUseError.
        """
        opened = cls(engine, await _open_when_free(engine, wait_for_owner), clock, limits, random or Random())
        _open_here[_store_key(engine)] = opened
        return opened

    def __init__(self, engine: Engine, header: Header, clock: Clock, limits: Limits, random: Random) -> None:
        self.ids = IdCodec(header.secret)
        self.commit_log = CommitLog(header.version)
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[StoreGoneError] = self._loop.create_future()
        """Done once it is noticed that the store is gone."""
        self._engine = engine
        self._environment = Environment(
            engine,
            self.ids,
            IdSource(engine.node, header.last_id),
            clock,
            SoftLimits(limits),
            random,
            Watchdog(min(limits.handler_seconds_max, threading.TIMEOUT_MAX)),
        )
        catalog = Catalog(header.tables, deploy=header.deploy)
        self._committer = Committer(self._environment, catalog, self.commit_log)
        self._readers = ThreadPoolExecutor(READERS_MAX, "duly-reader")
        self._peers = PeerListener(engine.shared, self._on_peer_update) if engine.shared is not None else None
        self._membership_changed: asyncio.Future[None] = self._loop.create_future()
        self._refreshing: asyncio.Future[None] | None = None
        self._refresh_has_begun = False
        self._on_peer_update(header.peer_update)

    @property
    def epoch(self) -> int:
        """The number of this opening, which is stored in the rows of the actions that it runs."""
        return self._engine.epoch

    def is_lost(self, epoch: int) -> bool:
        """Return whether the process of an opening is lost, so that the actions it left running are interrupted."""
        return self._engine.is_lost(epoch)

    @property
    def is_open(self) -> bool:
        """Whether calls can still be stored."""
        return self._committer.is_open and not self.gone.done()

    def check_present(self) -> None:
        """Raise StoreGoneError if the store is gone, and wake all that wait for a change of it."""
        try:
            self._engine.check_present()
        except StoreGoneError as error:
            if not self.gone.done():
                self.gone.set_result(error)
                self.commit_log.wake_all()
            raise

    def announce_closing(self, seconds: float) -> None:
        """Announce to processes that wait for the store that it will be closed within this many seconds."""
        self._engine.announce_closing(seconds)

    def is_driving_thread(self) -> bool:
        """Return whether the calling thread is one in which queries and mutations run."""
        return self._environment.watchdog.watches_current_thread()

    def refuse_in_handlers(self) -> None:
        """Raise FunctionError in a query or mutation: a call of the app from there would wait for itself."""
        driving, watchdog = driving_thread(), self._environment.watchdog
        if watchdog.watches_current_thread() or (driving is not UNWATCHED and watchdog.watches(driving)):
            raise FunctionError(
                "got a call of the app in a query or mutation, expected one of `ctx`, such as ctx.run_mutation(…): it"
                " belongs to its transaction"
            )

    @property
    def catalog(self) -> Catalog:
        """The tables as of the last commit."""
        return self._committer.catalogs.current

    def table_of(self, id: str) -> str | None:
        """Return the name of the table that an id belongs to, None if it is no id of this store."""
        decoded = self.ids.decode(id)
        return None if decoded is None else self.catalog.name_of(decoded[0])

    def commit(
        self, work: Work[T], exclusive: bool = False, args: str = "", is_awaited: bool = True
    ) -> asyncio.Future[T]:
        """Queue work for the next batch; the future is done once it is durable.

        Work that changes tables must be `exclusive`; other work may run again. The documents whose ids are in `args`
        may be read beforehand. Work that is not `is_awaited` may take longer.
        """
        if is_awaited:
            self.refuse_in_handlers()
        return self._committer.submit(work, exclusive, args, is_awaited)

    # Other nodes.

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may write to the store."""
        return self._engine.shared is not None

    async def refresh(self) -> None:
        """Read what other nodes have committed, if there may be any."""
        if self.is_shared:
            await asyncio.shield(self._refresh())

    @property
    def membership_changed(self) -> asyncio.Future[None]:
        """Done when nodes have joined or left, or this process has got another epoch. Must not be cancelled."""
        return self._membership_changed

    def _on_peer_update(self, update: PeerUpdate) -> None:
        if update.server_ms is not None:
            self._environment.clock.follow(update.server_ms, update.server_ms_at)
        if (update.has_commits or update.membership_changed) and self.is_open:
            refreshing = self._refresh()
            if update.membership_changed:
                refreshing.add_done_callback(self._notify_membership)

    def _refresh(self) -> asyncio.Future[None]:
        """Read what other nodes have committed, in a batch that begins after this call."""
        if self._refreshing is None or self._refreshing.done() or self._refresh_has_begun:
            self._refresh_has_begun = False
            self._refreshing = self.commit(self._refresh_in_batch, is_awaited=False)
            # An error is read here, so that asyncio does not log it: the next refresh raises it again.
            self._refreshing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._refreshing

    def _refresh_in_batch(self, batch: Batch) -> None:
        self._refresh_has_begun = True  # commits from now on need another refresh
        batch.refresh()

    def _notify_membership(self, refreshed: asyncio.Future[None]) -> None:
        membership_changed, self._membership_changed = (
            self._membership_changed,
            asyncio.get_running_loop().create_future(),
        )
        if not membership_changed.done():
            membership_changed.set_result(None)

    # Reading.

    async def read(self, unit: Callable[[Transaction], Coroutine[Any, Any, T]], handler: str = "") -> QueryOutcome[T]:
        """Run a read-only transaction on a snapshot of its own, in a reader's thread.

        If `handler` names the handler whose code the unit runs, the time of the unit is limited.
        """
        [outcome] = await self.read_together([(unit, handler)])
        return outcome

    async def read_together(self, reads: Sequence[Read[T]]) -> list[QueryOutcome[T]]:
        """Run several read-only transactions, one after another, on the same snapshot."""
        loop, deadline = asyncio.get_running_loop(), monotonic() + STORE_LOST_SECONDS_MAX
        while self._committer.is_open:
            try:
                return await loop.run_in_executor(self._readers, partial(self._read, reads, copy_context()))
            except Conflict as conflict:
                if monotonic() > deadline:
                    raise StoreError(f"the tables changed whenever they were read: {conflict}") from conflict
                await asyncio.wait((refreshed := self._refresh(),), timeout=max(deadline - monotonic(), 0.0))
                if refreshed.done():
                    refreshed.result()
            except StoreLostError:
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(STORE_PAUSE_SECONDS)
        raise closed_error()

    def _read(self, reads: Sequence[Read[T]], context: Context) -> list[QueryOutcome[T]]:
        with self._engine.snapshot() as view:
            catalog = self._committer.catalogs.at(view)
            return [self._read_at(view, catalog, unit, handler, context) for unit, handler in reads]

    def _read_at(
        self,
        view: View,
        catalog: Catalog,
        unit: Callable[[Transaction], Coroutine[Any, Any, T]],
        handler: str,
        context: Context,
    ) -> QueryOutcome[T]:
        environment, reads = self._environment, ReadSet()
        usage, seed = usage_of(environment.limits), environment.random.getrandbits(64)
        watched = environment.watchdog.current_thread()
        rows = _Rows(view, watched)
        transaction = begin(catalog, environment.clock.now(), environment.ids, usage, seed, rows, reads)
        value, error = None, None
        try:
            value = context.run(lambda: drive(unit(transaction), view, watched, handler))
        except Exception as raised:
            error = raised
        finally:
            transaction.end()
            reads.seal()
        error = rows.error or error
        if isinstance(error, StoreLostError | Conflict):
            raise error
        return QueryOutcome(value if error is None else None, error, reads, view.version)

    def watch(self, reads: ReadSet, since: int) -> Watch:
        """Return a future that is done when a commit after version `since` has changed something of `reads`."""
        return self.commit_log.watch(reads, since)

    async def abandon(self) -> None:
        """Close without committing what is queued, as a crash does."""
        await self._committer.abandon()
        await self.close()

    def begin_closing(self) -> None:
        """Let calls wait for a short time only, from now on, if the store gives no answer: the app is being closed."""
        self._committer.begin_closing()

    async def close(self) -> None:
        """Commit what is queued and close the store. Another event loop may do this after its own one was closed."""
        self.begin_closing()
        if self._peers is not None:
            await asyncio.to_thread(self._peers.close)
        await self._committer.close()
        if not self._loop.is_closed():
            self.commit_log.wake_all()
        await asyncio.to_thread(self._readers.shutdown)
        self._environment.watchdog.close()
        await asyncio.to_thread(self._engine.close)
        if _open_here.get(_store_key(self._engine)) is self:
            del _open_here[_store_key(self._engine)]

    @property
    def is_orphaned(self) -> bool:
        """Whether the event loop that opened it is closed, so that no other code may ever close it."""
        return self._loop.is_closed()


class _Rows:
    """Reads rows of a view in the middle of a handler's code, and remembers an error of the view.

    A handler may catch that error. It must not go on without the row: its outcome is the error, whatever it returns.
    """

    def __init__(self, view: View, watched: WatchedThread) -> None:
        self.error: Exception | None = None
        self._answer = view.answer
        self._watched = watched

    def read_row(self, table: Table, id: int) -> Row | None:
        try:
            row: Row | None = self._watched.closed(self._answer, Get(table, id))
            return row
        except Exception as error:
            self.error = error
            raise


_open_here: Final[dict[str, Database]] = {}
"""The databases that this process has open, by the path of their engine."""


async def _open_when_free(engine: Engine, wait_for_owner: float) -> Header:
    """Open an engine as soon as no other process or app owns its store. Return the header of the store."""
    deadline, logged = monotonic() + wait_for_owner, None
    while True:
        try:
            return await _open_engine(engine)
        except StoreInUseError as error:
            orphan = _open_here.get(_store_key(engine))
            if error.pid == os.getpid() and orphan is not None and orphan.is_orphaned:
                await orphan.close()  # its App may have been dropped with its event loop
                continue
            if error.closing_seconds is not None and logged != "which is closing it":
                deadline = max(deadline, monotonic() + error.closing_seconds + OWNER_OVERTIME_SECONDS)
            if monotonic() >= deadline:
                raise
            doing = "to close it" if error.closing_seconds is None else "which is closing it"
            if logged != doing:
                logged, owned = doing, str(error).partition(";")[0]
                _log.warning("%s: waiting up to %.3g s for that, %s", owned, deadline - monotonic(), doing)
        await asyncio.sleep(OWNER_POLL_SECONDS)


def _store_key(engine: Engine) -> str:
    return str(getattr(engine, "path", id(engine)))


async def _open_engine(engine: Engine) -> Header:
    opening = asyncio.get_running_loop().run_in_executor(None, engine.open)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread of `open` goes on, and no other code would close the engine.
        with suppress(StoreError):
            await opening
            await asyncio.to_thread(engine.close)
        raise
