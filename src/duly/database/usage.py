"""What one execution of a function has used of its limits, with all that it calls in its transaction."""

from __future__ import annotations

from typing import Final

from duly.errors import LimitError
from duly.limits import WARNING_SHARE, Limits
from duly.storage.engine import Row
from duly.values.value import size

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


class Usage:
    """Counts, and raises a LimitError at the call that goes beyond a limit."""

    # On the class, so that a call that uses nothing pays nothing.
    reads = 0
    documents_read = 0
    bytes_read = 0
    documents_written = 0
    bytes_written = 0
    scheduled_functions = 0
    scheduled_arguments_bytes = 0

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def begin_read(self) -> None:
        self.reads += 1
        if self.reads > self.limits.reads_max:
            raise self._exceeded("reads_max")

    def read(self, documents: int, length: int) -> None:
        self.documents_read += documents
        self.bytes_read += length
        if self.documents_read > self.limits.documents_read_max:
            raise self._exceeded("documents_read_max")
        if self.bytes_read > self.limits.bytes_read_max:
            raise self._exceeded("bytes_read_max")

    def get(self, row: Row | None) -> None:
        """A read of one row by its id, found or not."""
        # The most frequent call of all: what is counted is looked up once.
        limits = self.limits
        self.reads = reads = self.reads + 1
        if reads > limits.reads_max:
            raise self._exceeded("reads_max")
        if row is not None:
            self.documents_read = documents = self.documents_read + 1
            self.bytes_read = read = self.bytes_read + size(row if isinstance(row, str) else row.args)
            if documents > limits.documents_read_max or read > limits.bytes_read_max:
                self.read(0, 0)

    def write(self, length: int) -> None:
        self.documents_written += 1
        self.bytes_written += length
        if self.documents_written > self.limits.documents_written_max:
            raise self._exceeded("documents_written_max")
        if self.bytes_written > self.limits.bytes_written_max:
            raise self._exceeded("bytes_written_max")

    def schedule(self, argument_bytes: int) -> None:
        self.scheduled_functions += 1
        self.scheduled_arguments_bytes += argument_bytes
        if self.scheduled_functions > self.limits.scheduled_functions_max:
            raise self._exceeded("scheduled_functions_max")
        if self.scheduled_arguments_bytes > self.limits.scheduled_arguments_bytes_max:
            raise self._exceeded("scheduled_arguments_bytes_max")

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

    @property
    def is_near_a_limit(self) -> bool:
        # Asked at the end of every call, so it is written out.
        share, limits = WARNING_SHARE, self.limits
        return (
            self.documents_read > share * limits.documents_read_max
            or self.bytes_read > share * limits.bytes_read_max
            or self.reads > share * limits.reads_max
            or self.documents_written > share * limits.documents_written_max
            or self.bytes_written > share * limits.bytes_written_max
            or self.scheduled_functions > share * limits.scheduled_functions_max
            or self.scheduled_arguments_bytes > share * limits.scheduled_arguments_bytes_max
        )

    def near(self) -> dict[str, str]:
        """What is close to its limit, in words, by the name of the limit."""
        found: dict[str, str] = {}
        for name, (what, advice) in _WHAT.items():
            used, most = getattr(self, name.removesuffix("_max")), getattr(self.limits, name)
            if used > WARNING_SHARE * most:
                found[name] = f"{used:,} {what}, {used / most:.0%} of {name} ({most:,}); {advice}"
        return found

    def _exceeded(self, name: str) -> LimitError:
        what, advice = _WHAT[name]
        most = getattr(self.limits, name)
        return LimitError(
            f"got more than {most:,} {what} by one function, expected at most {most:,} ({name}); {advice}"
        )
