"""WebSockets that cost the measuring process little, so that it measures the server and not itself."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast
from uuid import UUID

OnMessage = Callable[[bytes, float], None]
"""It is given the text of a message, and `perf_counter` at the arrival of its last bytes."""


class RawSocket(asyncio.Protocol):
    """One client's WebSocket: it cuts frames apart and reports them. It answers no pings: a run ends before that."""

    def __init__(self, host: str, path: str) -> None:
        self.on_message: OnMessage = lambda text, at: None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host, self._path = host, path
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        transport.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        at = perf_counter()
        self._data = data = self._data + data if self._data else data
        if not self.opened.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.opened.set_exception(ConnectionError(head.decode()))
                return
            self.opened.set_result(None)
        start = 0
        while (frame := _frame_at(data, start)) is not None:
            opcode, begin, end = frame
            start = end
            if opcode == 1:
                self.on_message(data[begin:end], at)
        self._data = data[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("closed before it was open"))

    def send(self, **message: Any) -> None:
        text = json.dumps(message).encode()
        size = len(text)
        head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
        self._transport.write(head + bytes(4) + text)  # a mask of zeros leaves it as it is

    def close(self) -> None:
        self._transport.abort()


def _frame_at(data: bytes, start: int) -> tuple[int, int, int] | None:
    """The opcode of the frame at an offset, and where its payload begins and ends; None if it is not whole yet."""
    if len(data) < start + 2:
        return None
    size, begin = data[start + 1], start + 2
    if size == 126:
        begin += 2
    elif size == 127:
        begin += 8
    if len(data) < begin:
        return None
    if size > 125:
        size = int.from_bytes(data[start + 2 : begin])
    return (data[start] & 15, begin, begin + size) if len(data) >= begin + size else None


async def connect(host: str, port: int, path: str) -> RawSocket:
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: RawSocket(f"{host}:{port}", path), host, port)
    await socket.opened
    return socket


async def connect_client(host: str, port: int, number: int) -> RawSocket:
    """Connect as a client of duly does."""
    socket = await connect(host, port, "/api/1.48.0/sync")
    session = str(UUID(int=number + (4 << 76) + (8 << 60), version=4))
    socket.send(type="Connect", sessionId=session, connectionCount=0, lastCloseReason="InitialConnect", clientTs=0)
    return socket
