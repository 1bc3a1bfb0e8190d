"""The store in PostgreSQL: optimistic batches, which one SQL function validates and commits.

A node keeps documents in memory that are exact as of one version of the store, its position (`replica.py`). A batch
reads them, and reads what is missing from one snapshot. Then `commit_1` compares everything that was read with what
other nodes have committed since the position, under one lock, and writes either everything or nothing. Only that
statement holds the lock. A batch that had a conflict is run again as an exclusive one, which takes the lock first.

While a commit is in flight, the next batch already runs on the documents in memory, which then include the writes of
that commit. For anything else, the next batch waits for the answer (`_idle_connection`). If the assumption that the
commit succeeds was wrong, the next batch is run again.

    begin ─ get, scan … ─ send_commit ─────────── answer ─ await_commit
                             │  _sent               │  _outcome
                             └─ begin ─ get ─ get … ┴ scan ─ send_commit …       SpeculationFailed if _is_invalid

The state of a batch:

    field              set when                          cleared when          meaning
    _exclusive         begin                             next begin            it has held the lock since its begin
    _in_transaction    before BEGIN is sent              it has ended, loss    a transaction may be open
    _catalog_changes   create_table, deploy …            next begin            other nodes must read the tables again
    points             a row is read by its id           next begin, rollback  a snapshot must not contradict these
    _sent              send_commit                       the answer arrives    the changes of the commit in flight
    _outcome           the answer arrives                next answer           its version, or the reason why not
    _is_invalid        the commit before it failed, or   next begin, rollback  the running batch has relied on
                       others have committed before it                         a wrong assumption
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from duly import faults
from duly.errors import StoreError
from duly.limits import ANSWER_SECONDS, CONNECT_SECONDS, DEFAULTS, Limits
from duly.storage.conflicts import Conflict, NotExclusive, SpeculationFailed
from duly.storage.engine import Changeset, Header, PeerUpdate, ReadKeys, RemoteCommit
from duly.storage.postgres import ddl, migrations
from duly.storage.postgres.address import Address
from duly.storage.postgres.commit_client import CONFLICT, FENCED, CommitClient
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.connection_pool import ConnectionPool
from duly.storage.postgres.encoding import encode_changes, encode_reads
from duly.storage.postgres.lock_timeout import LockTimeout
from duly.storage.postgres.membership import Membership
from duly.storage.postgres.replica import Replica
from duly.storage.postgres.snapshot import BEGIN_EXCLUSIVE, BEGIN_SNAPSHOT, PostgresSnapshot
from duly.storage.requests import Claim, Get, GetMany, ListCompleted, Request, View
from duly.storage.rows import JOBS, Row
from duly.values.schema.tables import Index, Table

_CHANGED: Final = "what the batch has read was changed meanwhile"


class PostgresEngine:
    """A `SharedEngine` over a schema of a database. The schema is created if there is none."""

    def __init__(self, address: Address, limits: Limits = DEFAULTS, executes: bool = True) -> None:
        self.address = address
        self.membership = Membership(address, limits.node_lost_seconds, executes)
        self._schema = address.schema
        self._connection = self._new_connection()
        self._readers = ConnectionPool(self._new_connection)
        self._replica = Replica(address.schema)
        self._documents = self._replica.documents
        self._commits = CommitClient(self._connection, address, self.membership, self._on_connection_lost)
        self._lock_timeout = LockTimeout(limits.handler_seconds_max)
        self._exclusive = False
        self._in_transaction = False
        self._catalog_changes = False
        self._sent: Changeset | None = None
        self._outcome: int | Exception = 0
        self._is_invalid = False

    @property
    def shared(self) -> PostgresEngine:
        return self

    @property
    def epoch(self) -> int:
        return self.membership.epoch

    @property
    def node(self) -> int:
        return self.membership.number

    @property
    def position(self) -> int:
        return self._replica.position

    @property
    def points(self) -> set[tuple[str, int]]:
        return self._replica.points

    @property
    def is_in_flight(self) -> bool:
        return self._sent is not None

    @property
    def _idle_connection(self) -> BlockingConnection:
        """The connection of batches, after the answer to the commit in flight: it runs one statement at a time."""
        self._await_sent()
        if self._is_invalid:
            raise SpeculationFailed
        return self._connection

    def _new_connection(self) -> BlockingConnection:
        return BlockingConnection(self.address.dsn, CONNECT_SECONDS, ANSWER_SECONDS)

    # Opening and closing.

    def open(self) -> Header:
        try:
            migrations.migrate(self._idle_connection, self.address)
            migrations.check_format(self._idle_connection, self.address)
            self._begin_snapshot()
            [(secret,)] = self._idle_connection.fetch(f"SELECT secret FROM {self._schema}.store")
            newest = self._replica.load(self._idle_connection)
            self._end_snapshot()
            self.membership.start_listening()  # before it becomes a node, because other nodes rely on its heartbeats
            self._readers.open()
            update = self._join()
            self._replica.generation = self._idle_connection.generation
        except (StoreError, Conflict) as error:
            self.close()
            raise StoreError(f"{self.address.redacted}: {error}") from error
        return Header(secret, newest.version, newest.last_id, newest.tables or (), update, newest.deploy)

    def close(self) -> None:
        with suppress(StoreError, Conflict):
            self.rollback()
            self.membership.leave(self._connection)
        self._connection.close()
        self._readers.close()
        self.membership.close()

    def announce_closing(self, seconds: float) -> None: ...  # other processes need not wait for this one

    def check_present(self) -> None: ...  # the server takes care of its files

    # Reading.

    @contextmanager
    def snapshot(self) -> Generator[View]:
        connection = self._readers.acquire()
        try:
            connection.execute(BEGIN_SNAPSHOT)
            version, _, catalog_version = ddl.newest(connection, self._schema)
            yield PostgresSnapshot(connection.fetch, self._schema, version, self.membership.partition, catalog_version)
        finally:
            if connection.is_connected:
                with suppress(StoreError, Conflict):
                    connection.execute("COMMIT")
            self._readers.release(connection)

    # A batch.

    def begin(self, exclusive: bool = False) -> View:
        self._is_invalid = False
        if self._sent is None:
            self._recover()
        self._exclusive, self._catalog_changes = exclusive, False
        self._replica.points = set()
        if exclusive:
            connection, self._in_transaction = self._idle_connection, True  # rolled back if it fails half-way
            connection.execute(BEGIN_EXCLUSIVE.format(idle=self._lock_timeout.milliseconds, lock=self.address.lock))
            self._lock_timeout.acquired()
            self._replica.catch_up(connection)
        return BatchView(self, self._documents.rows)

    def _recover(self) -> None:
        """After a lost connection: find out the outcome of the last batch, load the store again, and join again."""
        self._commits.resolve()
        connection = self._idle_connection
        if not connection.is_connected or connection.generation != self._replica.generation:
            # It may be another server, which was promoted or restored and lacks some commits.
            self._begin_snapshot()
            self._replica.reload(connection)
            self._end_snapshot()
            self._replica.generation = connection.generation
        if self.membership.is_fenced:
            self._join()
            self._documents.clear()

    def _join(self) -> PeerUpdate:
        self._commits.restart_numbering()
        return self.membership.join(self._idle_connection)

    def read(self, request: Request) -> Any:
        """Read what is not in memory, from the one snapshot of the batch."""
        self._open_snapshot()
        return PostgresSnapshot(self._idle_connection.fetch, self._schema, self.position).answer(request)

    def _open_snapshot(self) -> None:
        if not self._in_transaction:
            self._begin_snapshot()
            self.refresh()

    def get(self, table: Table, id: int) -> Row | None:
        self.points.add((table.name, id))
        known = self._documents.rows.get(table.name, {})
        if id in known:
            return known[id]
        row: Row | None = self.read(Get(table, id))
        self._documents.put(table.name, {id: row})
        return row

    def prefetch(self, table: Table, ids: Collection[int]) -> None:
        known = self._documents.rows.get(table.name, {})
        unknown = [id for id in ids if id not in known]
        if len(unknown) > 1:  # a single one is read when it is needed
            rows: dict[int, Row] = self.read(GetMany(table, tuple(unknown)))
            self._documents.put(table.name, {id: rows.get(id) for id in unknown})

    def find_jobs(self, request: Claim | ListCompleted) -> Any:
        """Read outside of the snapshot. A job that is no longer pending makes the commit fail."""
        view = PostgresSnapshot(self._idle_connection.fetch, self._schema, self.position, self.membership.partition)
        if isinstance(request, ListCompleted):
            return view.answer(request)
        claimed, self._replica.claim_cursor = view.claim(request, self._replica.claim_cursor)
        return claimed

    def _begin_snapshot(self) -> None:
        connection, self._in_transaction = self._idle_connection, True
        connection.execute(BEGIN_SNAPSHOT)

    def _end_snapshot(self) -> None:
        if self._in_transaction:
            self._in_transaction = False
            self._idle_connection.execute("COMMIT")

    def rollback(self) -> None:
        self._is_invalid = False
        self._replica.points = set()
        if self._in_transaction:
            self._in_transaction = False
            if self._connection.is_connected:
                self._lock_timeout.released()
                with suppress(StoreError):
                    self._connection.execute("ROLLBACK")
            else:
                self._lock_timeout.lost()

    def validate(self, reads: ReadKeys) -> None:
        self._end_snapshot()
        sql = f"SELECT {self._schema}.check_1($1, $2, $3, $4, $5, $6)"
        if self._idle_connection.fetch(sql, self.position, *encode_reads(reads))[0][0] is None:
            raise Conflict(_CHANGED)

    # Its commit.

    def commit(self, changes: Changeset) -> int:
        answer = self._commits.commit(self._commit_arguments(changes), self._exclusive)
        version = self._accept(changes, answer)
        self._is_invalid = False  # no batch has run ahead of this commit
        self._documents.write(changes)
        return version

    def send_commit(self, changes: Changeset) -> None:
        self._commits.send(self._commit_arguments(changes))
        self._sent = changes
        self._documents.write(changes)

    def await_commit(self) -> int:
        self._await_sent()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _await_sent(self) -> None:
        """Wait for the commit in flight, if there is one. Record whether the running batch assumed right."""
        sent, self._sent = self._sent, None
        if sent is not None:
            try:
                self._outcome = self._accept(sent, self._commits.answer())
                self._is_invalid |= self._connection.generation != self._replica.generation
            except Exception as error:
                self._outcome, self._is_invalid = error, True
                self._documents.drop({id for _, writes in sent.writes for id in writes})

    def _commit_arguments(self, changes: Changeset) -> tuple[Any, ...]:
        """Return the arguments of `commit_1` for a batch."""
        _ = self._idle_connection  # the commit in flight comes first
        since = None if self._exclusive else self.position
        if not self._exclusive:
            self._end_snapshot()
        faults.at("commit.flushed")
        return since, *encode_reads(changes.reads), *encode_changes(changes, self._catalog_changes)

    def _accept(self, changes: Changeset, answer: int) -> int:
        """Move to the version that a commit has made; raise if it made none."""
        if answer == CONFLICT:
            raise Conflict(_CHANGED)
        if answer == FENCED:
            self.membership.fenced_epoch = self.epoch
            raise Conflict("this node was declared lost")
        if self._exclusive:
            self._in_transaction = False
        self._lock_timeout.released()
        if answer > self.position + 1:
            self._catch_up(answer - 1, changes.last_id)
        self._replica.position = answer
        if self._catalog_changes:
            self._replica.catalog_version = answer
        return answer

    def _on_connection_lost(self) -> None:
        """Record that the transaction is lost, and the lock with it."""
        self._lock_timeout.lost()
        self._in_transaction = False

    def _catch_up(self, version: int, last_id: int) -> None:
        """Read what other nodes have committed before the last batch. It may invalidate the batch that runs already."""
        try:
            self._is_invalid = self._replica.catch_up(self._idle_connection, version)
        except (StoreError, Conflict):  # an error here must not undo a durable commit
            self._replica.lose_track(version, last_id)

    def resolve_commit(self) -> int | None:
        version = self._commits.resolve()
        if version is not None:
            self._replica.lose_track(version)
        return version

    # Tables and indexes, in an exclusive batch.

    def create_table(self, table: Table) -> None:
        ddl.create(self._catalog_connection(), self._schema, table)

    def declare_table(self, table: Table) -> None:
        ddl.declare(self._catalog_connection(), self._schema, table)

    def create_index(self, table: Table, index: Index) -> None:
        ddl.create_index(self._catalog_connection(), self._schema, table, index)

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        ddl.fill_index(self._idle_connection, self._schema, index, keys)

    def finish_index(self, index: Index) -> None:
        ddl.finish_index(self._catalog_connection(), self._schema, index)

    def drop_index(self, index: Index) -> None:
        ddl.drop_index(self._catalog_connection(), self._schema, index)

    def deploys(self) -> list[str]:
        if not self._exclusive:
            raise NotExclusive
        return ddl.deploys(self._idle_connection, self._schema)

    def deploy(self, mark: str) -> None:
        ddl.deploy(self._catalog_connection(), self._schema, mark)

    def _catalog_connection(self) -> BlockingConnection:
        """Return the connection for a change of the catalog. All nodes read the tables again after the commit."""
        if not self._exclusive:
            raise NotExclusive
        self._catalog_changes = True
        return self._idle_connection

    # Other nodes.

    def refresh(self) -> None:  # one statement: every node does this after each commit of another
        if self._replica.catch_up(self._idle_connection):
            raise Conflict(_CHANGED)

    def remote_commits(self) -> list[RemoteCommit]:
        return self._replica.take_remote_commits()

    def wait_for_peers(self, is_responsive: bool) -> PeerUpdate:
        update = self.membership.listen(is_responsive)
        # A batch that was running when a notification came may have missed the commit.
        return update._replace(has_commits=update.has_commits or self.membership.newest_version > self.position)

    def stop_listening(self) -> None:
        self.membership.stop_listening()

    def is_lost(self, epoch: int) -> bool:
        return self.membership.is_lost(epoch)


class BatchView:
    """What a batch reads: documents in memory, and one snapshot for the rest."""

    catalog_version = 0

    def __init__(self, engine: PostgresEngine, cached: Mapping[str, Mapping[int, Row | None]]) -> None:
        self._engine = engine
        self.version, self.cached = engine.position, cached

    def answer(self, request: Request) -> Any:
        if type(request) is Get and request.table is not JOBS:
            return self._engine.get(request.table, request.id)
        if isinstance(request, Claim | ListCompleted):
            return self._engine.find_jobs(request)
        return self._engine.read(request)
