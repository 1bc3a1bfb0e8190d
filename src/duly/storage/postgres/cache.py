"""Documents as they were at one version, which the log of commits keeps exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from duly.storage.engine import Changeset
from duly.storage.rows import JOBS

_ABSENT: Final = ""
_ENTRY_BYTES: Final = 200  # of an entry beside its text


class DocumentCache:
    """Rows by id, those that are known to be absent too; bounded by their size, the oldest go first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: dict[int, str] = {}

    def get(self, id: int) -> tuple[bool, str | None]:
        """Whether it is known, and the row."""
        row = self._rows.get(id)
        return row is not None, row or None

    def put(self, id: int, row: str | None) -> None:
        self.drop((id,))
        self._rows[id] = row or _ABSENT
        self._bytes += _ENTRY_BYTES + len(row or _ABSENT)
        if self._bytes > self._bytes_max:
            # Half at once: looking for the oldest entry of a dict that has lost many is slow.
            self.drop(list(self._rows)[: len(self._rows) // 2 + 1])

    def write(self, changes: Changeset) -> None:
        """Put what a batch writes."""
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
