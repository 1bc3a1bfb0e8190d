"""A WebSocket around a session: it carries out what the session decides, and reports to it what has happened."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from duly.declare.function import ACTION, MUTATION
from duly.errors import StoreError
from duly.limits import PING_SECONDS, READER_SLOW_SECONDS, TORN_MAX
from duly.logs import log_of
from duly.model.client_requests import RequestKey
from duly.server import identity
from duly.server.identity import ANYONE, ClientIdentity, IdentityError
from duly.server.service import Service
from duly.sync.effects import (
    CatchUp,
    CheckToken,
    Close,
    Effect,
    Result,
    RunAction,
    RunMutation,
    Send,
    Unwatch,
    Watch,
)
from duly.sync.protocol import ActionResponse, MutationResponse, Ping, dumps
from duly.sync.results import QueryKey
from duly.sync.session import INTERNAL_ERROR, NORMAL, Session

_log: Final = log_of("duly.server")
_PING: Final = dumps(Ping())


class Connection:
    """One client's connection. Its session decides, and this does it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._session = Session()
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[str | Close] = deque()
        self._has_output = asyncio.Event()
        self._flushes = False
        """Whether the session is going to be flushed in a moment."""
        self._torn = 0
        """How often in a row the results held at no common timestamp."""

    # From the socket.

    def receive(self, text: str | bytes) -> None:
        self._session.receive(text)
        self._work()
        self.wake()

    def disconnected(self) -> None:
        """Nobody listens any more. Mutations and actions that were begun go on."""
        self._session.close(NORMAL, "")
        self._work()

    async def next_output(self) -> str | Close | None:
        """Return what is to be sent next; None if there was nothing for a while."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._has_output.wait()
        except TimeoutError:
            return None
        output = self._outbox.popleft()
        if not self._outbox:
            self._has_output.clear()
        return output

    def on_sent(self) -> None:
        """All that was to be sent was sent."""
        if not self._outbox:
            self.wake()

    # From the results.

    def query_ran(self, query_id: int, result: Result) -> None:
        self._session.query_ran(query_id, result)

    def query_stale(self, query_id: int, at: int) -> None:
        self._session.query_stale(query_id, at)

    def wake(self) -> None:
        """Let the session send a Transition, once all that has happened up to now was reported to it.

        A commit is published in the event loop, and what it woke is called soon. So what is called soon from here on
        comes after the reports of all commits that are known here and now.
        """
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush, self._service.results.settle())

    def _flush(self, version: int) -> None:
        self._flushes = False
        if self._outbox:
            return  # a slow reader: `on_sent` wakes this, and then it gets the newest state instead of each one
        self._session.flush(self._service.timestamps.of(version))
        self._work()
        self._torn = self._torn + 1 if self._session.is_torn else 0
        if self._torn >= TORN_MAX:
            self._torn = 0
            self._service.results.run_together(self)

    # What the session wants.

    def _work(self) -> None:
        for effect in self._session.take():
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._put(dumps(effect.message))
        elif isinstance(effect, Watch):
            self._watch(effect)
        elif isinstance(effect, Unwatch):
            self._service.results.unwatch(self, effect.query_id)
        elif isinstance(effect, RunMutation):
            self._service.spawn(self._guarded(self._mutate(effect)))
        elif isinstance(effect, RunAction):
            self._service.spawn(self._guarded(self._act(effect)))
        elif isinstance(effect, CatchUp):
            self._service.spawn(self._guarded(self._catch_up(effect.ts)))
        elif isinstance(effect, CheckToken):
            self._check(effect)
        else:
            self._put(effect)

    def _put(self, output: str | Close) -> None:
        self._outbox.append(output)
        self._has_output.set()

    def _watch(self, watch: Watch) -> None:
        who, query = _identity(watch.identity), watch.query
        as_json = None if who.identity is None else orjson.dumps(who.identity, option=orjson.OPT_SORT_KEYS).decode()
        args = orjson.dumps(query.args, option=orjson.OPT_SORT_KEYS)
        key = QueryKey(query.path, args, as_json, query.journal, who.is_admin)
        self._service.results.watch(self, query.query_id, key, who.identity)

    async def _mutate(self, run: RunMutation) -> None:
        mutation, key = run.mutation, RequestKey(run.session_id, run.mutation.request_id)
        who = _identity(run.identity)
        outcome = await self._service.calls.call(mutation.path, mutation.args, who, (MUTATION,), key)
        # What the mutation has committed was published before it returned, so this is its timestamp or a later one.
        ts = self._service.timestamps.now if outcome.failure is None else None
        self._session.mutation_ended(MutationResponse(mutation.request_id, outcome.result(), ts, outcome.lines))
        self._work()
        self.wake()

    async def _act(self, run: RunAction) -> None:
        action = run.action
        outcome = await self._service.calls.call(action.path, action.args, _identity(run.identity), (ACTION,))
        self._session.action_ended(ActionResponse(action.request_id, outcome.result(), outcome.lines))
        self._work()
        self.wake()

    async def _catch_up(self, ts: int) -> None:
        if await self._service.timestamps.catch_up(ts):
            self._session.caught_up()
            self._work()
            self.wake()
        else:
            _log.warning("a client has seen a timestamp that this server does not know: %d", ts)
            self._session.close(INTERNAL_ERROR, "InternalServerError")
            self._work()

    def _check(self, check: CheckToken) -> None:
        try:
            self._session.accepted(identity.of_message(check.message))
        except IdentityError as error:
            self._session.refused(str(error))
        self._work()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work. If it fails, let the client come back, here or to another server, and try again."""
        try:
            await work
        except Exception as error:
            if isinstance(error, StoreError):
                _log.warning("a client was disconnected, so that it tries again: %s", error)
            else:
                _log.exception("a client was disconnected after an error of the server")
            self._session.close(INTERNAL_ERROR, "InternalServerError")
            self._work()


def _identity(identity: ClientIdentity | None) -> ClientIdentity:
    return ANYONE if identity is None else identity


async def converse(websocket: WebSocket, service: Service) -> None:
    """Serve a client until one side ends the connection."""
    await websocket.accept()
    connection = Connection(service)
    writer = asyncio.get_running_loop().create_task(_write(websocket, connection))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect" or writer.done():
                break
            text: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
            connection.receive(text)
    finally:
        connection.disconnected()
        writer.cancel()
        await asyncio.wait((writer,))


async def _write(websocket: WebSocket, connection: Connection) -> None:
    try:
        while True:
            output = await connection.next_output()
            async with asyncio.timeout(READER_SLOW_SECONDS):
                if isinstance(output, Close):
                    await websocket.close(output.code, output.reason)
                    return
                await websocket.send_text(_PING if output is None else output)
            connection.on_sent()
    except (TimeoutError, WebSocketDisconnect, OSError, RuntimeError):
        connection.disconnected()  # it takes nothing, or is gone
