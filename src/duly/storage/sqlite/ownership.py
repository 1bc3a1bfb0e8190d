"""Who owns the file of a store: one process at a time, by a lock on the file itself.

Whoever removes the lock removes the store, and that is noticed. The lock belongs to an opening of the file, which a
forked child inherits: each child drops it at once, so that nobody holds it but the process that has taken it. A second
file, `<path>-owner`, is only for telling who that is: a lock of the other kind, which no child inherits, lets the
system name its holder. If it is removed, nothing is lost but the name.

SQLite locks bytes of the same file. Closing it while SQLite has it open would drop those locks, so it is closed last,
and not even opened where this process owns it already.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import threading
from contextlib import suppress
from typing import Final, NamedTuple

from duly.errors import StoreError, StoreInUseError
from duly.logs import log_of

_log: Final = log_of("duly.store")

COMPANION_SUFFIXES: Final = ("-wal", "-shm", "-journal", "-owner", "-door")
"""The endings of the files that lie beside a store, and are none themselves."""
_LOCKED_BYTE: Final = 0x4000_0000 + 1_024
"""Behind the bytes that SQLite locks, on the page that it keeps free for its own locks: it reads nothing there."""
_READERS: Final = 0x4000_0000 + 2
_READERS_BYTES: Final = 510
"""What each that has the file open by SQLite has a shared lock on, and the last one an exclusive one."""
_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)
"""The lock of an opening, which stays when the process closes the file elsewhere; else that of the process."""
_TRIES_MAX: Final = 100
"""How often a file may be replaced between its opening and its locking: a restored backup is, once."""

_guard: Final = threading.Lock()
"""No process is forked while a lock is taken, else the child would keep it."""
_held: Final[dict[tuple[int, int], Ownership]] = {}
"""What this process owns, by device and inode."""


class Ownership:
    """The one file that its process may write to, and what is known of it."""

    def __init__(self, path: str, file: int, identity: tuple[int, int]) -> None:
        self.path = path
        self.log_path = f"{path}-wal"
        self._file = file
        self._identity = identity
        self._log_identity: tuple[int, int] | None = None
        self._log: int | None = None
        self._changed_ns = 0
        self._opening = 0
        self._told = _told_by(path)
        self.closing_seconds: float | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that has taken it, and has not released it."""
        return _held.get(self._identity) is self

    def head(self) -> Head:
        """What the file says, without its log."""
        return Head.read(self._file)

    def watch(self, opening: int) -> None:
        """From now on the file, its log and the number of its opening are to stay what they are."""
        self._log = os.open(self.log_path, os.O_RDONLY | os.O_CLOEXEC)
        self._log_identity = _identity(os.fstat(self._log))
        self._opening, self._changed_ns = opening, 0

    def keep_log(self, kept: bool) -> None:
        """Whether no other program may take itself for the last one that has the file open, and delete its log.

        SQLite's own lock, which tells that, is lost as soon as anybody in this process reads the file and closes it.
        """
        if _LOCK != fcntl.F_SETLK:
            with suppress(OSError):
                kind = fcntl.F_RDLCK if kept else fcntl.F_UNLCK
                fcntl.fcntl(self._file, _LOCK, _request(kind, _READERS, _READERS_BYTES))

    def loss(self) -> str | None:
        """What has become of the file so that nothing written to it is kept; None if it is there as it should be."""
        try:  # after each commit: two looks at the disk, and hardly a call more
            found = os.lstat(self.path)  # which was no link when it was opened
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
        if found.st_mtime_ns != self._changed_ns:  # by SQLite, or by somebody who has copied a file over it
            self._changed_ns = found.st_mtime_ns
            head = self.head()
            if head.opening != self._opening or head.is_cut:
                return f"{self.path} was overwritten with another file"
        return None

    @property
    def _has_log(self) -> bool:
        """Whether the log that was opened holds what the file lacks, if it does: others may have brought it into it."""
        assert self._log is not None
        return os.pread(self._log, 4, 0) in LOG_BEGINS or not self.head().needs_log

    @property
    def is_complete(self) -> bool:
        """Whether SQLite may bring the log that it has open into the file at the path."""
        is_there = _identity_of(self.path) == self._identity and self.head().opening == self._opening
        return is_there and self._has_log

    def announce_closing(self, seconds: float) -> None:
        """Let those who wait for the file know that it will be free after so many seconds at most."""
        self.closing_seconds = seconds
        if self._told is not None:
            with suppress(OSError):
                os.pwrite(self._told, f"closing {seconds:.1f}\n".encode(), len(_pid_line()))

    def release(self) -> None:
        """Let others have the file. After SQLite has closed it."""
        with _guard:
            if self.is_mine:
                del _held[self._identity]
                self._close()

    def _close(self) -> None:
        if self._told is not None:
            with suppress(OSError):
                os.ftruncate(self._told, 0)
            os.close(self._told)
        # Not by closing it alone: a child that was forked just now may not have dropped it yet.
        fcntl.fcntl(self._file, _LOCK, _request(fcntl.F_UNLCK, _LOCKED_BYTE))
        os.close(self._file)
        if self._log is not None:
            os.close(self._log)

    def forget(self) -> None:
        """In a forked child: the parent goes on owning it."""
        for file in (self._file, self._told, self._log):
            if file is not None:
                os.close(file)


