"""What a node has in memory of a store, exact as of one version: the position.

Documents that were read stay in memory. Before the next batch relies on them, `catch_up` reads what other nodes have
committed since the position, drops the documents that those commits wrote, and moves the position. Where the log does
not reach back to the position, `reload` starts again with nothing in memory.
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from typing import Final

from duly.limits import DOCUMENT_CACHE_BYTES_MAX, REMOTE_COMMITS_MAX
from duly.storage.engine import RemoteCommit
from duly.storage.postgres import ddl
from duly.storage.postgres.cache import DocumentCache
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.encoding import decode_commit
from duly.storage.postgres.snapshot import CURSOR_START


class Replica:
    """Documents in memory, and where the next claim begins. Used by the committer's thread only."""

    def __init__(self, schema: str) -> None:
        self.position = 0
        """The version of the store that everything here is as of."""
        self.documents = DocumentCache(DOCUMENT_CACHE_BYTES_MAX)
        self.claim_cursor = CURSOR_START
        self.catalog_version = 0
        """The last version known to have changed tables or indexes."""
        self.points: set[tuple[str, int]] = set()
        """The table and id of each row that the running batch has read by its id, from here until it has a snapshot."""
        self.generation = 0
        """The connection that all of this was read through. Another one may lead to a server that was restored."""
        self._schema = schema
        self._remote_commits: list[RemoteCommit] = []

    def take_remote_commits(self) -> list[RemoteCommit]:
        """Return the commits of other nodes that were read since the last call."""
        commits, self._remote_commits = self._remote_commits, []
        return commits

    def load(self, connection: BlockingConnection) -> RemoteCommit:
        """Forget everything, and move to the newest version. Return all that is known of it, as a commit."""
        self.position, last_id, self.catalog_version = ddl.newest(connection, self._schema)
        self.claim_cursor = CURSOR_START
        self.documents.clear()
        tables = ddl.read(connection, self._schema)
        deploy = ddl.newest_deploy(connection, self._schema)
        return RemoteCommit(self.position, last_id, {}, {}, None, tables, deploy, is_complete=False)

    def reload(self, connection: BlockingConnection) -> None:
        """Load again, because the commits since the position cannot be followed."""
        self._remote_commits.append(self.load(connection))

    def lose_track(self, version: int, last_id: int = 0) -> None:
        """Forget everything, because some of the commits up to a version are unknown. The next batch reloads."""
        self.generation = 0
        self.documents.clear()
        self._remote_commits.append(RemoteCommit(version, last_id, {}, {}, None, None, is_complete=False))

    def catch_up(self, connection: BlockingConnection, until: int | None = None) -> bool:
        """Read what other nodes have committed, up to now or to a version, and move the position there.

        Return whether they have changed something that the running batch already relies on: a document that it has
        read from memory, or the tables.
        """
        known = connection.fetch(_PULL.format(schema=self._schema), self.position, REMOTE_COMMITS_MAX + 2, until)
        # The log lacks the position itself if this node lags behind the log, or if another server has taken over which
        # lacks the last commits.
        if len(known) > REMOTE_COMMITS_MAX + 1 or not known or known[0]["version"] != self.position:
            before = self.catalog_version
            self.reload(connection)
            return self.catalog_version > before or bool(self.points)
        stale: set[int] = set()
        catalog_changed = False
        for row in known[1:]:
            self.position = row["version"]  # a row of this node is a commit whose answer was lost
            stale.update(row["ids"])
            tables, deploy = None, ""
            if row["reshaped"]:
                catalog_changed, self.catalog_version = True, row["version"]
                tables = ddl.read(connection, self._schema)
                deploy = ddl.newest_deploy(connection, self._schema)
            self._remote_commits.append(decode_commit(row, tables, deploy))
        self.documents.drop(stale)
        return catalog_changed or (bool(stale) and any(id in stale for _, id in self.points))


# SQL.

_PULL: Final = """
SELECT version, last_id, due, reshaped, tables, row_counts, CASE WHEN version > $1 THEN ids END AS ids,
    indexes, key_counts, CASE WHEN version > $1 THEN keys END AS keys
FROM {schema}.log WHERE version >= $1 AND ($3::bigint IS NULL OR version <= $3) ORDER BY version LIMIT $2
"""
