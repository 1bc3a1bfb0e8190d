"""The commit log: recent commits, and the watches that the next commits wake. Used in the event loop only."""

from __future__ import annotations

import asyncio
from collections import deque

from duly.database.changes import Commit
from duly.database.indexes.interval_tree import IntervalTree
from duly.database.read_set import ReadSet
from duly.limits import LOG_BYTES_MAX, LOG_COMMITS_MAX
from duly.storage.rows import Row
from duly.values.schema.tables import Table

Watch = asyncio.Future[None]


class CommitLog:
    """Keeps recent commits, and completes a watch once a commit has changed something of its read set."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._commits: deque[Commit] = deque()
        self._weight = 0
        self._watchers = Watchers()

    def append(self, commit: Commit) -> None:
        """Add a commit and wake the watches of what it changed."""
        self.version = commit.version
        self._keep(commit)
        _wake(self._watchers.affected_by(commit))

    def wake_all(self) -> None:
        """Wake all watches: the code has changed, or no commit will follow."""
        _wake(self._watchers.watches)

    def _keep(self, commit: Commit) -> None:
        self._commits.append(commit)
        self._weight += commit.weight
        while len(self._commits) > LOG_COMMITS_MAX or (self._weight > LOG_BYTES_MAX and len(self._commits) > 1):
            self._weight -= self._commits.popleft().weight

    def watch(self, reads: ReadSet, since: int) -> Watch:
        """Return a future that is done when a commit after version `since` has changed something of `reads`.

        Cancel it when it is no longer needed.
        """
        watch: Watch = asyncio.get_running_loop().create_future()
        if self._changed_since(reads, since, watch):
            watch.set_result(None)
        else:
            self._watchers.add(reads, watch)
            watch.add_done_callback(lambda done: self._watchers.discard(reads, done))
        return watch

    def latest(self, table: Table, id: int, since: int) -> Row | None:
        """Return the state that this process last gave a row after version `since`; None if it wrote none."""
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
            return True  # too old: the log does not reach so far back
        watchers = Watchers()
        watchers.add(reads, watch)
        for commit in reversed(self._commits):
            if commit.version <= since:
                break
            if watchers.affected_by(commit):
                return True
        return False


class Watchers:
    """The watches by what they have read: ids, and ranges of indexes, by table."""

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        """All watches. A watch with an empty read set is in no other field."""
        self.points: dict[str, dict[int, set[Watch]]] = {}
        self.ranges: dict[str, dict[str, IntervalTree[Watch]]] = {}

    def add(self, reads: ReadSet, watch: Watch) -> None:
        self.watches.add(watch)
        for table, id in reads.points:
            self.points.setdefault(table, {}).setdefault(id, set()).add(watch)
        for interval in reads.ranges:
            indexes = self.ranges.setdefault(interval.table, {})
            if interval.order not in indexes:
                indexes[interval.order] = IntervalTree()
            indexes[interval.order].add(interval, watch)

    def discard(self, reads: ReadSet, watch: Watch) -> None:
        """Remove a watch that was added with these reads, and all containers that become empty."""
        self.watches.discard(watch)
        for table, id in reads.points:
            ids = self.points.get(table, {})
            watches = ids.get(id, set())
            watches.discard(watch)
            if not watches:
                ids.pop(id, None)
                if not ids:
                    self.points.pop(table, None)
        for interval in reads.ranges:
            indexes = self.ranges.get(interval.table, {})
            tree = indexes.get(interval.order)
            if tree is None:
                continue  # this range was read twice
            tree.discard(interval, watch)
            if not tree:
                del indexes[interval.order]
                if not indexes:
                    del self.ranges[interval.table]

    def affected_by(self, commit: Commit) -> set[Watch]:
        """Return the watches of what a commit changed."""
        if not commit.is_known:
            return set(self.watches)
        affected: set[Watch] = set()
        for table in commit.reindexed & self.ranges.keys():
            affected.update(*(tree.all_holders() for tree in self.ranges[table].values()))
        for change in commit.changes:
            ids = self.points.get(change.table)
            if ids:
                affected.update(*(ids[id] for id in ids.keys() & change.ids))
            for index, tree in self.ranges.get(change.table, _NOTHING).items():
                keys = change.keys(index)
                affected |= tree.all_holders() if keys is None else tree.holders_at(keys)
        return affected


_NOTHING: dict[str, IntervalTree[Watch]] = {}


def _wake(watches: set[Watch]) -> None:
    for watch in watches:
        if not watch.done():
            watch.set_result(None)
