"""What all connections to one open app share: its timestamps, the results that clients watch, and their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from duly.database.database import Database
from duly.errors import StoreError
from duly.server.auth.authentication import Authentication
from duly.server.calls import ClientCalls
from duly.server.host import Host
from duly.server.outbox import Liveness, Texts
from duly.sync.results import SharedResults
from duly.sync.timestamps import Timestamps


class Flushed(Protocol):
    """A connection."""

    def flush(self, version: int) -> None: ...


class Flushes:
    """Lets connections send Transitions, once all that has happened up to now was reported to them.

    A commit is published in the event loop, and what it woke is called soon. So what is called soon from here on comes
    after the reports of all commits that are known here and now.
    """

    def __init__(self, results: SharedResults) -> None:
        self._results = results
        self._loop = asyncio.get_running_loop()
        self._version = -1
        self._waiting: dict[Flushed, None] = {}

    def soon(self, connection: Flushed) -> None:
        version = self._results.settle()
        if version != self._version or not self._waiting:
            self._version, self._waiting = version, {}
            self._loop.call_soon(self._flush, version, self._waiting)
        self._waiting[connection] = None

    def _flush(self, version: int, connections: dict[Flushed, None]) -> None:
        while connections:
            connections.popitem()[0].flush(version)


class Service:
    """Made for one opening of an app, in its event loop."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.database = host.database
        self.clock = host.runner.clock
        self.authentication = Authentication(host)
        self.calls = ClientCalls(host)
        self.timestamps = Timestamps(host.database)
        self.results = SharedResults(host.runner, self.timestamps, self.calls)
        self.flushes = Flushes(self.results)
        self.liveness = Liveness()
        self.texts = Texts()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let work go on, also when the connection that began it has ended."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Services:
    """The service of an app, from its opening to its closing."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._service: Service | None = None
        self._starting: dict[Database, asyncio.Task[Service]] = {}

    async def get(self) -> Service:
        """Return the service of the app as it is open now. Raises StoreError if it is not."""
        database = self._host.database
        if self._service is not None and self._service.database is database:
            return self._service
        if database not in self._starting:
            self._starting = {database: asyncio.get_running_loop().create_task(self._start())}
        return await asyncio.shield(self._starting[database])

    async def _start(self) -> Service:
        service = Service(self._host)
        try:
            await service.timestamps.start()
        except StoreError:
            self._starting.clear()  # the next client tries again
            raise
        self._service = service
        return service
