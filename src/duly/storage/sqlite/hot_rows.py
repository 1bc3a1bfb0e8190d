"""Rows that batches will probably read, as the last commit has left them, in memory.

They are the documents that batches have read, for most calls read what calls before them have read, and the jobs in
progress, for the end of each reads its row. Only the owner of a file writes to it, so a row stays as it was until the
owner writes it. The rows are

- detached before a commit, and attached again with what was written once that has succeeded: after a commit that has
  failed, or whose outcome is unknown, there are none;
- dropped when they take too much memory, and when another program has written to the file (`PRAGMA data_version`): a
  shell, perhaps.

A change of the schema changes no document. A file that is restored is opened anew, without hot rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof

from duly.limits import HOT_ROWS_BYTES_MAX
from duly.storage.engine import Changeset
from duly.storage.rows import JOBS, Job, Row, Write
from duly.values.schema.tables import Table

_DOCUMENT_BYTES = 100
"""What a document takes beside its text: its id, and its places in the dict, of which a third is free."""
_JOB_BYTES = 700
"""What a job takes beside its arguments."""

Rows = dict[str, dict[int, Row]]
"""By the name of the table and by id: a cron and its clock have the same id."""


class HotRows:
    """Used by the thread of the batch."""

    def __init__(self, bytes_max: int = HOT_ROWS_BYTES_MAX) -> None:
        self.rows: Rows = {}
        self.bytes = 0
        """About how many bytes the rows take."""
        self._bytes_max = bytes_max

    def add(self, table: Table, id: int, document: str) -> None:
        """Add a document that was just read."""
        size = _size(document)
        if self.bytes + size > self._bytes_max:
            self.clear()
        if size <= self._bytes_max:
            self.rows.setdefault(table.name, {})[id] = document
            self.bytes += size

    def clear(self) -> None:
        self.rows.clear()
        self.bytes = 0

    def detach(self) -> tuple[Rows, int]:
        """Return what it holds, for `attach`, and hold nothing."""
        detached = self.rows, self.bytes
        self.rows, self.bytes = {}, 0
        return detached

    def attach(self, detached: tuple[Rows, int], changes: Changeset) -> None:
        """Hold again what was detached, as the commit has left it, and the jobs that are in progress since then.

        A document that it did not hold, it does not get now.
        """
        self.rows, self.bytes = detached
        for table, writes in changes.writes:
            if table is JOBS:
                self._update_jobs(writes)
            elif (documents := self.rows.get(table.name)) is not None:
                self._update_documents(documents, writes)
        if changes.succeeded and (running := self.rows.get(JOBS.name)):
            for id in changes.succeeded:
                self._drop(running, id)
        if self.bytes > self._bytes_max:
            self.clear()

    def _update_documents(self, documents: dict[int, Row], writes: Mapping[int, Write]) -> None:
        for id in documents.keys() & writes.keys():
            _, new, _, _ = writes[id]
            if new is None:
                self._drop(documents, id)
            else:
                self.bytes += getsizeof(new) - getsizeof(documents[id])
                documents[id] = new

    def _update_jobs(self, writes: Mapping[int, Write]) -> None:
        running = self.rows.setdefault(JOBS.name, {})
        for id, (old, job, _, _) in writes.items():
            if old is None:
                continue  # a new one, which does not run
            self._drop(running, id)
            if isinstance(job, Job) and job.epoch is not None:
                running[id] = job
                self.bytes += _size(job)

    def _drop(self, rows: dict[int, Row], id: int) -> None:
        row = rows.pop(id, None)
        if row is not None:
            self.bytes -= _size(row)


def _size(row: Row) -> int:
    return _DOCUMENT_BYTES + getsizeof(row) if isinstance(row, str) else _JOB_BYTES + getsizeof(row.args)
