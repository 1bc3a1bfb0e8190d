"""The messages between a client and the server, as objects, and their JSON.

`parse` reads what a client sends, `dumps` writes what it gets. Arguments stay parsed JSON until their function is
called: arguments that are no values fail that call, not the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

import orjson

from duly.errors import DulyError
from duly.sync.convex_json import EXACT_MAX, EncodingError, decode_ts, encode_ts
from duly.values.plain import UNSET

Json = Mapping[str, Any]


class ProtocolError(DulyError):
    """A client sent what no client should send. It can only be disconnected."""


# From the client.


@dataclass(frozen=True, slots=True)
class Connect:
    """The first message of each connection."""

    session_id: str
    """A UUID: that of a JavaScript client's whole life, or that of one connection of a Python client."""
    connection_count: int = 0
    last_close_reason: str | None = None
    max_observed_ts: int = 0
    """The latest timestamp it has got, from any server: it must not get an earlier one."""


@dataclass(frozen=True, slots=True)
class Add:
    """Subscribe to a query."""

    query_id: int
    path: str
    args: object
    journal: str | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Unsubscribe."""

    query_id: int


@dataclass(frozen=True, slots=True)
class ModifyQuerySet:
    base_version: int
    new_version: int
    modifications: tuple[Add | Remove, ...] = ()


@dataclass(frozen=True, slots=True)
class Mutation:
    request_id: int
    path: str
    args: object
    length: int = field(default=0, compare=False)
    """Of its message."""


@dataclass(frozen=True, slots=True)
class Action:
    request_id: int
    path: str
    args: object
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Authenticate:
    base_version: int
    token_type: str
    """User, Admin or None: the last one logs out."""
    value: str = ""
    acting_as: Json | None = None
    """Whom an administrator wants to be."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a client reports of itself; it needs no answer."""


ClientMessage = Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event


def parse(text: str | bytes) -> ClientMessage:
    """Return a message of a client. Raises ProtocolError."""
    try:
        json: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"got a message that is no JSON ({error})") from None
    if not isinstance(json, dict):
        raise ProtocolError(f"got {_short(json)} as a message, expected an object")
    message = _Fields(cast("Json", json), len(text))
    kind = message.text("type")
    reader = _READERS.get(kind)
    if reader is None:
        raise ProtocolError(f"got a message of the type {kind!r:.80}, expected one of {', '.join(_READERS)}")
    return reader(message)


