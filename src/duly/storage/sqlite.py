"""The store in one SQLite file, with one owner process.

Each table of the application is one SQL table (id, document), each of its indexes one SQL table of keys; both
bear a number, for SQLite knows no upper and lower case in names. Scheduled functions are rows with columns, so
that SQLite sorts them itself. WAL and `synchronous=FULL`: what is committed survives a power cut.
"""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import threading
from array import array
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final, cast

import apsw
import orjson

from duly import faults
from duly.errors import StoreError
from duly.storage import many
from duly.storage.bounds import COLUMNS, bound, first_id, native, shape
from duly.storage.engine import (
    ACTION,
    JOBS,
    MUTATION,
    Changes,
    Claim,
    Claimed,
    Completed,
    Get,
    Header,
    Heartbeat,
    Job,
    News,
    Reads,
    Request,
    Row,
    Scan,
    Tallied,
    Tally,
    View,
    Write,
    make_job,
)
from duly.storage.file import own, prepare, read_header
from duly.values.ids import ID_MAX
from duly.values.keys import Cut
from duly.values.schema import Index, Table

_WRITER_CACHE_KIB: Final = 65_536  # it stays, for nobody else writes
_READER_CACHE_KIB: Final = 4_096
# Each commit empties a reader's cache, at 0.2 µs a page: 3 ms for 64 MiB, while a page that is read anew costs 2 µs. A
# small one holds the inner pages of large tables, and is read into again and again instead of allocated and freed.
_CHECKPOINT_PAGES: Final = 2_000  # about 8 MB of log; a longer one makes reads slower and gains nothing
_BUSY_MS: Final = 5_000  # a shell or a backup may hold the file for a moment


class SqliteEngine:
    """An `Engine` over the SQLite file at `path`, which is created where there is none."""

    is_shared = False
    epoch = 0
    node = 0

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._owner: IO[str] | None = None
        self._writer: apsw.Connection | None = None
        self._view: SqliteView
        self._landed = 0
        self._readers = threading.local()
        self._opened: list[apsw.Connection] = []

    # Opening and closing.

    def open(self) -> Header:
        folder = Path(self.path).parent
        try:
            folder.mkdir(exist_ok=True)  # this one, such as .duly: a longer path of none that exist is mistyped
            self._owner = own(self.path)
        except OSError as error:
            reason = error.strerror if folder.parent.is_dir() else f"there is no folder {folder}, nor one to make it in"
            raise StoreError(f"{self.path}: the file cannot be made: {reason}") from error
        try:
            self._writer = writer = self._connect(_WRITER_CACHE_KIB)
            writer.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            prepare(writer, self.path)
            header, self.epoch = read_header(writer)
            return header
        except apsw.Error as error:
            self.close()
            raise StoreError(f"{self.path}: SQLite cannot open it: {error}") from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        for connection in self._opened:
            connection.close(force=True)
        self._opened.clear()
        self._writer = None
        self._readers = threading.local()
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _connect(self, cache_kib: int) -> apsw.Connection:
        connection = apsw.Connection(self.path)
        self._opened.append(connection)
        connection.set_busy_timeout(_BUSY_MS)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size=-{cache_kib}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    # Reading.

    @contextmanager
    def snapshot(self) -> Generator[View]:
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = self._connect(_READER_CACHE_KIB)
            connection.execute("PRAGMA query_only=1")
        connection.execute("BEGIN")
        try:
            yield SqliteView(connection)
        finally:
            connection.execute("COMMIT")

    # Writing.

    def begin(self, exclusive: bool = False) -> View:  # they all are
        self._run(_BEGIN)
        self._view = SqliteView(self._connection)
        return self._view

    def create_table(self, table: Table) -> None:
        self._run(_CREATE_TABLE.format(table=_table(table)))
        self._run(_INSERT_TABLE, (table.number, table.name, table.declared))

    def declare_table(self, table: Table) -> None:
        self._run(_DECLARE_TABLE, (table.declared, table.number))

    def create_index(self, table: Table, index: Index) -> None:
        fields = orjson.dumps(index.fields).decode()
        self._run(_CREATE_INDEX.format(index=_index(index)))
        self._run(_INSERT_INDEX, (index.number, table.number, index.name, fields, index.ready))

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        self._run_many(f"INSERT OR IGNORE INTO {_index(index)} (key, id) VALUES (?, ?)", keys)

    def finish_index(self, index: Index) -> None:
        self._run(_FINISH_INDEX, (index.number,))

    def drop_index(self, index: Index) -> None:
        self._run(_DROP_INDEX.format(index=_index(index)))
        self._run(_DELETE_INDEX, (index.number,))

    def commit(self, changes: Changes) -> int:
        for table, writes in changes.writes:
            if table is JOBS:
                self._write_jobs(writes)
            else:
                self._write_documents(table, writes)
                for position, index in enumerate(table.indexes):
                    self._write_index(index, position, writes)
        version = self._view.version + 1
        self._run(_SET_VERSION, (version, changes.last_id))
        faults.at("commit.flushed")
        self._run("COMMIT")
        return version

    def _write_jobs(self, writes: Mapping[int, Write]) -> None:
        inserted: list[Any] = []
        # Most jobs of a batch end alike: those that do are one statement.
        updated: defaultdict[tuple[Any, ...], array[int]] = defaultdict(lambda: array("q"))
        deleted = array("q")
        for id, write in writes.items():
            job: Any = write.new
            if job is None:
                if write.old is not None:  # else it came and went in this batch
                    deleted.append(id)
            elif write.old is None:
                inserted.append(job)
            else:
                columns = (job.due, job.state, job.lane, job.epoch, job.error, job.completed_time, job.attempts)
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
        for id, write in writes.items():
            if write.new is None:
                deleted.append((id,))
            elif write.old is None:
                inserted.append((id, write.new))
            else:
                updated.append((write.new, id))
        name = _table(table)
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
        self._run_many(f"DELETE FROM {_index(index)} WHERE key = ?", removed)
        self._run_many(f"INSERT INTO {_index(index)} (key, id) VALUES (?, ?)", added)

    def rollback(self) -> None:
        if self._writer is not None and self._writer.in_transaction:
            with suppress(apsw.Error):  # SQLite has rolled back by itself
                self._writer.execute("ROLLBACK")

    def prefetch(self, table: Table, ids: Sequence[int]) -> None: ...

    # There are no other nodes.

    def send(self, changes: Changes) -> None:
        self._landed = self.commit(changes)

    def landed(self) -> int:
        return self._landed

    def deploys(self) -> tuple[str, ...]:
        return ()

    def deploy(self, mark: str) -> None: ...

    def check(self, reads: Reads) -> None: ...

    def refresh(self) -> None: ...

    def news(self) -> tuple[News, ...]:
        return ()

    def listen(self, is_awake: bool) -> Heartbeat:
        return Heartbeat(has_news=False, is_regrouped=False)

    def stop_listening(self) -> None: ...

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


