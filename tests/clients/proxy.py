"""A proxy between clients and a server, which cuts connections when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable


class Proxy:
    """Passes bytes on, to several servers in turn, without those that are down.

    `on_answer` sees each piece that a server sends, and cuts the connection by returning True.
    """

    def __init__(self, *ports: int, on_answer: Callable[[bytes], bool] = lambda _: False) -> None:
        self._ports, self._on_answer = deque(ports), on_answer
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            writer.close()
            return
        ups = asyncio.create_task(self._pass(reader, up_writer, lambda _: False))
        try:
            await self._pass(up_reader, writer, self._on_answer)
        finally:
            ups.cancel()
            for each in (writer, up_writer):
                each.transport.abort()
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(len(self._ports) - 1):
            self._ports.rotate()
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ports[0])
        self._ports.rotate()
        return await asyncio.open_connection("127.0.0.1", self._ports[0])

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cuts: Callable[[bytes], bool]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if cuts(data):
                    return
                writer.write(data.replace(b"Sec-WebSocket-Extensions:", b"X-None:"))  # no compression: tests read it
                await writer.drain()
