"""What a server may answer, whatever it was sent."""

from __future__ import annotations

import json
from typing import Any

from tests.server.mutating import PING, PONG
from tests.server.raw import CLOSE, FINAL, TEXT

CLOSE_CODES = {1000, 1002, 1007, 1009, 1011, 1013}
"""With which a server ends a connection that did not end itself."""
STATUSES = {200, 400, 401, 403, 404, 405, 413, 426, 503}
"""Never 500: that is an error of the server."""
_IN_WORDS = (b"No HttpAction routed for ", b"Failed to open a WebSocket connection")
"""How answers begin that have no code: of the application's own routes, and of handshakes, which no client reads."""
_HEAD = {"type", "logLines"}
_FIELDS: dict[str, set[str]] = {
    "Transition": {"type", "startVersion", "endVersion", "modifications"},
    "MutationResponse": {*_HEAD, "requestId", "success", "result", "ts"},
    "ActionResponse": {*_HEAD, "requestId", "success", "result"},
    "AuthError": {"type", "error", "baseVersion", "authUpdateAttempted"},
    "FatalError": {"type", "error"},
    "Ping": {"type"},
    "QueryUpdated": {*_HEAD, "queryId", "value", "journal"},
    "QueryFailed": {*_HEAD, "queryId", "errorMessage", "journal"},
    "QueryRemoved": {"type", "queryId"},
}
_START = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


class Frames:
    """What a server sends over a WebSocket, frame by frame. Raises AssertionError for what it must not send."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.close_code: int | None = None
        self.is_closed = False
        self._unread = b""
        self._version: Any = _START

    def receive(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= 2:
            head, size = self._unread[0], self._unread[1]
            more = {126: 2, 127: 8}.get(size, 0)
            size = int.from_bytes(self._unread[2 : 2 + more]) if more else size
            if len(self._unread) < 2 + more + size or len(self._unread) < 2 + more:
                return
            payload, self._unread = self._unread[2 + more : 2 + more + size], self._unread[2 + more + size :]
            self._frame(head, payload)

    def _frame(self, head: int, payload: bytes) -> None:
        assert not self.is_closed or head == FINAL | PONG, f"a frame after the end: {head:#x} {payload!r:.200}"
        if head == FINAL | CLOSE:
            self.is_closed = True
            self.close_code = int.from_bytes(payload[:2]) if payload else None
        elif head != FINAL | PONG and head != FINAL | PING:
            assert head == FINAL | TEXT, f"a frame that begins with {head:#x}"
            self._message(json.loads(payload))

    def _message(self, message: Any) -> None:
        check_fields(message)
        if message["type"] == "Transition":
            assert message["startVersion"] == self._version, message
            self._version = message["endVersion"]
            for modification in message["modifications"]:
                check_fields(modification)
        self.messages.append(message)


def check_fields(message: Any) -> None:
    assert {*message} - {"errorData"} == _FIELDS[message["type"]], message


class Responses:
    """What a server answers over HTTP, response by response."""

    def __init__(self) -> None:
        self.count = 0
        self.frames: Frames | None = None
        """What follows if the connection became a WebSocket."""
        self._unread = b""

    def receive(self, data: bytes) -> None:
        if self.frames is not None:
            self.frames.receive(data)
            return
        self._unread += data
        while self._take():
            pass

    def _take(self) -> bool:
        """Take one response, if all of it is there."""
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if not end or self.frames is not None:
            return False
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = line.split(" ")
        assert version == "HTTP/1.1", line
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        if status == "101":
            self.frames, self._unread = Frames(), b""
            self.frames.receive(rest)
            return False
        body = _body(headers, rest)
        if body is None:
            return False
        self._unread = rest[len(body) :]
        if status != "100":
            self.count += 1
            check_response(int(status), headers, body)
        return True

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left over."""
        return not self._unread


def _body(headers: dict[str, str], rest: bytes) -> bytes | None:
    """The body; None if not all of it is there."""
    size = int(headers.get("content-length", "0"))
    return rest[:size] if len(rest) >= size else None


def check_response(status: int, headers: dict[str, str], body: bytes) -> None:
    about = f"{status} {headers} {body!r:.300}"
    assert status in STATUSES, about
    if not headers.get("content-type", "").startswith("application/json"):
        assert status == 200 or body == b"" or body.startswith(_IN_WORDS), about
        return
    content = json.loads(body)
    if status != 200 and "ready" not in content:
        assert {*content} == {"code", "message"}, about
    for envelope in content.get("results", [content]) if status == 200 else ():
        if "status" in envelope:
            needed = {"value"} if envelope["status"] == "success" else {"errorMessage"}
            assert {*envelope} - {"errorData", "logLines"} == {"status", *needed}, about
