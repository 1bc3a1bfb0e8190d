"""One opened store: its tables, its readers, its committer and its log."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
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
from duly.database.driver.watchdog import Watchdog
from duly.database.peer_listener import PeerListener
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction
from duly.database.usage import SoftLimits, Usage
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
from duly.storage.engine import Conflict, Engine, Header, Heartbeat
from duly.values.ids import IdCodec, IdSource

T = TypeVar("T")

_log: Final = log_of("duly.store")


class QueryOutcome(NamedTuple, Generic[T]):
    """The outcome of a query: what it returned or raised, and what it has read of which version."""

    value: T | None
    error: Exception | None
    reads: ReadSet
    version: int


class Database:
    """An opened store. Made by `Database.open`, inside a running event loop."""

    @classmethod
    async def open(
        cls,
        engine: Engine,
        clock: Clock,
        limits: Limits = DEFAULTS,
        random: Random | None = None,
        wait_for_owner: float = 0.0,
    ) -> Database:
        """Open the store of an engine. StoreError; StoreInUseError after so many seconds that another one owns it."""
        opened = cls(engine, await _open_when_free(engine, wait_for_owner), clock, limits, random or Random())
        _open_here[_store_key(engine)] = opened
        return opened

    def __init__(self, engine: Engine, header: Header, clock: Clock, limits: Limits, random: Random) -> None:
        self.ids = IdCodec(header.secret)
        self.commit_log = CommitLog(header.version)
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[StoreGoneError] = self._loop.create_future()
        """Done once it was noticed that the store is not there any more."""
        self._engine = engine
        self._clock = clock
        self._limits = SoftLimits(limits)
        self._random = random
        self._source = IdSource(engine.node, header.last_id)
        self._watchdog = Watchdog(min(limits.handler_seconds_max, threading.TIMEOUT_MAX))
        self._committer = Committer(
            engine,
            Catalog(header.tables, deploy=header.deploy),
            self.ids,
            self._source,
            clock,
            self.commit_log,
            self._limits,
            self._random,
            self._watchdog,
        )
        self._readers = ThreadPoolExecutor(READERS_MAX, "duly-reader")
        self._nodes = PeerListener(engine, self._on_peer_update) if engine.is_shared else None
        self._membership_changed: asyncio.Future[None] = self._loop.create_future()
        self._refreshing: asyncio.Future[None] | None = None
        self._is_learning = False
        self._on_peer_update(header.heartbeat)

    @property
    def epoch(self) -> int:
        """The number of this opening, which is in the rows of the actions it runs."""
        return self._engine.epoch

    def is_lost(self, epoch: int) -> bool:
        """Whether what an opening left running is interrupted."""
        return self._engine.is_lost(epoch)

    @property
    def is_open(self) -> bool:
        """Whether anything can still be stored."""
        return self._committer.is_open and not self.gone.done()

    def check_present(self) -> None:
        """Raise StoreGoneError if the store is not there any more, and let those know who wait for a change of it."""
        try:
            self._engine.check_present()
        except StoreGoneError as error:
            if not self.gone.done():
                self.gone.set_result(error)
                self.commit_log.wake_all()
            raise

    def tell_closing(self, seconds: float) -> None:
        """Let whoever waits for the store know that it is closed within so many seconds."""
        self._engine.tell_closing(seconds)

    def is_driving_thread(self) -> bool:
        """Whether the thread that calls is one in which queries or mutations run."""
        return self._watchdog.watches_current_thread()

    def refuse_in_handlers(self) -> None:
        """Raise FunctionError in a query or mutation: a call of the app there would wait for itself."""
        if self.is_driving_thread() or self._watchdog.watches(driving_thread()):
            raise FunctionError(
                "got a call of the app in a query or mutation, expected one of `ctx`, such as ctx.run_mutation(…): it"
                " belongs to its transaction"
            )

    @property
    def catalog(self) -> Catalog:
        """The tables as of the last commit."""
        return self._committer.catalog

    def table_of(self, id: str) -> str | None:
        """The name of the table a string is an id of, None if it is no id of this store."""
        decoded = self.ids.decode(id)
        table = None if decoded is None else self.catalog.by_number.get(decoded[0])
        return None if table is None else table.name

    def commit(
        self, work: Work[T], exclusive: bool = False, args: str = "", is_awaited: bool = True
    ) -> asyncio.Future[T]:
        """Queue work for the next batch; the future is done once it is durable.

        Work that changes tables must be `exclusive`; other work may be run again. The documents whose ids stand in
        `args` may be read beforehand. What nobody waits for may take longer.
        """
        self.refuse_in_handlers()
        return self._committer.submit(work, exclusive, args, is_awaited)

    # Other nodes.

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may write to the store."""
        return self._engine.is_shared

    async def refresh(self) -> None:
        """Learn what other nodes have committed, if there may be any."""
        if self.is_shared:
            await asyncio.shield(self._refresh())

    @property
    def membership_changed(self) -> asyncio.Future[None]:
        """Done when nodes have come or gone, or this process has got another epoch. Not to be cancelled."""
        return self._membership_changed

    def _on_peer_update(self, heartbeat: Heartbeat) -> None:
        if heartbeat.server_ms is not None:
            self._clock.follow(heartbeat.server_ms, heartbeat.asked)
        if (heartbeat.has_news or heartbeat.is_regrouped) and self.is_open:
            refreshing = self._refresh()
            if heartbeat.is_regrouped:
                refreshing.add_done_callback(self._notify_membership)

    def _refresh(self) -> asyncio.Future[None]:
        """Learn what other nodes have committed."""
        if self._refreshing is None or self._refreshing.done() or self._is_learning:
            self._is_learning = False
            self._refreshing = self.commit(self._learn, is_awaited=False)
            self._refreshing.add_done_callback(lambda done: done.cancelled() or done.exception())  # it comes again
        return self._refreshing

    def _learn(self, batch: Batch) -> None:
        self._is_learning = True  # what comes from now on is for the next one
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
        """Run a read-only transaction on a snapshot of its own, in a thread of its own.

        With the name of a `handler`, whose code it runs, its time is limited.
        """
        loop, given_up = asyncio.get_running_loop(), monotonic() + STORE_LOST_SECONDS_MAX
        while self._committer.is_open:
            try:
                return await loop.run_in_executor(self._readers, partial(self._read, unit, handler, copy_context()))
            except Conflict as conflict:
                if monotonic() > given_up:
                    raise StoreError(f"the tables changed whenever they were read: {conflict}") from conflict
                await asyncio.wait((refreshed := self._refresh(),), timeout=max(given_up - monotonic(), 0.0))
                if refreshed.done():
                    refreshed.result()
            except StoreLostError:
                if monotonic() > given_up:
                    raise
                await asyncio.sleep(STORE_PAUSE_SECONDS)
        raise closed_error()

    def _read(
        self, unit: Callable[[Transaction], Coroutine[Any, Any, T]], handler: str, context: Context
    ) -> QueryOutcome[T]:
        reads = ReadSet()
        with self._engine.snapshot() as view:
            catalog = self._committer.catalog_of(view)
            usage, seed = Usage(self._limits), self._random.getrandbits(64)
            transaction = Transaction(catalog, self._clock.now(), self._source, usage, seed, reads)
            try:
                watched = self._watchdog.current_thread()
                value = context.run(lambda: drive(unit(transaction), view.answer, watched, handler))
            except (StoreLostError, Conflict):
                raise
            except Exception as error:
                return QueryOutcome(None, error, reads, view.version)
            finally:
                transaction.end()
                reads.seal()
            return QueryOutcome(value, None, reads, view.version)

    def watch(self, reads: ReadSet, since: int) -> Watch:
        """A future that is done when a commit after version `since` has changed something of `reads`."""
        return self.commit_log.watch(reads, since)

    async def abandon(self) -> None:
        """Close without committing what is queued, as a crash does."""
        await self._committer.abandon()
        await self.close()

    def begin_closing(self) -> None:
        """The app is being closed: from now on calls wait for a store that gives no answer for a short time only."""
        self._committer.begin_closing()

    async def close(self) -> None:
        """Commit what is queued and close the store; also from another event loop, once its own is closed."""
        self.begin_closing()
        if self._nodes is not None:
            await asyncio.to_thread(self._nodes.close)
        await self._committer.close()
        if not self._loop.is_closed():
            self.commit_log.wake_all()
        await asyncio.to_thread(self._readers.shutdown)
        self._watchdog.close()
        await asyncio.to_thread(self._engine.close)
        if _open_here.get(_store_key(self._engine)) is self:
            del _open_here[_store_key(self._engine)]

    @property
    def is_orphaned(self) -> bool:
        """Whether the event loop that opened it is closed, so that nobody else may ever close it."""
        return self._loop.is_closed()


