"""Requests over HTTP, and what random mutations make of them: the same for the same seed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote

from tests.server.mutating import MANGLED, Conversation, Input, mutate, mutate_text, odd, text_of

FORMATS = ["json", "convex_encoded_json", "export_json", "convex_clean_json", "nothing", 7, None]
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_KINDS = ["query", "query", "mutation", "mutation", "action", "function", "query_at_ts", "query_batch", "run", "get"]
_OTHERS = [
    *("POST /api/query_ts", "POST /api/debug_event", "GET /version", "GET /", "GET /healthz", "GET /instance_name"),
    *("POST /http/echo", "GET /http/files/a/b", "PUT /http/echo", "DELETE /api/query", "OPTIONS /api/query"),
    *("GET /api/1.48.0/sync", "POST /api/nothing", "PATCH /", "GET /%FF%00%2e%2e/%C3%A9", "GET //", "FOO /api/query"),
]


class Requests:
    """The requests of one client."""

    def __init__(self, rng: Random, key: str, token: str) -> None:
        self.rng, self.token = rng, token
        self._calls = Conversation(rng, key, token)

    def mild(self) -> Input:
        """A request that is answered, and another one may follow."""
        if self.rng.random() < 0.15:
            return self._request(self.rng.choice(_OTHERS), b"x" if self.rng.random() < 0.5 else b"")
        kind = self.rng.choice(_KINDS)
        body = self._body(kind)
        if kind == "get":
            args = json.dumps(body["args"]) if self.rng.random() < MANGLED else str(odd(self.rng, body["args"]))
            return self._request(f"GET /api/query?path={quote(body['path'])}&args={quote(args)}", b"")
        path = "/api/run/app/put" if kind == "run" else f"/api/{kind}"
        if self.rng.random() > MANGLED:
            return self._request(f"POST {path}", text_of(body))
        mutated = mutate(self.rng, body) if self.rng.random() < 0.7 else None
        return self._request(
            f"POST {path}", mutate_text(self.rng, text_of(body)) if mutated is None else text_of(mutated)
        )

    def _body(self, kind: str) -> Any:
        name = {"mutation": "Mutation", "run": "Mutation", "action": "Action"}.get(kind, "Add")
        path, args = self._calls.function(name)
        call = {"path": path, "args": args, "format": self.rng.choice(FORMATS)}
        if kind == "query_batch":
            return {"queries": [call] * self.rng.randrange(3)}
        return {**call, "ts": "AQAAAAAAAAA="} if kind == "query_at_ts" else call

    def _request(self, line: str, body: bytes) -> Input:
        lines = [line.encode() + b" HTTP/1.1", b"Host: x", *self._headers()]
        if body and self.rng.random() < 0.2:
            cut = self.rng.randrange(1, len(body) + 1)
            parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
            return Input(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", parts + b"0\r\n\r\n"]), line)
        return Input(b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body]), line)

    def _headers(self) -> list[bytes]:
        rng = self.rng
        identity = base64.b64encode(text_of(mutate(rng, {"issuer": "x", "subject": "y"})))
        values = [
            b"Authorization: Bearer " + self.token.encode(),
            b"Authorization: Bearer " + mutate_token(rng, self.token),
            b"Authorization: Convex key",
            b"Authorization: Convex prod:x|key:" + identity,
            b"Authorization: " + rng.randbytes(9).hex().encode(),
            b"Origin: https://shop.example",
            b"Origin: \xff\xe9",
            b"Convex-Client: npm-1.48.0",
            b"Content-Type: application/json; charset=utf-16",
            b"X: " + b"y" * rng.choice([0, 10, 9_000]),
            b"Access-Control-Request-Method: POST",
            b"Content-Encoding: gzip",
            b"Expect: 100-continue",
        ]
        return [rng.choice(values)] if rng.random() < 0.5 else []

    def wild(self) -> Input:
        """What is no request, or one whose end is not known: the last of its connection."""
        data = self.rng.choice(_WILD)(self.rng, self.mild().data)
        return Input(data, "wild", is_framed=False)


def mutate_token(rng: Random, token: str) -> bytes:
    at = rng.randrange(len(token))
    return (token[:at] + rng.choice(["", ".", "A", "-", "="]) + token[at + 1 :]).encode()


def _in_head(rng: Random, request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return mutate_text(rng, head) + b"\r\n\r\n" + body


def _with_header(rng: Random, request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    header = rng.choice(
        [
            *(
                b"Content-Length: 9",
                b"Content-Length: -1",
                b"Content-Length: 99999999999999999999",
                b"Content-Length: x",
            ),
            *(
                b"Transfer-Encoding: gzip",
                b"Transfer-Encoding: chunked",
                b": x",
                b"X",
                b"X : y",
                b" folded",
                b"X: \x00",
            ),
            *(b"X: " + b"y" * 70_000, b"\r\n".join(b"X%d: y" % n for n in range(500)), b"Host: y", b"\xff: y"),
            *(_UPGRADE.encode().rstrip(), b"Upgrade: h2c\r\nConnection: Upgrade", b"Connection: close", b"Expect: x"),
        ]
    )
    return line + b"\r\n" + header + b"\r\n" + rest


def _with_line(rng: Random, request: bytes) -> bytes:
    _, _, rest = request.partition(b"\r\n")
    lines = [
        *(b"GET / HTTP/1.0", b"GET / HTTP/9.9", b"GET /", b"GET  / HTTP/1.1", b"get / http/1.1", b"PRI * HTTP/2.0"),
        *(b"GET http://x/version HTTP/1.1", b"GET * HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"\x16\x03\x01\x02\x00\x01"),
        *(b"GET /" + b"x" * 70_000 + b" HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /%zz?%zz=%00 HTTP/1.1", b""),
    ]
    return rng.choice(lines) + b"\r\n" + rest


def _upgrade(rng: Random, request: bytes) -> bytes:
    """A handshake with something wrong, perhaps with frames that do not wait for its answer."""
    path = rng.choice(["/api/1.48.0/sync", "/api/sync", "/api/x/sync", "/nothing", "/http/echo", "/api/query"])
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\n{_UPGRADE}".encode()
    extra = [b"", b"", b"Sec-WebSocket-Protocol: a, b\r\n", b"Origin: \xff\r\n", b"Content-Length: 3\r\n"]
    extra += [
        b"Transfer-Encoding: chunked\r\n",
        b"Sec-WebSocket-Extensions: permessage-deflate; x=y\r\n",
        b"X: y\r\n" * 140,
    ]
    head += rng.choice(extra)
    head = mutate_text(rng, head) if rng.random() < 0.5 else head
    return head + b"\r\n" + rng.choice([b"", rng.randbytes(40), bytes([0x81, 0x80, 0, 0, 0, 0]), b"abc"])


def _truncated(rng: Random, request: bytes) -> bytes:
    return request[: rng.randrange(len(request) + 1)]


_WILD: list[Callable[[Random, bytes], bytes]] = [
    *(_in_head, _in_head, _with_header, _with_header, _with_line, _upgrade, _upgrade, _truncated, mutate_text),
]