class SqliteView:
    """What one connection sees."""

    reshaped = 0

    def __init__(self, connection: apsw.Connection) -> None:
        self._read = connection.execute
        self._read_one = connection.cursor().execute  # for what is fetched at once: it spares a cursor each
        self.version = cast("int", self._read(_GET_VERSION).get)

    def answer(self, request: Request) -> Any:
        try:
            if type(request) is Get:
                return self._get(*request)
            if type(request) is Scan:
                return self._scan(request)
            if isinstance(request, many.REQUESTS):
                return many.answer(self._read, request, _table, _index)
            if type(request) is Claim:
                return self._claim(request)
            if type(request) is Completed:
                return list(map(make_job, self._read(_COMPLETED, request)))
            assert isinstance(request, Tally)
            return Tallied(*cast("tuple[Any, ...]", self._read(_TALLY, request).fetchone()))
        except apsw.Error as error:
            raise StoreError(f"SQLite refused a read: {error}") from error

    def _claim(self, request: Claim) -> Claimed:
        now, mutations, actions = request
        next_dues: Any = [self._read(_NEXT_DUE, (lane, now)).get for lane in (MUTATION, ACTION)]
        return Claimed(
            list(map(make_job, self._read(_DUE, (MUTATION, now, mutations)))),
            list(map(make_job, self._read(_DUE, (ACTION, now, actions)))),
            min((due for due in next_dues if due is not None), default=None),
        )

    def _get(self, table: Table, id: int) -> Row | None:
        if table is JOBS:
            # `get` reads to the end: while a statement is open, no table can be dropped.
            row: Any = self._read_one(_GET_JOB, (id,)).get
            return row and make_job(row)
        return self._read_one(_get_document(table.number, table.name), (id,)).get

    def _scan(self, request: Scan) -> list[tuple[int, Row]]:
        table, index, interval, descending, limit = request
        direction = "DESC" if descending else "ASC"
        if table is JOBS:
            return [(row[0], make_job(row)) for row in self._scan_jobs(request)]
        if index is not None:
            sql = _SCAN_INDEX.format(table=_table(table), index=_index(index), direction=direction)
            bounds = (interval.lower.key(), interval.upper.key())
        else:
            sql = _SCAN_TABLE.format(table=_table(table), direction=direction)
            bounds = (min(first_id(interval.lower), ID_MAX), first_id(interval.upper) - 1)
        return cast("list[tuple[int, Row]]", self._read(sql, (*bounds, limit)).fetchall())

    def _scan_jobs(self, request: Scan) -> list[tuple[Any, ...]]:
        columns = () if request.order is None else tuple(COLUMNS[path] for path in request.order.fields)
        lower, upper = (native(cut, columns) for cut in request.interval)
        begin = upper if request.descending else lower
        if len(begin.values) < len(columns) or begin.id is None or not columns:
            return self._scan_part(columns, lower, upper, request.descending, request.limit)
        # Behind one row of many with equal values. SQLite would pass by all before it: it must be told that they equal.
        rows = self._scan_part(columns, lower, upper, request.descending, request.limit, equal=True)
        if len(rows) < request.limit:
            rest = Cut(begin.values, after=not request.descending)
            lower, upper = (lower, rest) if request.descending else (rest, upper)
            rows += self._scan_part(columns, lower, upper, request.descending, request.limit - len(rows))
        return rows

    def _scan_part(
        self, columns: tuple[str, ...], lower: Cut, upper: Cut, descending: bool, limit: int, equal: bool = False
    ) -> list[tuple[Any, ...]]:
        sql = _scan_jobs(columns, shape(lower), shape(upper), descending, equal)
        below, above = bound(lower), bound(upper)
        if equal and descending:  # the values come first, then both bounds; a lower one has them before its id
            below, above = (*upper.values, *below), above[-1:]
        return self._read(sql, (*below, *above, limit)).fetchall()


