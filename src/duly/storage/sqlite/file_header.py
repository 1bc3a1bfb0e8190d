"""The first bytes of a store's file, read without SQLite: the number of an opening, and whether the file needs its log.

https://www.sqlite.org/fileformat.html#the_database_header. What the number is for is in `opening.py`.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

APPLICATION_ID: Final = int.from_bytes(b"duly", "big")
"""Marks the file as a store."""
SQLITE_MAGIC: Final = b"SQLite format 3\0"
"""The first bytes of every SQLite file."""
LOG_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The first bytes of a write-ahead log: https://www.sqlite.org/walformat.html"""

_HEADER_BYTES: Final = 100
_PAGE_SIZE: Final = slice(16, 18)
_WRITE_MODE: Final = 18
_WITH_LOG: Final = 2
_PAGES: Final = slice(28, 32)
_USER_VERSION: Final = slice(60, 64)
_APPLICATION_ID: Final = slice(68, 72)


class FileHeader(NamedTuple):
    """What the first bytes of a file say."""

    size: int
    """The size of the file, in bytes."""
    opening: int
    """The number of the opening that wrote them; 0 if they have none."""
    needs_log: bool
    is_bare: bool
    """Whether the file has only its first page, which says that there is a log."""
    is_truncated: bool = False
    """Whether the file is shorter than its header says."""

    @classmethod
    def read(cls, file: int) -> FileHeader:
        header, size = os.pread(file, _HEADER_BYTES, 0), os.fstat(file).st_size
        if len(header) < _HEADER_BYTES or not header.startswith(SQLITE_MAGIC):
            return cls(size, 0, needs_log=False, is_bare=False)
        numbers = (_PAGE_SIZE, _PAGES, _USER_VERSION)
        page, pages, version = (int.from_bytes(header[part], "big") for part in numbers)
        page = page if page > 1 else 65_536
        is_bare = header[_WRITE_MODE] == _WITH_LOG and size <= page
        if header[_APPLICATION_ID] != APPLICATION_ID.to_bytes(4, "big"):
            version = 0  # not a store, or one from before openings had numbers
        return cls(size, version // 2, bool(version % 2), is_bare, is_truncated=size < pages * page)


def header_of(path: str) -> FileHeader:
    """Return the header of a file that this process neither owns nor has open."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return FileHeader.read(file)
    finally:
        os.close(file)
