"""The connections that queries read through: one from the start, and more while several queries run at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from duly.clock import monotonic
from duly.errors import StoreLostError
from duly.limits import CONNECT_SECONDS, STORE_PAUSE_SECONDS
from duly.storage.postgres.connection import BlockingConnection


class ConnectionPool:
    """Connections that threads acquire and release. A connection that was lost is closed when it is released."""

    def __init__(self, new_connection: Callable[[], BlockingConnection]) -> None:
        self._new_connection = new_connection
        self._free: SimpleQueue[BlockingConnection] = SimpleQueue()
        self._acquired: set[BlockingConnection] = set()
        self._refused: tuple[float, str] = (0.0, "")
        """The time until which no new connection is tried, and the reason why the last attempt failed."""

    def open(self) -> None:
        """Make the first connection. Later the server may have none left, but a query must still run."""
        self.release(self._make())

    def acquire(self) -> BlockingConnection:
        """Return a connection that no other thread uses. Raises StoreLostError if there is none."""
        try:
            connection = self._free.get_nowait()
        except Empty:
            connection = self._make_or_wait()
        self._acquired.add(connection)
        return connection

    def release(self, connection: BlockingConnection) -> None:
        self._acquired.discard(connection)
        if connection.is_connected:
            self._free.put(connection)
        else:
            connection.close()

    def close(self) -> None:
        with suppress(Empty):
            while True:
                self._free.get_nowait().close()
        while self._acquired:
            self._acquired.pop().close()

    def _make_or_wait(self) -> BlockingConnection:
        """Return a new connection. If the server refuses one, wait until another thread releases its own."""
        until, reason = self._refused
        if monotonic() < until:  # many threads may wait, and each attempt may take seconds
            raise StoreLostError(reason)
        try:
            return self._make()
        except StoreLostError as error:
            if self._acquired:
                with suppress(Empty):
                    return self._free.get(timeout=CONNECT_SECONDS)
            self._refused = monotonic() + STORE_PAUSE_SECONDS, str(error)
            raise

    def _make(self) -> BlockingConnection:
        connection = self._new_connection()
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection
