"""Documents that batches have read, as the last commit has left them: most calls read what calls before them have read.

Only the owner of a file writes to it, so a document stays as it was read until the owner writes it. The cache is

- detached before a commit, and attached again with what was written once that has succeeded: after a commit that has
  failed, or whose outcome is unknown, it is empty;
- emptied when it is full, and when another program has written to the file (`PRAGMA data_version`): a shell, perhaps.

A change of the schema changes no document. A file that is restored is opened anew, with an empty cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof

from duly.limits import HOT_DOCUMENTS_BYTES_MAX
from duly.storage.rows import Write
from duly.values.schema.tables import Table

_ENTRY_BYTES = 100
"""What an entry takes beside its document: its id, and its places in the dict, of which a third is free."""

Documents = dict[str, dict[int, str]]
"""By the name of the table and by id: a cron and its clock have the same id."""


class HotDocuments:
    """Used by the thread of the batch."""

    def __init__(self, bytes_max: int = HOT_DOCUMENTS_BYTES_MAX) -> None:
        self.documents: Documents = {}
        self.bytes = 0
        """About how many bytes the documents take."""
        self._bytes_max = bytes_max

    def add(self, table: Table, id: int, document: str) -> None:
        """Add a document that was just read."""
        size = getsizeof(document) + _ENTRY_BYTES
        if self.bytes + size > self._bytes_max:
            self.clear()
        if size <= self._bytes_max:
            self.documents.setdefault(table.name, {})[id] = document
            self.bytes += size

    def clear(self) -> None:
        self.documents.clear()
        self.bytes = 0

    def detach(self) -> tuple[Documents, int]:
        """Return what it holds, for `attach`, and hold nothing."""
        detached = self.documents, self.bytes
        self.documents, self.bytes = {}, 0
        return detached

    def attach(self, detached: tuple[Documents, int], written: Iterable[tuple[Table, Mapping[int, Write]]]) -> None:
        """Hold again what was detached, as the commit has left it. What it did not hold, it does not get now."""
        self.documents, self.bytes = detached
        for table, writes in written:
            documents = self.documents.get(table.name)
            if documents is None:
                continue
            ids = documents.keys() & writes.keys()
            self.bytes -= sum(map(getsizeof, map(documents.__getitem__, ids)))
            for id in ids:
                _, new, _, _ = writes[id]
                if new is None:
                    del documents[id]
                    self.bytes -= _ENTRY_BYTES
                elif isinstance(new, str):
                    documents[id] = new
                    self.bytes += getsizeof(new)
        if self.bytes > self._bytes_max:  # they have grown
            self.clear()
