"""Batches: the calls of one commit. Each call is a transaction of its own over those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from duly.clock import monotonic
from duly.database.changes import Commit, LocalChange, SucceededJobs
from duly.database.driver.trampoline import drive
from duly.database.environment import ALL_IDS, CarriedOver, Environment, Tracked, drop_due_after
from duly.database.indexes.overlay import IndexOverlay, overlay_of
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction, begin, merge_writes
from duly.database.usage import usage_of
from duly.errors import StoreLostError
from duly.limits import BATCH_SECONDS_ALONE_MAX, BATCH_SECONDS_MAX
from duly.storage.engine import Changeset, ReadKeys
from duly.storage.requests import Count, Get, GetMany, Request, Scan, View
from duly.storage.rows import JOBS, Job, Row, Write, make_write, succeeded_row
from duly.values.schema.tables import Index, SchemaDefinition, Table

T = TypeVar("T")


class Batch:
    """One commit in the making. Used in the committer's thread only.

    The time of a batch is fixed: `now` is when it began. Nothing is written to the store until it is committed; a call
    reads the rows of the store under an overlay of what earlier calls of the batch have written.
    """

    def __init__(
        self,
        environment: Environment,
        carried: CarriedOver,
        view: View,
        now: float,
        reads: ReadSet | None,
        others_wait: Callable[[], bool],
    ) -> None:
        self.catalog = catalog = carried.catalogs.current
        self.now = now
        self.version = view.version
        """The version of the store it began with."""
        self.tracked = carried.tracked
        """What earlier batches have written to the tables that are tracked."""
        self.claimed = carried.claimed
        """Due functions that an earlier batch has claimed and left to the next ones, except those written since."""
        self.overdue = math.inf
        """The earliest due time among what it has scheduled for the past: what is due later runs in a later batch."""
        self._reindexed: set[str] = set()  # the tables whose indexes it has changed, even if it has changed them back
        self._stored = catalog  # the catalog with the tables that the engine has
        self._engine, self._shared = environment.engine, environment.engine.shared
        self._view, self._cached = view, view.cached
        self._codec, self._ids = environment.codec, environment.ids
        self._limits, self._random = environment.limits, environment.random
        self._next_seed: int | None = None  # drawn late: a batch that only reads remote commits has no attempt
        self.watched = environment.watchdog.current_thread()
        self.has_caller, self.seconds_max = False, BATCH_SECONDS_MAX
        """Whether it has run a call that somebody waits for; how long it may run while others wait."""
        self._reads, self._engine_changed, self._refreshes = reads, False, False
        self._writes: dict[str, dict[int, Write]] = {}
        self._succeeded: dict[int, Job] = {}  # as they were before; see `_write_succeeded`
        self._overlays: dict[str, dict[str, IndexOverlay]] = {}  # by table and index, from the first scan on
        self._others_wait, self._began = others_wait, monotonic()
        self.on_durable: list[Callable[[], None]] = []
        """What to do once it is durable, such as to log a run: a run that was rolled back is not logged."""
        self.engine_error: Exception | None = None
        """An error of the engine: from then on nothing of the batch is kept."""

    def is_time_up(self) -> bool:
        """Whether the time of the batch is used up; calls that are left go into the next batch."""
        seconds = monotonic() - self._began
        return seconds >= self.seconds_max and (seconds >= BATCH_SECONDS_ALONE_MAX or self._others_wait())

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._writes or self._succeeded or self._engine_changed)

    def attempt(self, unit: Callable[..., Coroutine[Any, Any, T]], *args: object, handler: str = "") -> T:
        """Run `unit(transaction, *args)` as one transaction. If it raises, nothing is kept but its reads.

        If `handler` names the handler whose code the unit runs, the time of the unit is limited.
        """
        transaction = self.begin()
        try:
            value = drive(unit(transaction, *args), self, self.watched, handler)
            self.keep(transaction)
        finally:
            self.end(transaction)
        return value

    # The parts of an attempt, for work that is no coroutine as a whole.

    def begin(self) -> Transaction:
        """Begin the transaction of an attempt, which `end` must end."""
        if (seed := self._next_seed) is None:
            seed = self._random.getrandbits(63)
        self._next_seed = seed + 1
        return begin(self.catalog, self.now, self._ids, usage_of(self._limits), seed, self, self._reads)

    def keep(self, transaction: Transaction) -> None:
        """Keep what an attempt has written."""
        if (job := transaction.succeeded) is not None:
            self._succeeded[job.id] = job
        if transaction.writes:
            self.catalog = transaction.catalog
            if transaction.overdue < self.overdue:
                self.overdue = transaction.overdue
                drop_due_after(self.claimed, self.overdue)
            for table, writes in transaction.writes.items():
                earlier = self._writes.get(table)
                if earlier is None:
                    self._writes[table] = writes
                elif table in self._overlays or table == JOBS.name or not earlier.keys().isdisjoint(writes):
                    self._merge(table, earlier, writes)
                else:
                    earlier.update(writes)

    def end(self, transaction: Transaction) -> None:
        """End the transaction of an attempt, kept or not: its reads count in any case."""
        transaction.end()
        if self._reads is not None and self._reads.open_scans:
            self._reads.seal()

    def _merge(self, table: str, earlier: dict[int, Write], writes: dict[int, Write]) -> None:
        if table == JOBS.name and not self._succeeded.keys().isdisjoint(writes):
            self._write_succeeded()
        for overlay in self._overlays.get(table, {}).values():
            for id, write in writes.items():
                overlay.replace(id, earlier.get(id), write)
        merge_writes(earlier, writes)

    # Without a transaction: the executor's own moves of jobs, which run no code that could raise.

    def row(self, table: Table, id: int) -> Row | None:
        """Return the row of an id as the batch has left it so far, and add it to the read set."""
        if self._reads is not None:
            self._reads.points.add((table.name, id))
        return self.read_row(table, id)

    def write_job(self, old: Job, new: Job) -> None:
        """Change a job; `old` is as the batch has left it so far."""
        id, write = old.id, make_write((old, new, (), ()))
        writes = self._writes.setdefault(JOBS.name, {})
        if id in writes or JOBS.name in self._overlays:
            self._merge(JOBS.name, writes, {id: write})
        else:
            writes[id] = write

    def succeed(self, job: Job) -> None:
        """End a job successfully."""
        self._succeeded[job.id] = job

    def dry_run(self, unit: Callable[..., Coroutine[Any, Any, Any]], *args: object, handler: str) -> None:
        """Run a unit as the next attempt would, with the same ids and seed, and keep nothing of it."""
        if self._next_seed is None:
            self._next_seed = self._random.getrandbits(63)
        ids, usage = self._ids.copy(), usage_of(self._limits)
        transaction = begin(self.catalog, self.now, ids, usage, self._next_seed, self, self._reads)
        transaction.is_dry_run = True
        try:
            drive(unit(transaction, *args), self, self.watched, handler)
        finally:
            transaction.end()

    def prefetch(self, args: Iterable[str]) -> None:
        """Read at once the documents whose ids are in the arguments of calls: the calls will probably read them."""
        if self._shared is None:
            return
        for number, ids in self._codec.found_in(args).items():
            table = self._stored.by_number.get(number)
            if table is not None and table is not JOBS:
                self._call_engine(self._shared.prefetch, table, ids)

    def writes_to(self, table: Table) -> Mapping[int, Write]:
        """Return what it has written to a table so far, but for the jobs that only succeeded."""
        return self._writes.get(table.name, _NOTHING)

    def latest_job(self, id: int, job: Job) -> Row | None:
        """Return a job of its view as the batch has left it so far; None if it was deleted."""
        if id in self._succeeded:
            self._write_succeeded()
        writes = self._writes.get(JOBS.name)
        return job if writes is None or id not in writes else writes[id].new

    def table_of(self, id: str, /) -> str | None:
        """Return the name of the table that a string is an id of; None if it is no id."""
        decoded = self._codec.decode(id)
        table = None if decoded is None else self.catalog.by_number.get(decoded[0])
        return None if table is None else table.name

    def read_row(self, table: Table, id: int) -> Row | None:
        """Return the row of an id for a transaction whose own overlay does not have it."""
        name = table.name
        if table is JOBS and id in self._succeeded:
            self._write_succeeded()
        writes = self._writes.get(name)
        if writes is not None and id in writes:
            return writes[id].new
        cached = self._cached.get(name)
        if cached is not None and id in cached:
            return cached[id]
        if name not in self._stored.tables:
            return None
        try:
            row: Row | None = self.watched.closed(self._view.answer, Get(table, id))
            return row
        except Exception as error:
            self.engine_error = error
            raise

    def _written_to(self, table: Table) -> dict[int, Write]:
        """Return all that the batch has written to a table so far."""
        if table is JOBS and self._succeeded:
            self._write_succeeded()
        return self._writes.get(table.name, _NOTHING)

    def _write_succeeded(self) -> None:
        """Turn the jobs that succeeded into writes like others.

        Most jobs of a batch succeed, and nothing looks at them before the commit, which ends all of them in one
        statement. So they are a set, and become writes where something reads jobs, or another write meets one.
        """
        succeeded, self._succeeded = self._succeeded, {}
        writes = {id: make_write((job, succeeded_row(job, self.now), (), ())) for id, job in succeeded.items()}
        self._merge(JOBS.name, self._writes.setdefault(JOBS.name, {}), writes)

    def answer(self, request: Request) -> Any:
        """Answer a request of a transaction whose own overlay has no answer."""
        try:
            if type(request) is Get:
                return self.read_row(*request)
            if type(request) is Scan:
                return self._scan(request)
            if type(request) is GetMany:
                return self._get_many(*request)
            return self._count(request) if type(request) is Count else self._view.answer(request)
        except Exception as error:
            self.engine_error = error
            raise

    def _scan(self, scan: Scan) -> list[tuple[int, Row]]:
        table = scan.table
        writes = self._written_to(table)
        if not writes:
            return self._view.answer(scan) if table.name in self._stored.tables else []
        overlay = overlay_of(self._overlays, table, scan.order, writes)
        is_stored = table.name in self._stored.tables
        below: list[tuple[int, Row]] = self._view.answer(overlay.widen(scan)) if is_stored else []
        return overlay.merge(scan, below, writes)

    def _get_many(self, table: Table, ids: tuple[int, ...]) -> dict[int, Row]:
        if self._shared is not None and table.name in self._stored.tables:
            self._shared.prefetch(table, ids)
        return {id: row for id in ids if (row := self.answer(Get(table, id))) is not None}

    def _count(self, count: Count) -> int:
        table, hidden, added, below = count.table, 0, 0, 0
        if writes := self._written_to(table):
            hidden, added = overlay_of(self._overlays, table, count.order, writes).count(count.interval)
        if table.name in self._stored.tables:
            below = self._view.answer(count._replace(limit=count.limit + hidden))
        return below - hidden + added

    def check_reads(self) -> None:
        """Raise Conflict if another node has changed what was read: then the errors of calls may be wrong as well."""
        reads = self._reads_to_check()
        has_read = reads is not None and (reads.ids or self._next_seed is not None)  # perhaps unknown tables only
        if self._shared is not None and reads is not None and has_read:
            self._shared.validate(reads)
        if self._shared is not None and self._refreshes:
            self._shared.refresh()

    def commit(self) -> Commit:
        """Commit through the engine, and return what was committed."""
        return self.record_commit(self._engine.commit(self._changes()))

    def send(self) -> Commit:
        """Begin the commit in the engine. The version of the result is not known before the engine answers."""
        assert self._shared is not None
        self._shared.send_commit(self._changes())
        return self.record_commit(self.version)

    def _changes(self) -> Changeset:
        self._create_tables()
        if self._shared is not None:
            self._mark_unchecked()
        return Changeset(self._written(), self._ids.last, self._reads_to_check(), self._succeeded, self.now)

    def _written(self) -> list[tuple[Table, dict[int, Write]]]:
        return [(self.catalog.tables[name], writes) for name, writes in self._writes.items()]

    def record_commit(self, version: int) -> Commit:
        """Return what was committed, under its version, and update what is carried over."""
        written = self._written()
        for table, writes in written:
            if table.name in self.tracked:
                self.tracked[table.name].update(writes)
        for id in self.claimed and self.claimed.keys() & self.writes_to(JOBS).keys():
            del self.claimed[id]
        changes: list[LocalChange] = [LocalChange(*pair) for pair in written]
        if self._succeeded:
            changes.append(SucceededJobs(self._succeeded, self.now))
        weight = sum(change.weight for change in changes)
        return Commit(version, changes, weight, frozenset(self._reindexed))

    def _mark_unchecked(self) -> None:
        """Mark tables that now hold documents which the newest version of the application has not checked."""
        for name in self.catalog.outdated & self._writes.keys():
            unchecked = replace(self.catalog.tables[name], declared="")
            self._change(self._engine.declare_table, unchecked)
            self.catalog = self._stored = self.catalog.with_table(unchecked)

    def _reads_to_check(self) -> ReadKeys | None:
        # No other node has written to tables that this batch creates.
        return None if self._reads is None else self._reads.keys_in(self._stored.tables)

    def _create_tables(self) -> None:
        if self.catalog is not self._stored:
            for name in self.catalog.tables.keys() - self._stored.tables.keys():
                self._change(self._engine.create_table, self.catalog.tables[name])
            self._stored = self.catalog

    # For a change of schema, in an exclusive batch.

    def put_table(self, table: Table) -> None:
        """Create a table in the store, or replace its state: exactly these indexes, and this declaration."""
        before = self.catalog.tables.get(table.name)
        if before == table:
            return
        self.catalog = self.catalog.with_table(table)
        self._create_tables()
        if before is not None and before.indexes != table.indexes:
            self._reindexed.add(table.name)
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
        """Validate by another schema, from the next call on."""
        self.catalog = self.catalog.with_schema(schema)

    def is_superseded(self, mark: str) -> bool:
        """Return whether a node has declared something newer since this declaration was first made."""
        return self._shared is not None and mark in self._shared.deploys()[:-1]

    def deploy(self, mark: str) -> None:
        """Make a declaration the newest one, unless it is already the newest."""
        if self._shared is not None and self._shared.deploys()[-1:] != [mark]:
            self._change(self._shared.deploy, mark)
            self.catalog = self._stored = self.catalog.with_deploy(mark)

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        """Add keys of documents that are older than an index which is being built."""
        self._change(self._engine.fill_index, index, keys)

    def track(self, *tables: str) -> Tracked:
        """Track the ids of writes to these tables, and to no others, from now on.

        Returns the ids tracked so far, including those that this batch has written.
        """
        kept = {name: ids | self._writes.get(name, _NOTHING).keys() for name, ids in self.tracked.items()}
        self.tracked = {name: set[int]() for name in tables}  # before it raises: applying the schema again starts over
        if any(ALL_IDS in ids for ids in kept.values()):
            raise StoreLostError("other nodes have written more than this one could follow; apply the schema again")
        return kept

    def refresh(self) -> None:
        """Read what other nodes have committed. The answer to a commit brings that, so none in flight is awaited."""
        if self._shared is not None and self._shared.is_in_flight:
            self._refreshes = True  # if this batch commits nothing itself
        elif self._shared is not None:
            self._call_engine(self._shared.refresh)

    def _change(self, act: Callable[..., None], *args: object) -> None:
        self._engine_changed = True
        self._call_engine(act, *args)

    def _call_engine(self, act: Callable[..., None], *args: object) -> None:
        """Call the engine. An error of the engine fails the whole batch."""
        try:
            act(*args)
        except Exception as error:
            self.engine_error = error
            raise


_NOTHING: dict[int, Write] = {}
