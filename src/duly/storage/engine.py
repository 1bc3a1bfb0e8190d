"""What a storage engine does: shelves for rows and keys, one batch of writes at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from duly.errors import StoreLostError
from duly.values.index_keys import Interval
from duly.values.schema.tables import Index, Table

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
EXECUTOR: Final = Table("_executor", 2)
"""What the executors of all processes obey: documents, unlike jobs."""
CRONS: Final = Table("_cron_jobs", 3, (Index("by_name", 4, ("name",)),))
CRON_LOGS: Final = Table("_cron_job_logs", 4, (Index("by_name", 5, ("name",)),))
SYSTEM_TABLES: Final = {table.name: table for table in (JOBS, EXECUTOR, CRONS, CRON_LOGS)}
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
    queue: str
    """What it was when it was scheduled, MUTATION or ACTION: each has a queue of its own. Stored as `lane`."""
    parent: int | None = None
    """The scheduled function that scheduled it."""
    epoch: int | None = None
    """The start of the process that runs it, while it is in progress."""
    error: str | None = None
    completed_time: float | None = None
    attempts: int = 0
    """How often it should have run and the store has refused it, while it is pending."""
    retry_of: int | None = None
    """The failed function that somebody had run again."""
    cron: int | None = None
    """The cron whose clock or whose run this is: such rows are not shown, and end without a trace."""


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


class GetMany(NamedTuple):
    """Read the rows of several ids at once, for documents."""

    table: Table
    ids: tuple[int, ...]


class Count(NamedTuple):
    """Count the rows of an interval, at most `limit`, for documents."""

    table: Table
    order: Index | None
    interval: Interval
    limit: int


class Claim(NamedTuple):
    """Read the pending jobs that are due at `now`, those of each queue in the order (due time, scheduling)."""

    now: float
    mutations: int
    """At most so many."""
    actions: int


class Claimed(NamedTuple):
    """The answer to a Claim."""

    mutations: list[Job]
    actions: list[Job]
    next_due: float | None
    """When the first job becomes due that is not due yet; None when there is none."""


class Completed(NamedTuple):
    """Read the jobs that completed first, without their arguments, in the order of completion.

    Where nodes share the store, one of them gets them and the others none: it is for whoever tidies up.
    """

    limit: int


class Tally(NamedTuple):
    """Count the jobs that are due at `now`, and those in progress."""

    now: float


class Tallied(NamedTuple):
    """The answer to a Tally."""

    due: int
    oldest_due: float | None
    """When the one became due that has waited longest."""
    running: int


Request = Get | GetMany | Scan | Count | Claim | Completed | Tally
"""What a handler's coroutine asks for, wherever it runs; the engine's view of the store answers."""


class Reads(NamedTuple):
    """What the transactions of a batch have read, for an engine that has to compare it with what others wrote."""

    ids: Collection[int]
    ranges: Sequence[tuple[Table, Index | None, bytes, bytes]]
    """Keys of an index from a lower one up to, but not including, an upper one."""


class Changes(NamedTuple):
    """All that one batch does to the rows of a store."""

    writes: Sequence[tuple[Table, Mapping[int, Write]]]
    last_id: int
    """The largest id that was given away."""
    reads: Reads | None = None
    """What it rests on: None where nobody else can have written meanwhile."""


class News(NamedTuple):
    """A commit of another node, as far as it matters here. Only what `is_known` is told in full."""

    version: int
    last_id: int
    ids: Mapping[int, Set[int]]
    """The rows it wrote, by the number of their table."""
    keys: Mapping[int, Sequence[bytes]]
    """Their old and new keys, by the number of the index; not those of scheduled functions."""
    due: float | None
    """When the first becomes due of the functions it scheduled or postponed."""
    tables: tuple[Table, ...] | None
    """The tables there are since then, if it changed tables or indexes."""
    deploy: str = ""
    """The newest declaration since then, if it may have changed."""
    is_known: bool = True


class Heartbeat(NamedTuple):
    """What a node has learnt by listening to others for a while."""

    has_news: bool
    """Whether others have committed something."""
    is_regrouped: bool
    """Whether nodes have come or gone, or this one was taken for lost."""
    server_ms: float | None = None
    """The time of the server at the moment `asked` of `monotonic`, if it was asked."""
    asked: float = 0.0


class Conflict(Exception):
    """Another node has written what a batch has read.

    Nothing of it is stored: run it again as an exclusive batch, which has no conflicts.
    """


class NotExclusive(Conflict):
    """A batch needs what only an exclusive one may do: likewise."""


class Overtaken(Exception):
    """The commit that was under way when a batch began has not become what the batch took it for.

    Nothing of the batch is stored: run it again, after the one before it.
    """


class Unsettled(StoreLostError):
    """The answer to a commit was lost, and the store does not say yet what became of it: `Engine.settle` asks again."""


class View(Protocol):
    """One consistent state of the store."""

    @property
    def version(self) -> int:
        """The number of the commit it shows."""
        ...

    @property
    def reshaped(self) -> int:
        """The last commit of another node that changed tables or indexes; 0 if there was none."""
        ...

    def answer(self, request: Request) -> Any:
        """A row or None for Get, rows by id for GetMany, (id, row) pairs for Scan, a number for Count, jobs for
        Completed, a Claimed, a Tallied."""
        ...


class Header(NamedTuple):
    """What a store says of itself when it is opened."""

    secret: bytes
    """The key that makes its ids unguessable."""
    version: int
    last_id: int
    tables: tuple[Table, ...]
    heartbeat: Heartbeat = Heartbeat(False, False)
    deploy: str = ""
    """The newest declaration of the application; empty where there is none."""


class OnServer:
    """What an engine need not do whose store is on a server, which looks after its files."""

    def tell_closing(self, seconds: float) -> None: ...

    def check_present(self) -> None: ...


class Engine(Protocol):
    """A store. From `begin` to `commit` or `rollback` it is called from one thread at a time."""

    is_shared: bool
    """Whether other nodes may write to the store, too."""

    @property
    def epoch(self) -> int:
        """The number of this opening, or of the last one that was not lost."""
        ...

    @property
    def node(self) -> int:
        """What stands in the ids that this process makes: no other node of the store has the same."""
        ...

    def open(self) -> Header: ...

    def close(self) -> None: ...

    def tell_closing(self, seconds: float) -> None:
        """Let whoever waits for the store know that it will be closed within so many seconds."""
        ...

    def check_present(self) -> None:
        """Raise StoreGoneError if what was opened is not there any more."""
        ...

    def snapshot(self) -> AbstractContextManager[View]:
        """A state of the store for reading, in the calling thread."""
        ...

    def begin(self, exclusive: bool = False) -> View:
        """Begin the one batch there is at a time: a view of the store as it was before the batch.

        Until an exclusive one ends, nobody else commits; only it may change tables and indexes.
        """
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

    def commit(self, changes: Changes) -> int:
        """Make the batch durable, with the keys of what it writes in all indexes of the tables.

        Returns the version it makes. An index that is being built may lack old keys. Raises Conflict or Unsettled.
        """
        ...

    def settle(self) -> int | None:
        """The version that a commit has made which was Unsettled; None if there is none, nor ever will be.

        StoreLostError where the store still does not say. Who does not ask any more may begin the next batch.
        """
        ...

    def send(self, changes: Changes) -> None:
        """Begin to commit a batch that is not exclusive. The next one may begin before `landed` is asked.

        That is answered as if this one were committed, and raises Overtaken where it turns out otherwise.
        """
        ...

    def landed(self) -> int:
        """What `commit` returns or raises, for the batch that was sent."""
        ...

    def deploys(self) -> Sequence[str]:
        """What nodes have declared, from the oldest to the newest; nothing where there is one process only."""
        ...

    def deploy(self, mark: str) -> None:
        """Make a declaration the newest."""
        ...

    def prefetch(self, table: Table, ids: Sequence[int]) -> None:
        """Read at once what the batch will probably read one by one. Nothing where that is no cheaper."""
        ...

    def check(self, reads: Reads) -> None:
        """Raise Conflict if another node has written something of `reads` since the batch began."""
        ...

    def rollback(self) -> None: ...

    def refresh(self) -> None:
        """Learn of what other nodes have committed."""
        ...

    def news(self) -> Sequence[News]:
        """What has been learnt of other nodes since this was last asked, in the order of versions."""
        ...

    def listen(self, is_awake: bool) -> Heartbeat:
        """Wait until other nodes have news, for a moment at most; in a thread of its own.

        While this process is not awake, others run its part of what is due.
        """
        ...

    def stop_listening(self) -> None:
        """Have `listen` return at once; from another thread."""
        ...

    def is_lost(self, epoch: int) -> bool:
        """Whether the process of an opening is known to have ended, so that what it left running is interrupted."""
        ...
