"""Recent commits, and who must be woken by the next ones. Used from the event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from duly.database.catalog import DUE, key_in
from duly.database.reads import ReadSet
from duly.database.spans import Spans
from duly.limits import LOG_BYTES_MAX, LOG_COMMITS_MAX
from duly.storage.engine import RemoteCommit
from duly.storage.rows import JOBS, Job, Row, Write
from duly.values.keys import encode, encode_id
from duly.values.schema import BY_CREATION_TIME, Index, Table


class Changed(Protocol):
    """What one commit has changed in a table."""

    @property
    def table(self) -> str: ...

    @property
    def ids(self) -> Set[int]: ...

    def keys(self, index: str) -> list[bytes] | None:
        """The old and new keys in an index, sorted. None where any may have changed."""
        ...

    def row(self, id: int) -> Row | None:
        """What it has made of a row, where that is known."""
        ...


class Commit(NamedTuple):
    """What one commit has changed."""

    version: int
    changes: Sequence[Changed]
    weight: int = 0
    """About how many bytes that takes."""
    reshaped: frozenset[str] = frozenset()
    """The tables whose indexes it changed: whoever has read one of them must read again."""
    is_known: bool = True
    """Whether `changes` are all there are; if not, everybody must read again."""


Watch = asyncio.Future[None]


class Log:
    """Hands out futures that are done once something of a read set has changed."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._commits: deque[Commit] = deque()
        self._weight = 0
        self._readers = Readers()

    def append(self, commit: Commit) -> None:
        """Note a commit and wake whoever has read what it changed."""
        self.version = commit.version
        self._keep(commit)
        _wake(self._readers.touched(commit))

    def wake_all(self) -> None:
        """Wake everybody: the code has changed, or nothing will change any more."""
        _wake(self._readers.watches)

    def _keep(self, commit: Commit) -> None:
        self._commits.append(commit)
        self._weight += commit.weight
        while len(self._commits) > LOG_COMMITS_MAX or (self._weight > LOG_BYTES_MAX and len(self._commits) > 1):
            self._weight -= self._commits.popleft().weight

    def changed(self, reads: ReadSet, since: int) -> Watch:
        """A future that is done when a commit after version `since` has changed something of `reads`.

        Cancel it when it is no longer wanted.
        """
        watch: Watch = asyncio.get_running_loop().create_future()
        if self._changed_since(reads, since, watch):
            watch.set_result(None)
        else:
            self._readers.add(reads, watch)
            watch.add_done_callback(lambda done: self._readers.discard(reads, done))
        return watch

    def latest(self, table: Table, id: int, since: int) -> Row | None:
        """What this process has last made of a row after version `since`; None if nothing, as far as is known."""
        for commit in reversed(self._commits):
            if commit.version <= since:
                break
            for change in commit.changes:
                if change.table == table.name and id in change.ids:
                    return change.row(id)
        return None

    def _changed_since(self, reads: ReadSet, since: int, watch: Watch) -> bool:
        if since >= self.version:
            return False
        if not self._commits or self._commits[0].version > since + 1:
            return True  # too old to tell
        asked = Readers()
        asked.add(reads, watch)
        for commit in reversed(self._commits):
            if commit.version <= since:
                break
            if asked.touched(commit):
                return True
        return False


class Readers:
    """Who has read what: ids, and ranges of indexes, by table."""

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        """All of them: who has read nothing stands nowhere else."""
        self.points: dict[str, dict[int, set[Watch]]] = {}
        self.ranges: dict[str, dict[str, Spans[Watch]]] = {}

    def add(self, reads: ReadSet, watch: Watch) -> None:
        self.watches.add(watch)
        for table, id in reads.points:
            self.points.setdefault(table, {}).setdefault(id, set()).add(watch)
        for span in reads.ranges:
            indexes = self.ranges.setdefault(span.table, {})
            if span.order not in indexes:
                indexes[span.order] = Spans()
            indexes[span.order].add(span, watch)

    def discard(self, reads: ReadSet, watch: Watch) -> None:
        """Remove a watch that was added with these reads, and leave nothing empty behind."""
        self.watches.discard(watch)
        for table, id in reads.points:
            ids = self.points.get(table, {})
            watches = ids.get(id, set())
            watches.discard(watch)
            if not watches:
                ids.pop(id, None)
                if not ids:
                    self.points.pop(table, None)
        for span in reads.ranges:
            indexes = self.ranges.get(span.table, {})
            spans = indexes.get(span.order)
            if spans is None:
                continue  # this range was read twice
            spans.discard(span, watch)
            if not spans:
                del indexes[span.order]
                if not indexes:
                    del self.ranges[span.table]

    def touched(self, commit: Commit) -> set[Watch]:
        """Whoever has read something that a commit changed."""
        if not commit.is_known:
            return set(self.watches)
        touched: set[Watch] = set()
        for table in commit.reshaped & self.ranges.keys():
            touched.update(*(spans.everybody() for spans in self.ranges[table].values()))
        for change in commit.changes:
            ids = self.points.get(change.table)
            if ids:
                touched.update(*(ids[id] for id in ids.keys() & change.ids))
            for index, spans in self.ranges.get(change.table, _NOTHING).items():
                keys = change.keys(index)
                touched |= spans.everybody() if keys is None else spans.containing(keys)
        return touched


_NOTHING: dict[str, Spans[Watch]] = {}


def _wake(watches: set[Watch]) -> None:
    for watch in watches:
        if not watch.done():
            watch.set_result(None)


class Written:
    """What a commit of this process has written to a table. Its keys are computed only where somebody watches."""

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

    def row(self, id: int) -> Row | None:
        return self._writes[id].new

    def keys(self, index: str) -> list[bytes]:
        if index == BY_CREATION_TIME:
            return sorted(map(encode_id, self._writes))
        if index == DUE.name and self._table is JOBS:
            # The executor waits for times, not for ids, and jobs scheduled together are often due together.
            rows = (row for write in self._writes.values() for row in (write.old, write.new) if isinstance(row, Job))
            return sorted({encode(row.due) for row in rows if row.due is not None})
        found = self._table.index(index)
        # Who has read an index that is gone was woken when it went, and may only not have heard yet.
        return [] if found is None else sorted(self._keys(found))

    def _keys(self, index: Index) -> Iterator[bytes]:
        position = self._table.indexes.index(index)
        for id, write in self._writes.items():
            for row, keys in ((write.old, write.old_keys), (write.new, write.new_keys)):
                if row is not None:  # rows of system tables bring no keys
                    yield keys[position] if keys else key_in(self._table, index, id, row)


class Heard:
    """What a commit of another node has changed in a table."""

    __slots__ = ("_keys", "ids", "table")

    def __init__(self, table: Table, news: RemoteCommit) -> None:
        self.table = table.name
        self.ids: Set[int] = news.ids[table.number]
        if table is JOBS:  # of its other indexes nodes do not tell each other the keys
            self._keys = {DUE.name: [] if news.due is None else [encode(news.due)]}
        else:
            self._keys = {index.name: sorted(news.keys.get(index.number, ())) for index in table.indexes}

    def row(self, id: int) -> Row | None:
        return None

    def keys(self, index: str) -> list[bytes] | None:
        return sorted(map(encode_id, self.ids)) if index == BY_CREATION_TIME else self._keys.get(index)
