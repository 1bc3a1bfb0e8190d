"""The store in one SQLite file, which one process owns.

Each table of the application is one SQL table (id, document), and each of its indexes is one SQL table of keys. Their
names contain a number, because names in SQLite are case-insensitive. Jobs are rows with columns, so that SQLite sorts
them itself. With WAL and `synchronous=FULL`, commits survive a power cut.
"""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import threading
from array import array
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from duly import faults
from duly.errors import StoreError, StoreGoneError
from duly.logs import log_of
from duly.storage.engine import Changeset, Header
from duly.storage.requests import View
from duly.storage.rows import JOB_FIELDS, JOBS, Write
from duly.storage.sqlite import opening, ownership
from duly.storage.sqlite.file import prepare, read_header
from duly.storage.sqlite.hot_rows import HotRows
from duly.storage.sqlite.snapshot import JOB_COLUMNS, SqliteSnapshot, index_name, table_name
from duly.values.schema.tables import Index, Table

_log: Final = log_of("duly.store")

_WRITER_CACHE_KIB: Final = 65_536  # the cache stays valid, because no other process writes
_READER_CACHE_KIB: Final = 4_096
# Each commit empties the cache of a reader, at 0.2 µs a page: 3 ms for 64 MiB. To read a page again costs 2 µs. A small
# cache holds the inner pages of large tables, and its memory is reused instead of allocated and freed.
_CHECKPOINT_PAGES: Final = 2_000  # about 8 MB of log; a longer log makes reads slower and gains nothing
_BUSY_MS: Final = 5_000  # a shell or a backup may lock the file for a moment