class Head(NamedTuple):
    """What the first bytes of a store's file say; `duly.storage.sqlite.opening` has what it means."""

    size: int
    """Of the file, in bytes."""
    opening: int
    """The number of the opening that wrote it; 0 where it says none."""
    needs_log: bool
    is_bare: bool
    """Whether it has nothing but a head, which says that it has a log."""
    is_cut: bool = False
    """Whether it is shorter than it says."""

    @classmethod
    def read(cls, file: int) -> Head:
        head, size = os.pread(file, _HEAD_BYTES, 0), os.fstat(file).st_size
        if len(head) < _HEAD_BYTES or not head.startswith(b"SQLite format 3\0"):
            return cls(size, 0, needs_log=False, is_bare=False)
        numbers = (_PAGE_SIZE, _PAGES, _USER_VERSION)
        page, pages, version = (int.from_bytes(head[part], "big") for part in numbers)
        page = page if page > 1 else 65_536
        is_bare = head[_WRITE_MODE] == _WITH_LOG and size <= page
        if head[_APPLICATION_ID] != APPLICATION_ID.to_bytes(4, "big"):
            version = 0  # it is not ours, or of before there were such numbers
        return cls(size, version // 2, bool(version % 2), is_bare, is_cut=size < pages * page)


def head_of(path: str) -> Head:
    """What a file says that this process neither owns nor has opened."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Head.read(file)
    finally:
        os.close(file)


def take(path: str) -> Ownership:
    """Own the file at a path, which is made where there is none. StoreInUseError, StoreError, OSError."""
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
                    # Before a second file is made beside it.
                    if os.pread(file, 16, 0) not in (b"", b"SQLite format 3\0"):
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
            f"{path}: its file system cannot lock it ({error.strerror}), so it cannot be seen to it that one process"
            " writes to it. Put the store on a local disk, or into PostgreSQL"
        ) from error


def _in_use(path: str, who: str, pid: int | None, closing_seconds: float | None = None) -> StoreInUseError:
    return StoreInUseError(
        f"{path} is owned by {who}; a SQLite store has one owner at a time. Close it there first. Several"
        " processes, such as the workers of uvicorn or gunicorn, share a store only in PostgreSQL",
        pid,
        closing_seconds,
    )


# Who it is.


def owner_of(path: str) -> int | None:
    """The process id of who owns the store in a file; None if nobody does, or it cannot be named."""
    try:
        file = os.open(f"{path}-owner", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        kind, pid = _answer(fcntl.fcntl(file, fcntl.F_GETLK, _request(fcntl.F_WRLCK, 0)))
        return pid if kind != fcntl.F_UNLCK and pid > 0 else None
    except OSError:
        return None
    finally:
        os.close(file)


def _told_by(path: str) -> int | None:
    """The file that names this process as the owner, open; None where it cannot be written, for it is only a name."""
    try:
        file = os.open(f"{path}-owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        _log.warning("%s-owner cannot be written (%s): others will not learn who owns the store", path, error.strerror)
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


def _answer(answered: bytes) -> tuple[int, int]:
    """Which lock there is, and the process that holds it."""
    fields = struct.unpack(_FLOCK, answered)
    return (fields[3], fields[2]) if sys.platform == "darwin" else (fields[0], fields[4])


_FLOCK: Final = "@qqihh" if sys.platform == "darwin" else "@hhqqi0q"


# The head of an SQLite file: https://www.sqlite.org/fileformat.html#the_database_header

APPLICATION_ID: Final = int.from_bytes(b"duly", "big")
"""What tells a store from other SQLite files."""
LOG_BEGINS: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""With what a log begins: https://www.sqlite.org/walformat.html"""
_HEAD_BYTES: Final = 100
_PAGE_SIZE: Final = slice(16, 18)
_WRITE_MODE: Final = 18
_WITH_LOG: Final = 2
_PAGES: Final = slice(28, 32)
_USER_VERSION: Final = slice(60, 64)
_APPLICATION_ID: Final = slice(68, 72)


# Forking.


def _forget_all() -> None:
    for ownership in _held.values():
        ownership.forget()
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_forget_all)
