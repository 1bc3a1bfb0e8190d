"""One transaction: an overlay of writes over whoever answers its reads.

Nothing here touches a store. A read that the overlay cannot answer is *asked*: the coroutine yields a request
and is sent the answer by whoever drives it (`drive`). A sub-transaction is a transaction whose reads fall
through to its parent; merging it moves its writes up, dropping it leaves no trace but its reads.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from duly.database.catalog import Catalog, key_in, keys_of
from duly.database.overlay import Overlay
from duly.database.reads import Range, ReadSet
from duly.errors import FunctionError
from duly.storage.engine import JOBS, Due, Get, NextDue, Request, Row, Scan, Write
from duly.values.ids import IdSource
from duly.values.keys import Interval
from duly.values.schema import BY_CREATION_TIME, Index, Table

P = ParamSpec("P")
T = TypeVar("T")


class Transaction:
    """What one function has read and written so far."""

    __slots__ = ("_below", "_ids", "_overlays", "calls", "catalog", "now", "parent", "reads", "writes")

    def __init__(
        self,
        catalog: Catalog,
        now: float,
        ids: IdSource,
        reads: ReadSet | None = None,
        parent: Transaction | None = None,
    ) -> None:
        self.catalog = catalog
        self.now = now
        self.reads = reads
        self.parent = parent
        self.writes: dict[str, dict[int, Write]] = {}
        self.calls: list[types.CoroutineType[Any, Any, Any]] = []
        """Calls that must have been awaited when the function returns; see `must_be_awaited`."""
        self._overlays: dict[str, dict[str, Overlay]] = {}  # by table and index, once they are scanned
        self._below = catalog.tables  # the tables that whoever answers knows
        self._ids = ids

    def child(self) -> Transaction:
        """A sub-transaction: it sees this one's writes; `merge` keeps its own."""
        return Transaction(self.catalog, self.now, self._ids, self.reads, self)

    # Reading.

    async def get(self, table: Table, id: int) -> Row | None:
        name = table.name
        if self.reads is not None:
            self.reads.points.add((name, id))
        layer: Transaction | None = self
        while layer is not None:
            writes = layer.writes.get(name)
            if writes is not None and id in writes:
                return writes[id].new
            layer = layer.parent
        return await ask(Get(table, id)) if self._answered(name) else None

    async def scan(
        self, table: Table, index: Index | None, interval: Interval, descending: bool, limit: int
    ) -> list[tuple[int, Row]]:
        """At most `limit` rows of an interval, in its order."""
        rows = await self._rows(Scan(table, index, interval, descending, limit))
        if self.reads is not None:
            last = key_in(table, index, *rows[-1]) if 0 < limit == len(rows) else None
            self.reads.ranges.append(_range_read(table.name, index, interval, descending, last))
        return rows

    def scan_missing(self, table: str) -> None:
        """Note that a table was read that does not exist yet."""
        if self.reads is not None:
            self.reads.ranges.append(Range(table, BY_CREATION_TIME, b"", b"\xff"))

    async def _rows(self, scan: Scan) -> list[tuple[int, Row]]:
        writes = self.writes.get(scan.table.name)
        if not writes:
            return await self._rows_below(scan)
        overlay = self._overlay(scan.table, scan.order, writes)
        hidden = overlay.hidden(scan.interval.lower.key(), scan.interval.upper.key())
        rows = await self._rows_below(scan._replace(limit=scan.limit + hidden))
        return overlay.merged(scan, rows, writes)

    def _overlay(self, table: Table, order: Index | None, writes: dict[int, Write]) -> Overlay:
        overlays = self._overlays.setdefault(table.name, {})
        name = BY_CREATION_TIME if order is None else order.name
        if name not in overlays:
            overlays[name] = Overlay(table, order, writes.items())
        return overlays[name]

    async def _rows_below(self, scan: Scan) -> list[tuple[int, Row]]:
        if self.parent is not None:
            return await self.parent._rows(scan)
        return await ask(scan) if self._answered(scan.table.name) else []

    def _answered(self, table: str) -> bool:
        """Whether the table existed before the outermost transaction made it."""
        root = self
        while root.parent is not None:
            root = root.parent
        return table in root._below

    # Writing.

    def new_id(self) -> int:
        return self._ids.next(self.now)

    def create_table(self, name: str) -> Table:
        table = self.catalog.new_table(name)
        self.catalog = self.catalog.with_table(table)
        return table

    def write(self, table: Table, id: int, old: Row | None, new: Row | None) -> None:
        """Make `new` the row; `old` is what a read of this transaction answered."""
        writes = self.writes.get(table.name)
        if writes is None:
            writes = self.writes[table.name] = {}
        indexed = table.indexes and table is not JOBS
        keys = keys_of(table, id, new) if indexed else ()
        earlier = writes.get(id)
        if earlier is None:
            write = Write(old, new, keys_of(table, id, old) if indexed else (), keys)
        else:
            write = Write(earlier.old, new, earlier.old_keys, keys)
        writes[id] = write
        if self._overlays:
            self._overlaid(table.name, id, earlier, write)

    def _overlaid(self, table: str, id: int, earlier: Write | None, write: Write) -> None:
        for overlay in self._overlays.get(table, {}).values():
            overlay.replace(id, earlier, write)

    def merge(self, child: Transaction) -> None:
        """Make the writes of a sub-transaction this one's own."""
        self.catalog = child.catalog
        for table, writes in child.writes.items():
            own = self.writes.setdefault(table, {})
            if table in self._overlays:
                for id, write in writes.items():
                    self._overlaid(table, id, own.get(id), write)
            merge_writes(own, writes)