class SqliteEngine:
    """An `Engine` over the SQLite file at `path`. The file is created if there is none."""

    shared = None
    epoch = 0
    node = 0

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._owned: ownership.Ownership | None = None
        self._writer: apsw.Connection | None = None
        self._view: SqliteSnapshot | None = None
        self._readers = threading.local()
        self._opened: list[apsw.Connection] = []
        self._gone: str | None = None
        """The reason why nothing can be stored any more, once it is known: the file was deleted, for example."""
        self._hot = HotRows()
        self._data_version = 0  # changes when another connection has written
        self._opening = 0
        self._log_pages = 0
        self._checkpoint_at = _CHECKPOINT_PAGES

    # Opening and closing.

    def open(self) -> Header:
        self._owned = owned = self._acquire()
        try:
            header = owned.header()
            opening.check_file(self.path, header)
            self._gone, self._log_pages, self._checkpoint_at = None, 0, _CHECKPOINT_PAGES
            self._hot.clear()
            self._writer = writer = self._connect(_WRITER_CACHE_KIB)
            writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            opening.check_log(self.path, header, writer)
            prepare(writer, self.path)
            _use_log(writer)
            writer.set_wal_hook(self._note_log)
            self._opening = opening.begin(header, writer)
            store, self.epoch = read_header(writer)
            writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            owned.watch(self._opening)
            owned.protect_log(True)
            return store
        except apsw.Error as error:
            self.close()
            raise StoreError(f"{self.path}: SQLite cannot open it: {error}{self._not_writable()}") from error
        except StoreError:
            self.close()
            raise

    def _acquire(self) -> ownership.Ownership:
        folder = Path(self.path).parent
        try:
            folder.mkdir(exist_ok=True)  # only this one, such as .duly: missing parents are a typing error
            return ownership.acquire(self.path)
        except OSError as error:
            reason = error.strerror
            if not folder.is_dir():
                there = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
                reason = f"{there}, nor one to make it in" if not folder.parent.is_dir() else f"{there}: {reason}"
            act = "opened for writing" if os.path.exists(self.path) else "made"
            raise StoreError(f"{self.path}: the file cannot be {act}: {reason}") from error

    def _not_writable(self) -> str:
        """Return a text that names the files which SQLite may not write: its own error always names the first one."""
        files = [f"{self.path}{ending}" for ending in ("", "-wal", "-shm")]
        refused = [file for file in files if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK)]
        return f"; this process may not read and write {', '.join(refused)}" if refused else ""

    def close(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None and not owned.is_held:  # the parent of this forked child still uses it
            _inherited.extend(self._opened)
        else:
            if owned is not None:
                owned.protect_log(False)
            for connection in self._opened:
                connection.close(force=True)
        self._opened.clear()
        self._writer = None
        self._readers = threading.local()
        if owned is not None:
            owned.release()

    def _connect(self, cache_kib: int) -> apsw.Connection:
        # No flag to create the file: that was done when it was locked.
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE)
        self._opened.append(connection)
        connection.set_busy_timeout(_BUSY_MS)
        for pragma in ("synchronous=FULL", f"cache_size=-{cache_kib}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def announce_closing(self, seconds: float) -> None:
        if self._owned is not None:
            self._owned.announce_closing(seconds)

    def check_present(self) -> None:
        if self._gone is None and self._owned is not None and (loss := self._owned.find_loss()):
            self._gone = loss
            if self._writer is not None and not self._owned.is_complete:
                self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # another file has its path by now
            _log.error("%s while the store was open: nothing more is stored, and nothing more runs", loss)
        if self._gone is not None:
            raise StoreGoneError(
                f"{self._gone} while the store was open, so nothing of this call is stored. Start this process again,"
                " with the file that is to be used; `duly restore` puts a backup in its place"
            )

    # Reading.

    @contextmanager
    def snapshot(self) -> Generator[View]:
        connection = self._reader()
        try:
            connection.execute("BEGIN")
            try:
                with closing(SqliteSnapshot(connection)) as view:
                    yield view
            finally:
                connection.execute("COMMIT")
        except apsw.Error as error:
            self.check_present()  # its error says more
            raise StoreError(f"{self.path}: SQLite refused a read: {error}") from error

    def _reader(self) -> apsw.Connection:
        self.check_present()
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            try:
                connection = self._readers.connection = self._connect(_READER_CACHE_KIB)
                connection.execute("PRAGMA query_only=1")
            except apsw.Error as error:
                self.check_present()
                raise StoreError(f"{self.path}: SQLite cannot open it once more: {error}") from error
        return connection

    # Writing.

    def begin(self, exclusive: bool = False) -> View:  # every batch is exclusive
        if self._gone is not None:  # otherwise the commit checks: a batch that writes nothing loses nothing
            self.check_present()
        self._run(_BEGIN)
        if self._view is not None:
            self._view.close()
        self._view = SqliteSnapshot(self._connection, self._hot)
        if self._view.data_version != self._data_version:
            self._data_version = self._view.data_version
            self._hot.clear()
        if self._view.epoch != self.epoch:  # by a process despite the lock, such as one on another machine
            self._gone = f"another process has opened {self.path}"
            self.check_present()
        return self._view

    def create_table(self, table: Table) -> None:
        self._run(_CREATE_TABLE.format(table=table_name(table)))
        self._run(_INSERT_TABLE, (table.number, table.name, table.declared))

    def declare_table(self, table: Table) -> None:
        self._run(_DECLARE_TABLE, (table.declared, table.number))

    def create_index(self, table: Table, index: Index) -> None:
        fields = orjson.dumps(index.fields).decode()
        self._run(_CREATE_INDEX.format(index=index_name(index)))
        self._run(_INSERT_INDEX, (index.number, table.number, index.name, fields, index.ready))

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        self._run_many(f"INSERT OR IGNORE INTO {index_name(index)} (key, id) VALUES (?, ?)", keys)

    def finish_index(self, index: Index) -> None:
        self._run(_FINISH_INDEX, (index.number,))

    def drop_index(self, index: Index) -> None:
        self._run(_DROP_INDEX.format(index=index_name(index)))
        self._run(_DELETE_INDEX, (index.number,))

    def commit(self, changes: Changeset) -> int:
        hot = self._hot.detach()
        for table, writes in changes.writes:
            if table is JOBS:
                self._write_jobs(writes)
            else:
                self._write_documents(table, writes)
                for position, index in enumerate(table.indexes):
                    self._write_index(index, position, writes)
        if changes.succeeded:
            self._run(_END_SUCCEEDED, (changes.now, apsw.carray(array("q", changes.succeeded))))
        assert self._view is not None
        version = self._view.version + 1
        self._run(_SET_VERSION, (version, changes.last_id))
        is_checkpoint_due = self._log_pages >= self._checkpoint_at
        if is_checkpoint_due:
            opening.write_number(self._connection, self._opening, needs_log=True)
        faults.at("commit.flushed")
        self._run("COMMIT")
        self._hot.attach(hot, changes)
        self.check_present()
        if is_checkpoint_due:
            self._checkpoint()
        return version

    def _note_log(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy the log into the file. If this fails, the next commit tries again: its own commit is durable."""
        assert self._owned is not None
        with suppress(apsw.Error), self._owned.copying:
            is_complete = opening.checkpoint(self._connection)
            self._checkpoint_at = _CHECKPOINT_PAGES if is_complete else self._log_pages + _CHECKPOINT_PAGES
            opening.write_number(self._connection, self._opening)

    def _write_jobs(self, writes: Mapping[int, Write]) -> None:
        inserted: list[Any] = []
        # Most jobs of a batch end with the same columns: those are updated by one statement.
        updated: defaultdict[tuple[Any, ...], array[int]] = defaultdict(lambda: array("q"))
        deleted = array("q")
        for id, write in writes.items():
            job: Any = write.new
            if job is None:
                if write.old is not None:  # otherwise this batch has both inserted and deleted it
                    deleted.append(id)
            elif write.old is None:
                inserted.append(job)
            else:
                columns = (job.due, job.state, job.queue, job.epoch, job.error, job.completed_time, job.attempts)
                updated[columns].append(id)
        self._run_many(_INSERT_JOB, inserted)
        for columns, ids in updated.items():
            self._run(_UPDATE_JOBS, (*columns, apsw.carray(ids)))
        if deleted:
            self._run(_DELETE_JOBS, (apsw.carray(deleted),))

    def _write_documents(self, table: Table, writes: Mapping[int, Write]) -> None:
        inserted: list[tuple[Any, ...]] = []
        updated: list[tuple[Any, ...]] = []
        deleted: list[tuple[Any, ...]] = []
        for id, (old, new, _, _) in writes.items():
            if new is None:
                deleted.append((id,))
            elif old is None:
                inserted.append((id, new))
            else:
                updated.append((new, id))
        name = table_name(table)
        self._run_many(f"INSERT INTO {name} (id, document) VALUES (?, ?)", inserted)
        self._run_many(f"UPDATE {name} SET document = ? WHERE id = ?", updated)
        self._run_many(f"DELETE FROM {name} WHERE id = ?", deleted)

    def _write_index(self, index: Index, position: int, writes: Mapping[int, Write]) -> None:
        removed: list[tuple[bytes]] = []
        added: list[tuple[bytes, int]] = []
        for id, write in writes.items():
            old = write.old_keys[position] if write.old_keys else None
            new = write.new_keys[position] if write.new_keys else None
            if old != new:
                if old is not None:
                    removed.append((old,))
                if new is not None:
                    added.append((new, id))
        self._run_many(f"DELETE FROM {index_name(index)} WHERE key = ?", removed)
        self._run_many(f"INSERT INTO {index_name(index)} (key, id) VALUES (?, ?)", added)

    def rollback(self) -> None:
        if self._writer is not None and self._writer.in_transaction:
            with suppress(apsw.Error):  # SQLite may have rolled back already
                self._writer.execute("ROLLBACK")

    def is_lost(self, epoch: int) -> bool:
        return epoch != self.epoch

    @property
    def _connection(self) -> apsw.Connection:
        if self._writer is None:
            raise StoreError(f"{self.path}: the store is closed")
        return self._writer

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> None:
        try:
            self._connection.execute(sql, values)
        except apsw.Error as error:
            raise StoreError(f"{self.path}: SQLite refused a write: {error}") from error

    def _run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        if rows:
            try:
                self._connection.executemany(sql, rows)
            except apsw.Error as error:
                raise StoreError(f"{self.path}: SQLite refused a write: {error}") from error


_inherited: Final[list[apsw.Connection]] = []
"""The connections that a forked child has from its parent. They are kept open: closing them would drop its locks."""


def _use_log(connection: apsw.Connection) -> None:
    """Write commits to a log, so that readers keep their snapshot. The engine decides when to checkpoint."""
    for pragma in ("journal_mode=WAL", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}")


# SQL.

_SET_VERSION: Final = "UPDATE duly_store SET version = ?, last_id = ?"

_CREATE_TABLE: Final = "CREATE TABLE {table} (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT"
_INSERT_TABLE: Final = "INSERT INTO duly_tables (number, name, declared) VALUES (?, ?, ?)"
_DECLARE_TABLE: Final = "UPDATE duly_tables SET declared = ? WHERE number = ?"
_CREATE_INDEX: Final = "CREATE TABLE {index} (key BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID"
_INSERT_INDEX: Final = "INSERT INTO duly_indexes (number, table_number, name, fields, ready) VALUES (?, ?, ?, ?, ?)"
_FINISH_INDEX: Final = "UPDATE duly_indexes SET ready = 1 WHERE number = ?"
_DROP_INDEX: Final = "DROP TABLE {index}"
_DELETE_INDEX: Final = "DELETE FROM duly_indexes WHERE number = ?"

_BEGIN: Final = "BEGIN IMMEDIATE"

_INSERT_JOB: Final = f"INSERT INTO scheduled_functions ({JOB_COLUMNS}) VALUES ({', '.join('?' * len(JOB_FIELDS))})"
_UPDATE_JOBS: Final = """
UPDATE scheduled_functions SET due = ?, state = ?, lane = ?, epoch = ?, error = ?, completed_time = ?,
    attempts = ?
WHERE id IN carray(?)
"""
_END_SUCCEEDED: Final = """
UPDATE scheduled_functions SET due = NULL, state = 'success', epoch = NULL, error = NULL, completed_time = ?,
    attempts = 0
WHERE id IN carray(?)
"""
_DELETE_JOBS: Final = "DELETE FROM scheduled_functions WHERE id IN carray(?)"
