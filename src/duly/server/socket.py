"""A WebSocket around a session: it carries out what the session decides, and reports to it what has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, Final

import orjson
from starlette.websockets import WebSocket

from duly.clock import monotonic
from duly.declare.function import ACTION
from duly.errors import StoreError
from duly.limits import (
    CONNECT_MESSAGE_SECONDS,
    SOCKET_MESSAGES_AT_ONCE_MAX,
    SOCKET_MESSAGES_PER_SECOND_MAX,
    TORN_MAX,
)
from duly.logs import REQUEST, Request, log_of
from duly.server.auth.identity import ANYONE, ClientIdentity, IdentityError
from duly.server.calls import Outcome
from duly.server.outbox import Outbox
from duly.server.service import Service
from duly.sync.convex_json import shortened
from duly.sync.effects import (
    CatchUp,
    CheckToken,
    Effect,
    Result,
    RunAction,
    RunMutation,
    Send,
    Unwatch,
    Watch,
)
from duly.sync.protocol import ActionResponse, MutationResponse, Transition
from duly.sync.results import QueryKey
from duly.sync.session import INTERNAL_ERROR, NORMAL, TRY_AGAIN_LATER, Session
from duly.sync.token_bucket import TokenBucket

_log: Final = log_of("duly.server")
_TOO_DEEP: Final = b'{"a":' * 128 + b"0" + b"}" * 128
"""Stands for arguments that are nested too deep to be written as JSON again: they fail in the same way."""


class Connection:
    """One client's connection. Its session decides, and this does it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._session = Session()
        self.outbox = Outbox(on_sent=self._on_sent)
        self._waits_for_reader = False
        """Whether the client has not yet taken what was sent, so that the next Transition waits."""
        self._torn = 0
        """How often in a row the results held at no common timestamp."""
        self._bucket = TokenBucket(SOCKET_MESSAGES_PER_SECOND_MAX, SOCKET_MESSAGES_AT_ONCE_MAX, monotonic())
        self._may_read = asyncio.Event()
        self._connect_timer = asyncio.get_running_loop().call_later(CONNECT_MESSAGE_SECONDS, self._expect_connect)

    # From the socket.

    def receive(self, text: str | bytes) -> None:
        try:
            self.check_token()
            self._session.receive(text)
            self._work()
            if self._session.is_due:
                self.wake()
        except Exception as error:
            self._fail(error)

    def check_token(self) -> None:
        """End the connection if its token has expired, unless the client has logged out or just sent another one."""
        expires_at = _identity(self._session.identity).expires_at
        if expires_at is None or self._session.is_blocked or self._service.clock.now() < expires_at:
            return
        self._session.refused("the token has expired", expired=True)
        self._work()

    async def ready(self) -> None:
        """Wait until the next message may be read. Unread ones wait in the client, and need no memory here."""
        if (seconds := self._bucket.take(monotonic())) > 0:
            await asyncio.sleep(seconds)
        await self._may_read.wait()

    def _expect_connect(self) -> None:
        if self._session.session_id is None:
            self._session.close(TRY_AGAIN_LATER, f"no Connect within {CONNECT_MESSAGE_SECONDS:g} s")
            self._work()

    def disconnected(self) -> None:
        """Nobody listens any more. Mutations and actions that were begun go on."""
        self._connect_timer.cancel()
        self._session.close(NORMAL, "")
        self._work()

    def _on_sent(self) -> None:
        if self._waits_for_reader:
            self._waits_for_reader = False
            self.wake()

    # From the results.

    def query_ran(self, query_id: int, result: Result) -> None:
        self._session.query_ran(query_id, result)

    def query_stale(self, query_id: int, at: int) -> None:
        self._session.query_stale(query_id, at)

    def wake(self) -> None:
        """Let the session send a Transition, once all that has happened up to now was reported to it."""
        self._service.flushes.soon(self)

    def give_up(self) -> None:
        """End the connection, so that the client comes back, here or to another server, and tries again."""
        self._session.close(INTERNAL_ERROR, "InternalServerError")
        self._work()

    def flush(self, version: int) -> None:
        """Let the session send a Transition: all commits up to a version were reported to it."""
        try:
            self._flush(version)
        except Exception as error:
            self._fail(error)

    def _flush(self, version: int) -> None:
        if self.outbox.is_behind:
            self._waits_for_reader = True  # a slow reader gets the newest state instead of each one
            return
        is_torn = self._session.flush(self._service.timestamps.of(version))
        self._work()
        self._torn = self._torn + 1 if is_torn else 0
        if self._torn >= TORN_MAX:
            self._torn = 0
            self._service.results.run_together(self)

    # What the session wants.

    def _work(self) -> None:
        for effect in self._session.take():
            self._do(effect)
        if self._session.may_receive:
            self._may_read.set()
        else:
            self._may_read.clear()

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.outbox.put(self._service.texts.of(effect.message), is_state=type(effect.message) is Transition)
        elif isinstance(effect, Watch):
            self._watch(effect)
        elif isinstance(effect, Unwatch):
            self._service.results.unwatch(self, effect.query_id)
        elif isinstance(effect, RunMutation):
            copy_context().run(self._mutate, effect)
        elif isinstance(effect, RunAction):
            self._service.spawn(self._guarded(self._act(effect)))
        elif isinstance(effect, CatchUp):
            self._service.spawn(self._guarded(self._catch_up(effect.ts)))
        elif isinstance(effect, CheckToken):
            self._service.spawn(self._guarded(self._check(effect)))
        else:
            self.outbox.put(effect)

    def _watch(self, watch: Watch) -> None:
        who, query = _identity(watch.identity), watch.query
        as_json = None if who.identity is None else orjson.dumps(who.identity, option=orjson.OPT_SORT_KEYS).decode()
        try:
            args = shortened(orjson.dumps(query.args, option=orjson.OPT_SORT_KEYS))
        except TypeError:
            args = _TOO_DEEP
        key = QueryKey(query.path, args, as_json, query.journal, who.is_admin)
        self._service.results.watch(self, query.query_id, key, who.identity)

    def _mutate(self, run: RunMutation) -> None:
        self._name_request()

        def on_end(outcome: Outcome | Exception) -> None:
            try:
                self._mutated(run.mutation.request_id, outcome)
            except Exception as error:
                self._fail(error)

        self._service.calls.start_mutation(run, _identity(run.identity), on_end)

    def _mutated(self, request_id: int, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        # What the mutation has committed was published before it returned, so this is its timestamp or a later one.
        ts = self._service.timestamps.now if outcome.failure is None else None
        self._session.mutation_ended(MutationResponse(request_id, outcome.result(), ts, outcome.lines))
        self._work()
        self.wake()

    async def _act(self, run: RunAction) -> None:
        action = run.action
        outcome = await self._service.calls.call(action.path, action.args, _identity(run.identity), (ACTION,))
        self._session.action_ended(ActionResponse(action.request_id, outcome.result(), outcome.lines), action.length)
        self._work()
        self.wake()

    async def _catch_up(self, ts: int) -> None:
        if await self._service.timestamps.catch_up(ts):
            self._session.caught_up()
            self._work()
            self.wake()
        else:
            _log.warning("a client has seen a timestamp that this server does not know: %d", ts)
            self.give_up()

    async def _check(self, check: CheckToken) -> None:
        try:
            who = await self._service.authentication.of_message(check.message)
        except IdentityError as error:
            self._session.refused(str(error))
        else:
            self._session.accepted(who)
        self._work()
        self.wake()

    def _name_request(self) -> None:
        """Let the lines that are logged from here on, in this context, have an id of their own."""
        REQUEST.set(Request(self._service.host.new_request_id(), self._session.session_id))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        self._name_request()
        try:
            await work
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            _log.warning("a client was disconnected, so that it tries again: %s", error)
        else:
            _log.error("a client was disconnected after an error of the server", exc_info=error)
        self.give_up()


def _identity(identity: ClientIdentity | None) -> ClientIdentity:
    return ANYONE if identity is None else identity


async def converse(websocket: WebSocket, service: Service) -> None:
    """Serve a client until one side ends the connection."""
    await websocket.accept()
    connection = Connection(service)
    loop = asyncio.get_running_loop()
    reading = loop.create_task(_read(websocket, connection))
    writing = loop.create_task(connection.outbox.send_all(websocket))
    with service.liveness.watched(connection.outbox, writing, connection.check_token):
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.disconnected()
            reading.cancel()
            writing.cancel()
            await asyncio.wait((reading, writing))


async def _read(websocket: WebSocket, connection: Connection) -> None:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        connection.receive(message["text"] if message.get("text") is not None else message["bytes"])
        await connection.ready()