class _Fields:
    """The fields of one message. Unknown ones are ignored: newer clients may send more."""

    def __init__(self, json: Json, length: int = 0) -> None:
        self._json = json
        self.length = length

    def text(self, name: str) -> str:
        value = self._json.get(name)
        if not isinstance(value, str):
            raise self.error(name, "a text")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._json.get(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        value = self._json.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= EXACT_MAX:
            raise self.error(name, "a whole number from 0 on")
        return value

    def args(self) -> object:
        """Return the one object of arguments. (`args` is a list for functions with several, which no client has.)"""
        value: object = self._json.get("args")
        if isinstance(value, list) and len(cast("list[object]", value)) == 1:
            return cast("list[object]", value)[0]
        raise self.error("args", "a list of one object")

    def ts(self, name: str) -> int:
        try:
            return 0 if self._json.get(name) is None else decode_ts(self._json[name])
        except EncodingError as error:
            raise ProtocolError(f"{self._json.get('type')}: {error}") from None

    def uuid(self, name: str) -> str:
        try:
            return str(UUID(self.text(name)))
        except ValueError:
            raise self.error(name, "a UUID") from None

    def objects(self, name: str) -> list[_Fields]:
        value: object = self._json.get(name)
        if isinstance(value, list) and all(isinstance(item, dict) for item in cast("list[object]", value)):
            return [_Fields(item) for item in cast("list[Json]", value)]
        raise self.error(name, "a list of objects")

    def optional_object(self, *names: str) -> Json | None:
        for name in names:
            value: object = self._json.get(name)
            if isinstance(value, dict):
                return cast("Json", value)
            if value is not None:
                raise self.error(name, "an object")
        return None

    def refuse_component(self) -> None:
        if self._json.get("componentPath"):
            raise self.error("componentPath", "none: this server has no components")

    def error(self, name: str, expected: str) -> ProtocolError:
        return ProtocolError(
            f"{_short(self._json.get('type'))}: got {_short(self._json.get(name))} for {name!r}, expected {expected}"
        )


def _connect(message: _Fields) -> Connect:
    return Connect(
        message.uuid("sessionId"),
        message.whole("connectionCount"),
        message.optional_text("lastCloseReason"),
        message.ts("maxObservedTimestamp"),
    )


def _modify_query_set(message: _Fields) -> ModifyQuerySet:
    modifications = tuple(map(_modification, message.objects("modifications")))
    return ModifyQuerySet(message.whole("baseVersion"), message.whole("newVersion"), modifications)


def _modification(message: _Fields) -> Add | Remove:
    kind = message.text("type")
    if kind == "Remove":
        return Remove(message.whole("queryId"))
    if kind != "Add":
        raise message.error("type", "Add or Remove")
    message.refuse_component()
    return Add(message.whole("queryId"), message.text("udfPath"), message.args(), message.optional_text("journal"))


def _mutation(message: _Fields) -> Mutation:
    message.refuse_component()
    return Mutation(message.whole("requestId"), message.text("udfPath"), message.args(), message.length)


def _action(message: _Fields) -> Action:
    message.refuse_component()
    return Action(message.whole("requestId"), message.text("udfPath"), message.args(), message.length)


def _authenticate(message: _Fields) -> Authenticate:
    base, kind = message.whole("baseVersion"), message.text("tokenType")
    if kind == "None":
        return Authenticate(base, kind)
    if kind not in ("User", "Admin"):
        raise message.error("tokenType", "User, Admin or None")
    acting_as = message.optional_object("impersonating", "acting_as") if kind == "Admin" else None
    return Authenticate(base, kind, message.text("value"), acting_as)


_READERS: Final[dict[str, Callable[[_Fields], ClientMessage]]] = {
    "Connect": _connect,
    "ModifyQuerySet": _modify_query_set,
    "Mutation": _mutation,
    "Action": _action,
    "Authenticate": _authenticate,
    "Event": lambda _: Event(),
}


# To the client. Values are JSON already: that of a query is made once for all who watch it.


@dataclass(frozen=True, slots=True)
class StateVersion:
    """What a client has been brought up to."""

    query_set: int = 0
    identity: int = 0
    ts: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """How a function failed, as a client may know it."""

    message: str
    data: object = UNSET
    """The data of an AppError, as JSON (`bytes`); UNSET for other errors. None is data, too."""


@dataclass(frozen=True, slots=True)
class QueryUpdated:
    query_id: int
    value: bytes
    lines: tuple[str, ...] = ()
    journal: str | None = None


@dataclass(frozen=True, slots=True)
class QueryFailed:
    query_id: int
    failure: Failure
    lines: tuple[str, ...] = ()
    journal: str | None = None


@dataclass(frozen=True, slots=True)
class QueryRemoved:
    query_id: int


Modification = QueryUpdated | QueryFailed | QueryRemoved


@dataclass(frozen=True, slots=True)
class Transition:
    """The client's whole state moves from one version to another."""

    start: StateVersion
    end: StateVersion
    modifications: tuple[Modification, ...] = ()


@dataclass(frozen=True, slots=True)
class MutationResponse:
    request_id: int
    result: bytes | Failure
    ts: int | None
    """When it was committed; None if it failed."""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionResponse:
    request_id: int
    result: bytes | Failure
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ping:
    """Something to hear, for clients that take a silent server for a dead one."""


@dataclass(frozen=True, slots=True)
class AuthError:
    error: str
    base_version: int
    update_attempted: bool
    """True: the token that was just sent is refused. False: the one in force has expired."""


@dataclass(frozen=True, slots=True)
class FatalError:
    """The client is at fault, and must not come back."""

    error: str


ServerMessage = Transition | MutationResponse | ActionResponse | Ping | AuthError | FatalError


def dumps(message: ServerMessage) -> str:
    """Return the JSON of a message to a client."""
    return orjson.dumps(_WRITERS[type(message)](message)).decode()


def _transition(message: Transition) -> Json:
    return {
        "type": "Transition",
        "startVersion": _version(message.start),
        "endVersion": _version(message.end),
        "modifications": [_WRITERS[type(one)](one) for one in message.modifications],
    }


def _version(version: StateVersion) -> Json:
    return {"querySet": version.query_set, "identity": version.identity, "ts": encode_ts(version.ts)}


def _query_updated(message: QueryUpdated) -> Json:
    head = {"type": "QueryUpdated", "queryId": message.query_id, "value": orjson.Fragment(message.value)}
    return {**head, "logLines": message.lines, "journal": message.journal}


def _query_failed(message: QueryFailed) -> Json:
    head = {"type": "QueryFailed", "queryId": message.query_id, "errorMessage": message.failure.message}
    return {**head, "logLines": message.lines, "journal": message.journal, **data_of(message.failure)}


def _response(kind: str, message: MutationResponse | ActionResponse) -> dict[str, Any]:
    result, head = message.result, {"type": kind, "requestId": message.request_id, "logLines": message.lines}
    if isinstance(result, Failure):
        return {**head, "success": False, "result": result.message, **data_of(result)}
    return {**head, "success": True, "result": orjson.Fragment(result)}


def data_of(failure: Failure) -> Json:
    """Return the data of an error as a field; none if it has none, for that is how clients tell an AppError."""
    return {} if failure.data is UNSET else {"errorData": orjson.Fragment(cast("bytes", failure.data))}


def _mutation_response(message: MutationResponse) -> Json:
    ts = None if message.ts is None else encode_ts(message.ts)
    return {**_response("MutationResponse", message), "ts": ts}


def _auth_error(message: AuthError) -> Json:
    head = {"type": "AuthError", "error": message.error, "baseVersion": message.base_version}
    return {**head, "authUpdateAttempted": message.update_attempted}


_WRITERS: Final[dict[type, Callable[[Any], Json]]] = {
    Transition: _transition,
    QueryUpdated: _query_updated,
    QueryFailed: _query_failed,
    QueryRemoved: lambda message: {"type": "QueryRemoved", "queryId": message.query_id},
    MutationResponse: _mutation_response,
    ActionResponse: lambda message: _response("ActionResponse", message),
    Ping: lambda _: {"type": "Ping"},
    AuthError: _auth_error,
    FatalError: lambda message: {"type": "FatalError", "error": message.error},
}


def _short(value: object) -> str:
    return f"{value!r:.80}"
