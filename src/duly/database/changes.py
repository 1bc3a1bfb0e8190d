"""What commits changed: commits of this process know their rows, commits of other nodes only ids and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final, NamedTuple, Protocol

from duly.database.indexes.row_keys import DUE, key_in
from duly.storage.engine import RemoteCommit
from duly.storage.rows import JOBS, Job, Row, Write, succeeded_row
from duly.values.index_keys import encode, encode_id
from duly.values.schema.tables import BY_CREATION_TIME, Index, Table

_ROW_BYTES: Final = 500  # of a row in memory, without its text


class TableChange(Protocol):
    """What one commit changed in a table."""

    @property
    def table(self) -> str: ...

    @property
    def ids(self) -> Set[int]: ...

    def keys(self, index: str) -> list[bytes] | None:
        """Return the old and new keys in an index, sorted; None if any key may have changed."""
        ...

    def row(self, id: int) -> Row | None:
        """Return the new state of a row, None if it was deleted or is unknown."""
        ...


class Commit(NamedTuple):
    """What one commit changed."""

    version: int
    changes: Sequence[TableChange]
    weight: int = 0
    """About how many bytes it takes in memory."""
    reindexed: frozenset[str] = frozenset()
    """The tables whose indexes it changed: all readers of their ranges must read again."""
    is_known: bool = True
    """Whether `changes` is complete; if not, all readers must read again."""


class LocalChange:
    """What a commit of this process changed in a table. Keys are computed only for an index that is watched."""

    __slots__ = ("_table", "_writes")

    def __init__(self, table: Table, writes: Mapping[int, Write]) -> None:
        self._table = table
        self._writes = writes

    @property
    def table(self) -> str:
        return self._table.name

    @property
    def ids(self) -> Set[int]:
        return self._writes.keys()

    @property
    def weight(self) -> int:
        """About how many bytes it takes in memory."""
        weight = len(self._writes) * _ROW_BYTES
        rows = [row for old, new, _, _ in self._writes.values() for row in (old, new) if row is not None]
        if self._table is JOBS:
            return weight + sum([len(row.args) for row in rows if isinstance(row, Job)])
        return weight + sum(map(len, rows))

    def row(self, id: int) -> Row | None:
        return self._writes[id].new

    def keys(self, index: str) -> list[bytes]:
        if index == BY_CREATION_TIME:
            return sorted(map(encode_id, self._writes))
        if index == DUE.name and self._table is JOBS:
            # The executor watches times, not ids; jobs scheduled together are often due together.
            rows = (row for old, new, _, _ in self._writes.values() for row in (old, new) if isinstance(row, Job))
            return sorted(map(encode, {row.due for row in rows if row.due is not None}))
        found = self._table.index(index)
        # Readers of an index that is gone were woken when it was dropped, even if the event loop has not run them yet.
        return [] if found is None else sorted(self._keys(found))

    def _keys(self, index: Index) -> Iterator[bytes]:
        position = self._table.indexes.index(index)
        for id, write in self._writes.items():
            for row, keys in ((write.old, write.old_keys), (write.new, write.new_keys)):
                if row is not None:  # rows of system tables carry no keys
                    yield keys[position] if keys else key_in(self._table, index, id, row)


class SucceededJobs(LocalChange):
    """The jobs that only succeeded in a commit of this process, by their rows before it."""

    __slots__ = ("_jobs", "_now")

    def __init__(self, jobs: Mapping[int, Job], now: float) -> None:
        super().__init__(JOBS, {})
        self._jobs = jobs
        self._now = now

    @property
    def ids(self) -> Set[int]:
        return self._jobs.keys()

    @property
    def weight(self) -> int:
        return len(self._jobs) * _ROW_BYTES + sum([len(job.args) for job in self._jobs.values()])

    def row(self, id: int) -> Row | None:
        return succeeded_row(self._jobs[id], self._now)

    def keys(self, index: str) -> list[bytes]:
        if index == DUE.name:
            return sorted({encode(due) for due in {job.due for job in self._jobs.values()} if due is not None})
        if not self._writes:
            self._writes = {id: Write(job, succeeded_row(job, self._now)) for id, job in self._jobs.items()}
        return super().keys(index)


class RemoteChange:
    """What a commit of another node changed in a table."""

    __slots__ = ("_keys", "ids", "table")

    def __init__(self, table: Table, remote: RemoteCommit) -> None:
        self.table = table.name
        self.ids: Set[int] = remote.ids[table.number]
        if table is JOBS:  # nodes do not send each other the keys of its other indexes
            self._keys = {DUE.name: [] if remote.due is None else [encode(remote.due)]}
        else:
            self._keys = {index.name: sorted(remote.keys.get(index.number, ())) for index in table.indexes}

    def row(self, id: int) -> Row | None:
        return None

    def keys(self, index: str) -> list[bytes] | None:
        return sorted(map(encode_id, self.ids)) if index == BY_CREATION_TIME else self._keys.get(index)
