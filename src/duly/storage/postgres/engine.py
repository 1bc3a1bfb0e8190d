"""The store in PostgreSQL: batches that guess, and one function that knows.

A node keeps documents in memory that are exact as of one version of the store, its position. A batch reads them, and
what it lacks from one snapshot; then `commit_1` compares all that was read with what other nodes have committed since
the position, under one lock, and either writes everything or nothing. Only that one statement holds the lock; a batch
that had a conflict takes it before it reads.

While that statement is under way, the next batch may already run on what is in memory, which then is as the statement
will leave it. Whatever else it wants waits for the answer (`_link`). Where memory was wrong, it is run again.
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from duly import faults
from duly.errors import StoreError
from duly.limits import ANSWER_SECONDS, CONNECT_SECONDS, DEFAULTS, DOCUMENT_CACHE_BYTES_MAX, REMOTE_COMMITS_MAX, Limits
from duly.storage.conflicts import Conflict, NotExclusive, SpeculationFailed
from duly.storage.engine import Changeset, Header, PeerUpdate, ReadKeys, RemoteCommit
from duly.storage.postgres import ddl, migrations, names
from duly.storage.postgres.address import Address
from duly.storage.postgres.cache import DocumentCache
from duly.storage.postgres.commit_client import CONFLICT, FENCED, CommitClient
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.connection_pool import ConnectionPool
from duly.storage.postgres.encoding import news_of, pack, pack_reads
from duly.storage.postgres.lock_timeout import LockTimeout
from duly.storage.postgres.membership import Membership
from duly.storage.postgres.snapshot import BEGIN_EXCLUSIVE, BEGIN_SNAPSHOT, CURSOR_START, PostgresSnapshot
from duly.storage.requests import Claim, Get, ListCompleted, Request, View
from duly.storage.rows import JOBS, Row
from duly.values.schema.tables import Index, Table


class PostgresEngine:
    """An `Engine` over the schema of a database, which is made where there is none."""

    def __init__(self, address: Address, limits: Limits = DEFAULTS, executes: bool = True) -> None:
        self.address = address
        self.membership = Membership(address, limits.node_lost_seconds, executes)
        self._schema = address.schema
        self._wire = self._new_link()
        self._readers = ConnectionPool(self._new_link)
        self._cache = DocumentCache(DOCUMENT_CACHE_BYTES_MAX)
        self._frontier = CURSOR_START
        self._answered: set[int] = set()
        """Ids that this batch was answered from memory, before it had a snapshot."""
        self._sent: Changeset | None = None
        """What is being committed, of the batch before this one."""
        self._outcome: int | Exception = 0
        """What became of the last that was sent: its version, or why there is none."""
        self._is_overtaken = False
        """Whether memory was not what this batch took it for."""
        self._position = 0
        self._commits = CommitClient(self._wire, address, self.membership, self._lose)
        self._is_open = False  # a transaction of the link, that is
        self._exclusive = False
        self._patience = LockTimeout(limits.handler_seconds_max)
        self._reshaped = False
        self._news: list[RemoteCommit] = []
        self._connection = 0  # the one that it knows the store by
        self._tables_version = 0

    @property
    def shared(self) -> PostgresEngine:
        return self

    @property
    def epoch(self) -> int:
        return self.membership.epoch

    @property
    def node(self) -> int:
        """What stands in the ids it makes."""
        return self.membership.number

    @property
    def _link(self) -> BlockingConnection:
        """The connection of batches, which answers one statement after the other."""
        self._await_sent()
        if self._is_overtaken:
            raise SpeculationFailed
        return self._wire

    def _new_link(self) -> BlockingConnection:
        return BlockingConnection(self.address.dsn, CONNECT_SECONDS, ANSWER_SECONDS)

    # Opening and closing.

    def open(self) -> Header:
        try:
            migrations.migrate(self._link, self.address)
            migrations.check_format(self._link, self.address)
            self._begin_snapshot()
            [(secret,)] = self._link.fetch(f"SELECT secret FROM {self._schema}.store")
            now = self._learn_anew()
            self._end()
            self.membership.begin_listening()  # before it is a node, which others rely on
            self._readers.open()
            heartbeat = self._join()
            self._connection = self._link.connections
        except (StoreError, Conflict) as error:
            self.close()
            raise StoreError(f"{self.address.redacted}: {error}") from error
        return Header(secret, now.version, now.last_id, now.tables or (), heartbeat, now.deploy)

    def close(self) -> None:
        with suppress(StoreError, Conflict):
            self.rollback()
            self.membership.leave(self._wire)
        self._wire.close()
        self._readers.close()
        self.membership.close()

    def announce_closing(self, seconds: float) -> None: ...  # nobody waits for it

    def check_present(self) -> None: ...  # the server looks after its files

    # Reading.

    @contextmanager
    def snapshot(self) -> Generator[View]:
        link = self._readers.take()
        try:
            link.execute(BEGIN_SNAPSHOT)
            version, _, catalog_version = ddl.newest(link, self._schema)
            yield PostgresSnapshot(link.fetch, self._schema, version, self.membership.part, catalog_version)
        finally:
            if link.is_connected:
                with suppress(StoreError, Conflict):
                    link.execute("COMMIT")
            self._readers.give(link)

    # A batch.

    def begin(self, exclusive: bool = False) -> View:
        self._is_overtaken = False
        if self._sent is None:
            self._recover()
        self._exclusive = exclusive
        self._reshaped = False
        self._answered.clear()
        if exclusive:
            link, self._is_open = self._link, True  # before it is: what fails half-way is rolled back as well
            link.execute(BEGIN_EXCLUSIVE.format(idle=self._patience.milliseconds, lock=self.address.lock))
            self._patience.take()
            self._pull()
        return BatchView(self)

    def _recover(self) -> None:
        """After a loss: learn what became of the last batch, forget the rest, and be a node again."""
        self._commits.settle()
        if not self._link.is_connected or self._link.connections != self._connection:
            self._forget()
        if self.membership.is_fenced:
            self._join()
            self._cache.clear()

    def _forget(self) -> None:
        """Know nothing of the past: it may be another server, which was promoted or restored and lacks some of it."""
        self._begin_snapshot()
        self._news.append(self._learn_anew())
        self._end()
        self._connection = self._link.connections

    def _learn_anew(self) -> RemoteCommit:
        """All there is to know of a store whose changes were not followed."""
        self._position, last_id, self._tables_version = ddl.newest(self._link, self._schema)
        self._frontier = CURSOR_START
        self._cache.clear()
        found = ddl.read(self._link, self._schema)
        return RemoteCommit(
            self._position, last_id, {}, {}, None, found, ddl.newest_deploy(self._link, self._schema), is_complete=False
        )

    def _join(self) -> PeerUpdate:
        self._commits.begin()
        return self.membership.join(self._link)

    def read(self, request: Request) -> Any:
        """What the batch does not know yet, from its one snapshot."""
        self._open_snapshot()
        return PostgresSnapshot(self._link.fetch, self._schema, self._position).answer(request)

    def _open_snapshot(self) -> None:
        if not self._is_open:
            self._begin_snapshot()
            self.refresh()

    def get(self, table: Table, id: int) -> Row | None:
        is_known, row = self._cache.get(id)
        if not is_known:
            row = self.read(Get(table, id))
            assert not isinstance(row, tuple)
            self._cache.put(id, row)
        elif not self._is_open:
            self._answered.add(id)
        return row

    def prefetch(self, table: Table, ids: Sequence[int]) -> None:
        unknown = [id for id in ids if not self._cache.get(id)[0]]
        if len(unknown) > 1:  # one is read when it is wanted
            self._open_snapshot()
            sql = f'SELECT id, document FROM {self._schema}."{names.of_table(table)}" WHERE id = ANY ($1)'
            rows = dict(self._link.fetch(sql, unknown))
            for id in unknown:
                self._cache.put(id, rows.get(id))

    def look(self, request: Claim | ListCompleted) -> Any:
        """Outside of the snapshot: who has claimed what is no longer pending is told when it commits."""
        view = PostgresSnapshot(self._link.fetch, self._schema, self._position, self.membership.part)
        if isinstance(request, ListCompleted):
            return view.answer(request)
        claimed, self._frontier = view.claim(request, self._frontier)
        return claimed

    @property
    def position(self) -> int:
        return self._position

    def _begin_snapshot(self) -> None:
        link, self._is_open = self._link, True
        link.execute(BEGIN_SNAPSHOT)

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._link.execute("COMMIT")

    def rollback(self) -> None:
        self._is_overtaken = False
        self._answered.clear()
        if self._is_open:
            self._is_open = False
            if self._wire.is_connected:
                self._patience.leave()
                with suppress(StoreError):
                    self._wire.execute("ROLLBACK")
            else:
                self._patience.lose()

    def validate(self, reads: ReadKeys) -> None:
        self._end()
        packed = pack_reads(reads)
        [(newest,)] = self._link.fetch(_CHECK.format(schema=self._schema), self._position, *packed)
        if newest is None:
            raise Conflict("what the batch has read was changed meanwhile")

    def commit(self, changes: Changeset) -> int:
        version = self._land(changes, self._commits.commit(self._arguments(changes), self._exclusive))
        self._is_overtaken = False  # nothing has gone ahead
        self._cache.write(changes)
        return version

    def send_commit(self, changes: Changeset) -> None:
        self._commits.send(self._arguments(changes))
        self._sent = changes
        self._cache.write(changes)

    def await_commit(self) -> int:
        self._await_sent()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _await_sent(self) -> None:
        """Wait for what is being committed, if anything is, and see whether the batch after it was answered rightly."""
        sent, self._sent = self._sent, None
        if sent is not None:
            try:
                self._outcome = self._land(sent, self._commits.answer())
                self._is_overtaken |= self._wire.connections != self._connection
            except Exception as error:
                self._outcome, self._is_overtaken = error, True
                self._cache.drop(id for _, writes in sent.writes for id in writes)

    def _arguments(self, changes: Changeset) -> tuple[Any, ...]:
        """What `commit_1` is told of a batch."""
        _ = self._link  # its turn has come
        packed = pack(changes, self._reshaped)
        since = None if self._exclusive else self._position
        if not self._exclusive:
            self._end()
        faults.at("commit.flushed")
        return since, *pack_reads(changes.reads), *packed

    def _land(self, changes: Changeset, answer: int) -> int:
        """Move to the version that a batch has made."""
        if answer == CONFLICT:
            raise Conflict("what the batch has read was changed meanwhile")
        if answer == FENCED:
            self.membership.outlived = self.epoch
            raise Conflict("this node was taken for lost")
        if self._exclusive:
            self._is_open = False
        self._patience.leave()
        if answer > self._position + 1:
            self._catch_up(answer - 1, changes.last_id)
        self._position = answer
        if self._reshaped:
            self._tables_version = answer
        return answer

    def _lose(self) -> None:
        """The transaction is lost, with the lock that it held."""
        self._patience.lose()
        self._is_open = False

    def _catch_up(self, version: int, last_id: int) -> None:
        """Learn what others have committed before the last batch, and whether the next one should have known."""
        try:
            self._is_overtaken = self._is_left_behind(version)
        except (StoreError, Conflict):  # which must not undo what is committed: know nothing instead
            self._lose_track(version, last_id)

    def resolve_commit(self) -> int | None:
        version = self._commits.settle()
        if version is not None:
            self._lose_track(version)
        return version

    def _lose_track(self, version: int, last_id: int = 0) -> None:
        """Know nothing of what others have committed up to a version, until it has been learnt anew."""
        self._connection = 0
        self._cache.clear()
        self._news.append(RemoteCommit(version, last_id, {}, {}, None, None, is_complete=False))

    # Tables and indexes, in an exclusive batch.

    def create_table(self, table: Table) -> None:
        ddl.create(self._reshaping(), self._schema, table)

    def declare_table(self, table: Table) -> None:
        ddl.declare(self._reshaping(), self._schema, table)

    def create_index(self, table: Table, index: Index) -> None:
        ddl.create_index(self._reshaping(), self._schema, table, index)

    def fill_index(self, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
        ddl.fill_index(self._link, self._schema, index, keys)

    def finish_index(self, index: Index) -> None:
        ddl.finish_index(self._reshaping(), self._schema, index)

    def drop_index(self, index: Index) -> None:
        ddl.drop_index(self._reshaping(), self._schema, index)

    def deploys(self) -> list[str]:
        if not self._exclusive:
            raise NotExclusive
        return ddl.deploys(self._link, self._schema)

    def deploy(self, mark: str) -> None:
        ddl.deploy(self._reshaping(), self._schema, mark)

    def _reshaping(self) -> BlockingConnection:
        """The link, to change the tables with, which all nodes will be told."""
        if not self._exclusive:
            raise NotExclusive
        self._reshaped = True
        return self._link

    # Other nodes.

    def refresh(self) -> None:  # by one statement: all nodes do so after the commits of each
        if self._is_left_behind():
            raise Conflict("what the batch has read was changed meanwhile")

    def remote_commits(self) -> list[RemoteCommit]:
        news, self._news = self._news, []
        return news

    def wait_for_peers(self, is_responsive: bool) -> PeerUpdate:
        heartbeat = self.membership.listen(is_responsive)
        # A batch that was under way when they came may not have learnt of them.
        return heartbeat._replace(has_commits=heartbeat.has_commits or self.membership.newest > self._position)

    def stop_listening(self) -> None:
        self.membership.stop_listening()

    def is_lost(self, epoch: int) -> bool:
        return self.membership.is_lost(epoch)

    def _is_left_behind(self, last: int | None = None) -> bool:
        """Whether others have changed, up to now or to a version, what this batch knows of tables or was answered."""
        before, stale = self._tables_version, self._pull(last)
        return self._tables_version > before or not self._answered.isdisjoint(stale)

    def _pull(self, last: int | None = None) -> set[int]:
        """Move to the newest version, or to `last`. Returns the ids whose rows are no longer what they were."""
        known = self._link.fetch(_PULL.format(schema=self._schema), self._position, REMOTE_COMMITS_MAX + 2, last)
        # What it stands on is gone where it lags behind, or where a server has taken over that lacks the last commits.
        if len(known) > REMOTE_COMMITS_MAX + 1 or not known or known[0]["version"] != self._position:
            self._news.append(self._learn_anew())
            return set(self._answered)
        stale: set[int] = set()
        for row in known[1:]:
            self._position = row["version"]  # a row of its own was committed without an answer
            stale.update(row["ids"])
            found = None
            if row["reshaped"]:
                self._tables_version = row["version"]
                found = ddl.read(self._link, self._schema)
                stale.update(self._answered)
            deploy = ddl.newest_deploy(self._link, self._schema) if found is not None else ""
            self._news.append(news_of(row, found, deploy))
        self._cache.drop(stale)
        return stale


class BatchView:
    """What a batch sees: documents in memory, and one snapshot for the rest."""

    catalog_version = 0

    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine
        self.version = engine.position

    def answer(self, request: Request) -> Any:
        if type(request) is Get and request.table is not JOBS:
            return self._engine.get(request.table, request.id)
        if isinstance(request, Claim | ListCompleted):
            return self._engine.look(request)
        return self._engine.read(request)


# SQL.

_PULL: Final = """
SELECT version, last_id, due, reshaped, tables, row_counts, CASE WHEN version > $1 THEN ids END AS ids,
    indexes, key_counts, CASE WHEN version > $1 THEN keys END AS keys
FROM {schema}.log WHERE version >= $1 AND ($3::bigint IS NULL OR version <= $3) ORDER BY version LIMIT $2
"""
_CHECK: Final = "SELECT {schema}.check_1($1, $2, $3, $4, $5, $6)"
