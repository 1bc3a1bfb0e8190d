"""Recent commits, and who must be woken by the next ones. Used from the event loop only."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from duly.database.catalog import DUE, index_named, key_in
from duly.database.reads import Range, ReadSet
from duly.limits import LOG_BYTES_MAX, LOG_COMMITS_MAX
from duly.storage.engine import JOBS, Job, Write
from duly.values.keys import encode, encode_id
from duly.values.schema import Table


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
        self._points: dict[str, dict[int, set[Watch]]] = {}
        self._ranges: dict[tuple[str, str], dict[Watch, list[Range]]] = {}

    def append(self, commit: Commit) -> None:
        """Note a commit and wake whoever has read what it changed."""
        self.version = commit.version
        self._keep(commit)
        woken: set[Watch] = set()
        for table, writes in commit.writes:
            points = self._points.get(table.name)
            if points:
                for id in points.keys() & writes.keys():
                    woken |= points[id]
        for (table, index), watches in self._ranges.items():
            if table in commit.reshaped:
                woken.update(watches)
                continue
            keys = _changed_keys(commit, table, index)
            if keys:
                woken.update(watch for watch, ranges in watches.items() if _meets(ranges, keys))
        for watch in woken:
            if not watch.done():
                watch.set_result(None)

    def wake_all(self) -> None:
        """Wake everybody: the code has changed, or nothing will change any more."""
        watches = {watch for points in self._points.values() for watches in points.values() for watch in watches}
        for watch in watches.union(*self._ranges.values()):
            if not watch.done():
                watch.set_result(None)

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
        if self._changed_since(reads, since):
            watch.set_result(None)
            return watch
        for table, id in reads.points:
            self._points.setdefault(table, {}).setdefault(id, set()).add(watch)
        for span in reads.ranges:
            self._ranges.setdefault((span.table, span.order), {}).setdefault(watch, []).append(span)
        watch.add_done_callback(lambda done: self._forget(done, reads))
        return watch

    def _changed_since(self, reads: ReadSet, since: int) -> bool:
        if since >= self.version:
            return False
        if not self._commits or self._commits[0].version > since + 1:
            return True  # too old to tell
        recent: list[Commit] = []
        for commit in reversed(self._commits):
            if commit.version <= since:
                break
            recent.append(commit)
        return any(_touches(commit, reads) for commit in recent)

    def _forget(self, watch: Watch, reads: ReadSet) -> None:
        for table, id in reads.points:
            points = self._points.get(table, {})
            points.get(id, set()).discard(watch)
            if not points.get(id):
                points.pop(id, None)
        for span in reads.ranges:
            watches = self._ranges.get((span.table, span.order), {})
            watches.pop(watch, None)
            if not watches:
                self._ranges.pop((span.table, span.order), None)


def _touches(commit: Commit, reads: ReadSet) -> bool:
    if any((table.name, id) in reads.points for table, writes in commit.writes for id in writes):
        return True
    return any(
        span.table in commit.reshaped or _meets((span,), _changed_keys(commit, span.table, span.order))
        for span in reads.ranges
    )


def _changed_keys(commit: Commit, table_name: str, index_name: str) -> list[bytes]:
    """The old and new keys of what a commit changed in one index, sorted."""
    keys: list[bytes] = []
    for table, writes in commit.writes:
        if table.name == table_name:
            keys += _keys(table, index_name, writes)
    keys.sort()
    return keys


def _keys(table: Table, index_name: str, writes: Mapping[int, Write]) -> Iterable[bytes]:
    if index_name == DUE.name and table is JOBS:
        # The executor waits for times, not for ids, and jobs scheduled together are often due together.
        dues = {row.due for write in writes.values() for row in (write.old, write.new) if isinstance(row, Job)}
        return [encode(due) for due in dues if due is not None]
    index = index_named(table, index_name)
    if index is None:
        return map(encode_id, writes)
    rows = ((id, row) for id, write in writes.items() for row in (write.old, write.new) if row is not None)
    return [key_in(table, index, id, row) for id, row in rows]


def _meets(ranges: Iterable[Range], keys: list[bytes]) -> bool:
    """Whether one of the sorted keys lies in one of the ranges."""
    for span in ranges:
        position = bisect_left(keys, span.lower)
        if position < len(keys) and keys[position] < span.upper:
            return True
    return False
