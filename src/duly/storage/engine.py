"""The protocol of a storage engine: it keeps rows and index keys, and commits one batch of writes at a time.

There are two protocols. An engine whose store belongs to one process, such as SQLite, has only the first one.

    Engine          every engine
      open close announce_closing check_present    the life of a store
      epoch node is_lost                           which process this is, and which ones have ended
      snapshot                                     reads, in any thread
      begin commit rollback                        the one batch there is at a time
      create_table declare_table create_index      changes of the catalog, in an exclusive batch
        fill_index finish_index drop_index
    SharedEngine    an engine whose store other nodes write to as well; `Engine.shared` returns it
      wait_for_peers stop_listening                notifications from other nodes, in a thread of their own
      refresh remote_commits                       what other nodes have committed
      validate                                     optimistic concurrency: raises Conflict if what was read has changed
      prefetch                                     fewer round trips
      points                                       what the batch has read by id, some of it from memory
      send_commit is_in_flight                     a commit in flight, while the next batch runs
        await_commit resolve_commit
      deploys deploy                               what the versions of the application have declared

A new engine implements `Engine`, sets `shared = None`, and gets its address in `open.py`. The tests that every engine
must pass are in tests/storage/test_conformance.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from duly.storage.requests import View
from duly.storage.rows import Job, Write
from duly.values.schema.tables import Index, Table


class ReadKeys(NamedTuple):
    """What the transactions of a batch have read. The engine compares it with what other nodes have written."""

    ids: Collection[int]
    ranges: Sequence[tuple[Table, Index | None, bytes, bytes]]
    """Keys of an index, from a lower one up to, but not including, an upper one."""


class Changeset(NamedTuple):
    """Everything that a batch does to the rows of a store."""

    writes: Sequence[tuple[Table, Mapping[int, Write]]]
    last_id: int
    """The largest id that was allocated."""
    reads: ReadKeys | None = None
    """What the batch has read; None if no other node can have written since it began."""
    succeeded: Mapping[int, Job] = {}
    """Jobs that only succeeded, at `now`, as they were before: they are not in `writes`."""
    now: float = 0.0


class RemoteCommit(NamedTuple):
    """What this node needs to know of a commit of another node."""

    version: int
    last_id: int
    ids: Mapping[int, Set[int]]
    """The rows that it wrote, by the number of their table."""
    keys: Mapping[int, Sequence[bytes]]
    """Their old and new keys, by the number of the index. Jobs have none."""
    due: float | None
    """The earliest due time of the jobs that it scheduled or postponed."""
    tables: tuple[Table, ...] | None
    """All tables as of this commit, if it changed tables or indexes."""
    deploy: str = ""
    """The newest deploy, if it may have changed."""
    is_complete: bool = True
    """False if it stands for commits that this node could not follow: they may have written anything."""


class PeerUpdate(NamedTuple):
    """What a node has learned from listening to its peers for a moment."""

    has_commits: bool
    """Whether other nodes have committed something."""
    membership_changed: bool
    """Whether nodes have joined or left, or this one was declared lost."""
    server_ms: float | None = None
    """The time of the server, if the node requested it. `monotonic` was `server_ms_at` at that time."""
    server_ms_at: float = 0.0


class Header(NamedTuple):
    """What an engine reads from a store when it opens it."""

    secret: bytes
    """The key that makes its ids unguessable."""
    version: int
    last_id: int
    tables: tuple[Table, ...]
    peer_update: PeerUpdate = PeerUpdate(False, False)
    deploy: str = ""
    """The newest deploy of the application; empty if there is none."""


class Engine(Protocol):
    """A store. From `begin` to `commit` or `rollback` it is called from one thread at a time."""

    @property
    def shared(self) -> SharedEngine | None:
        """This engine, if other nodes may write to the store as well; None if one process owns it."""
        ...

    @property
    def epoch(self) -> int:
        """The fencing epoch of this process: the number of this opening, or of the last time it joined the nodes."""
        ...

    @property
    def node(self) -> int:
        """The number in the ids that this process makes. No other live node of the store has the same."""
        ...

    def open(self) -> Header: ...

    def close(self) -> None: ...

    def announce_closing(self, seconds: float) -> None:
        """Announce to processes which wait for the store that it closes within this many seconds."""
        ...

    def check_present(self) -> None:
        """Raise StoreGoneError if the store that was opened is no longer there."""
        ...

    def is_lost(self, epoch: int) -> bool:
        """Return whether the process of an epoch is known to have ended. If so, its running jobs are interrupted."""
        ...

    def snapshot(self) -> AbstractContextManager[View]:
        """Open a state of the store for reading, in the calling thread."""
        ...

    def begin(self, exclusive: bool = False) -> View:
        """Begin a batch. Return a view of the store as it was before the batch.

        Until an exclusive batch ends, no other node commits. Only an exclusive one may change tables and indexes.
        """
        ...

    def create_table(self, table: Table) -> None:
        """Create a table, without its indexes."""
        ...

    def declare_table(self, table: Table) -> None:
        """Record the current declaration of a table."""
        ...

    def create_index(self, table: Table, index: Index) -> None: ...

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        """Add keys to an index that is being built. Keys that writes have added since stay as they are."""
        ...

    def finish_index(self, index: Index) -> None:
        """Record that an index has the keys of every document."""
        ...

    def drop_index(self, index: Index) -> None: ...

    def commit(self, changes: Changeset) -> int:
        """Make the batch durable, and write its keys to all indexes of the tables. Return the new version.

        An index that is being built may lack old keys. Raises Conflict or CommitInDoubt.
        """
        ...

    def rollback(self) -> None: ...


class SharedEngine(Engine, Protocol):
    """A store that other nodes write to as well."""

    def wait_for_peers(self, is_responsive: bool) -> PeerUpdate:
        """Wait a moment for commits of other nodes. Called in a thread of its own.

        While this process is not responsive, other nodes run its partition of the due jobs.
        """
        ...

    def stop_listening(self) -> None:
        """Make `wait_for_peers` return at once. Called from another thread."""
        ...

    def refresh(self) -> None:
        """Read what other nodes have committed. Part of a batch."""
        ...

    def remote_commits(self) -> Sequence[RemoteCommit]:
        """Return the commits of other nodes that were read since the last call, ordered by version."""
        ...

    def validate(self, reads: ReadKeys) -> None:
        """Raise Conflict if another node has written something of `reads` since the batch began."""
        ...

    @property
    def points(self) -> set[tuple[str, int]]:
        """The table and id of each row that the batch has read by its id so far, from `View.cached` or otherwise.

        Until it has a snapshot, these may come from memory; what other nodes have written of them contradicts that.
        """
        ...

    def prefetch(self, table: Table, ids: Collection[int]) -> None:
        """Read in one round trip the rows that the batch will probably read one by one."""
        ...

    def send_commit(self, changes: Changeset) -> None:
        """Send the commit of a batch that is not exclusive. The next batch may begin before `await_commit`.

        The next batch reads as if this commit had succeeded. It gets SpeculationFailed if this turns out to be wrong.
        """
        ...

    @property
    def is_in_flight(self) -> bool:
        """Whether a commit was sent whose answer is not there yet: whoever reads from the store would wait for it."""
        ...

    def await_commit(self) -> int:
        """Wait for the commit that was sent. Return or raise what `commit` would."""
        ...

    def resolve_commit(self) -> int | None:
        """Return the version of the commit in doubt; None if that commit was not stored and never will be.

        Raises StoreLostError if the store still does not answer. A caller may give up and begin the next batch.
        """
        ...

    def deploys(self) -> Sequence[str]:
        """Return what the nodes have declared, from the oldest declaration to the newest."""
        ...

    def deploy(self, mark: str) -> None:
        """Make a declaration the newest."""
        ...
