"""The lock on the file of a store: one process owns it at a time.

The lock is on the file itself, so it cannot be removed without the store, and a removed store is noticed
(`Ownership.find_loss`). The lock belongs to the open file, which a forked child inherits: each child closes it at once,
so that only the process that acquired the lock holds it. A second file, `<path>-owner`, serves to name the owner. Its
lock is of the other kind: no child inherits it, and the system can name its holder. If this file is removed, only the
name is lost.

SQLite locks bytes of the same file. Closing a file drops all locks that the process has on it, also those of SQLite. So
this file is closed last, and is not even opened if this process owns it already.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import threading
from contextlib import suppress
from typing import Final

from duly.clock import pause
from duly.errors import StoreError, StoreInUseError
from duly.logs import log_of
from duly.storage.sqlite.file_header import LOG_MAGIC, SQLITE_MAGIC, FileHeader

_log: Final = log_of("duly.store")

COMPANION_SUFFIXES: Final = ("-wal", "-shm", "-journal", "-owner", "-door")
"""The suffixes of files that belong to a store: they are no stores themselves. `-door` is the control socket."""
_LOCKED_BYTE: Final = 0x4000_0000 + 1_024
"""After the bytes that SQLite locks, on the page that it reserves for locks: it stores nothing there."""
_READERS: Final = 0x4000_0000 + 2
_READERS_BYTES: Final = 510
"""A process that has the file open in SQLite has a shared lock on these bytes; the last one takes an exclusive lock."""
_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)
"""The lock of an open file, which stays when the process closes the file elsewhere. Else: the lock of a process."""
_LOOKS_MAX, _LOOK_SECONDS = 100, 0.01
"""How often a file that is too short is looked at, and with which pause, until it counts as another one."""
_TRIES_MAX: Final = 100
"""How often a file may be replaced between its opening and its locking. Restoring a backup does this once."""

_guard: Final = threading.Lock()
"""Held while a lock is acquired, and while a process is forked: otherwise the child would keep the lock."""
_held: Final[dict[tuple[int, int], Ownership]] = {}
"""The files that this process owns, by device and inode."""


class Ownership:
    """A file that this process owns, and the means to notice that the file is lost."""

    def __init__(self, path: str, file: int, identity: tuple[int, int]) -> None:
        self.path = path
        self.log_path = f"{path}-wal"
        self._file = file
        self._identity = identity
        self._log_identity: tuple[int, int] | None = None
        self._log: int | None = None
        self._changed_ns = 0
        self._opening = 0
        self._owner_file = _open_owner_file(path)
        self.closing_seconds: float | None = None
        self.copying = threading.Lock()
        """Held while this process copies the log into the file."""

    @property
    def is_held(self) -> bool:
        """Whether this process has acquired it and not released it. False in a forked child."""
        return _held.get(self._identity) is self

    def header(self) -> FileHeader:
        """Return what the file says, without its log."""
        return FileHeader.read(self._file)

    def watch(self, opening: int) -> None:
        """Watch from now on that the file, its log and the number of its opening stay the same."""
        self._log = os.open(self.log_path, os.O_RDONLY | os.O_CLOEXEC)
        self._log_identity = _identity(os.fstat(self._log))
        self._opening, self._changed_ns = opening, 0

    def protect_log(self, is_protected: bool) -> None:
        """Set whether other programs are kept from closing the file as if they were the last to have it open.

        The last one deletes the log when it closes. SQLite's own lock against that is lost as soon as anything in this
        process reads the file and closes it.
        """
        if _LOCK != fcntl.F_SETLK:
            with suppress(OSError):
                kind = fcntl.F_RDLCK if is_protected else fcntl.F_UNLCK
                fcntl.fcntl(self._file, _LOCK, _request(kind, _READERS, _READERS_BYTES))

    def find_loss(self) -> str | None:
        """Return the reason why writes to the file will be lost; None if the file is as it should be."""
        try:  # after each commit: two calls of lstat, and few others
            found = os.lstat(self.path)  # it was no link when it was opened
        except OSError:
            return f"{self.path} was deleted or moved"
        if (found.st_dev, found.st_ino) != self._identity:
            return f"{self.path} was replaced by another file"
        try:
            log = os.lstat(self.log_path)
        except OSError:
            return f"{self.log_path}, which holds the latest commits of the store, was deleted or moved"
        if (log.st_dev, log.st_ino) != self._log_identity:
            return f"{self.log_path}, which holds the latest commits of the store, was replaced by another file"
        if not self._has_log:
            return f"{self.log_path}, which holds the latest commits of the store, was emptied"
        if found.st_mtime_ns != self._changed_ns:  # by SQLite, or by a program that has copied a file over it
            self._changed_ns = found.st_mtime_ns
            if self._is_overwritten():
                return f"{self.path} was overwritten with another file"
        return None

    def _is_overwritten(self) -> bool:
        """Return whether the file is another one by now.

        While the log is copied into the file, its first page comes first: the file then says that it has more pages
        than it has. So a file that is too short is looked at again, after that copy, or for a second if it is made by
        another program.
        """
        for _ in range(_LOOKS_MAX):
            header = self.header()
            if header.opening != self._opening or not header.is_truncated:
                return header.opening != self._opening
            with self.copying:
                pass  # a copy that is under way is done now; the next one need not wait for this thread
            pause(_LOOK_SECONDS)
        return True

    @property
    def _has_log(self) -> bool:
        """Whether the log that was opened is still there, if the file needs it. Another program may have emptied it."""
        assert self._log is not None
        return os.pread(self._log, 4, 0) in LOG_MAGIC or not self.header().needs_log

    @property
    def is_complete(self) -> bool:
        """Whether SQLite may copy the log that it has open into the file at the path."""
        is_same = _identity_of(self.path) == self._identity and self.header().opening == self._opening
        return is_same and self._has_log

    def announce_closing(self, seconds: float) -> None:
        """Let processes that wait for the file know that it is released within this many seconds."""
        self.closing_seconds = seconds
        if self._owner_file is not None:
            with suppress(OSError):
                os.pwrite(self._owner_file, f"closing {seconds:.1f}\n".encode(), len(_pid_line()))

    def release(self) -> None:
        """Release the file. Only after SQLite has closed it."""
        with _guard:
            if self.is_held:
                del _held[self._identity]
                self._close()

    def _close(self) -> None:
        if self._owner_file is not None:
            with suppress(OSError):
                os.ftruncate(self._owner_file, 0)
            os.close(self._owner_file)
        # Closing the file is not enough: a child that was forked just now may not have closed its copy yet.
        fcntl.fcntl(self._file, _LOCK, _request(fcntl.F_UNLCK, _LOCKED_BYTE))
        os.close(self._file)
        if self._log is not None:
            os.close(self._log)

    def close_in_child(self) -> None:
        """Close the files in a forked child. The parent keeps the lock."""
        for file in (self._file, self._owner_file, self._log):
            if file is not None:
                os.close(file)


def acquire(path: str) -> Ownership:
    """Acquire the file at a path; create it if there is none. Raises StoreInUseError, StoreError or OSError."""
    for _ in range(_TRIES_MAX):
        with _guard:
            if (mine := _identity_of(path)) in _held:
                who = "this process, by another App: close it, or lose it with crash()"
                raise _in_use(path, who, os.getpid(), _held[mine].closing_seconds)
            if mine is not None and not stat.S_ISREG(os.stat(path).st_mode):
                raise StoreError(f"{path}: got a folder or a device, expected a file or nothing there")
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _lock(file, path)
                identity = _identity(os.fstat(file))
                if _identity_of(path) == identity:
                    # Before the owner file is made next to it.
                    if os.pread(file, 16, 0) not in (b"", SQLITE_MAGIC):
                        raise StoreError(f"{path}: got a file of something else, expected a store of duly or no file")
                    _held[identity] = Ownership(path, file, identity)
                    return _held[identity]
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # it was replaced meanwhile
    raise StoreError(f"{path}: it was replaced again and again while it was opened")


def _lock(file: int, path: str) -> None:
    try:
        fcntl.fcntl(file, _LOCK, _request(fcntl.F_WRLCK, _LOCKED_BYTE))
    except (BlockingIOError, PermissionError):
        pid = owner_of(path)
        who = f"process {pid}" if pid else "a process that cannot be named: lsof shows who has the file open"
        raise _in_use(path, who, pid, _closing_seconds(path)) from None
    except OSError as error:
        raise StoreError(
            f"{path}: its file system cannot lock it ({error.strerror}), so nothing would keep a second process from"
            " writing to it. Put the store on a local disk, or into PostgreSQL"
        ) from error


def _in_use(path: str, who: str, pid: int | None, closing_seconds: float | None = None) -> StoreInUseError:
    return StoreInUseError(
        f"{path} is owned by {who}; a SQLite store has one owner at a time. Close it there first. Several"
        " processes, such as the workers of uvicorn or gunicorn, share a store only in PostgreSQL",
        pid,
        closing_seconds,
    )


# The owner file.


def owner_of(path: str) -> int | None:
    """Return the process id of the owner of a store; None if there is no owner, or the system cannot name it."""
    try:
        file = os.open(f"{path}-owner", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        kind, pid = _parse_answer(fcntl.fcntl(file, fcntl.F_GETLK, _request(fcntl.F_WRLCK, 0)))
        return pid if kind != fcntl.F_UNLCK and pid > 0 else None
    except OSError:
        return None
    finally:
        os.close(file)


def _open_owner_file(path: str) -> int | None:
    """Open the file that names this process as the owner; None if that fails: then only the name is lost."""
    try:
        file = os.open(f"{path}-owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        _log.warning("%s-owner cannot be written (%s): nothing names the owner of the store", path, error.strerror)
        return None
    with suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETLK, _request(fcntl.F_WRLCK, 0))
        os.ftruncate(file, 0)
        os.pwrite(file, _pid_line(), 0)
    return file


def _pid_line() -> bytes:
    return f"{os.getpid()}\n".encode()


def _closing_seconds(path: str) -> float | None:
    try:
        with open(f"{path}-owner") as file:
            word, _, seconds = file.read().partition("\n")[2].partition(" ")
        return float(seconds) if word == "closing" else None
    except (OSError, ValueError):
        return None


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


# The system's `struct flock`: which lock, on which byte.


def _request(kind: int, byte: int, length: int = 1) -> bytes:
    if sys.platform == "darwin":
        return struct.pack(_FLOCK, byte, length, 0, kind, os.SEEK_SET)
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, length, 0)


def _parse_answer(answered: bytes) -> tuple[int, int]:
    """Return the kind of the existing lock, and the process that holds it."""
    fields = struct.unpack(_FLOCK, answered)
    return (fields[3], fields[2]) if sys.platform == "darwin" else (fields[0], fields[4])


_FLOCK: Final = "@qqihh" if sys.platform == "darwin" else "@hhqqi0q"


# Forking.


def _close_all_in_child() -> None:
    for ownership in _held.values():
        ownership.close_in_child()
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_close_all_in_child)
