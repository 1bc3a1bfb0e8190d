"""Read sets: exactly what a function has read, so that it runs again when, and only when, that changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import index_named
from duly.storage.engine import ReadKeys
from duly.values.schema.tables import Table


class RangeReader(Protocol):
    """A reader of an index that knows how far it has come."""

    def range_read(self) -> KeyRange: ...


class ReadSet:
    """The ids and the index ranges that were read, found or not."""

    __slots__ = ("open_scans", "points", "ranges")

    def __init__(self, points: set[tuple[str, int]] | None = None) -> None:
        self.points: set[tuple[str, int]] = set() if points is None else points
        self.ranges: list[KeyRange] = []
        self.open_scans: list[RangeReader] = []
        """Scans under way; `seal` adds the ranges that they have read."""

    def seal(self) -> None:
        """Move what the scans have read to `ranges`: the function has ended."""
        self.ranges += [scan.range_read() for scan in self.open_scans]
        self.open_scans.clear()

    def keys_in(self, tables: Mapping[str, Table]) -> ReadKeys:
        """Return what was read of these tables, as an engine compares it with what other nodes have written."""
        ids = [id for table, id in self.points if table in tables]
        ranges = [
            (table, index_named(table, order), lower, upper)
            for name, order, lower, upper in self.ranges
            if (table := tables.get(name)) is not None
        ]
        return ReadKeys(ids, ranges)
