"""What one execution of a function has used of its limits, with all that it calls in its transaction."""

from __future__ import annotations

from typing import Final

from duly.errors import LimitError
from duly.limits import WARNING_SHARE, Limits
from duly.storage.rows import Row
from duly.values.value import SPECIAL, size

_WHAT: Final = {
    "reads_max": ("calls of get and queries", "read several documents with one query"),
    "documents_read_max": ("documents read", "narrow the query with an index range, take(n) or paginate"),
    "bytes_read_max": ("bytes read", "narrow the query with an index range, take(n) or paginate"),
    "documents_written_max": ("documents written", "write a part and schedule a function that goes on"),
    "bytes_written_max": ("bytes written", "write a part and schedule a function that goes on"),
    "scheduled_functions_max": ("functions scheduled", "schedule one that schedules the rest"),
    "scheduled_arguments_bytes_max": ("bytes of arguments scheduled", "store the data and schedule its id"),
}

Written = tuple[int, int, int, int]
"""What a failed sub-transaction gives back."""


class Quota:
    """The limits of each execution, and the counts from which on one has to look at them: a share of each."""

    __slots__ = ("limits", *(name.removesuffix("_max") for name in _WHAT))
    reads: float
    documents_read: float
    bytes_read: float
    documents_written: float
    bytes_written: float
    scheduled_functions: float
    scheduled_arguments_bytes: float

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        for name in _WHAT:
            setattr(self, name.removesuffix("_max"), WARNING_SHARE * getattr(limits, name))


class Usage:
    """Counts, and raises a LimitError at the call that goes beyond a limit."""

    __slots__ = (
        "bytes_read",
        "bytes_written",
        "documents_read",
        "documents_written",
        "is_near",
        "quota",
        "reads",
        "scheduled_arguments_bytes",
        "scheduled_functions",
    )

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.reads = self.documents_read = self.bytes_read = 0
        self.documents_written = self.bytes_written = 0
        self.scheduled_functions = self.scheduled_arguments_bytes = 0
        self.is_near = False
        """Whether it has come close to a limit."""

    @property
    def limits(self) -> Limits:
        return self.quota.limits

    def begin_read(self) -> None:
        self.reads += 1
        if self.reads > self.quota.reads:
            self._look()

    def get(self, row: Row | None) -> None:
        """A read of one row by its id, found or not."""
        # The most frequent call of all: each count is looked up once.
        quota = self.quota
        self.reads = reads = self.reads + 1
        if row is None:
            documents, length = self.documents_read, self.bytes_read
        else:
            text = row if isinstance(row, str) else row.args
            self.documents_read = documents = self.documents_read + 1
            self.bytes_read = length = self.bytes_read + (
                len(text) if text.isascii() and SPECIAL not in text else size(text)
            )
        if reads > quota.reads or documents > quota.documents_read or length > quota.bytes_read:
            self._look()

    def read(self, documents: int, length: int) -> None:
        self.documents_read += documents
        self.bytes_read += length
        if self.documents_read > self.quota.documents_read or self.bytes_read > self.quota.bytes_read:
            self._look()

    def write(self, length: int) -> None:
        self.documents_written += 1
        self.bytes_written += length
        if self.documents_written > self.quota.documents_written or self.bytes_written > self.quota.bytes_written:
            self._look()

    def schedule(self, length: int) -> None:
        """One more function with arguments of this length. One that is refused does not count."""
        quota = self.quota
        functions, length = self.scheduled_functions + 1, self.scheduled_arguments_bytes + length
        if functions > quota.scheduled_functions or length > quota.scheduled_arguments_bytes:
            self._look_at_scheduled(functions, length)
        self.scheduled_functions, self.scheduled_arguments_bytes = functions, length

    def _look_at_scheduled(self, functions: int, length: int) -> None:
        self.is_near = True
        for name, used in (("scheduled_functions_max", functions), ("scheduled_arguments_bytes_max", length)):
            most = getattr(self.limits, name)
            if used > most:
                raise LimitError(
                    f"got {functions:,} functions scheduled by one function, with {length:,} bytes of arguments,"
                    f" expected at most {most:,} ({name}); {_WHAT[name][1]}"
                )

    def _look(self) -> None:
        """Something is close to its limit, or beyond it."""
        self.is_near = True
        for name, (what, advice) in _WHAT.items():
            most = getattr(self.limits, name)
            if self._used(name) > most:
                raise LimitError(
                    f"got more than {most:,} {what} by one function, expected at most {most:,} ({name}); {advice}"
                )

    def near(self) -> dict[str, str]:
        """What is close to its limit, in words, by the name of the limit."""
        found: dict[str, str] = {}
        for name, (what, advice) in _WHAT.items():
            used, most = self._used(name), getattr(self.limits, name)
            if used > WARNING_SHARE * most:
                found[name] = f"{used:,} {what}, {used / most:.0%} of {name} ({most:,}); {advice}"
        return found

    def _used(self, limit: str) -> int:
        return getattr(self, limit.removesuffix("_max"))

    @property
    def written(self) -> Written:
        return (
            self.documents_written,
            self.bytes_written,
            self.scheduled_functions,
            self.scheduled_arguments_bytes,
        )

    @written.setter
    def written(self, written: Written) -> None:
        (
            self.documents_written,
            self.bytes_written,
            self.scheduled_functions,
            self.scheduled_arguments_bytes,
        ) = written
