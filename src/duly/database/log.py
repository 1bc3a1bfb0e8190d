"""Recent commits, and who must be woken by the next ones. Used from the event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from duly.database.catalog import DUE, key_in
from duly.database.reads import ReadSet
from duly.database.spans import Spans
from duly.limits import LOG_BYTES_MAX, LOG_COMMITS_MAX
from duly.storage.engine import JOBS, Job, Write
from duly.values.keys import encode, encode_id
from duly.values.schema import BY_CREATION_TIME, Index, Table


class Commit(NamedTuple):
    """What one commit wrote, in the order of its transactions."""

    version: int
    writes: list[tuple[Table, Mapping[int, Write]]]
    weight: int = 0
    """About how many bytes the rows take."""
    reshaped: frozenset[str] = frozenset()
    """The tables whose indexes it changed: whoever has read one of them must read again."""


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
        touched: set[Watch] = set()
        for table in commit.reshaped & self.ranges.keys():
            touched.update(*(spans.everybody() for spans in self.ranges[table].values()))
        for table, writes in commit.writes:
            ids = self.points.get(table.name)
            if ids:
                touched.update(*(ids[id] for id in ids.keys() & writes.keys()))
            for index, spans in self.ranges.get(table.name, _NOTHING).items():
                touched |= spans.containing(_changed_keys(table, index, writes))
        return touched


_NOTHING: dict[str, Spans[Watch]] = {}


def _wake(watches: set[Watch]) -> None:
    for watch in watches:
        if not watch.done():
            watch.set_result(None)


def _changed_keys(table: Table, index_name: str, writes: Mapping[int, Write]) -> list[bytes]:
    """The old and new keys of what was written, in one index, sorted."""
    if index_name == BY_CREATION_TIME:
        return sorted(map(encode_id, writes))
    if index_name == DUE.name and table is JOBS:
        # The executor waits for times, not for ids, and jobs scheduled together are often due together.
        dues = {row.due for write in writes.values() for row in (write.old, write.new) if isinstance(row, Job)}
        return sorted(encode(due) for due in dues if due is not None)
    index = table.index(index_name)
    if index is None:
        return []  # who has read it was woken when it went, and may only not have heard yet
    return sorted(_keys(table, index, writes))


def _keys(table: Table, index: Index, writes: Mapping[int, Write]) -> Iterator[bytes]:
    position, count = table.indexes.index(index), len(table.indexes)
    for id, write in writes.items():
        for row, keys in ((write.old, write.old_keys), (write.new, write.new_keys)):
            if row is not None:
                # Rows of system tables bring no keys, and what the same batch wrote before a schema brings others.
                yield keys[position] if len(keys) == count else key_in(table, index, id, row)
