"""The changes of a batch as the arrays that `commit_1` takes, and a row of the log as a commit of another node.

Rows and keys are sent in groups, new jobs in columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from duly.errors import StoreError
from duly.storage.engine import Changeset, ReadKeys, RemoteCommit
from duly.storage.postgres.ddl import index_name, table_name
from duly.storage.rows import JOBS, Job, Write
from duly.values.schema.tables import Index, Table


class Groups:
    """Rows or keys in groups. A group has a relation, an operation and a size; one array holds all their items."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.relations: list[str] = []
        self.acts: list[str] = []
        self.counts: list[int] = []
        self.first: list[Any] = []
        self.second: list[Any] = []

    def add(self, number: int, relation: str, act: str, first: list[Any], second: list[Any]) -> None:
        if first:
            self.numbers.append(number)
            self.relations.append(relation)
            self.acts.append(act)
            self.counts.append(len(first))
            self.first += first
            self.second += second

    @property
    def arrays(self) -> tuple[list[Any], ...]:
        return self.numbers, self.relations, self.acts, self.counts, self.first, self.second


def encode_reads(reads: ReadKeys | None) -> tuple[object, ...]:
    """Return ids, ranges, and whether an index of the jobs was read: their keys are not in the log."""
    if reads is None:
        return None, None, None, None, False
    ranges = [
        (-table.number if index is None else index.number, lower, upper)
        for table, index, lower, upper in reads.ranges
        if index is None or table is not JOBS
    ]
    numbers, lowers, uppers = zip(*ranges, strict=True) if ranges else (None, None, None)
    return list(reads.ids) or None, numbers, lowers, uppers, len(ranges) < len(reads.ranges)


def encode_changes(changes: Changeset, changes_catalog: bool) -> tuple[object, ...]:
    """Return the arguments of `commit_1` from `tables` on, in its order."""
    rows, keys = Groups(), Groups()
    jobs: Mapping[int, Write] = {}
    for table, writes in changes.writes:
        if table is JOBS:
            # A job that the batch has both inserted and deleted leaves no write.
            jobs = {id: write for id, write in writes.items() if write.old is not None or write.new is not None}
        else:
            _add_documents(rows, table, writes)
            for position, index in enumerate(table.indexes):
                _add_keys(keys, index, position, writes)
    new = [_check_new_job(write.new) for write in jobs.values() if write.old is None]
    dues = (write.new.due for write in jobs.values() if isinstance(write.new, Job))
    due = min((due for due in dues if due is not None), default=None)
    arrays = (*rows.arrays, *keys.arrays, *_columns(new), *_transitions(jobs))
    # Empty arrays are sent as null: 43 of them would cost as much as all the rest of a small batch.
    return (*(array or None for array in arrays), changes.last_id, due, changes_catalog)


def _add_documents(rows: Groups, table: Table, writes: Mapping[int, Write]) -> None:
    inserted = [(id, write.new) for id, write in writes.items() if write.old is None and write.new is not None]
    updated = [(id, write.new) for id, write in writes.items() if write.old is not None and write.new is not None]
    deleted = [(id, "") for id, write in writes.items() if write.new is None]
    for act, pairs in (("i", inserted), ("u", updated), ("d", deleted)):
        rows.add(table.number, table_name(table), act, [id for id, _ in pairs], [row for _, row in pairs])


def _add_keys(keys: Groups, index: Index, position: int, writes: Mapping[int, Write]) -> None:
    removed: list[bytes] = []
    added: list[bytes] = []
    ids: list[int] = []
    for id, write in writes.items():
        old = write.old_keys[position] if write.old_keys else None
        new = write.new_keys[position] if write.new_keys else None
        if old != new:
            if old is not None:
                removed.append(old)
            if new is not None:
                added.append(new)
                ids.append(id)
    keys.add(index.number, index_name(index), "d", removed, [0] * len(removed))
    keys.add(index.number, index_name(index), "i", added, ids)


def _check_new_job(row: object) -> Job:
    """Return a new job if the tables can hold it. A completed job, for example, has no due time and no process."""
    assert isinstance(row, Job)
    if row.completed_time is not None and (row.due is not None or row.epoch is not None):
        raise StoreError(f"PostgreSQL refused a write: got a completed job that is due or runs: {row}")
    if row.completed_time is None and (row.epoch is not None or row.error is not None):
        raise StoreError(f"PostgreSQL refused a write: got a new job that runs or has failed: {row}")
    return row


def _columns(jobs: list[Job]) -> tuple[list[Any], ...]:
    return (
        [job.id for job in jobs],
        [job.name for job in jobs],
        [job.args for job in jobs],
        [job.scheduled_time for job in jobs],
        [job.due for job in jobs],
        [job.state for job in jobs],
        [job.queue for job in jobs],
        [job.parent for job in jobs],
        [job.completed_time for job in jobs],
        [job.retry_of for job in jobs],
        [job.cron for job in jobs],
    )


def _transitions(writes: Mapping[int, Write]) -> tuple[list[Any], ...]:
    """Return the changed jobs, grouped by their old and new states: most jobs of a batch end alike."""
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    expired: list[int] = []
    for id, write in writes.items():
        old: Any = write.old
        new: Any = write.new
        if new is None and old.completed_time is not None:
            expired.append(id)
        elif new is None:
            groups[old.state, old.epoch, "", "", None, None, None, None, 0].append(id)
        elif old is not None:
            end = (new.error, new.completed_time, new.attempts)
            groups[old.state, old.epoch, new.state, new.queue, new.due, new.epoch, *end].append(id)
    columns: list[list[Any]] = [[key[column] for key in groups] for column in range(9)]
    columns[6] = [error and error.replace("\x00", "\\0") for error in columns[6]]  # PostgreSQL text has no NUL
    moved = [id for ids in groups.values() for id in ids]
    return (*columns, [len(ids) for ids in groups.values()], moved, expired)


def decode_commit(row: Any, tables: tuple[Table, ...] | None, deploy: str) -> RemoteCommit:
    """Return a row of the log as a commit."""
    ids: dict[int, set[int]] = {}
    first = 0
    for table, count in zip(row["tables"], row["row_counts"], strict=True):
        if count:
            ids.setdefault(table, set()).update(row["ids"][first : first + count])
        first += count
    keys: dict[int, list[bytes]] = {}
    first = 0
    for index, count in zip(row["indexes"], row["key_counts"], strict=True):
        keys.setdefault(index, []).extend(row["keys"][first : first + count])
        first += count
    return RemoteCommit(row["version"], row["last_id"], ids, keys, row["due"], tables, deploy)
