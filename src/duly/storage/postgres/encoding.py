"""The changes of a batch as the arrays that `commit_1` takes, and a row of the log as a commit of another node.

Rows and keys are sent in groups, new jobs in columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from duly.errors import StoreError
from duly.storage.engine import Changeset, ReadKeys, RemoteCommit
from duly.storage.postgres.ddl import index_name, table_name
from duly.storage.rows import JOBS, SUCCESS, Job, Write
from duly.values.schema.tables import Index, Table

_DUE: Final = Job._fields.index("due")


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
            jobs = writes
        else:
            _add_documents(rows, table, writes)
            for position, index in enumerate(table.indexes):
                _add_keys(keys, index, position, writes)
    # A job that the batch has both inserted and deleted leaves no write.
    new: list[Any] = [job for old, job, _, _ in jobs.values() if old is None and job is not None]
    moved = {id: write for id, write in jobs.items() if write.old is not None} if len(new) < len(jobs) else {}
    due = _first_due([*new, *[write.new for write in moved.values()]])
    arrays = (*rows.arrays, *keys.arrays, *_columns(new), *_transitions(moved, changes.succeeded, changes.now))
    # Empty arrays are sent as null: 43 of them would cost as much as all the rest of a small batch.
    return (*(array or None for array in arrays), changes.last_id, due, changes_catalog)


def _first_due(jobs: list[Any]) -> float | None:
    return min([job[_DUE] for job in jobs if job is not None and job[_DUE] is not None], default=None)


def _add_documents(rows: Groups, table: Table, writes: Mapping[int, Write]) -> None:
    inserted: dict[int, Any] = {}
    updated: dict[int, Any] = {}
    deleted: list[int] = []
    for id, (old, new, _, _) in writes.items():
        if new is None:
            deleted.append(id)
        elif old is None:
            inserted[id] = new
        else:
            updated[id] = new
    number, name = table.number, table_name(table)
    rows.add(number, name, "i", list(inserted), list(inserted.values()))
    rows.add(number, name, "u", list(updated), list(updated.values()))
    rows.add(number, name, "d", deleted, [""] * len(deleted))


def _add_keys(keys: Groups, index: Index, position: int, writes: Mapping[int, Write]) -> None:
    removed: list[bytes] = []
    added: list[bytes] = []
    ids: list[int] = []
    for id, (_, _, old_keys, new_keys) in writes.items():
        old = old_keys[position] if old_keys else None
        new = new_keys[position] if new_keys else None
        if old != new:
            if old is not None:
                removed.append(old)
            if new is not None:
                added.append(new)
                ids.append(id)
    keys.add(index.number, index_name(index), "d", removed, [0] * len(removed))
    keys.add(index.number, index_name(index), "i", added, ids)


def _columns(jobs: list[Any]) -> tuple[Sequence[Any] | None, ...]:
    """Return the columns of new jobs. The tables must be able to hold these: a completed job has no due time, say."""
    # Transposed at once: to take each column from each job would take most of the time of a batch that only schedules.
    ids, names, args, times, dues, states, queues, parents, epochs, errors, ends, _, retries, crons = (
        zip(*jobs, strict=True) if jobs else [()] * len(Job._fields)
    )
    if not epochs.count(None) == errors.count(None) == ends.count(None) == len(jobs):
        for job in jobs:
            _check_new_job(job)
    columns = ids, names, args, times, dues, states, queues, parents, ends, retries, crons
    # A column without values is sent as null: for PostgreSQL it is shorter than the others, and padded with nulls.
    return tuple([column if column.count(None) < len(jobs) else None for column in columns])


def _check_new_job(row: Job) -> None:
    if row.completed_time is not None and (row.due is not None or row.epoch is not None):
        raise StoreError(f"PostgreSQL refused a write: got a completed job that is due or runs: {row}")
    if row.completed_time is None and (row.epoch is not None or row.error is not None):
        raise StoreError(f"PostgreSQL refused a write: got a new job that runs or has failed: {row}")


def _transitions(writes: Mapping[int, Write], succeeded: Mapping[int, Job], now: float) -> tuple[list[Any], ...]:
    """Return the changed jobs, grouped by their old and new states: most jobs of a batch end alike."""
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    expired: list[int] = []
    if not writes and not succeeded:
        return (expired,) * 12
    for id, write in writes.items():
        old: Any = write.old
        new: Any = write.new
        if new is None and old.completed_time is not None:
            expired.append(id)
        elif new is None:
            groups[old.state, old.epoch, "", "", None, None, None, None, 0].append(id)
        else:
            end = (new.error, new.completed_time, new.attempts)
            groups[old.state, old.epoch, new.state, new.queue, new.due, new.epoch, *end].append(id)
    for id, (_, _, _, _, _, state, _, _, epoch, *_) in succeeded.items():
        groups[state, epoch, SUCCESS, "", None, None, None, now, 0].append(id)
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
