"""What one client is sent: in order, and as fast as it takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from duly.clock import monotonic
from duly.limits import LIVENESS_CHECK_SECONDS, PING_SECONDS, READER_SLOW_SECONDS
from duly.sync.effects import Close
from duly.sync.protocol import Ping, ServerMessage, Transition, dumps

_PING: Final = dumps(Ping())


class Outbox:
    """The messages to one client. `on_sent` is called whenever all of them were sent."""

    def __init__(self, on_sent: Callable[[], None]) -> None:
        self._on_sent = on_sent
        self._outputs: deque[str | Close] = deque()
        self._has_outputs = asyncio.Event()
        self.busy_since: float | None = None
        """Since when the client has not taken a message, by `monotonic`; None if it has taken all."""
        self.silent_since = monotonic()
        self._has_state = False
        """Whether a message that tells the client of a new state was put and has not been sent."""

    @property
    def is_sending(self) -> bool:
        return bool(self._outputs) or self.busy_since is not None

    @property
    def is_behind(self) -> bool:
        """Whether the client is to take something before it is told of a newer state."""
        return self._has_state or self.busy_since is not None

    def put(self, output: str | Close, is_state: bool = False) -> None:
        self._has_state = self._has_state or is_state
        self._outputs.append(output)
        self._has_outputs.set()

    async def send_all(self, websocket: WebSocket) -> None:
        """Send until the connection ends, or this is cancelled."""
        outputs = self._outputs
        try:
            while True:
                await self._has_outputs.wait()
                self._has_outputs.clear()
                while outputs:
                    output = outputs.popleft()
                    self.busy_since = self.silent_since = monotonic()
                    if isinstance(output, Close):
                        await websocket.close(output.code, output.reason)
                        return
                    await websocket.send({"type": "websocket.send", "text": output})
                self.busy_since, self._has_state = None, False
                self._on_sent()
        except (WebSocketDisconnect, OSError, RuntimeError):
            pass  # the client is gone


class Liveness:
    """Sends something to clients that have not been sent anything for a while, and drops those that take nothing, or
    whose tokens have expired.

    One task looks after all connections: a timer for each message would cost more than the message.
    """

    def __init__(self) -> None:
        self._watched: dict[Outbox, tuple[asyncio.Task[None], Callable[[], None]]] = {}
        self._watch_task: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self, outbox: Outbox, sending: asyncio.Task[None], check_token: Callable[[], None]) -> Generator[None]:
        """Watch a connection while the context lasts. `sending` is cancelled if its client takes nothing."""
        self._watched[outbox] = sending, check_token
        self._start_or_stop()
        try:
            yield
        finally:
            del self._watched[outbox]
            self._start_or_stop()

    def _start_or_stop(self) -> None:
        if self._watched and self._watch_task is None:
            self._watch_task = asyncio.get_running_loop().create_task(self._watch())
        elif not self._watched and self._watch_task is not None:
            self._watch_task.cancel()
            self._watch_task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LIVENESS_CHECK_SECONDS)
            self.check(monotonic())

    def check(self, now: float) -> None:
        for outbox, (sending, check_token) in self._watched.items():
            check_token()
            if outbox.busy_since is not None and now - outbox.busy_since > READER_SLOW_SECONDS:
                sending.cancel()
            elif not outbox.is_sending and now - outbox.silent_since > PING_SECONDS:
                outbox.put(_PING)


class Texts:
    """The JSON of messages. Clients that watch the same get the same Transition, and its text is made once."""

    def __init__(self) -> None:
        self._last: ServerMessage | None = None
        self._text = ""

    def of(self, message: ServerMessage) -> str:
        if type(message) is not Transition:
            return dumps(message)
        if message != self._last:
            self._last, self._text = message, dumps(message)
        return self._text
