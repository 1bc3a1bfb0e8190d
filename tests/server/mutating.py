"""What a client may send, and what random mutations make of it: the same for the same seed.

An input is mild if the server still knows where it ends and has no reason to end the connection: nonsense in arguments,
say. All others are wild.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from tests.server.raw import BINARY, CLOSE, CONTINUATION, FINAL, TEXT

PING, PONG = 0x9, 0xA
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63)),
    *("", "x", "\x00", "é☕", "\U0001f600", "$", "a:b", "../..", "app:put", "x" * 3_000, "\u202e", "None"),
    *([], {}, [[]], [None], [{}] * 9, {"a": {}}, {"": 0}, {"$x": 1}, {"a": 1, "$b": 2}, {"\x7f": 1}, {"_id": "x"}),
    *({"$integer": "AQAAAAAAAAA="}, {"$integer": "x"}, {"$integer": 1}, {"$float": "AAAAAAAA+H8="}),
    *({"$float": "AAAAAAAA8D8="}, {"$bytes": "aGk="}, {"$bytes": "aGk"}, {"$bytes": None}, {"$set": []}),
]
TOKENS = ["NaN", "Infinity", "1e999", '"\\ud800"', "\\u0000", "[" * 300, "{", "}", ",", ":", "\ufeff", "9" * 400, "\\"]
PATHS = {
    "Mutation": [*["app:put"] * 7, "app:refuse", "app:fail"],
    "Action": ["app:act"],
    "Add": ["app:get", "app:get", "app:echo", "app:me", "app:page", "app:secret"],
}
ALL_PATHS = [path for paths in PATHS.values() for path in paths]
ODD_PATHS = [
    "",
    ":",
    "app",
    "app:",
    ":put",
    "app.js:put",
    "app:put:put",
    "a/b/c:d",
    "_system:x",
    "é:☕",
    "x" * 900,
    "\x00",
]
MANGLED = 0.5
"""The share of mild messages whose arguments are mutated; the others are as a client sends them."""


class Input(NamedTuple):
    """What is sent at once."""

    data: bytes
    kind: str
    is_framed: bool = True
    """Whether the server knows where it ends."""
    count: int = 1
    """Of its frames."""


# JSON.


def mutate(rng: Random, json: Any) -> Any:
    """The same with one thing different."""
    if isinstance(json, dict | list) and json and rng.random() < 0.75:
        changed: Any = json.copy()
        key = rng.choice([*json]) if isinstance(json, dict) else rng.randrange(len(json))
        act = rng.random()
        if act < 0.1:
            del changed[key]
        elif act < 0.2 and isinstance(json, dict):
            changed[rng.choice(["x", "$x", "", key + "é", key.upper()])] = changed.pop(key)
        elif act < 0.25 and isinstance(json, list):
            changed *= rng.choice([2, 3, 40])
        else:
            changed[key] = mutate(rng, json[key])
        return changed
    return odd(rng, json)


def odd(rng: Random, value: Any) -> Any:
    act = rng.random()
    if act < 0.1:
        for _ in range(rng.choice([1, 5, 20, 70, 300])):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return rng.choice(ODD) if act < 0.9 else {"a": rng.choice(ODD), "b": [rng.choice(ODD)]}


def mutate_text(rng: Random, text: bytes) -> bytes:
    """The same with some bytes different."""
    changed = bytearray(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(changed) + 1)
        act = rng.random()
        if act < 0.3:
            changed[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        elif act < 0.6:
            changed[at:at] = rng.choice(TOKENS).encode()
        elif act < 0.8:
            changed[at:at] = changed[rng.randrange(len(changed) + 1) : at]
        else:
            del changed[at : at + rng.randint(1, 30)]
    return bytes(changed)


def text_of(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


# Messages over a WebSocket.


class Conversation:
    """The messages of one client, with its numbers. Another client has another `key`, and documents of its own."""

    def __init__(self, rng: Random, key: str, token: str) -> None:
        self.rng, self.key, self.token = rng, key, token
        self.session = str(UUID(int=rng.getrandbits(128), version=4))
        self.query_set = self.identity = self.request = self.query = 0

    def connect(self) -> Any:
        fields = {"connectionCount": self.rng.randrange(2), "lastCloseReason": "InitialConnect", "clientTs": 0}
        seen = {"maxObservedTimestamp": "AQAAAAAAAAA="} if self.rng.random() < 0.2 else {}
        return {"type": "Connect", "sessionId": self.session, **fields, **seen}

    def message(self) -> Any:
        """Any message but the first."""
        act = self.rng.random()
        if act < 0.35:
            return self.modify()
        if act < 0.9:
            return self.call("Mutation" if act < 0.75 else "Action")
        return self.login() if act < 0.96 else {"type": "Event", "eventType": "x", "event": {"a": [1]}}

    def call(self, kind: str) -> Any:
        path, args = self.function(kind)
        self.request += 1
        return {"type": kind, "requestId": self.request - 1, "udfPath": path, "args": [args]}

    def modify(self) -> Any:
        changes: list[Any] = []
        for _ in range(self.rng.randint(0, 3)):
            path, args = self.function("Add")
            changes.append({"type": "Add", "queryId": self.query, "udfPath": path, "args": [args], "journal": None})
            self.query += 1
        if self.query and self.rng.random() < 0.5:
            changes.append({"type": "Remove", "queryId": self.rng.randrange(self.query)})
        base, self.query_set = self.query_set, self.query_set + 1
        return {"type": "ModifyQuerySet", "baseVersion": base, "newVersion": base + 1, "modifications": changes}

    def function(self, kind: str) -> tuple[str, Any]:
        """A function, most probably one for the kind of message, and its arguments."""
        path = self.rng.choice(PATHS[kind] if self.rng.random() < 0.9 else ALL_PATHS)
        value: Any = {"n": self.rng.randrange(9), "list": [1, "x", None], "big": {"$integer": "AQAAAAAAIAA="}}
        name = path.partition(":")[2]
        if name in ("put", "get"):
            return path, {"key": self.key, **({"value": value} if name == "put" else {})}
        if name == "page":
            return path, {"paginationOpts": {"numItems": 2, "cursor": None, "id": 1}}
        return path, {} if name in ("me", "fail", "secret") else {"value": value}

    def login(self) -> Any:
        base, self.identity = self.identity, self.identity + 1
        kind, value = self.rng.choice([("User", self.token), ("Admin", "key"), ("None", "")])
        acting = {"impersonating": {"issuer": "x", "subject": "y"}} if self.rng.random() < 0.3 else {}
        return {"type": "Authenticate", "baseVersion": base, "tokenType": kind, "value": value, **acting}

    # Inputs.

    def mild(self) -> Input:
        """A message that ends no connection: nonsense is only where functions, and no protocol, look at it."""
        message = self.message()
        if self.rng.random() < MANGLED:
            for call in (message, *message.get("modifications", ())):
                if "args" in call:
                    call["args"] = [mutate(self.rng, call["args"][0])]
                    if self.rng.random() < 0.2:
                        call["udfPath"] = self.rng.choice(ODD_PATHS)
                elif "event" in call:
                    call["event"] = mutate(self.rng, call["event"])
            message["more"] = odd(self.rng, 1)
        sent = text_of(message)
        if self.rng.random() < 0.5:
            return Input(frame(self.rng, FINAL | TEXT, sent), "mild")
        frames = list(fragments(self.rng, sent))
        return Input(b"".join(frames), "mild", count=len(frames))

    def wild(self) -> Input:
        message = self.connect() if self.rng.random() < 0.1 else self.message()
        return self.rng.choice(_WILD)(self.rng, message)


def frame(rng: Random, head: int, payload: bytes = b"", length: int | None = None, form: int = 0) -> bytes:
    """A frame with a mask. `length` is what it claims to have; `form` is the least number that its size is below."""
    size, mask = len(payload) if length is None else length, rng.randbytes(4)
    if max(size, form) < 126:
        sizes = bytes([0x80 | size])
    else:
        sizes = b"\xfe" + struct.pack("!H", size) if max(size, form) < 1 << 16 else b"\xff" + struct.pack("!Q", size)
    return bytes([head]) + sizes + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(payload) ^ key).to_bytes(size)


def fragments(rng: Random, payload: bytes) -> Iterator[bytes]:
    """A message in several frames, with pings between them."""
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randint(1, 4)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    for n, part in enumerate(parts):
        final = FINAL if n == len(parts) - 1 else 0
        yield frame(rng, final | (CONTINUATION if n else TEXT), part)
        if rng.random() < 0.3 and not final:
            yield frame(rng, FINAL | rng.choice([PING, PONG]), rng.randbytes(rng.randrange(126)))


def _field(rng: Random, message: Any) -> Input:
    return Input(frame(rng, FINAL | TEXT, text_of(mutate(rng, message))), "field")


def _other_json(rng: Random, message: Any) -> Input:
    return Input(frame(rng, FINAL | TEXT, text_of(odd(rng, message))), "other JSON")


def _text(rng: Random, message: Any) -> Input:
    return Input(frame(rng, FINAL | rng.choice([TEXT, BINARY]), mutate_text(rng, text_of(message))), "text")


def _fragments(rng: Random, message: Any) -> Input:
    parts = list(fragments(rng, text_of(message)))
    rng.choice([lambda: rng.shuffle(parts), parts.pop, parts.reverse, lambda: parts.extend(parts)])()
    return Input(b"".join(parts), "fragments", count=len(parts))


def _head(rng: Random, message: Any) -> Input:
    return Input(frame(rng, rng.randrange(256), text_of(message)), "head")


def _control(rng: Random, message: Any) -> Input:
    head, size = rng.choice([FINAL, 0]) | rng.choice([CLOSE, PING, PONG]), rng.choice([0, 1, 2, 3, 125, 126, 300])
    codes = [0, 999, 1000, 1001, 1004, 1005, 1006, 1012, 1015, 2999, 3000, 4999, 5000, 65535]
    return Input(frame(rng, head, (struct.pack("!H", rng.choice(codes)) + rng.randbytes(size))[:size]), "control")


def _unmasked(rng: Random, message: Any) -> Input:
    return Input(bytes([FINAL | TEXT, 5]) + b"hello", "no mask")


def _length(rng: Random, message: Any) -> Input:
    sent = text_of(message)
    length = rng.choice([0, 1, len(sent) - 1, len(sent) + 1, 1 << 15, 17 << 20, 1 << 40, (1 << 63) - 1, 1 << 63])
    return Input(frame(rng, FINAL | TEXT, sent, length, rng.choice([0, 126, 1 << 16])), "length", is_framed=False)


def _bytes(rng: Random, message: Any) -> Input:
    return Input(mutate_text(rng, frame(rng, FINAL | TEXT, text_of(message))), "bytes", is_framed=False)


def _truncated(rng: Random, message: Any) -> Input:
    sent = frame(rng, FINAL | TEXT, text_of(message))
    return Input(sent[: rng.randrange(len(sent))], "truncated", is_framed=False)


def _noise(rng: Random, message: Any) -> Input:
    return Input(rng.randbytes(rng.choice([1, 2, 14, 200, 5_000])), "noise", is_framed=False)


_WILD: list[Callable[[Random, Any], Input]] = [
    *(_field, _field, _field, _field, _other_json, _text, _text, _fragments, _head),
    *(_control, _unmasked, _length, _bytes, _bytes, _truncated, _noise),
]
