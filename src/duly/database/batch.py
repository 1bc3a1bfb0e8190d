"""The calls of one commit: each is a transaction of its own over those before it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any, Final, TypeVar

from duly.clock import monotonic
from duly.database.catalog import Catalog
from duly.database.changes import Commit, LocalChange
from duly.database.driver.trampoline import drive
from duly.database.driver.watchdog import WatchedThread
from duly.database.indexes.overlay import IndexOverlay, overlay_of
from duly.database.indexes.row_keys import index_named
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction, merge_writes
from duly.database.usage import SoftLimits, Usage
from duly.errors import StoreLostError
from duly.limits import BATCH_SECONDS_ALONE_MAX, BATCH_SECONDS_MAX
from duly.storage.engine import JOBS, Changes, Count, Engine, Get, GetMany, Job, Reads, Request, Row, Scan, View, Write
from duly.values.ids import IdCodec, IdSource
from duly.values.schema.tables import Index, SchemaDefinition, Table

T = TypeVar("T")
Tracked = dict[str, set[int]]
"""Ids of documents that were written, by table."""
ALL_IDS: Final = -1
"""Stands in for them where it is not known which."""


class Batch:
    """One commit in the making.

    Time stands still in it: `now` is when it began. Nothing is written to the store until it is committed; what a
    call reads are the rows of the store with what earlier calls of the batch have written laid over them.
    """

    def __init__(
        self,
        engine: Engine,
        view: View,
        catalog: Catalog,
        codec: IdCodec,
        ids: IdSource,
        now: float,
        limits: SoftLimits,
        random: Random,
        watched: WatchedThread,
        tracked: Tracked,
        reads: ReadSet | None,
        claimed: dict[int, Job],
        is_awaited: Callable[[], bool],
    ) -> None:
        self.catalog = catalog
        self.now = now
        self.version = view.version
        """The version of the store it began with."""
        self.tracked = tracked
        """What earlier batches have written to the tables that are tracked."""
        self.claimed = claimed
        """Due functions that an earlier batch has found and left to the next ones. What a batch writes leaves it."""
        self.overdue = math.inf
        """When the first is due of the functions that it has scheduled for a time that had passed: what is due later
        runs after those, so in a later batch."""
        self._reindexed: set[str] = set()  # the tables whose indexes it has changed, also there and back
        self._stored = catalog  # the tables that the engine has
        self._engine = engine
        self._view = view
        self._codec = codec
        self._ids = ids
        self._limits = limits
        self._random = random
        self._attempts = 0
        self._watched = watched
        self._reads = reads
        self._writes: dict[str, dict[int, Write]] = {}
        self._overlays: dict[str, dict[str, IndexOverlay]] = {}  # by table and index, once they are scanned
        self._engine_changed = False
        self._is_awaited = is_awaited  # by others than whoever has asked for its first work
        self._began = monotonic()
        self.on_durable: list[Callable[[], None]] = []
        """What to do once it is durable, such as to tell of a run: one that is undone was none."""
        self.engine_error: Exception | None = None
        """What the engine refused: from then on nothing of the batch is kept."""

    @property
    def is_time_up(self) -> bool:
        """Whether the batch has taken its time; what is left goes into the next."""
        seconds = monotonic() - self._began
        return seconds >= BATCH_SECONDS_MAX and (seconds >= BATCH_SECONDS_ALONE_MAX or self._is_awaited())

    @property
    def has_changes(self) -> bool:
        return bool(self._writes) or self._engine_changed

    @cached_property
    def _seed(self) -> int:
        """That of the first attempt, drawn when there is one: what listens to other nodes takes no chance away."""
        return self._random.getrandbits(63)

    def attempt(self, unit: Callable[..., Coroutine[Any, Any, T]], *args: object, handler: str = "") -> T:
        """Run `unit(transaction, *args)` as one transaction. If it raises, it leaves nothing behind but its reads.

        With the name of a `handler`, whose code it runs, its time is limited.
        """
        seed = self._seed + self._attempts
        self._attempts += 1
        transaction = Transaction(self.catalog, self.now, self._ids, Usage(self._limits), seed, self._reads)
        try:
            value = drive(unit(transaction, *args), self.answer, self._watched, handler)
            if transaction.writes:
                self.catalog = transaction.catalog
                if transaction.overdue < self.overdue:
                    self.overdue = transaction.overdue
                    drop_due_after(self.claimed, self.overdue)
                for table, writes in transaction.writes.items():
                    earlier = self._writes.get(table)
                    if earlier is None:
                        self._writes[table] = writes
                    else:
                        self._merge(table, earlier, writes)
        finally:
            transaction.end()
            if self._reads is not None:
                self._reads.seal()
        return value

    def _merge(self, table: str, earlier: dict[int, Write], writes: dict[int, Write]) -> None:
        if table in self._overlays:
            for overlay in self._overlays[table].values():
                for id, write in writes.items():
                    overlay.replace(id, earlier.get(id), write)
        merge_writes(earlier, writes)

    def dry_run(self, unit: Callable[..., Coroutine[Any, Any, Any]], *args: object, handler: str) -> None:
        """Run a unit as the next attempt would, with the same ids and the same chance, and keep nothing of it."""
        seed = self._seed + self._attempts
        transaction = Transaction(self.catalog, self.now, self._ids.copy(), Usage(self._limits), seed)
        transaction.is_dry_run = True
        try:
            drive(unit(transaction, *args), self.answer, self._watched, handler)
        finally:
            transaction.end()

    def prefetch(self, args: Iterable[str]) -> None:
        """Read in one go the documents whose ids stand in the arguments of calls: what they will probably read."""
        if not self._engine.is_shared:
            return
        wanted: dict[int, set[int]] = {}
        for text in args:
            for id in _ids.findall(text):
                decoded = self._codec.decode(id)
                if decoded is not None:
                    wanted.setdefault(decoded[0], set()).add(decoded[1])
        for number, ids in wanted.items():
            table = self._stored.by_number.get(number)
            if table is not None and table is not JOBS:
                self._call_engine(self._engine.prefetch, table, list(ids))

    def writes_to(self, table: Table) -> Mapping[int, Write]:
        """What the batch has written to a table so far."""
        return self._writes.get(table.name, _NOTHING)

    def latest(self, table: Table, id: int, row: Row | None) -> Row | None:
        """The row as the batch has left it so far; `row` is what its view said."""
        write = self._writes.get(table.name, _NOTHING).get(id)
        return row if write is None else write.new

    def answer(self, request: Request) -> Any:
        """What a transaction reads where its own overlay has no answer."""
        try:
            if type(request) is Get:
                table, id = request
                write = self._writes.get(table.name, _NOTHING).get(id)
                if write is not None:
                    return write.new
                return self._view.answer(request) if table.name in self._stored.tables else None
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
        writes = self._writes.get(table.name)
        if writes is None:
            return self._view.answer(scan) if table.name in self._stored.tables else []
        overlay = overlay_of(self._overlays, table, scan.order, writes)
        below: list[tuple[int, Row]] = []
        if table.name in self._stored.tables:
            below = self._view.answer(overlay.widen(scan))
        return overlay.merge(scan, below, writes)

    def _get_many(self, table: Table, ids: tuple[int, ...]) -> dict[int, Row]:
        if self._engine.is_shared and table.name in self._stored.tables:
            self._engine.prefetch(table, ids)
        rows = ((id, self.answer(Get(table, id))) for id in ids)
        return {id: row for id, row in rows if row is not None}

    def _count(self, count: Count) -> int:
        table, hidden, added, below = count.table, 0, 0, 0
        if writes := self._writes.get(table.name):
            hidden, added = overlay_of(self._overlays, table, count.order, writes).count(count.interval)
        if table.name in self._stored.tables:
            below = self._view.answer(count._replace(limit=count.limit + hidden))
        return below - hidden + added

    def check(self) -> None:
        """Raise Conflict if what was read is no longer so: then even an error may be a mistake."""
        reads = self._reads_to_check()
        if reads is not None and self._attempts:  # also where all it read are tables it does not know
            self._engine.check(reads)

    def commit(self) -> Commit:
        return self.committed(self._engine.commit(self._changes()))

    def send(self) -> Commit:
        """Begin to commit; what the engine says when it has landed is the version that is still to be filled in."""
        self._engine.send(self._changes())
        return self.committed(self.version)

    def _changes(self) -> Changes:
        self._create_tables()
        if self._engine.is_shared:
            self._mark_unchecked()
        return Changes(self._written(), self._ids.last, self._reads_to_check())

    def _written(self) -> list[tuple[Table, dict[int, Write]]]:
        return [(self.catalog.tables[name], writes) for name, writes in self._writes.items()]

    def committed(self, version: int) -> Commit:
        """What was committed, as a version."""
        written = self._written()
        for table, writes in written:
            if table.name in self.tracked:
                self.tracked[table.name].update(writes)
        for id in self.claimed and self.claimed.keys() & self._writes.get(JOBS.name, _NOTHING).keys():
            del self.claimed[id]
        weight = sum(_weight(writes) for _, writes in written)
        return Commit(version, [LocalChange(*pair) for pair in written], weight, frozenset(self._reindexed))

    def _mark_unchecked(self) -> None:
        """Note which tables hold documents now that the newest version of the application has not checked."""
        for name in self.catalog.outdated & self._writes.keys():
            unchecked = replace(self.catalog.tables[name], declared="")
            self._change(self._engine.declare_table, unchecked)
            self.catalog = self._stored = self.catalog.with_table(unchecked)

    def _reads_to_check(self) -> Reads | None:
        if self._reads is None:
            return None
        tables = self._stored.tables  # nobody else has written to those that this batch makes
        ids = [id for table, id in self._reads.points if table in tables]
        ranges = [(tables[span.table], span) for span in self._reads.ranges if span.table in tables]
        return Reads(ids, [(table, index_named(table, span.order), span.lower, span.upper) for table, span in ranges])

    def _create_tables(self) -> None:
        if self.catalog is not self._stored:
            for name in self.catalog.tables.keys() - self._stored.tables.keys():
                self._change(self._engine.create_table, self.catalog.tables[name])
            self._stored = self.catalog

    # For whoever applies a schema, in an exclusive batch.

    def put_table(self, table: Table) -> None:
        """Make the store have a table, or another state of it: these indexes and no others, this declaration."""
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
        """Validate by another schema from the next call on."""
        self.catalog = self.catalog.with_schema(schema)

    def is_superseded(self, mark: str) -> bool:
        """Whether a node has declared something newer since somebody first declared this."""
        return mark in self._engine.deploys()[:-1]

    def deploy(self, mark: str) -> None:
        """Make a declaration the newest, if it is not."""
        if self._engine.is_shared and self._engine.deploys()[-1:] != [mark]:
            self._change(self._engine.deploy, mark)
            self.catalog = self._stored = self.catalog.with_deploy(mark)

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        """Add keys of documents that are older than an index that is being built."""
        self._change(self._engine.fill_index, index, keys)

    def track(self, *tables: str) -> Tracked:
        """From now on keep the ids of what is written to these tables, and to no others.

        Returns those kept so far, with all that this batch has written.
        """
        kept = {name: ids | self._writes.get(name, _NOTHING).keys() for name, ids in self.tracked.items()}
        self.tracked = {name: set[int]() for name in tables}  # first: whoever applies the schema again begins anew
        if any(ALL_IDS in ids for ids in kept.values()):
            raise StoreLostError("other nodes have written more than this one could follow; apply the schema again")
        return kept

    def refresh(self) -> None:
        """Learn what other nodes have committed."""
        self._call_engine(self._engine.refresh)

    def _change(self, act: Callable[..., None], *args: object) -> None:
        self._engine_changed = True
        self._call_engine(act, *args)

    def _call_engine(self, act: Callable[..., None], *args: object) -> None:
        """Have the engine do something; what it refuses, it refuses to the whole batch."""
        try:
            act(*args)
        except Exception as error:
            self.engine_error = error
            raise


def drop_due_after(claimed: dict[int, Job], due: float) -> None:
    """Leave to the next claim, of functions that were claimed in the order of their due time, those due later."""
    while claimed and (next(reversed(claimed.values())).due or 0.0) > due:
        claimed.popitem()


_ids: Final = re.compile(r'"([0-9a-f]{32})"')
_NOTHING: dict[int, Write] = {}
_ROW_BYTES: Final = 500  # of a row beside its text


def _weight(writes: Mapping[int, Write]) -> int:
    weight = len(writes) * _ROW_BYTES
    for write in writes.values():
        for row in (write.old, write.new):
            if row is not None:
                weight += len(row.args if isinstance(row, Job) else row)
    return weight
