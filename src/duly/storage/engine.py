"""What a storage engine does: shelves for rows and keys, one batch of writes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from duly.values.keys import Interval
from duly.values.schema import Index, Table

MUTATION: Final = "mutation"
ACTION: Final = "action"

JOBS: Final = Table(
    "_scheduled_functions",
    1,
    (
        Index("by_state_scheduled_time", 1, ("state.kind", "scheduledTime")),
        Index("by_name_scheduled_time", 2, ("name", "scheduledTime")),
    ),
)
SYSTEM_TABLES: Final = {JOBS.name: JOBS}
USER_NUMBER_MIN: Final = 100
"""The first number of a user's table or index; smaller ones are for the system's."""


class Job(NamedTuple):
    """A row of `_scheduled_functions`. Times are float milliseconds since 1970."""

    id: int
    name: str
    """The function, as `folder/module:function`."""
    args: str
    """Its arguments, one object, as JSON."""
    scheduled_time: float
    """When it was asked to run."""
    due: float | None
    """When it is to run, None once it has completed."""
    state: str
    lane: str
    """What it was when it was scheduled, MUTATION or ACTION: each lane has a queue of its own."""
    parent: int | None = None
    """The scheduled function that scheduled it."""
    epoch: int | None = None
    """The start of the process that runs it, while it is in progress."""
    error: str | None = None
    completed_time: float | None = None


make_job: Final[Callable[[Iterable[Any]], Job]] = partial(tuple.__new__, Job)  # pyright: ignore[reportUnknownMemberType]
"""A job of all its columns, in half the time of `Job(…)`: each one is made when it is read, and when it ends."""

Row = str | Job
"""A document as JSON, or a row of a system table."""


class Write:
    """What one transaction does to one row. `new` is None where the row is deleted, `old` where it is new.

    The keys are those of the table's indexes, in their order; rows of system tables have none, their engine
    sorts them by column.
    """

    __slots__ = ("new", "new_keys", "old", "old_keys")

    def __init__(
        self,
        old: Row | None,
        new: Row | None,
        old_keys: tuple[bytes, ...] = (),
        new_keys: tuple[bytes, ...] = (),
    ) -> None:
        self.old = old
        self.new = new
        self.old_keys = old_keys
        self.new_keys = new_keys


class Get(NamedTuple):
    """Read the row of an id."""

    table: Table
    id: int


class Scan(NamedTuple):
    """Read at most `limit` rows of an interval, in the order of an index; None is the order of creation."""

    table: Table
    order: Index | None
    interval: Interval
    descending: bool
    limit: int


class Due(NamedTuple):
    """Read the pending jobs of a lane that are due at `now`, in the order (due time, scheduling)."""

    lane: str
    now: float
    limit: int


class NextDue(NamedTuple):
    """Read when the first pending job of a lane becomes due, as `[time]` or `[]`."""

    lane: str


Request = Get | Scan | Due | NextDue
"""What a handler's coroutine asks for, wherever it runs; the engine's view of the store answers."""


class View(Protocol):
    """One consistent state of the store."""

    @property
    def version(self) -> int:
        """The number of the commit it shows."""
        ...

    def answer(self, request: Request) -> Any:
        """A row or None for Get, (id, row) pairs for Scan, jobs for Due, times for NextDue."""
        ...


class Header(NamedTuple):
    """What a store says of itself when it is opened."""

    secret: bytes
    """The key that makes its ids unguessable."""
    version: int
    last_id: int
    epoch: int
    """How often it has been opened, this time included: durable before `open` returns."""
    tables: tuple[Table, ...]


class Engine(Protocol):
    """A store. `begin` to `commit` or `rollback` are called from one thread at a time."""

    def open(self) -> Header: ...

    def close(self) -> None: ...

    def snapshot(self) -> AbstractContextManager[View]:
        """A state of the store for reading, in the calling thread."""
        ...

    def begin(self) -> View:
        """Open the one write transaction; the view shows what is written to it."""
        ...

    def create_table(self, table: Table) -> None:
        """Make a table, without its indexes."""
        ...

    def declare_table(self, table: Table) -> None:
        """Note what a table is now declared to hold."""
        ...

    def create_index(self, table: Table, index: Index) -> None: ...

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        """Add keys to an index that is being built; those that a write has added since stay as they are."""
        ...

    def finish_index(self, index: Index) -> None:
        """Note that an index has every document."""
        ...

    def drop_index(self, index: Index) -> None: ...

    def write(self, table: Table, writes: Mapping[int, Write]) -> None:
        """Write rows, and their keys to all indexes of the table. An index that is being built may lack old ones."""
        ...

    def commit(self, version: int, last_id: int) -> None: ...

    def rollback(self) -> None: ...
