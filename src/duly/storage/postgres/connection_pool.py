"""The connections by which queries read: one from the start, more while several run and the server has some to give."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from duly.clock import monotonic
from duly.errors import StoreLostError
from duly.limits import CONNECT_SECONDS, STORE_PAUSE_SECONDS
from duly.storage.postgres.connection import BlockingConnection


class ConnectionPool:
    """Connections that threads take and give back. Those that are lost are not given back to anybody else."""

    def __init__(self, new_link: Callable[[], BlockingConnection]) -> None:
        self._new_link = new_link
        self._free: SimpleQueue[BlockingConnection] = SimpleQueue()
        self._taken: set[BlockingConnection] = set()
        self._refused: tuple[float, str] = (0.0, "")
        """Until when nobody asks for another one, and why there was none."""

    def open(self) -> None:
        """Make the first one: later the server may have none left, and a query is to run all the same."""
        self.give(self._made())

    def take(self) -> BlockingConnection:
        """One that nobody else uses. StoreLostError where there is none."""
        try:
            link = self._free.get_nowait()
        except Empty:
            link = self._another()
        self._taken.add(link)
        return link

    def give(self, link: BlockingConnection) -> None:
        self._taken.discard(link)
        if link.is_connected:
            self._free.put(link)
        else:
            link.close()

    def close(self) -> None:
        with suppress(Empty):
            while True:
                self._free.get_nowait().close()
        while self._taken:
            self._taken.pop().close()

    def _another(self) -> BlockingConnection:
        """One more; or, where the server gives no more, one that somebody gives back."""
        until, reason = self._refused
        if monotonic() < until:  # many may wait, and each attempt may take seconds
            raise StoreLostError(reason)
        try:
            return self._made()
        except StoreLostError as error:
            if self._taken:
                with suppress(Empty):
                    return self._free.get(timeout=CONNECT_SECONDS)
            self._refused = monotonic() + STORE_PAUSE_SECONDS, str(error)
            raise

    def _made(self) -> BlockingConnection:
        link = self._new_link()
        try:
            link.connect()
        except BaseException:
            link.close()
            raise
        return link
