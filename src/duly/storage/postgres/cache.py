"""Documents in memory, as of one version of the store. The commit log says which of them have changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from itertools import islice
from typing import Final

from duly.storage.engine import Changeset
from duly.storage.rows import JOBS, Row

_ENTRY_BYTES: Final = 200  # the size of an entry, without its text


class DocumentCache:
    """Documents by table and id, and ids known to have none. The size is bounded: the oldest are dropped first."""

    def __init__(self, bytes_max: int) -> None:
        self.rows: dict[str, dict[int, Row | None]] = {}
        """By the name of the table and by id: a cron and its clock have the same id."""
        self._bytes_max = bytes_max
        self._bytes = 0

    def put(self, table: str, rows: Mapping[int, Row | None]) -> None:
        known = self.rows.setdefault(table, {})
        self._forget(known, known.keys() & rows.keys())
        known.update(rows)
        self._bytes += _ENTRY_BYTES * len(rows) + sum([len(row) for row in rows.values() if row is not None])
        if self._bytes > self._bytes_max:
            # Drop half at once: finding the oldest entry of a dict that has lost many is slow.
            for known in self.rows.values():
                self._forget(known, list(islice(known, len(known) // 2 + 1)))

    def write(self, changes: Changeset) -> None:
        """Put the documents that a batch writes."""
        for table, writes in changes.writes:
            if table is not JOBS:
                self.put(table.name, {id: new for id, (_, new, _, _) in writes.items()})

    def drop(self, ids: Set[int]) -> None:
        """Drop the documents with these ids, whatever their table."""
        for known in self.rows.values():
            self._forget(known, known.keys() & ids)

    def clear(self) -> None:
        self.rows.clear()
        self._bytes = 0

    def _forget(self, known: dict[int, Row | None], ids: Collection[int]) -> None:
        for id in ids:
            row = known.pop(id)
            self._bytes -= _ENTRY_BYTES + (0 if row is None else len(row))
