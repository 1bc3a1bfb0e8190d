"""How much of its limits one execution of a function has used, together with all calls in its transaction."""

from __future__ import annotations

from typing import Final

from duly.errors import LimitError
from duly.limits import WARNING_SHARE, Limits
from duly.storage.rows import Row
from duly.values.json import SPECIAL, size

_ADVICE: Final = {
    "reads_max": ("calls of get and queries", "read several documents with one query"),
    "documents_read_max": ("documents read", "narrow the query with an index range, take(n) or paginate"),
    "bytes_read_max": ("bytes read", "narrow the query with an index range, take(n) or paginate"),
    "documents_written_max": ("documents written", "write a part and schedule a function that goes on"),
    "bytes_written_max": ("bytes written", "write a part and schedule a function that goes on"),
    "scheduled_functions_max": ("functions scheduled", "schedule one that schedules the rest"),
    "scheduled_arguments_bytes_max": ("bytes of arguments scheduled", "store the data and schedule its id"),
}

WriteCounts = tuple[int, int, int, int]
"""The counts that a failed sub-transaction restores."""


class SoftLimits:
    """The limits of each execution, and a soft limit for each: WARNING_SHARE of it.

    `Usage` compares its counts with the soft limits only. When a count exceeds its soft limit, `Usage` checks the limit
    itself, and the run is logged as close to that limit.
    """

    __slots__ = ("limits", *(name.removesuffix("_max") for name in _ADVICE))
    reads: float
    documents_read: float
    bytes_read: float
    documents_written: float
    bytes_written: float
    scheduled_functions: float
    scheduled_arguments_bytes: float

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        for name in _ADVICE:
            setattr(self, name.removesuffix("_max"), WARNING_SHARE * getattr(limits, name))


class Usage:
    """Counts what an execution uses, and raises a LimitError at the call that exceeds a limit."""

    # Each call and each job has one, and counts with few of these: the zeros are attributes of the class, and there is
    # no `__init__`, whose call would take longer than all that it sets.
    soft_limits: SoftLimits
    reads = documents_read = bytes_read = 0
    documents_written = bytes_written = 0
    scheduled_functions = scheduled_arguments_bytes = 0
    is_near_limit = False
    """Whether a count has exceeded a soft limit."""

    @property
    def limits(self) -> Limits:
        return self.soft_limits.limits

    def begin_read(self) -> None:
        self.reads += 1
        if self.reads > self.soft_limits.reads:
            self._check()

    def get(self, row: Row | None) -> None:
        """Count a read of one row by its id, found or not."""
        # The most frequent call of all: each attribute is read once.
        if row is None:
            self.begin_read()
            return
        text = row if isinstance(row, str) else row.args
        length = len(text) if text.isascii() and SPECIAL not in text else size(text)
        self.reads = reads = self.reads + 1
        self.documents_read = documents = self.documents_read + 1
        self.bytes_read = length = self.bytes_read + length
        soft_limits = self.soft_limits
        if reads > soft_limits.reads or documents > soft_limits.documents_read or length > soft_limits.bytes_read:
            self._check()

    def read(self, documents: int, length: int) -> None:
        self.documents_read += documents
        self.bytes_read += length
        if self.documents_read > self.soft_limits.documents_read or self.bytes_read > self.soft_limits.bytes_read:
            self._check()

    def write(self, length: int) -> None:
        soft_limits = self.soft_limits
        self.documents_written = documents = self.documents_written + 1
        self.bytes_written = length = self.bytes_written + length
        if documents > soft_limits.documents_written or length > soft_limits.bytes_written:
            self._check()

    def schedule(self, length: int) -> None:
        """Count a scheduled function with arguments of this length; one that is refused is not counted."""
        soft_limits = self.soft_limits
        functions, length = self.scheduled_functions + 1, self.scheduled_arguments_bytes + length
        if functions > soft_limits.scheduled_functions or length > soft_limits.scheduled_arguments_bytes:
            self._check_scheduled(functions, length)
        self.scheduled_functions, self.scheduled_arguments_bytes = functions, length

    def _check_scheduled(self, functions: int, length: int) -> None:
        self.is_near_limit = True
        for name, used in (("scheduled_functions_max", functions), ("scheduled_arguments_bytes_max", length)):
            limit = getattr(self.limits, name)
            if used > limit:
                raise LimitError(
                    f"got {functions:,} functions scheduled by one function, with {length:,} bytes of arguments,"
                    f" expected at most {limit:,} ({name}); {_ADVICE[name][1]}"
                )

    def _check(self) -> None:
        """Check all limits: a count has exceeded a soft limit."""
        self.is_near_limit = True
        for name, (what, advice) in _ADVICE.items():
            limit = getattr(self.limits, name)
            if self._used(name) > limit:
                raise LimitError(
                    f"got more than {limit:,} {what} by one function, expected at most {limit:,} ({name}); {advice}"
                )

    def near_limits(self) -> dict[str, str]:
        """Return what is close to its limit, in words, by the name of the limit."""
        found: dict[str, str] = {}
        for name, (what, advice) in _ADVICE.items():
            used, limit = self._used(name), getattr(self.limits, name)
            if used > WARNING_SHARE * limit:
                found[name] = f"{used:,} {what}, {used / limit:.0%} of {name} ({limit:,}); {advice}"
        return found

    def _used(self, limit: str) -> int:
        used: int = getattr(self, limit.removesuffix("_max"))
        return used

    @property
    def write_counts(self) -> WriteCounts:
        return (
            self.documents_written,
            self.bytes_written,
            self.scheduled_functions,
            self.scheduled_arguments_bytes,
        )

    @write_counts.setter
    def write_counts(self, write_counts: WriteCounts) -> None:
        (
            self.documents_written,
            self.bytes_written,
            self.scheduled_functions,
            self.scheduled_arguments_bytes,
        ) = write_counts


def usage_of(soft_limits: SoftLimits) -> Usage:
    """Return the usage of an execution that begins, with these limits."""
    usage = Usage()
    usage.is_near_limit = False
    usage.soft_limits = soft_limits
    return usage