def merge_writes(into: dict[int, Write], writes: dict[int, Write]) -> None:
    """Put later writes on top of earlier ones."""
    for id, write in writes.items():
        earlier = into.get(id)
        if earlier is None:
            into[id] = write
        else:
            into[id] = Write(earlier.old, write.new, earlier.old_keys, write.new_keys)


def _range_read(table: str, index: Index | None, interval: Interval, descending: bool, last: bytes | None) -> Range:
    """What a scan has seen: all of its interval, or up to the key of the last row where it stopped early."""
    lower, upper = interval.lower.key(), interval.upper.key()
    if last is not None and descending:
        lower = last
    elif last is not None:
        upper = last + b"\xff"
    return Range(table, BY_CREATION_TIME if index is None else index.name, lower, upper)


# Asking and answering.


@types.coroutine
def ask(request: Request) -> Generator[Request, Any, Any]:
    """Yield a request to whoever drives this coroutine; its answer is the value."""
    return (yield request)


class InTransaction(Protocol):
    """An object whose methods act in a transaction."""

    @property
    def transaction(self) -> Transaction: ...


S = TypeVar("S", bound=InTransaction)


def must_be_awaited(
    method: Callable[Concatenate[S, P], types.CoroutineType[Any, Any, T]],
) -> Callable[Concatenate[S, P], types.CoroutineType[Any, Any, T]]:
    """Note the calls of a method: one that nobody awaits does nothing, and would say nothing."""

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> types.CoroutineType[Any, Any, T]:
        coroutine = method(self, *args, **kwargs)
        self.transaction.calls.append(coroutine)
        return coroutine

    return call


def check_awaited(transaction: Transaction, name: str) -> None:
    """Raise if a call was not awaited until it was done."""
    for call in transaction.calls:
        if call.cr_frame is not None:  # a coroutine that is done has none
            break
    else:
        return
    left = [call for call in transaction.calls if call.cr_frame is not None]
    for call in left:
        call.close()
    raise FunctionError(
        f"{name}: got {'a call' if len(left) == 1 else f'{len(left)} calls'} of `ctx` without `await`, which did"
        " nothing; expected `await ctx.…`. Nothing of this function is stored"
    )


def drive(coroutine: Coroutine[Any, Any, T], answer: Callable[[Request], Any]) -> T:
    """Run a coroutine to its end, answering what it asks for.

    A coroutine that awaits anything else gets a FunctionError at that line.
    """
    try:
        request = coroutine.send(None)
        while True:
            if type(request) in _REQUESTS:
                request = coroutine.send(answer(request))
            else:
                request = coroutine.throw(_foreign(request))
    except StopIteration as stop:
        return stop.value
    except BaseException as error:
        with suppress(RuntimeError):  # a handler that awaits while it is closed must not hide what happened
            coroutine.close()
        if isinstance(error, RuntimeError) and str(error).startswith(_NO_LOOP):
            raise _foreign("something of asyncio") from error
        if isinstance(error, Exception):
            raise
        # SystemExit and the like must not end the thread that commits.
        raise FunctionError(f"got {type(error).__name__} from a function, expected a result or an error") from error


_NO_LOOP = ("no running event loop", "There is no current event loop", "no current event loop")
_REQUESTS = frozenset((Get, Scan, Due, NextDue))


def _foreign(awaited: object) -> FunctionError:
    return FunctionError(
        f"a query or mutation awaited {'a pause' if awaited is None else str(awaited)[:80]}, expected only calls of"
        " `ctx`; it may be run again, so it cannot wait for timers, networks or threads. Do that in an action"
        " (schedule one with ctx.scheduler.run_after), or use ctx.gather instead of asyncio.gather"
    )