_open_here: Final[dict[str, Database]] = {}
"""What this process has open, by what its engine calls it."""


async def _open_when_free(engine: Engine, wait_for_owner: float) -> Header:
    """What an engine says that is opened, as soon as nobody else owns its store."""
    given_up, told = monotonic() + wait_for_owner, None
    while True:
        try:
            return await _open_engine(engine)
        except StoreInUseError as error:
            orphan = _open_here.get(_store_key(engine))
            if error.pid == os.getpid() and orphan is not None and orphan.is_orphaned:
                await orphan.close()  # its App may be gone with its event loop
                continue
            if error.closing_seconds is not None and told != "which is closing it":
                given_up = max(given_up, monotonic() + error.closing_seconds + OWNER_OVERTIME_SECONDS)
            if monotonic() >= given_up:
                raise
            doing = "to close it" if error.closing_seconds is None else "which is closing it"
            if told != doing:
                told, owned = doing, str(error).partition(";")[0]
                _log.warning("%s: waiting up to %.3g s for that, %s", owned, given_up - monotonic(), doing)
        await asyncio.sleep(OWNER_POLL_SECONDS)


def _store_key(engine: Engine) -> str:
    return str(getattr(engine, "path", id(engine)))


async def _open_engine(engine: Engine) -> Header:
    opening = asyncio.get_running_loop().run_in_executor(None, engine.open)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # Its thread goes on, and nobody else would close what it opens.
        with suppress(StoreError):
            await opening
            await asyncio.to_thread(engine.close)
        raise
