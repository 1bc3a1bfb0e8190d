"""Documents in memory, as of one version of the store. The commit log says which of them have changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from duly.storage.engine import Changeset
from duly.storage.rows import JOBS

_MISSING: Final = ""
_ENTRY_BYTES: Final = 200  # the size of an entry, without its text


class DocumentCache:
    """Documents by id, including ids known to have none. The size is bounded: the cache drops the oldest first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: dict[int, str] = {}

    def get(self, id: int) -> tuple[bool, str | None]:
        """Return whether the id is known, and its document."""
        row = self._rows.get(id)
        return row is not None, row or None

    def put(self, id: int, row: str | None) -> None:
        self.drop((id,))
        self._rows[id] = row or _MISSING
        self._bytes += _ENTRY_BYTES + len(row or _MISSING)
        if self._bytes > self._bytes_max:
            # Drop half at once: finding the oldest entry of a dict that has lost many is slow.
            self.drop(list(self._rows)[: len(self._rows) // 2 + 1])

    def write(self, changes: Changeset) -> None:
        """Put the documents that a batch writes."""
        for table, writes in changes.writes:
            if table is not JOBS:
                for id, write in writes.items():
                    assert not isinstance(write.new, tuple)
                    self.put(id, write.new)

    def drop(self, ids: Iterable[int]) -> None:
        for id in ids:
            row = self._rows.pop(id, None)
            if row is not None:
                self._bytes -= _ENTRY_BYTES + len(row)

    def clear(self) -> None:
        self._rows.clear()
        self._bytes = 0
