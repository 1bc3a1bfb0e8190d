"""The processes that share a store: which ones live, and which partition of the due jobs each of them runs.

Each node sends a heartbeat several times a second, and the server records its own time with it. Two rules use it:

- A node that was not ready for a moment (NODE_FRESH_SECONDS) has no partition of the pending jobs. This is a hint: if
  two nodes claim the same job, one of them commits.
- A node that sent no heartbeat for long (`node_lost_seconds`) is lost. This is a fence: the database refuses the
  commits of its epoch from then on, so other nodes may record that its running actions have failed.

`listen` runs in a thread of its own, with a connection of its own. What both threads use:

    written by the committer's thread   epoch, number, _last_epoch (in `join`)
    written by the listener's thread    partition, _live, _last_epoch, newest_version, _reported
    written by both                     fenced_epoch, which only grows
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import timedelta
from platform import node as host_name

from duly.clock import monotonic
from duly.errors import StoreError
from duly.limits import CONNECT_SECONDS, NODE_ANSWER_SECONDS, NODE_FRESH_SECONDS, NODE_HEARTBEAT_SECONDS
from duly.storage.engine import PeerUpdate
from duly.storage.postgres.address import Address, redacted
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.migrations import channel
from duly.storage.postgres.snapshot import UNPARTITIONED, Partition


class Membership:
    """This process as a node of a store, and what it knows of the other nodes."""

    def __init__(self, address: Address, lost_seconds: float, executes: bool) -> None:
        self.epoch = 0
        self.number = 0
        self.partition: Partition = UNPARTITIONED
        self.fenced_epoch = 0
        """The last epoch in which this node was declared lost."""
        self.newest_version = 0
        """The newest version of the store that this node was notified of."""
        self._address = address
        self._executes = executes
        self._lost_after = timedelta(seconds=lost_seconds)
        self._instance = f"{host_name()} {os.getpid()} {secrets.token_hex(4)}"
        self._live: frozenset[int] = frozenset()
        self._last_epoch = 0
        """The newest epoch as of the last heartbeat. This node does not know whether nodes of later epochs live."""
        self._reported: tuple[int, Partition, frozenset[int]] = (0, UNPARTITIONED, self._live)
        """Epoch, partition and live nodes as of the last update that `listen` has returned."""
        self._connection = BlockingConnection(address.listen, CONNECT_SECONDS, NODE_ANSWER_SECONDS)
        self._notified = False
        self._is_listening = False
        self._heartbeat_at = 0.0
        """When the next heartbeat is due."""

    @property
    def is_fenced(self) -> bool:
        """Whether this node was declared lost, and must join again under a new epoch."""
        return self.fenced_epoch == self.epoch

    def start_listening(self) -> None:
        """Make the connection for notifications and heartbeats. Without it, a node would soon be declared lost."""
        try:
            self._connection.listen(channel(self._address), self._on_notification)
        except StoreError as error:
            if self._address.listen == self._address.dsn:
                raise
            raise type(error)(
                f"no notifications can be received from listen={redacted(self._address.listen)}: {error}"
            ) from error
        self._is_listening = True
        self._notified = True  # a notification may have been missed before

    # In the thread that commits.

    def join(self, connection: BlockingConnection) -> PeerUpdate:
        """Become a node, for the first time or again."""
        sql = f"SELECT epoch, number FROM {self._address.schema}.join_1($1, $2, $3)"
        rows = connection.fetch(sql, self._instance, self._lost_after, self.number)
        if not rows:
            raise StoreError("got 1,024 nodes of this store, expected fewer")
        self.epoch, self.number = rows[0]
        self._last_epoch = self.epoch - 1  # this node does not know yet what happened before it joined
        return self._send_heartbeat(connection, is_ready=self._executes)

    def leave(self, connection: BlockingConnection) -> None:
        if self.epoch and connection.is_connected:
            connection.fetch(f"UPDATE {self._address.schema}.nodes SET state = 'left' WHERE epoch = $1", self.epoch)

    def is_lost(self, epoch: int) -> bool:
        return epoch != self.epoch and epoch <= self._last_epoch and epoch not in self._live

    # In a thread of its own.

    def listen(self, is_responsive: bool) -> PeerUpdate:
        """Wait until other nodes have committed, at most until the next heartbeat is due."""
        if not self._connection.is_connected:
            self._is_listening = False
        if not self._is_listening:
            self.start_listening()
        if not self._notified:
            self._connection.wait(max(self._heartbeat_at - monotonic(), 0.0))
        has_commits, self._notified = self._notified, False
        if monotonic() < self._heartbeat_at:
            return PeerUpdate(has_commits, membership_changed=False)
        update = self._send_heartbeat(self._connection, is_responsive and self._executes)
        before, self._reported = self._reported, (self.epoch, self.partition, self._live)
        changed = self._reported != before or self.is_fenced
        return update._replace(has_commits=has_commits, membership_changed=changed)

    def stop_listening(self) -> None:
        """Make `listen` return at once. Called from another thread."""
        self._connection.call_soon(self._notify)

    def _on_notification(self, message: str) -> None:
        epoch, version = map(int, message.split())
        self.newest_version = max(self.newest_version, version)
        if epoch != self.epoch:
            self._notify()

    def _notify(self) -> None:
        self._notified = True
        self._connection.wake()

    def _send_heartbeat(self, connection: BlockingConnection, is_ready: bool) -> PeerUpdate:
        began = monotonic()
        self._heartbeat_at = began + NODE_HEARTBEAT_SECONDS
        sql = f"SELECT * FROM {self._address.schema}.beat_1($1, $2, $3)"
        epoch = self.epoch
        [row] = connection.fetch(sql, epoch, is_ready, timedelta(seconds=NODE_FRESH_SECONDS))
        ready: list[int] = row["ready_epochs"] or []
        if not row["is_live"]:
            self.fenced_epoch = epoch
        if epoch == self.epoch:  # the other thread may have joined again meanwhile
            self.partition = Partition(ready.index(epoch), len(ready)) if epoch in ready else UNPARTITIONED
            self._live, self._last_epoch = frozenset(row["live_epochs"] or ()), row["last_epoch"]
        self.newest_version = row["newest"]
        return PeerUpdate(False, False, row["now_ms"], (began + monotonic()) / 2)

    def close(self) -> None:
        with suppress(StoreError):
            self._connection.close()
        self._is_listening = self._notified = False
