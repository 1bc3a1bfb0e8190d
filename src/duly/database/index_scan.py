"""An index scan: reads rows in the order of an index, a page at a time, and records exactly how far it has read.

Why an untracked scan stays serializable: the scan reads pages through `Transaction.scan_untracked`, which adds
nothing to the read set, and registers itself as an open scan instead. When the function ends, `ReadSet.seal` asks it
for one range: from the begin of the interval to the last row that it has handed out, or the whole interval if it has
reached the end. Rows that were only read ahead cannot have influenced the function, so they are not in the range.
"""

from __future__ import annotations

from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import index_name, key_in, values_in
from duly.database.transaction import Transaction
from duly.limits import SCAN_ROWS_MAX
from duly.storage.requests import Scan
from duly.storage.rows import JOBS, Job, Row
from duly.values.index_keys import Cut, Interval
from duly.values.json import size
from duly.values.schema.tables import Index, Table

FoundRow = tuple[int, Row]


class IndexScan:
    """Reads an interval of an index in its order. The rows that it has handed out, and no more, are in the read set.

    It sees the writes that its transaction makes ahead of its position. A row that moves ahead is found again.
    """

    __slots__ = (
        "_ahead",
        "_ahead_size",
        "_revision",
        "_descending",
        "_ended",
        "_index",
        "_interval",
        "_last",
        "_table",
        "_transaction",
        "size",
    )

    def __init__(
        self,
        transaction: Transaction,
        table: Table,
        index: Index | None,
        interval: Interval,
        descending: bool,
        ahead: int,
    ) -> None:
        self._transaction = transaction
        self._table = table
        self._index = index
        self._interval = interval
        self._descending = descending
        self._last: FoundRow | None = None
        self._ended = False
        self._ahead: list[FoundRow] = []  # read but not handed out yet, in reverse order
        self._ahead_size = min(ahead, SCAN_ROWS_MAX)
        self._revision = transaction.revision
        self.size = 0
        """Bytes of the rows handed out so far."""
        transaction.usage.begin_read()
        if transaction.reads is not None:
            transaction.reads.open_scans.append(self)

    async def rows(self, limit: int) -> list[FoundRow]:
        """Return the next rows, at most `limit`; fewer only at the end of the interval."""
        found: list[FoundRow] = []
        if self._table is JOBS:  # some of its rows are hidden
            while len(found) < limit and (row := await self.next_row()) is not None:
                found.append(row)
            return found
        while not self._ended and len(found) < limit:
            rows = await self._read(min(limit - len(found), SCAN_ROWS_MAX))
            self._count(len(rows), sum([_size(row) for _, row in rows]))
            if rows:
                self._last = rows[-1]
                found += rows
        return found

    async def next_row(self) -> FoundRow | None:
        """Return the next row, None at the end. Hidden rows before it count as read as well."""
        while True:
            if self._revision != self._transaction.revision:
                self._drop_read_ahead()
            if not self._ahead and not self._ended:
                self._ahead = (await self._read(self._ahead_size))[::-1]
                self._ahead_size = min(2 * self._ahead_size, SCAN_ROWS_MAX)
            if not self._ahead:
                return None
            self._last = self._ahead.pop()
            self._count(1, _size(self._last[1]))  # rows read ahead are not counted yet
            if self._table is not JOBS or not _is_hidden(self._last):
                return self._last

    def _drop_read_ahead(self) -> None:
        """Drop rows read ahead, which a write may have changed. Where that happens often, read less ahead."""
        self._revision = self._transaction.revision
        self._ended = False
        if self._ahead:
            self._ahead_size = max(1, len(self._ahead) // 2)
            self._ahead.clear()

    def _count(self, rows: int, length: int) -> None:
        self.size += length
        self._transaction.usage.read(rows, length)

    async def _read(self, limit: int) -> list[FoundRow]:
        """Read the rows behind the last one handed out."""
        scan = Scan(self._table, self._index, self._left(), self._descending, limit)
        rows = await self._transaction.scan_untracked(scan)  # `range_read` returns what was read
        self._ended = len(rows) < limit
        return rows

    def _left(self) -> Interval:
        if self._last is None:
            return self._interval
        return interval_after(self._interval, self._descending, values_in(self._index, self._last[1]), self._last[0])

    def range_read(self) -> KeyRange:
        """Return what was read: the whole interval, or the part up to the last row handed out if it stopped early."""
        lower, upper = self._interval.lower.key(), self._interval.upper.key()
        if self._last is not None and (self._ahead or not self._ended):
            last = key_in(self._table, self._index, *self._last)
            lower, upper = (last, upper) if self._descending else (lower, last + b"\xff")
        return KeyRange(self._table.name, index_name(self._index), lower, upper)


def _is_hidden(found: FoundRow) -> bool:
    """Return whether a row is the clock or a run of a cron, which `_scheduled_functions` does not show."""
    return isinstance(found[1], Job) and found[1].cron is not None


def _size(row: Row) -> int:
    return size(row if isinstance(row, str) else row.args)


def interval_up_to(interval: Interval, descending: bool, values: tuple[object, ...], id: int) -> Interval:
    """Return the part of an interval up to a row and including it, in the order of reading."""
    if descending:
        return interval._replace(lower=Cut(values, after=False, id=id))
    return interval._replace(upper=Cut(values, after=True, id=id))


def interval_after(interval: Interval, descending: bool, values: tuple[object, ...], id: int) -> Interval:
    """Return the part of an interval behind a row, in the order of reading."""
    if descending:
        return interval._replace(upper=Cut(values, after=False, id=id))
    return interval._replace(lower=Cut(values, after=True, id=id))
