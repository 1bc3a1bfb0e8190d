"""What the store says meanwhile, past duly and the proxies."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from duly.errors import StoreLostError
from duly.storage.postgres.address import parse
from duly.storage.postgres.connection import BlockingConnection
from duly.values.ids import NODE_BITS, tick_of

RECENT_MS: Final = 30_000
_TOLERANCE_MS: Final = 6.0  # of the nodes' clocks, which follow the server's


class Share(NamedTuple):
    """The part of the scheduled functions that a node has."""

    number: int
    of: int


class Probe:
    """Asks the store, on a connection of its own."""

    def __init__(self, store: str) -> None:
        address = parse(store)
        self._schema = address.schema
        self._link = BlockingConnection(address.dsn, 2.0, 5.0)

    def fetch(self, sql: str, *values: object) -> list[Any]:
        return self._link.fetch(sql.replace("duly.", f"{self._schema}."), *values)

    def close(self) -> None:
        self._link.close()

    def share_of(self, pid: int, nodes: int) -> Share | None:
        """The share of a process, where so many nodes have one."""
        try:
            fresh = [int(row[0]) for row in self.fetch(_FRESH)]
        except StoreLostError:  # it has just been restarted
            return None
        return Share(fresh.index(pid), nodes) if len(fresh) == nodes and pid in fresh else None

    def version(self) -> int:
        """The last version that was committed, once the server answers."""
        while True:
            try:
                return self.fetch("SELECT max(version) FROM duly.log")[0][0]
            except StoreLostError:
                time.sleep(0.02)

    def version_of(self, pid: int) -> int:
        """The last version that a process has committed."""
        try:
            return self.fetch(_VERSION, str(pid))[0][0] or 0
        except StoreLostError:
            return 0

    def is_completed(self, share: Share, since_ms: float) -> bool:
        """Whether a mutation of a share was completed in a batch that began after a moment."""
        try:
            since = since_ms + _TOLERANCE_MS
            return self.fetch(_COMPLETED, _id_at(since_ms - RECENT_MS), since, *share)[0][0]
        except StoreLostError:
            return False

    def circumstances(self) -> str:
        """Who lives, and who waits for what: for whoever looks for the cause of something."""
        try:
            return "; ".join(str(tuple(row)) for sql in (_NODES, _SESSIONS) for row in self.fetch(sql))
        except StoreLostError as lost:
            return str(lost)

    def is_finished(self) -> bool:
        """Whether nothing is pending and nothing in progress."""
        try:
            return not self.fetch("SELECT FROM duly.jobs LIMIT 1")
        except StoreLostError:
            return False


EVERYTHING: Final = Share(0, 1)


def _id_at(time_ms: float) -> int:
    """The first id of that time."""
    return tick_of(time_ms) << NODE_BITS


# SQL. The instance of a node has its process id in the middle.

_FRESH: Final = """
SELECT split_part(instance, ' ', 2) FROM duly.nodes
WHERE state = 'live' AND seen > clock_timestamp() - interval '0.6 s' ORDER BY epoch
"""
_VERSION: Final = "SELECT max(version) FROM duly.nodes WHERE split_part(instance, ' ', 2) = $1"
_NODES: Final = """
SELECT instance, epoch, extract(epoch FROM clock_timestamp() - seen)::text AS seen_before FROM duly.nodes
WHERE state = 'live' ORDER BY epoch
"""
_SESSIONS: Final = """
SELECT pid, state, wait_event, extract(epoch FROM clock_timestamp() - state_change)::text AS since, left(query, 60)
FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()
"""
# The part is that of `claim_1`. When a function was due is not kept: at the time it was scheduled for, but for those
# that were scheduled for the past, which are left out where that makes a difference.
_COMPLETED: Final = """
SELECT EXISTS (
    SELECT FROM duly.completed_jobs, LATERAL (SELECT 1577836800000 + (id >> 10) / 4096.0) AS born (created)
    WHERE id > $1 AND lane = 'mutation' AND state IN ('success', 'failed') AND completed_time > $2
        AND floor(greatest(scheduled_time, created) / 1000) = floor(scheduled_time / 1000)
        AND ((((id >> 10) # (id >> 17) # (id >> 24)) & 1023) + floor(scheduled_time / 1000)::bigint) % $4 = $3
)
"""
