"""One transaction: an overlay of writes over the store, and the set of what was read.

Nothing here touches a store. A row that is read by its id comes from a function that the transaction was begun with. A
longer read is a request, which the coroutine yields to the trampoline. A sub-transaction is a transaction whose reads
fall through to its parent: `merge` adds its writes to the parent; a dropped one leaves no trace but its reads.
"""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final, NoReturn, Protocol

from duly.database.catalog import Catalog
from duly.database.driver.trampoline import ask
from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.overlay import IndexOverlay, overlay_of
from duly.database.indexes.row_keys import index_name, keys_of
from duly.database.read_set import ReadSet
from duly.database.usage import Usage
from duly.errors import FunctionError
from duly.storage.requests import Count, GetMany, Request, Scan
from duly.storage.rows import JOBS, Job, Row, Write, make_write
from duly.values.ids import IdSource
from duly.values.schema.tables import Table


class Rows(Protocol):
    """What is below a transaction."""

    def read_row(self, table: Table, id: int) -> Row | None:
        """Return the row of an id, at once."""
        ...


_NEVER: Final = math.inf
_NO_WRITES: Final[dict[int, Write]] = {}


class Transaction:
    """What one function has read and written so far."""

    # Each call and each job begins one, by `begin` and not by `__init__`: see `Usage`.
    catalog: Catalog
    now: float
    usage: Usage
    reads: ReadSet | None
    writes: dict[str, dict[int, Write]]
    calls: list[types.CoroutineType[Any, Any, Any]]
    """Calls that the function must have awaited when it returns; see `must_be_awaited`."""
    parent: Transaction | None
    is_dry_run: bool = False
    overdue: float = _NEVER
    """The earliest due time of the functions that it has scheduled for a time in the past."""
    revision: int
    """How often the writes of this transaction have changed."""
    succeeded: Job | None = None
    """The scheduled function that it is, if that ended well: the batch writes its end together with those of others."""
    _below: Rows
    _known_tables: Mapping[str, Table]  # the tables that rows can be read of
    _rows: dict[tuple[str, int], Row | None]  # rows read so far: a patched document was mostly read before
    _overlays: dict[str, dict[str, IndexOverlay]] | None  # by table and index, from the first scan on
    _ids: IdSource
    _seed: int

    def child(self) -> Transaction:
        """Begin a sub-transaction: it sees the writes of this one; `merge` keeps its own writes."""
        seed = self.new_seed() ^ _CHILD_SEED_BITS  # otherwise its first seed would be the next one of this transaction
        child = begin(self.catalog, self.now, self._ids, self.usage, seed, self._below, self.reads)
        child.parent, child.is_dry_run = self, self.is_dry_run
        return child

    def end(self) -> None:
        """End the transaction: a `ctx` that was kept fails from now on; `writes` stays readable."""
        # A change of class, so that no read or write has to check first whether the transaction has ended.
        self.__class__ = _Ended  # pyright: ignore[reportAttributeAccessIssue]

    def new_seed(self) -> int:
        """Return a seed for randomness: another one each time, and the same ones if the transaction runs again."""
        self._seed = (self._seed * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % (1 << 64)  # Knuth's MMIX
        return self._seed

    # Reading.

    async def get(self, table: Table, id: int) -> Row | None:
        """Return the row of an id, as `row` does: for units of work, which await all that they read."""
        return self.row(table, id)

    def row(self, table: Table, id: int) -> Row | None:
        """Return the row of an id. The read is not counted in `usage`: `ctx.db` does that."""
        key = name, _ = table.name, id
        if self.reads is not None:
            self.reads.points.add(key)
        layer = self
        while True:
            writes = layer.writes.get(name)
            if writes is not None and id in writes:
                return writes[id].new
            above = layer.parent
            if above is None:
                break
            layer = above
        rows = layer._rows
        if key not in rows:
            rows[key] = self._below.read_row(table, id) if name in layer._known_tables else None
        return rows[key]

    @types.coroutine
    def get_many(self, table: Table, ids: Collection[int]) -> Generator[Request, Any, dict[int, Row]]:
        """Return the rows of several ids, without missing ones. One request reads all rows that were not read yet."""
        root, found = self._root(), dict[int, Row | None]()
        if self.reads is not None:
            self.reads.points.update((table.name, id) for id in ids)
        for id in ids:
            if (write := self._last_write(table.name, id)) is not None:
                found[id] = write.new
            elif (table.name, id) in root._rows:
                found[id] = root._rows[table.name, id]
        unknown = tuple(id for id in ids if id not in found)
        if unknown and table.name in root._known_tables:
            rows: dict[int, Row] = yield GetMany(table, unknown)
            root._rows.update({(table.name, id): rows.get(id) for id in unknown})
            found.update(rows)
        return {id: row for id, row in found.items() if row is not None}

    def _last_write(self, table: str, id: int) -> Write | None:
        layer: Transaction | None = self
        while layer is not None:
            write = layer.writes.get(table, _NO_WRITES).get(id)
            if write is not None:
                return write
            layer = layer.parent
        return None

    async def count(self, count: Count) -> int:
        """Count the rows of an interval, up to about `count.limit`. The whole interval is added to the read set."""
        if self.reads is not None:
            lower, upper = count.interval
            self.reads.ranges.append(KeyRange(count.table.name, index_name(count.order), lower.key(), upper.key()))
        return await self._count(count)

    async def _count(self, count: Count) -> int:
        writes = self.writes.get(count.table.name)
        if not writes:
            return await self._count_below(count)
        hidden, added = overlay_of(self._all_overlays(), count.table, count.order, writes).count(count.interval)
        return await self._count_below(count._replace(limit=count.limit + hidden)) - hidden + added

    async def _count_below(self, count: Count) -> int:
        if self.parent is not None:
            return await self.parent._count(count)
        return await ask(count) if count.table.name in self._known_tables else 0

    async def scan(self, scan: Scan) -> list[tuple[int, Row]]:
        """Return at most `scan.limit` rows of an interval, in order. The whole interval is added to the read set."""
        if self.reads is not None:
            lower, upper = scan.interval
            self.reads.ranges.append(KeyRange(scan.table.name, index_name(scan.order), lower.key(), upper.key()))
        return await self.scan_untracked(scan)

    async def scan_untracked(self, scan: Scan) -> list[tuple[int, Row]]:
        """Scan like `scan`, but add nothing to the read set.

        Two callers may use it: an index scan, which adds the range itself (see `index_scan`), and a job transition,
        which compares the state of each row that it changes, so that other changes to the interval do not matter.
        """
        writes = self.writes.get(scan.table.name)
        if not writes:
            return await self._rows_below(scan)
        overlay = overlay_of(self._all_overlays(), scan.table, scan.order, writes)
        return overlay.merge(scan, await self._rows_below(overlay.widen(scan)), writes)

    def _all_overlays(self) -> dict[str, dict[str, IndexOverlay]]:
        if self._overlays is None:
            self._overlays = {}
        return self._overlays

    async def _rows_below(self, scan: Scan) -> list[tuple[int, Row]]:
        if self.parent is not None:
            return await self.parent.scan_untracked(scan)
        return await ask(scan) if self._is_answerable(scan.table.name) else []

    def _is_answerable(self, table: str) -> bool:
        """Return whether the table existed before the outermost transaction, so that a request can be answered."""
        return table in self._root()._known_tables

    def _root(self) -> Transaction:
        root = self
        while root.parent is not None:
            root = root.parent
        return root

    # Writing.

    def new_id(self) -> int:
        return self._ids.next(self.now)

    def create_table(self, name: str) -> Table:
        table = self.catalog.new_table(name)
        self.catalog = self.catalog.with_table(table)
        return table

    def write(self, table: Table, id: int, old: Row | None, new: Row | None) -> None:
        """Make `new` the row of an id; `old` is the row that this transaction has read."""
        name = table.name
        writes = self.writes.get(name)
        if writes is None:
            writes = self.writes[name] = {}
        earlier = writes.get(id)
        if table.indexes and table is not JOBS:
            keys = keys_of(table, id, new)
            old_keys = keys_of(table, id, old) if earlier is None else earlier.old_keys
        else:
            keys = old_keys = ()
        write = writes[id] = make_write((old if earlier is None else earlier.old, new, old_keys, keys))
        self.revision += 1
        if self._overlays:
            self._update_overlays(self._overlays.get(table.name, {}), id, earlier, write)

    def _update_overlays(
        self, overlays: Mapping[str, IndexOverlay], id: int, earlier: Write | None, write: Write
    ) -> None:
        for overlay in overlays.values():
            overlay.replace(id, earlier, write)

    def merge(self, child: Transaction) -> None:
        """Add the writes of a sub-transaction to the writes of this one."""
        self.catalog = child.catalog
        self.overdue = min(self.overdue, child.overdue)
        self.revision += 1
        for table, writes in child.writes.items():
            own = self.writes.setdefault(table, {})
            if self._overlays and table in self._overlays:
                for id, write in writes.items():
                    self._update_overlays(self._overlays[table], id, own.get(id), write)
            merge_writes(own, writes)


def begin(
    catalog: Catalog,
    now: float,
    ids: IdSource,
    usage: Usage,
    seed: int,
    below: Rows,
    reads: ReadSet | None,
) -> Transaction:
    """Begin a transaction over the rows below it."""
    transaction = Transaction()
    transaction.catalog = catalog
    transaction.now = now
    transaction.usage = usage
    transaction.reads = reads
    transaction.parent = transaction._overlays = None  # pyright: ignore[reportPrivateUsage]
    transaction.revision = 0
    transaction.writes = {}
    transaction.calls = []
    transaction._below = below  # pyright: ignore[reportPrivateUsage]
    transaction._known_tables = catalog.tables  # pyright: ignore[reportPrivateUsage]
    transaction._rows = {}  # pyright: ignore[reportPrivateUsage]
    transaction._ids = ids  # pyright: ignore[reportPrivateUsage]
    transaction._seed = seed  # pyright: ignore[reportPrivateUsage]
    return transaction


_CHILD_SEED_BITS: Final = 0x9E37_79B9_7F4A_7C15  # any number with many bits set would do


def _refuse(*_: object) -> NoReturn:
    raise ended_error()


_refused: Final[Any] = _refuse  # whatever the signature of the method that it replaces


class _Ended(Transaction):
    """A transaction whose call has ended: every use fails."""

    catalog: Any = property(_refuse)
    child = count = row = get = get_many = scan = scan_untracked = new_id = create_table = write = merge = _refused


def ended_error() -> FunctionError:
    """Return the error of a use of `ctx` after its call has ended."""
    return FunctionError(
        "got a use of `ctx` after its call had ended, expected it before: a `ctx` belongs to one call. A thread, a task"
        " or a callback that goes on longer calls the app (app.mutation(…)), or an action that waits for it"
    )


def merge_writes(into: dict[int, Write], writes: dict[int, Write]) -> None:
    """Merge later writes into earlier ones, row by row."""
    if into.keys().isdisjoint(writes):  # as most are
        into.update(writes)
        return
    for id, write in writes.items():
        earlier = into.get(id)
        if earlier is None:
            into[id] = write
        else:
            into[id] = Write(earlier.old, write.new, earlier.old_keys, write.new_keys)
