"""An index overlay: the writes to a table in the order of one index, and what they add to and hide from a scan."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from duly.database.indexes.row_keys import index_name, key_in
from duly.storage.requests import Scan
from duly.storage.rows import Row, Write
from duly.values.index_keys import Interval
from duly.values.schema.tables import Index, Table


class IndexOverlay:
    """The keys of the writes to a table in the order of one index, kept sorted from the first scan on."""

    __slots__ = ("_added", "_hidden", "_order", "_position", "_table")

    def __init__(self, table: Table, order: Index | None, writes: Iterable[tuple[int, Write]]) -> None:
        self._table = table
        self._order = order
        self._position = table.indexes.index(order) if order in table.indexes else None
        self._added: list[tuple[bytes, int]] = []
        self._hidden: list[bytes] = []
        for id, write in writes:
            self._hide(id, write)
            self._add(id, write)
        self._added.sort()
        self._hidden.sort()

    def replace(self, id: int, earlier: Write | None, write: Write) -> None:
        """Add a write, which replaces an earlier one of the same row."""
        if earlier is None:
            if write.old is not None:
                insort(self._hidden, self._key(id, write.old, write.old_keys))
        elif earlier.new is not None:
            entry = (self._key(id, earlier.new, earlier.new_keys), id)
            del self._added[bisect_left(self._added, entry)]
        if write.new is not None:
            insort(self._added, (self._key(id, write.new, write.new_keys), id))

    def widen(self, scan: Scan) -> Scan:
        """Return a scan of the store that finds enough rows, even if the overlay hides all written rows among them."""
        lower, upper = scan.interval.lower.key(), scan.interval.upper.key()
        hidden = bisect_left(self._hidden, upper) - bisect_left(self._hidden, lower)
        return scan._replace(limit=scan.limit + hidden) if hidden > 0 else scan  # negative if the interval is empty

    def count(self, interval: Interval) -> tuple[int, int]:
        """Return how many rows of the store an interval hides, and how many written rows it contains."""
        lower, upper = interval.lower.key(), interval.upper.key()
        hidden = bisect_left(self._hidden, upper) - bisect_left(self._hidden, lower)
        added = bisect_left(self._added, (upper, -1)) - bisect_left(self._added, (lower, -1))
        return max(hidden, 0), max(added, 0)

    def merge(self, scan: Scan, rows: list[tuple[int, Row]], writes: dict[int, Write]) -> list[tuple[int, Row]]:
        """Merge the written rows into the rows of the store that were not written, in order."""
        added = self._slice(scan)
        if not added:
            return [pair for pair in rows if pair[0] not in writes][: scan.limit]
        keyed = [(key_in(scan.table, scan.order, id, row), id) for id, row in rows if id not in writes]
        found = dict(rows)
        order = sorted([*keyed, *added], reverse=scan.descending)[: scan.limit]
        return [(id, self._row(id, found, writes)) for _, id in order]

    def _slice(self, scan: Scan) -> list[tuple[bytes, int]]:
        first = bisect_left(self._added, (scan.interval.lower.key(), -1))
        last = bisect_left(self._added, (scan.interval.upper.key(), -1))
        if scan.descending:
            first = max(first, last - scan.limit)
        return self._added[first : min(last, first + scan.limit)]

    @staticmethod
    def _row(id: int, found: dict[int, Row], writes: dict[int, Write]) -> Row:
        row = writes[id].new if id in writes else found[id]
        assert row is not None
        return row

    def _hide(self, id: int, write: Write) -> None:
        if write.old is not None:
            self._hidden.append(self._key(id, write.old, write.old_keys))

    def _add(self, id: int, write: Write) -> None:
        if write.new is not None:
            self._added.append((self._key(id, write.new, write.new_keys), id))

    def _key(self, id: int, row: Row, keys: tuple[bytes, ...]) -> bytes:
        if self._position is not None and keys:
            return keys[self._position]
        return key_in(self._table, self._order, id, row)


def overlay_of(
    known: dict[str, dict[str, IndexOverlay]], table: Table, order: Index | None, writes: dict[int, Write]
) -> IndexOverlay:
    """Return the overlay of a table and an index from `known`, by table and index; build it at the first call."""
    overlays = known.setdefault(table.name, {})
    name = index_name(order)
    if name not in overlays:
        overlays[name] = IndexOverlay(table, order, writes.items())
    return overlays[name]
