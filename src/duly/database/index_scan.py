"""A walk along an index: reads rows in order, a page at a time, and knows exactly how far it has come."""

from __future__ import annotations

from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import index_name, key_in, values_in
from duly.database.transaction import Transaction
from duly.limits import SCAN_ROWS_MAX
from duly.storage.engine import JOBS, Job, Row, Scan
from duly.values.index_keys import Cut, Interval
from duly.values.json import size
from duly.values.schema.tables import Index, Table

FoundRow = tuple[int, Row]


class IndexScan:
    """Reads an interval of an index in its order. What it has handed out, and no more, is in the read set.

    It reads as it goes: what its transaction writes meanwhile ahead of it is met, a row that moves ahead once more.
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
        self._ahead: list[FoundRow] = []  # read and not handed out yet, the next one last
        self._ahead_size = min(ahead, SCAN_ROWS_MAX)
        self._revision = transaction.revision
        self.size = 0
        """Bytes of the rows that were read so far."""
        transaction.usage.begin_read()
        if transaction.reads is not None:
            transaction.reads.open_scans.append(self)

    async def rows(self, limit: int) -> list[FoundRow]:
        """The next rows, at most `limit`; fewer only where the interval ends."""
        found: list[FoundRow] = []
        if self._table is JOBS:  # between two that are shown there may be any number that are not
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
        """The next row, None at the end. Hidden ones on the way there count as read, too."""
        while True:
            if self._revision != self._transaction.revision:
                self._drop_read_ahead()
            if not self._ahead and not self._ended:
                self._ahead = (await self._read(self._ahead_size))[::-1]
                self._ahead_size = min(2 * self._ahead_size, SCAN_ROWS_MAX)
            if not self._ahead:
                return None
            self._last = self._ahead.pop()
            self._count(1, _size(self._last[1]))  # what is only read ahead does not count
            if self._table is not JOBS or not _is_hidden(self._last):
                return self._last

    def _drop_read_ahead(self) -> None:
        """What was read ahead may have changed; if that happens often, read less ahead."""
        self._revision = self._transaction.revision
        self._ended = False
        if self._ahead:
            self._ahead_size = max(1, len(self._ahead) // 2)
            self._ahead.clear()

    def _count(self, rows: int, length: int) -> None:
        self.size += length
        self._transaction.usage.read(rows, length)

    async def _read(self, limit: int) -> list[FoundRow]:
        """The rows behind the last one handed out."""
        scan = Scan(self._table, self._index, self._left(), self._descending, limit)
        rows = await self._transaction.scan_untracked(scan)  # `range_read` tells what was read
        self._ended = len(rows) < limit
        return rows

    def _left(self) -> Interval:
        if self._last is None:
            return self._interval
        return interval_after(self._interval, self._descending, values_in(self._index, self._last[1]), self._last[0])

    def range_read(self) -> KeyRange:
        """What was read: all of the interval, or up to the last row handed out where it stopped early."""
        lower, upper = self._interval.lower.key(), self._interval.upper.key()
        if self._last is not None and (self._ahead or not self._ended):
            last = key_in(self._table, self._index, *self._last)
            lower, upper = (last, upper) if self._descending else (lower, last + b"\xff")
        return KeyRange(self._table.name, index_name(self._index), lower, upper)


def _is_hidden(found: FoundRow) -> bool:
    """Whether it is the clock or a run of a cron, which has tables of its own."""
    return isinstance(found[1], Job) and found[1].cron is not None


def _size(row: Row) -> int:
    return size(row if isinstance(row, str) else row.args)


def interval_up_to(interval: Interval, descending: bool, values: tuple[object, ...], id: int) -> Interval:
    """The part of an interval up to one row, included, in the order of reading."""
    if descending:
        return interval._replace(lower=Cut(values, after=False, id=id))
    return interval._replace(upper=Cut(values, after=True, id=id))


def interval_after(interval: Interval, descending: bool, values: tuple[object, ...], id: int) -> Interval:
    """What is left of an interval behind one row, in the order of reading."""
    if descending:
        return interval._replace(upper=Cut(values, after=False, id=id))
    return interval._replace(lower=Cut(values, after=True, id=id))