# Names and bounds.


def _table(table: Table) -> str:
    return f"t{table.number}_{table.name}"


def _index(index: Index) -> str:
    return f"i{index.number}_{index.name}"


@lru_cache(1024)
def _get_document(number: int, name: str) -> str:
    return f"SELECT document FROM t{number}_{name} WHERE id = ?"


@lru_cache(256)
def _scan_jobs(
    columns: tuple[str, ...], lower: tuple[int, bool], upper: tuple[int, bool], descending: bool, equal: bool
) -> str:
    names, direction = (*columns, "id"), "DESC" if descending else "ASC"
    conditions = [f"{column} = ?" for column in columns] if equal else []
    for (length, after), inside, outside, is_first in (
        (lower, ">=", ">", not descending),
        (upper, "<", "<=", descending),
    ):
        compared = ("id",) if equal and is_first else names[:length]
        if compared:
            left, right = ", ".join(compared), ", ".join("?" * len(compared))
            conditions.append(f"({left}) {outside if after else inside} ({right})")
        elif after == (inside == ">="):
            conditions.append("false")  # behind everything, or before it
    order = ", ".join(f"{name} {direction}" for name in names)
    where = " AND ".join(conditions) or "true"
    return f"SELECT {_JOB} FROM scheduled_functions WHERE {where} ORDER BY {order} LIMIT ?"


# SQL.

_GET_VERSION: Final = "SELECT version FROM duly_store"
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
_SCAN_TABLE: Final = "SELECT id, document FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id {direction} LIMIT ?"
_SCAN_INDEX: Final = """
SELECT t.id, t.document FROM {index} i CROSS JOIN {table} t ON t.id = i.id
WHERE i.key >= ? AND i.key < ? ORDER BY i.key {direction} LIMIT ?
"""

_JOB: Final = ", ".join(Job._fields)
_INSERT_JOB: Final = f"INSERT INTO scheduled_functions ({_JOB}) VALUES ({', '.join('?' * len(Job._fields))})"
_UPDATE_JOBS: Final = """
UPDATE scheduled_functions SET due = ?, state = ?, lane = ?, epoch = ?, error = ?, completed_time = ?,
    attempts = ?
WHERE id IN carray(?)
"""
_DELETE_JOBS: Final = "DELETE FROM scheduled_functions WHERE id IN carray(?)"
_GET_JOB: Final = f"SELECT {_JOB} FROM scheduled_functions WHERE id = ?"
_COMPLETED: Final = f"""
SELECT {_JOB.replace("args", "'' AS args")} FROM scheduled_functions WHERE completed_time IS NOT NULL
ORDER BY completed_time LIMIT ?
"""
_TALLY: Final = """
SELECT count(*), min(due), (SELECT count(*) FROM scheduled_functions WHERE state = 'inProgress')
FROM scheduled_functions WHERE lane IN ('mutation', 'action') AND due <= ?
"""
_DUE: Final = f"""
SELECT {_JOB} FROM scheduled_functions WHERE lane = ? AND due <= ? ORDER BY due, id LIMIT ?
"""
_NEXT_DUE: Final = """
SELECT due FROM scheduled_functions WHERE lane = ? AND due > ? ORDER BY due LIMIT 1
"""
