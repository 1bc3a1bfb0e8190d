"""The protocols of uvicorn, with what it does not have: limits for clients that are slow on purpose, or cut their
messages into too many pieces, and answers to bytes that are no requests and no messages."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.server import ServerProtocol
from websockets.typing import BytesLike

from duly.limits import (
    FRAME_BYTES_MAX,
    READER_SLOW_SECONDS,
    REQUEST_HEAD_SECONDS,
    SHORT_MESSAGE_BYTES,
    SHORT_MESSAGES_AHEAD_MAX,
    SOCKET_FRAGMENTS_MAX,
)

_NOT_TEXT: Final = 1007
_TOO_BIG: Final = 1009
_BAD_REQUEST: Final = b'{"code":"BadRequest","message":"got bytes that are no HTTP request"}'
_BAD_HANDSHAKE: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
) % (len(_BAD_REQUEST), _BAD_REQUEST)


class HttpConnection(H11Protocol):
    """A connection that is closed if the head of a request takes too long, or if the client reads nothing.

    `cycle` is the last request of which the head has arrived; None before the first.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(REQUEST_HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        last = self.cycle
        super().data_received(data)
        if self.cycle is not last or self not in self.connections:  # a head has come, perhaps of a WebSocket
            self._cancel_head_timer()
        elif self._head_timer is None and last.response_complete:  # a first head has a timer
            self._head_timer = self.loop.call_later(REQUEST_HEAD_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """End the connection: with an answer, unless there is one to the request that has just gone wrong."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None:  # who reads the body learns that no more of it comes, and answers nothing
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = [("content-type", "application/json"), ("content-length", str(len(_BAD_REQUEST)))]
            answer = h11.Response(status_code=400, headers=[*head, ("connection", "close")], reason="Bad Request")
            for event in (answer, h11.Data(data=_BAD_REQUEST), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(READER_SLOW_SECONDS, self._check_reader)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_reader_timer()

    def _check_reader(self) -> None:
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if self._unsent >= before:
            self.transport.abort()
        else:
            self._reader_timer = self.loop.call_later(READER_SLOW_SECONDS, self._check_reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_reader_timer()
        super().connection_lost(exc)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None


class _Together:
    """A transport that writes what comes in one moment together: the answer of a mutation and its Transition."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def _flush(self) -> None:
        if self._pending:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Frames(ServerProtocol):
    """Sends a large message as several frames: the Python client takes larger ones for an error, and reconnects."""

    def send_text(self, data: BytesLike, fin: bool = True) -> None:
        if len(data) <= FRAME_BYTES_MAX:
            super().send_text(data, fin)
            return
        super().send_text(data[:FRAME_BYTES_MAX], fin=False)
        for start in range(FRAME_BYTES_MAX, len(data), FRAME_BYTES_MAX):
            is_last = start + FRAME_BYTES_MAX >= len(data)
            self.send_continuation(data[start : start + FRAME_BYTES_MAX], fin=is_last)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket that is closed if a message has too many fragments: each costs more memory than its bytes.

    It is read on while a few short messages wait. uvicorn would not read it until the application has taken each one;
    to stop and to begin again is a seventh of what a mutation costs.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.conn = _Frames(max_size=config.ws_max_size, logger=self.logger)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Together(self.transport, self.loop))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # the head was a request for h11, and is none for websockets
            self.transport.write(_BAD_HANDSHAKE)
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = [data]
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(data):
            self.conn.fail(_NOT_TEXT, "no UTF-8")
            self.handle_parser_exception()
            return
        is_ahead = len(data) < SHORT_MESSAGE_BYTES and self.queue.qsize() < SHORT_MESSAGES_AHEAD_MAX
        if is_ahead and not self.read_paused:
            self.read_paused = True  # so that it is not paused now
            super().send_receive_event_to_app()
            self.read_paused = False
        else:
            super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < SOCKET_FRAGMENTS_MAX:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(_TOO_BIG, f"more than {SOCKET_FRAGMENTS_MAX} fragments (SOCKET_FRAGMENTS_MAX)")
            self.handle_parser_exception()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
