"""Backups of a store in a file: complete copies, made while the store is in use, and restoring them."""

# The types of apsw name collections.abc.Buffer, which Python 3.11 lacks: there they are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw

from duly.errors import StoreError
from duly.storage.sqlite import opening, ownership
from duly.storage.sqlite.file import FORMAT
from duly.storage.sqlite.file_header import header_of

_BUSY_MS: Final = 5_000  # a store that is being created or closed is locked for a moment


def backup(path: str, target: str) -> int:
    """Copy the store at a path into a new file, as of one commit, while its owner keeps working. Return its size.

    The copy is one file, without a log. Raises StoreError if there is no store, or if `target` exists.
    """
    path = os.path.realpath(path)  # the log is next to the file, not next to a link to it
    if not os.path.isfile(path):
        raise StoreError(f"{path}: there is no store to back up")
    _check(path)
    if os.path.lexists(target):
        raise _exists_error(target)
    if target.endswith(ownership.COMPANION_SUFFIXES):
        raise StoreError(f"{target}: got a name that SQLite has for files of a store, expected another")
    part = f"{target}-part-{os.getpid()}"
    try:
        _copy(path, part)
        _move_into_place(part, target)
        _flush(Path(os.path.abspath(target)).parent)
    finally:
        _remove(part)
    return os.path.getsize(target)


def restore(source: str, path: str, incomplete: bool = False) -> str | None:
    """Replace the store at a path by a backup. Return the new path of the store that was there, if there was one.

    With `incomplete` a copy that lacks its log is accepted. Raises StoreInUseError while a process owns the store, and
    StoreError if the source is not a backup.
    """
    if not os.path.isfile(source):
        raise StoreError(f"{source}: there is no such file to restore")
    source, path = os.path.realpath(source), os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise StoreError(f"{path}: there is no folder {os.path.dirname(path)} to restore it to")
    if os.path.exists(path) and os.path.samefile(source, path):
        raise StoreError(f"{source}: got the store itself, expected a backup of it")
    if not incomplete:
        _check(source)
    part = f"{path}-restoring-{os.getpid()}"
    try:
        _copy(source, part)
        return _replace(path, part)
    finally:
        for ending in ("", "-owner"):
            _remove(f"{part}{ending}")


def _replace(path: str, part: str) -> str | None:
    """Replace a store by a file. This process owns both meanwhile."""
    replaced = ownership.acquire(path)
    try:
        placed = ownership.acquire(part)
        try:
            kept = _keep_aside(path)
            if kept is not None:
                _copy_permissions(part, path)
            os.replace(part, path)
            # Not before: if this process ended in between, the file that was there would lack its log.
            for ending in ("-wal", "-shm"):
                _remove(f"{path}{ending}")
            _flush(Path(path).parent)
            return kept
        finally:
            placed.release()
    finally:
        replaced.release()


def _check(path: str) -> None:
    """Raise StoreError for a file and a log that do not belong together. Reads only."""
    for is_last in (False, True):  # another process may open or close the store in between
        try:
            header = header_of(path)
            opening.check_file(path, header)
            with _opened(path) as connection:
                opening.check_log(path, header, connection)
            return
        except StoreError:
            if is_last:
                raise


def _copy(source: str, target: str) -> None:
    """Copy the store as of one commit, and flush the copy to the disk. If this fails, nothing is left at `target`."""
    try:
        with _opened(source) as store:
            _check_format(store, source)
            _create(target)
            copy = apsw.Connection(target)
            try:
                with copy.backup("main", store, "main") as copying:
                    copying.step(-1)  # everything in one transaction: otherwise each commit would start the copy again
                copy.execute("PRAGMA journal_mode=DELETE")
                opening.mark_as_new_file(copy)
                [damage] = copy.execute("PRAGMA quick_check(1)").fetchone() or ("",)
                if damage != "ok":
                    raise StoreError(f"{source}: the store is damaged: {damage}")
            finally:
                copy.close()
        _flush(Path(target))
    except BaseException as error:
        for ending in ("", "-journal"):
            _remove(f"{target}{ending}")
        if isinstance(error, apsw.FullError):  # its text is "not an error"
            raise StoreError(f"{target}: there is no space left for it") from error
        if isinstance(error, apsw.Error):
            raise StoreError(f"{source}: SQLite cannot copy it: {error}") from error
        raise


@contextmanager
def _opened(path: str) -> Generator[apsw.Connection]:
    """Connect without changing the file or its log, and without creating a log.

    Raises StoreError if no process had the store open, and one has opened it meanwhile.
    """
    idle_state = _idle_state(path)
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    # A log created here would belong to the user of this process, and the owner of the store could not write to it.
    connection = apsw.Connection(f"file:{quote(path)}{'?immutable=1' if idle_state else ''}", flags=flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        yield connection
    finally:
        connection.close()
    if idle_state is not None and _idle_state(path) != idle_state:
        raise StoreError(f"{path}: it was opened while it was copied; try again")


def _idle_state(path: str) -> tuple[int, ...] | None:
    """Return what changes when a process writes to a file that no process has open; None if one may have it open."""
    if os.path.exists(f"{path}-wal"):
        return None
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_format(connection: apsw.Connection, path: str) -> None:
    try:
        found: Any = connection.execute(_GET_FORMAT).get
    except apsw.SQLError:
        raise StoreError(f"{path}: got an SQLite database of something else, expected a store of duly") from None
    except apsw.NotADBError:
        raise StoreError(f"{path}: got a file of something else, expected a store of duly") from None
    if found > FORMAT:
        raise StoreError(f"{path}: got a store of format {found}, expected at most {FORMAT}: a newer duly made it")


def _keep_aside(path: str) -> str | None:
    """Link the file at a path and its log under another name. The path itself stays, so there is a file at any time."""
    log = f"{path}-wal"
    if not os.path.getsize(path) and not os.path.exists(log):
        return None  # it was created when it was locked
    aside = next(name for number in count(1) if not os.path.exists(name := f"{path}-before-restore-{number}"))
    os.link(path, aside)
    with suppress(FileNotFoundError):
        os.link(log, f"{aside}-wal")
    return aside


def _copy_permissions(path: str, of: str) -> None:
    """Give a file the mode of another one, and its owner if this process may do so."""
    found = os.stat(of)
    os.chmod(path, stat.S_IMODE(found.st_mode))
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.chown(path, found.st_uid, found.st_gid)


def _create(path: str) -> None:
    """Create an empty file that no other user may read."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: the backup cannot be written: {error.strerror}") from error


def _move_into_place(part: str, target: str) -> None:
    """Give a complete file its name, unless another file has got the name by now."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise _exists_error(target) from None
    except OSError:  # a file system without hard links
        os.rename(part, target)


def _exists_error(target: str) -> StoreError:
    return StoreError(f"{target}: got a file that is there already, expected the name of a new one")


def _flush(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


_GET_FORMAT: Final = "SELECT format FROM duly_store"
