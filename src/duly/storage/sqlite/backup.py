"""Backups of a store in a file: whole copies, made while it runs, and put in the place of what is there."""

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

_BUSY_MS: Final = 5_000  # a store that is just being made, or closed, is locked for a moment


def backup(path: str, target: str) -> int:
    """Copy the store at a path into a new file, as of one commit, while its owner goes on. Returns its bytes.

    The copy is one file, without a log. StoreError if there is no store, or a file at `target` already.
    """
    path = os.path.realpath(path)  # a log lies beside the file, not beside a link to it
    if not os.path.isfile(path):
        raise StoreError(f"{path}: there is no store to back up")
    _check(path)
    if os.path.lexists(target):
        raise _taken(target)
    if target.endswith(ownership.COMPANION_SUFFIXES):
        raise StoreError(
            f"{target}: got a name as of a file beside a store, which SQLite would take it for, expected another"
        )
    part = f"{target}-part-{os.getpid()}"
    try:
        _copy(path, part)
        _place(part, target)
        _flush(Path(os.path.abspath(target)).parent)
    finally:
        _remove(part)
    return os.path.getsize(target)


def restore(source: str, path: str, incomplete: bool = False) -> str | None:
    """Put a backup in the place of the store at a path. Returns where what was there is now, if there was something.

    With `incomplete` a copy is taken that lacks its log. StoreInUseError while a process owns the store; StoreError if
    the backup is none.
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
    """Put a file in the place of a store; nobody has either of them meanwhile."""
    replaced = ownership.take(path)
    try:
        placed = ownership.take(part)
        try:
            aside = _put_aside(path)
            if aside is not None:
                _inherit(part, path)
            os.replace(part, path)
            # Only now: if this ended before, the file that was there would lack its log.
            for ending in ("-wal", "-shm"):
                _remove(f"{path}{ending}")
            _flush(Path(path).parent)
            return aside
        finally:
            placed.release()
    finally:
        replaced.release()


def _check(path: str) -> None:
    """Raise StoreError for a file and a log that do not belong together. They are only looked at."""
    for is_last in (False, True):  # somebody may open or close it in between
        try:
            head = ownership.head_of(path)
            opening.check_file(path, head)
            with _opened(path) as connection:
                opening.check_log(path, head, connection)
            return
        except StoreError:
            if is_last:
                raise


def _copy(source: str, target: str) -> None:
    """Copy what one commit has left, and flush it to the disk; nothing is left at `target` if that fails."""
    try:
        with _opened(source) as store:
            _check_format(store, source)
            _make(target)
            copy = apsw.Connection(target)
            try:
                with copy.backup("main", store, "main") as copying:
                    copying.step(-1)  # all of it in one transaction: each commit meanwhile would begin it anew
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
        if isinstance(error, apsw.FullError):  # its text says "not an error"
            raise StoreError(f"{target}: there is no space left for it") from error
        if isinstance(error, apsw.Error):
            raise StoreError(f"{source}: SQLite cannot copy it: {error}") from error
        raise


@contextmanager
def _opened(path: str) -> Generator[apsw.Connection]:
    """A connection that leaves the file and its log as they are, and makes none where there is none.

    StoreError if somebody has opened the store meanwhile that nobody had open.
    """
    resting = _resting(path)
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    # A log that this made would belong to the user of this process, and keep that of the store from writing to it.
    connection = apsw.Connection(f"file:{quote(path)}{'?immutable=1' if resting else ''}", flags=flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        yield connection
    finally:
        connection.close()
    if resting is not None and _resting(path) != resting:
        raise StoreError(f"{path}: it was opened while it was copied; try again")


def _resting(path: str) -> tuple[int, ...] | None:
    """What tells that nobody has written to a file since; None if somebody may have it open."""
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


def _put_aside(path: str) -> str | None:
    """Keep the file at a path and its log under another name. The file stays, too: there is no moment without one."""
    log = f"{path}-wal"
    if not os.path.getsize(path) and not os.path.exists(log):
        return None  # it was made when it was locked
    aside = next(name for number in count(1) if not os.path.exists(name := f"{path}-before-restore-{number}"))
    os.link(path, aside)
    with suppress(FileNotFoundError):
        os.link(log, f"{aside}-wal")
    return aside


def _inherit(path: str, of: str) -> None:
    """Give a file the mode of another one, and its owner where this process may."""
    found = os.stat(of)
    os.chmod(path, stat.S_IMODE(found.st_mode))
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.chown(path, found.st_uid, found.st_gid)


def _make(path: str) -> None:
    """An empty file that nobody else may read."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: the backup cannot be written: {error.strerror}") from error


def _place(part: str, target: str) -> None:
    """Give a whole file its name, which no other may have by now."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a file system without such links
        os.rename(part, target)


def _taken(target: str) -> StoreError:
    return StoreError(f"{target}: got a file that is there already, expected the name of a new one")


def _flush(path: Path) -> None:
    """Make what was written to a file, or the names in a folder, survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


_GET_FORMAT: Final = "SELECT format FROM duly_store"
