"""The processes that share a store: who lives, which part of the work is whose, and that there is news.

Each node says that it lives, several times a second, by the server's clock. Who was not ready for a moment has no part
of the pending functions any more, which is only a hint, for what two nodes claim only one commits. Who was not seen
for long is lost: the database refuses its commits from then on, and what it left running has failed.
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
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
    """The nodes of a store as this one sees them. `listen` is called from a thread of its own."""

    def __init__(self, address: Address, lost_seconds: float, executes: bool) -> None:
        self.epoch = 0
        self.number = 0
        self.part: Partition = UNPARTITIONED
        self.outlived = 0
        """The last epoch in which this node was taken for lost."""
        self._address = address
        self._executes = executes
        self._lost_after = timedelta(seconds=lost_seconds)
        self._instance = f"{host_name()} {os.getpid()} {secrets.token_hex(4)}"
        self._live: frozenset[int] = frozenset()
        self._last_epoch = 0
        self._told: tuple[int, Partition, frozenset[int]] = (0, UNPARTITIONED, self._live)
        """What `listen` has told last; since then it may have joined anew, too."""
        self._link = BlockingConnection(address.listen, CONNECT_SECONDS, NODE_ANSWER_SECONDS)
        self._heard = asyncio.Event()
        self._listens = False
        self.newest = 0
        """The newest version of the store that it was told of."""
        self._beat_at = 0.0

    @property
    def is_fenced(self) -> bool:
        """Whether it was taken for lost, and must join anew."""
        return self.outlived == self.epoch

    def begin_listening(self) -> None:
        """Make the connection by which it hears and beats: without one it would soon be taken for lost."""
        try:
            self._link.listen(channel(self._address), self._hear)
        except StoreError as error:
            if self._address.listen == self._address.dsn:
                raise
            raise type(error)(f"nothing can be heard at listen={redacted(self._address.listen)}: {error}") from error
        self._listens = True
        self._heard.set()  # something may have come before

    # In the thread that commits.

    def join(self, link: BlockingConnection) -> PeerUpdate:
        """Become a node, for the first time or again."""
        sql = f"SELECT epoch, number FROM {self._address.schema}.join_1($1, $2, $3)"
        rows = link.fetch(sql, self._instance, self._lost_after, self.number)
        if not rows:
            raise StoreError("got 1,024 nodes of this store, expected fewer")
        self.epoch, self.number = rows[0]
        self._last_epoch = self.epoch - 1  # of what came before it knows nothing yet
        return self._beat(link, is_ready=self._executes)

    def leave(self, link: BlockingConnection) -> None:
        if self.epoch and link.is_connected:
            link.fetch(f"UPDATE {self._address.schema}.nodes SET state = 'left' WHERE epoch = $1", self.epoch)

    def is_lost(self, epoch: int) -> bool:
        return epoch != self.epoch and epoch <= self._last_epoch and epoch not in self._live

    # In a thread of its own.

    def listen(self, is_responsive: bool) -> PeerUpdate:
        """Wait until others have news, at most until the next beat."""
        if not self._link.is_connected:
            self._listens = False
        if not self._listens:
            self.begin_listening()
        if not self._heard.is_set():
            self._link.wait(self._heard, max(self._beat_at - monotonic(), 0.0))
        has_commits = self._heard.is_set()
        self._heard.clear()
        if monotonic() < self._beat_at:
            return PeerUpdate(has_commits, False)
        beat = self._beat(self._link, is_responsive and self._executes)
        before, self._told = self._told, (self.epoch, self.part, self._live)
        return beat._replace(has_commits=has_commits, membership_changed=self._told != before or self.is_fenced)

    def stop_listening(self) -> None:
        """Have `listen` return at once; from another thread."""
        self._link.soon(self._heard.set)

    def _hear(self, message: str) -> None:
        epoch, version = map(int, message.split())
        self.newest = max(self.newest, version)
        if epoch != self.epoch:
            self._heard.set()

    def _beat(self, link: BlockingConnection, is_ready: bool) -> PeerUpdate:
        began = monotonic()
        self._beat_at = began + NODE_HEARTBEAT_SECONDS
        sql = f"SELECT * FROM {self._address.schema}.beat_1($1, $2, $3)"
        epoch = self.epoch
        [row] = link.fetch(sql, epoch, is_ready, timedelta(seconds=NODE_FRESH_SECONDS))
        ready: list[int] = row["ready_epochs"] or []
        if not row["is_live"]:
            self.outlived = epoch
        if epoch == self.epoch:  # it may have joined anew meanwhile
            self.part = Partition(ready.index(epoch), len(ready)) if epoch in ready else UNPARTITIONED
            self._live, self._last_epoch = frozenset(row["live_epochs"] or ()), row["last_epoch"]
        self.newest = row["newest"]
        return PeerUpdate(False, False, row["now_ms"], (began + monotonic()) / 2)

    def close(self) -> None:
        with suppress(StoreError):
            self._link.close()
        self._listens = False
        self._heard = asyncio.Event()  # the other one belongs to the event loop that has gone with the link
