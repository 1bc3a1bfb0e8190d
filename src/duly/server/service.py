"""What all connections to one open app share: its timestamps, the results that clients watch, and their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from duly.database.database import Database
from duly.errors import StoreError
from duly.server.calls import ClientCalls
from duly.server.host import Host
from duly.sync.results import SharedResults
from duly.sync.timestamps import Timestamps


class Service:
    """Made for one opening of an app, in its event loop."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.database = host.database
        self.calls = ClientCalls(host)
        self.timestamps = Timestamps(host.database)
        self.results = SharedResults(host.runner, self.timestamps, self.calls)
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
