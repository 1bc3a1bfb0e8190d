"""A WebSocket written byte by byte, for frames that no library sends."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, CONTINUATION, FINAL, COMPRESSED = 0x1, 0x2, 0x8, 0x0, 0x80, 0x40
_HANDSHAKE = (
    "GET /api/1.48.0/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def frame(head: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame of a client, whose mask is zero. `length` is what it claims to have."""
    size = len(payload) if length is None else length
    if size < 126:
        sizes = bytes([0x80 | size])
    elif size < 1 << 16:
        sizes = b"\xfe" + struct.pack("!H", size)
    else:
        sizes = b"\xff" + struct.pack("!Q", size)
    return bytes([head]) + sizes + b"\0\0\0\0" + payload


def text(**message: Any) -> bytes:
    return frame(FINAL | TEXT, json.dumps(message).encode())


class RawConnection:
    """A TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """What comes until the server closes it."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def upgrade(self) -> None:
        """Make it a WebSocket."""
        await self.send(_HANDSHAKE.encode())
        assert b" 101 " in await self.reader.readuntil(b"\r\n\r\n")

    async def closed(self) -> int:
        """The code with which the server closes the WebSocket."""
        async with asyncio.timeout(20):
            while True:
                head, size = await self.reader.readexactly(2)
                if size >= 126:
                    size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
                payload = await self.reader.readexactly(size)
                if head == FINAL | CLOSE:
                    return int.from_bytes(payload[:2])


@asynccontextmanager
async def connected(address: str) -> AsyncGenerator[RawConnection]:
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
