"""Clients that send too much, too little, or nonsense: they are disconnected, and no other client notices."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from duly import ActionCtx, Limits, MutationCtx, QueryCtx, action, mutation, query
from duly.limits import SOCKET_FRAGMENTS_MAX
from duly.server.admission import Admission, origin_of
from duly.server.protocols import HttpConnection, WebSocketConnection
from duly.server.socket import Connection
from duly.sync.convex_json import encode_ts
from duly.sync.token_bucket import TokenBucket
from duly.testing import Harness
from tests.server.raw import BINARY, COMPRESSED, CONTINUATION, FINAL, TEXT, RawConnection, connected, frame, text
from tests.server.support import Client, Socket, client_of
from tests.support import app_of, until


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return [row["n"] async for row in ctx.db.query("numbers")]


@query
async def fixed(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@query
async def large(ctx: QueryCtx) -> str:
    return "x" * (15 << 20)


@mutation
async def add(ctx: MutationCtx, n: Any) -> None:
    await ctx.db.insert("numbers", {"n": n})


HELD = threading.Event()


@mutation
async def hold(ctx: MutationCtx) -> None:
    HELD.wait(30)


HUNG = asyncio.Event()


@action
async def hang(ctx: ActionCtx, n: str) -> None:
    await HUNG.wait()


@action
async def act(ctx: ActionCtx, n: Any) -> None: ...


T = TypeVar("T")
APP = app_of(numbers, fixed, large, add, hold, hang, act)
CONNECT = text(
    type="Connect",
    sessionId="5a6bc0a8-3c3c-4b4b-8d8d-9e9e9e9e9e9e",
    connectionCount=0,
    lastCloseReason=None,
    clientTs=0,
)


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[tuple[Client, Socket]]:
    """A server, and one client of it that watches a query, and must not notice anything of another one."""
    async with Harness(APP, **options) as t, client_of(t.app) as client, client.socket() as other:
        await other.hello()
        await other.add(0, "app:numbers")
        assert await other.transition() == {0: []}
        yield client, other
        await t.mutation("app:add", {"n": 1})
        assert (await other.transition())[0][-1] == 1
        service = t.app.asgi.state.services._service  # pyright: ignore
        assert len(service.results) == 1
        await until(lambda: not service._tasks)


@asynccontextmanager
async def raw_socket(client: Client) -> AsyncGenerator[RawConnection]:
    async with connected(client.address) as connection:
        await connection.upgrade()
        yield connection


def of_class(wanted: type[T]) -> list[T]:
    """The objects of a class, for what the server holds and does not show."""
    return [one for one in gc.get_objects() if isinstance(one, wanted)]


# Frames and messages.


async def test_a_compressed_message_is_never_inflated() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    mebibyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    async with served() as (client, _), raw_socket(client) as socket:
        await socket.send(frame(FINAL | COMPRESSED | TEXT, mebibyte * 1_024))
        assert await socket.closed() == 1002  # no connection has compression: its buffers are larger than all else


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([frame(FINAL | TEXT, length=1 << 40)], 1009),
        ([frame(TEXT, bytes(9 << 20)), frame(FINAL | CONTINUATION, length=9 << 20)], 1009),
        ([frame(TEXT)] + [frame(CONTINUATION)] * (SOCKET_FRAGMENTS_MAX + 1), 1009),
        ([frame(FINAL | TEXT, b"\xff")], 1007),
        ([frame(TEXT, b"\xc3"), frame(FINAL | CONTINUATION, b"\xc3")], 1007),
        ([frame(FINAL | CONTINUATION)], 1002),
        ([frame(FINAL | 0x3)], 1002),
        ([frame(FINAL | COMPRESSED | TEXT, b"\xff\xff\xff")], 1002),
        ([frame(TEXT), frame(FINAL | TEXT)], 1002),
        ([b"\x81\x01x"], 1002),  # without a mask
        ([frame(FINAL | BINARY, b"{" * 100_000)], 1000),
        ([frame(FINAL | TEXT, b'{"type":"Event"}')], 1000),
    ],
)
async def test_frames_that_break_the_protocol_end_the_connection(
    sent: list[bytes], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as (client, _), raw_socket(client) as socket:
        await socket.send(b"".join(sent))
        assert await socket.closed() == code
    assert not [record for record in caplog.records if record.exc_info]


async def test_fragments_of_a_message_may_be_many() -> None:
    async with served() as (client, other), raw_socket(client) as socket:
        message = json.dumps({"type": "Mutation", "requestId": 0, "udfPath": "app:add", "args": [{"n": 7}]}).encode()
        parts = [message[at : at + 1] for at in range(len(message))]
        parts += [b" "] * (SOCKET_FRAGMENTS_MAX - len(parts) - 1)
        await socket.send(CONNECT + frame(TEXT, parts[0]) + b"".join(frame(CONTINUATION, part) for part in parts[1:]))
        await socket.send(frame(FINAL | CONTINUATION, b" "))
        assert await other.transition() == {0: [7]}


@pytest.mark.parametrize("depth", [100, 300, 900])
async def test_deep_arguments_fail_the_call_and_not_the_connection(depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    async with served() as (client, _), client.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:fixed", {"value": deep})
        assert "Server Error" in (await socket.transition())[0]
        await socket.mutate(0, "app:add", n=deep)
        assert (await socket.next())["success"] is False
        await socket.transition()
        await socket.send("Action", requestId=1, udfPath="app:act", args=[{"n": deep}])
        assert (await socket.next())["success"] is False


async def test_queries_that_are_removed_though_nobody_has_added_them_hold_nobody_up() -> None:
    removals = [{"type": "Remove", "queryId": n} for n in range(20_000)]
    additions = [
        {"type": "Add", "queryId": n, "udfPath": "app:fixed", "args": [{"value": 1}]} for n in range(19_000, 20_000)
    ]
    async with served() as (client, _), client.socket() as socket:
        await socket.hello()
        await socket.modify(*removals, *additions)
        assert (await socket.transition())[19_999] == 1


# Bytes that are no requests.


async def answer_to(client: Client, sent: bytes) -> tuple[bytes, Any]:
    """The status line and the body of the one answer, after which the server closes the connection."""
    async with connected(client.address) as connection:
        await connection.send(sent)
        head, _, body = (await connection.rest()).partition(b"\r\n\r\n")
        return head.partition(b"\r\n")[0], json.loads(body)


UPGRADE = (
    b"GET /api/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        UPGRADE + b"Content-Length: 3\r\n\r\n",
        UPGRADE + b"X: y\r\n" * 200 + b"\r\n",
        UPGRADE + b"X: " + b"y" * 9_000 + b"\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_answered_as_other_bad_requests_and_the_end(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as (client, _):
        assert await answer_to(client, sent) == (
            b"HTTP/1.1 400 Bad Request",
            {"code": "BadRequest", "message": "got bytes that are no HTTP request"},
        )
        await until(lambda: sum(one in one.connections for one in of_class(WebSocketConnection)) == 1)  # the other one
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /api/nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",  # answered before its body
        b"POST /api/mutation HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_body_that_is_none_and_one_that_ends_too_early_end_the_connection_and_are_no_errors(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as (client, _):
        for rest in (b"no size\r\n", None):
            async with connected(client.address) as connection:
                await connection.send(sent)
                await until(lambda: any(one.cycle for one in of_class(HttpConnection)))
                if rest is None:
                    connection.writer.write_eof()
                else:
                    await connection.send(rest)
                await connection.rest()
            await until(lambda: not any(one in one.connections for one in of_class(HttpConnection)))
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_is_gone_before_its_handshake_is_answered_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        async with connected(client.address) as connection:
            await connection.send(UPGRADE + b"\r\n")  # the first one waits until the service has started
        await until(lambda: t.app.asgi.state.services._service is not None)  # pyright: ignore
        await until(lambda: not any(one in one.connections for one in of_class(WebSocketConnection)))
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


# Slow clients.


async def test_a_connection_without_a_connect_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (client, _):
        monkeypatch.setattr("duly.server.socket.CONNECT_MESSAGE_SECONDS", 0.1)
        async with client.socket() as silent, client.socket() as socket:
            await socket.hello()
            assert await silent.closed() == (1013, "no Connect within 0.1 s")
            await socket.modify()
            assert await socket.transition() == {}


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_arrive_closes_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.protocols.REQUEST_HEAD_SECONDS", 0.1)
    async with served() as (client, _), connected(client.address) as connection:
        await connection.send(sent)
        assert await connection.rest() == b""


async def test_bytes_that_drip_in_do_not_keep_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.protocols.REQUEST_HEAD_SECONDS", 0.3)
    async with served() as (client, _):
        for before in (b"GET / HTTP/1.1\r\n", b"GET /version HTTP/1.1\r\nContent-Length: 9999\r\nHost: x\r\n\r\n"):
            async with connected(client.address) as connection:
                await connection.send(before)
                rest = asyncio.ensure_future(connection.rest())
                while not rest.done():
                    await connection.send(b"x")
                    await asyncio.wait((rest,), timeout=0.05)
                await rest


async def test_a_body_that_does_not_arrive_is_a_408_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.request_body.REQUEST_BODY_SECONDS", 0.1)
    async with served() as (client, _), connected(client.address) as connection:
        await connection.send(b"POST /api/mutation HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        head, _, body = (await connection.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body) == {
            "code": "RequestTimeout",
            "message": "got no whole body within 0.1 s (REQUEST_BODY_SECONDS)",
        }


async def test_a_response_that_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.protocols.READER_SLOW_SECONDS", 0.1)
    body = b'{"path": "app:large", "args": {}}'
    request = b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with served() as (client, _), connected(client.address) as connection:
        await connection.send(request)
        await until(lambda: any(one.transport.get_write_buffer_size() for one in of_class(HttpConnection)))
        await until(lambda: not any(one in one.connections for one in of_class(HttpConnection)))
        assert len(await connection.rest()) < 15 << 20


# Many.


async def test_a_client_that_sends_too_fast_is_read_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (client, other):
        monkeypatch.setattr("duly.server.socket.SOCKET_MESSAGES_PER_SECOND_MAX", 20.0)
        monkeypatch.setattr("duly.server.socket.SOCKET_MESSAGES_AT_ONCE_MAX", 3)
        async with client.socket() as socket:
            await socket.hello()
            started = asyncio.get_running_loop().time()
            for request in range(12):
                await socket.mutate(request, "app:add", n=request)
            answered = 0
            while answered < 12:
                answered += (await socket.next())["type"] == "MutationResponse"
            assert asyncio.get_running_loop().time() - started > 0.4
            while len((await other.transition())[0]) < 12:
                pass


async def test_a_client_that_must_wait_is_not_read_meanwhile() -> None:
    async with served(limits=Limits(handler_seconds_max=60.0)) as (client, _), client.socket() as socket:
        HELD.clear()
        holding = asyncio.ensure_future(client.app.mutation("app:hold"))
        ahead = encode_ts(client.app.asgi.state.services._service.timestamps.now + 1_000_000)
        await socket.hello(maxObservedTimestamp=ahead)
        await until(lambda: not all(one._session.may_receive for one in of_class(Connection)))
        [connection] = (one for one in of_class(Connection) if not one._session.may_receive)
        for n in range(1_000):
            await socket.mutate(n, "app:fixed")
        assert len(connection._session._held) == 0
        HELD.set()
        await holding
        assert await socket.closed() == (1011, "InternalServerError")  # the timestamp was made up


async def test_a_client_that_sends_large_calls_is_not_read_while_they_wait() -> None:
    async with served() as (client, _), client.socket() as socket:
        await socket.hello()
        [session] = (one._session for one in of_class(Connection) if not one._session._queries)
        for n in range(5):
            await socket.send("Action", requestId=n, udfPath="app:hang", args=[{"n": "x" * (8 << 20)}])
        await until(lambda: session._actions == 4)
        assert not session.may_receive
        HUNG.set()
        for _ in range(5):
            while (await socket.next())["type"] != "ActionResponse":
                pass
        assert (session.may_receive, session._calls_length) == (True, 0)


async def test_only_so_many_sockets_are_open_at_once() -> None:
    async with served(limits=Limits(sockets_max=2)) as (client, _):
        for _ in range(2):
            async with client.socket() as second:
                await second.hello()
                await second.modify()
                await second.transition()
                async with client.socket() as third:
                    assert await third.closed() == (1013, "TooManyConcurrentRequests")


def test_the_sockets_of_one_address_are_counted_until_they_are_closed() -> None:
    admission, limits = Admission(), Limits(sockets_per_address_max=2)
    with admission.of("192.0.2.1", limits) as first, admission.of("::ffff:192.0.2.1", limits) as second:
        assert (first, second) == (None, None)
        with admission.of("192.0.2.1", limits) as third:
            assert third == "2 of 192.0.2.1 are open (sockets_per_address_max)"
        with admission.of("192.0.2.2", limits) as other:
            assert other is None
    with admission.of("192.0.2.1", limits) as again:
        assert again is None


@pytest.mark.parametrize(
    ("client", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
        (None, None),
    ],
)
def test_clients_are_told_apart_by_what_they_cannot_choose(client: str | None, origin: str | None) -> None:
    assert origin_of(client) == origin


def test_a_token_bucket_gives_its_tokens_at_once_and_then_at_a_rate() -> None:
    bucket = TokenBucket(rate=10.0, size=2, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.1, 0.2]
    assert bucket.take(0.2) == pytest.approx(0.1)
    assert bucket.take(100.0) == 0.0
    assert [bucket.take(100.0), bucket.take(100.0)] == [0.0, 0.1]
