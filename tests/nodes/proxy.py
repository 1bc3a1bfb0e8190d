"""A proxy between a node and PostgreSQL: it cuts connections, lets them fall silent, and cuts amid a commit."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, Literal, NamedTuple, Self

HOST: Final = "127.0.0.1"
FORGOTTEN_SECONDS: Final = 30.0
"""How long a side of a silent connection is kept that the other side has left."""

Loss = Literal["request", "answer", "late"]
"""What is lost amid a commit, beside the connection: the request never arrives, or is carried out and the answer
never arrives, or the request arrives when the client has long been told that the connection is lost."""

_START, _TLS = 196_608, 80_877_103
_COMMITS = re.compile(rb"\bcommit_\d+\(")
_READY = b"Z\0\0\0\5"  # before the one byte of the transaction's state


class Message(NamedTuple):
    """One message of a client."""

    data: bytes
    decides: bool = False
    """Whether a batch is committed once the server has it."""
    asks: bool = True
    """Whether the server answers up to here."""


class Requests:
    """Splits what a client sends into messages, and knows which one commits a batch."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._commits: dict[bytes, bool] = {}  # by the name of a prepared statement
        self._in_transaction = False
        self._is_written = False  # by a commit within a transaction, which is not over

    def feed(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        while (length := self._length()) and len(self._buffer) >= length:
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            yield self._read(message)

    def _length(self) -> int:
        """Of the next message; 0 where that is not known yet."""
        first = 1 if self._started else 0  # only those after the start tell their kind
        return first + int.from_bytes(self._buffer[first : first + 4]) if len(self._buffer) >= first + 4 else 0

    def _read(self, message: bytes) -> Message:
        if not self._started:
            self._started = int.from_bytes(message[4:8]) == _START
            return Message(message)
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._commits[name] = bool(_COMMITS.search(sql))
        decides = False
        if kind == b"B" and self._commits.get(body.split(b"\0", 2)[1]):
            decides, self._is_written = not self._in_transaction, self._in_transaction
        elif kind == b"Q":
            sql = body.strip(b"\0 \n").upper()
            decides = self._is_written and sql.startswith(b"COMMIT")
            self._in_transaction = sql.startswith(b"BEGIN")
            self._is_written = False
        return Message(message, decides, asks=kind in (b"Q", b"S"))


class Proxy:
    """Stands before a server on this machine, in a thread of its own, at a port of its own."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self._server_port = server_port
        self._connections: set[_Connection] = set()
        self._silent = False
        self._order: _Order | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._listener = socket.create_server((HOST, 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close_soon().result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def close_soon(self) -> Future[None]:
        """Close all connections, whatever is happening to them, and let none through any more."""
        return asyncio.run_coroutine_threadsafe(self._close(), self._loop)

    def cut(self) -> None:
        """Cut all connections at once; new ones are let through."""
        self._call(lambda: [connection.cut() for connection in self._connections])

    def black_hole(self) -> None:
        """From now on nothing passes, and nobody is told, on connections that are there or are made."""
        self._silent = True
        self._call(lambda: [connection.fall_silent() for connection in self._connections])

    def heal(self) -> None:
        """Let new connections through. Those that were made meanwhile stay silent, also where none was accepted yet."""
        self._call(self._heal)

    def lose_commit(self, loss: Loss, late_seconds: float = 0.0) -> Future[None]:
        """Cut the next connection that commits a batch, amid the commit. Done once the connection is cut."""
        self._order = order = _Order(loss, late_seconds, Future())
        return order.done

    def _call(self, act: Callable[[], object]) -> None:
        async def call() -> None:
            act()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    # In the thread.

    def take_order(self) -> _Order | None:
        order, self._order = self._order, None
        return order

    def _heal(self) -> None:
        while self._accept():
            pass
        self._silent = False

    def _accept(self) -> bool:
        """Not by `asyncio.start_server`: that forgets what it is accepting when it is closed. False if nobody waits."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        accepted.setblocking(False)
        connection = _Connection(self, self._silent)
        self._connections.add(connection)
        connection.task = asyncio.create_task(self._serve(connection, accepted))
        connection.task.add_done_callback(lambda _: self._end(connection, accepted))
        return True

    async def _serve(self, connection: _Connection, accepted: socket.socket) -> None:
        with suppress(OSError):  # the server is down, and so is the connection
            connection.client = _Side(*await asyncio.open_connection(sock=accepted))
            if not connection.is_silent:
                connection.server = _Side(*await asyncio.open_connection(HOST, self._server_port))
            await connection.run()

    def _end(self, connection: _Connection, accepted: socket.socket) -> None:
        """However far it has come: its task may have been cancelled before it began."""
        self._connections.discard(connection)
        connection.cut()
        accepted.close()

    async def _close(self) -> None:
        if self._listener.fileno() != -1:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _rounds(10)  # the connections are closed in the loop


async def _rounds(count: int) -> None:
    """Let the loop go round: unlike a time, as many rounds as are needed on a machine that is busy too."""
    for _ in range(count):
        await asyncio.sleep(0)


class _Order(NamedTuple):
    loss: Loss
    late_seconds: float
    done: Future[None]

    def tell(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Side(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        with suppress(OSError):
            return await self.reader.read(1 << 18)
        return b""

    async def write(self, data: bytes) -> None:
        with suppress(OSError):
            self.writer.write(data)
            await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()


class _Connection:
    """One connection of a client to a server; to nobody, where it was silent from its start."""

    def __init__(self, proxy: Proxy, is_silent: bool) -> None:
        self.task: asyncio.Task[None]
        self.client: _Side | None = None
        self.server: _Side | None = None
        self.is_silent = is_silent
        self._proxy = proxy
        self._withheld: _Order | None = None  # what the server says now is lost with the connection

    def cut(self) -> None:
        self.task.cancel()
        for side in (self.client, self.server):
            if side is not None:
                side.cut()

    def fall_silent(self) -> None:
        self.is_silent = True

    async def run(self) -> None:
        client, server = self.client, self.server
        assert client
        if server is None:
            await client.reader.read(-1)
            return
        pumps = [asyncio.ensure_future(self._send(client, server)), asyncio.ensure_future(self._answer(client, server))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.is_silent:
                await asyncio.wait(pumps, timeout=FORGOTTEN_SECONDS)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _send(self, client: _Side, server: _Side) -> None:
        requests = Requests()
        late: list[bytes] = []
        order: _Order | None = None
        while data := await client.read():
            for message in requests.feed(data) if not self.is_silent else ():
                if message.decides and self._withheld is None and (order := self._proxy.take_order()):
                    if order.loss == "request":
                        return order.tell()
                    if order.loss == "answer":
                        self._withheld, order = order, None
                if order is None:
                    server.writer.write(message.data)
                    continue
                late.append(message.data)
                if message.asks:
                    return await self._deliver_late(client, server, order, b"".join(late))
            await server.write(b"")
        return None

    async def _deliver_late(self, client: _Side, server: _Side, order: _Order, data: bytes) -> None:
        client.cut()
        order.tell()
        self._withheld = order
        await asyncio.sleep(order.late_seconds)
        await server.write(data)
        await asyncio.sleep(FORGOTTEN_SECONDS)  # the answer ends it

    async def _answer(self, client: _Side, server: _Side) -> None:
        while data := await server.read():
            if self.is_silent:
                continue
            if self._withheld is None:
                await client.write(data)
            elif data[-6:-1] == _READY:
                return self._withheld.tell()
        return None
