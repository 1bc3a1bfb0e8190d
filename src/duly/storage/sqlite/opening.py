"""Checks that a file and its write-ahead log belong together, by the number of the opening that both contain.

SQLite keeps the latest commits in the log, `<path>-wal`, until a checkpoint copies them into the file. A copy of the
file alone lacks them; a log next to another file would be replayed over it. SQLite notices neither. So each opening
writes its number into the header of the file, by a checkpoint, before the store is used:

    the file itself says        number 7, needs its log      a copy of it alone is refused
    the log says                number 7, complete           a reader of both, such as a backup, has everything
    after an orderly close      number 7, complete           there is no log any more

Each longer checkpoint repeats the first two lines, so the file says that it needs its log as long as there is one.
"""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import secrets
from typing import Any, Final
from urllib.parse import quote

import apsw

from duly.errors import StoreError
from duly.storage.sqlite.file_header import APPLICATION_ID, LOG_MAGIC, FileHeader

_NUMBER_MAX: Final = 2**30 - 1
"""The user_version of a file holds twice this number, and one bit more."""


def check_file(path: str, header: FileHeader) -> None:
    """Raise StoreError for a file without its log, or a log without its file. Called before SQLite opens them."""
    log_size = _size(f"{path}-wal")
    if (log_size is None and header.is_bare) or (header.needs_log and not _is_log(f"{path}-wal")):
        raise StoreError(
            f"{path} is a copy of a store that was running, without its log, which has the latest of what it"
            " held. Use the backup that `duly backup` made, or copy the file while nothing runs; `duly restore"
            " --incomplete` takes what this copy has"
        )
    if log_size and not header.size:
        raise StoreError(
            f"{path} is empty or new, and {path}-wal next to it is the log of a store that was there before:"
            " with it, its file would be lost for good. Put the file back; or delete that log to start again"
        )


def check_log(path: str, header: FileHeader, connection: apsw.Connection) -> None:
    """Raise StoreError if the log belongs to another file. The connection must not checkpoint."""
    if not _size(f"{path}-wal"):
        return
    try:
        seen = _opening(connection)
        if seen == header.opening:
            return
        follows = header.opening == 0 or seen == _next_number(header.opening)
        if follows and _store_version(connection) == _store_version_without_log(path):
            return  # the opening itself was interrupted, and the log has no other change
    except apsw.Error:
        pass  # pages of another file and pages of this one do not make a database
    raise StoreError(
        f"{path}-wal is the log of another file than {path}, such as of the one that a backup was copied"
        " over: with it, the backup would be undone. If the file is the one you want, delete the log and"
        f" {path}-shm; `duly restore` does so by itself"
    )


def begin(header: FileHeader, writer: apsw.Connection) -> int:
    """Write the number of a new opening, or the old one if another process is reading now. Return what was written.

    What a killed process has left in the log gets into the file first, under the number that both have. So a log whose
    number is ahead of the file's holds nothing but that number; if it holds more, it is the log of another file.
    """
    number = header.opening
    writer.execute(_SET_APPLICATION)
    write_number(writer, number, needs_log=True)
    if checkpoint(writer):
        following = _next_number(number) if number else _random_number()
        write_number(writer, following, needs_log=True)
        if checkpoint(writer):
            number = following
    write_number(writer, number)
    return number


def checkpoint(writer: apsw.Connection) -> bool:
    """Copy the log into the file, except pages that readers still need. Return whether that was all of it."""
    pages, done = writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return pages == done


def mark_as_new_file(connection: apsw.Connection) -> None:
    """Give a copy a number of its own, which no log has."""
    connection.execute(_SET_APPLICATION)
    write_number(connection, _random_number())


def write_number(connection: apsw.Connection, number: int, needs_log: bool = False) -> None:
    """Write the number of an opening, and whether the file needs its log."""
    connection.execute(_SET_VERSION.format(version=2 * number + needs_log))


def _random_number() -> int:
    return secrets.randbelow(_NUMBER_MAX) + 1


def _next_number(number: int) -> int:
    return number % _NUMBER_MAX + 1


def _opening(connection: apsw.Connection) -> int:
    application: Any = connection.execute(_GET_APPLICATION).get
    version: Any = connection.execute(_GET_VERSION).get
    return version // 2 if application == APPLICATION_ID else 0


def _store_version(connection: apsw.Connection) -> object:
    return connection.execute(_GET_STORE_VERSION).get


def _store_version_without_log(path: str) -> object:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{quote(path)}?immutable=1", flags=flags)
    try:
        return _store_version(connection)
    finally:
        connection.close()


def _is_log(path: str) -> bool:
    """Return whether a file begins like a log. One that was emptied or overwritten has lost the latest commits."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in LOG_MAGIC
    except OSError:
        return False


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


_GET_APPLICATION: Final = "PRAGMA application_id"
_SET_APPLICATION: Final = f"PRAGMA application_id={APPLICATION_ID}"
_GET_VERSION: Final = "PRAGMA user_version"
_SET_VERSION: Final = "PRAGMA user_version={version}"
_GET_STORE_VERSION: Final = "SELECT version FROM duly_store"
