"""The proxy of the tests: what it cuts, and what has become of a commit that it cut."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import postgres
from tests.nodes.proxy import Loss, Proxy, Requests

asyncpg = pytest.importorskip("asyncpg")
needs_binaries = pytest.mark.skipif(not any(postgres.all_binaries()), reason="no PostgreSQL to start")

COMMIT = """
CREATE TABLE batches (number int);
CREATE FUNCTION commit_1(number int) RETURNS int LANGUAGE sql AS 'INSERT INTO batches VALUES (number) RETURNING number'
"""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.Server() as server:
        asyncio.run(ask(server.port, COMMIT))
        yield server


@pytest.fixture
def proxy(server: postgres.Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


async def connect(port: int) -> Any:
    return await asyncpg.connect(f"postgresql://duly@127.0.0.1:{port}/duly")


async def ask(port: int, sql: str) -> Any:
    connection = await connect(port)
    try:
        return await connection.fetch(sql) if sql.startswith("SELECT") else await connection.execute(sql)
    finally:
        await connection.close()


async def is_committed(server: postgres.Server, number: int) -> bool:
    return bool(await ask(server.port, f"SELECT FROM batches WHERE number = {number}"))


async def commit(connection: Any, number: int, within: bool) -> None:
    """Commit a batch, alone or in a transaction that was begun before."""
    await connection.fetch("SELECT commit_1($1)", number)
    assert within, "it must not come so far"
    await connection.execute("COMMIT")


async def lose(proxy: Proxy, loss: Loss, within: bool, late_seconds: float = 0.0) -> int:
    """Lose the connection amid a commit; returns the number of its batch."""
    connection, number = await connect(proxy.port), next(_numbers)
    if within:
        await connection.execute("BEGIN")
    lost = proxy.lose_commit(loss, late_seconds)
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await commit(connection, number, within)
    await asyncio.wait_for(asyncio.wrap_future(lost), 30)
    connection.terminate()
    return number


@needs_binaries
async def test_a_proxy_lets_everything_through(server: postgres.Server, proxy: Proxy) -> None:
    number = next(_numbers)

    assert [(number,)] == await ask(proxy.port, f"SELECT commit_1({number})")
    assert await is_committed(server, number)


@needs_binaries
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
async def test_a_commit_whose_request_is_lost_does_not_happen(
    server: postgres.Server, proxy: Proxy, within: bool
) -> None:
    assert not await is_committed(server, await lose(proxy, "request", within))


@needs_binaries
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
async def test_a_commit_whose_answer_is_lost_has_happened(server: postgres.Server, proxy: Proxy, within: bool) -> None:
    assert await is_committed(server, await lose(proxy, "answer", within))


@needs_binaries
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
async def test_a_late_commit_happens_after_its_connection_was_lost(
    server: postgres.Server, proxy: Proxy, within: bool
) -> None:
    number = await lose(proxy, "late", within, late_seconds=0.3)

    assert not await is_committed(server, number)
    async with asyncio.timeout(30):
        while not await is_committed(server, number):
            await asyncio.sleep(0.01)


@needs_binaries
async def test_only_one_commit_is_lost(server: postgres.Server, proxy: Proxy) -> None:
    await lose(proxy, "request", within=False)
    number = next(_numbers)

    assert [(number,)] == await ask(proxy.port, f"SELECT commit_1({number})")


@needs_binaries
async def test_a_cut_ends_all_connections_and_no_later_one(proxy: Proxy) -> None:
    connections = [await connect(proxy.port) for _ in range(2)]

    proxy.cut()

    for connection in connections:
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.fetch("SELECT 1")
        connection.terminate()
    assert [(1,)] == await ask(proxy.port, "SELECT 1")


@needs_binaries
async def test_in_a_black_hole_nothing_is_answered_and_nobody_is_told(proxy: Proxy) -> None:
    old = await connect(proxy.port)
    proxy.black_hole()

    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(START)
    answer = asyncio.create_task(reader.read(1))
    asking = asyncio.create_task(old.fetch("SELECT 1"))
    proxy.heal()

    assert [(1,)] == await ask(proxy.port, "SELECT 1")
    for unanswered in (answer, asking):
        assert not unanswered.done()
        unanswered.cancel()
    await asyncio.gather(answer, asking, return_exceptions=True)
    old.terminate()
    writer.transport.abort()


@pytest.mark.parametrize("before", range(6))
def test_a_proxy_that_is_closed_closes_what_it_is_just_accepting(before: int) -> None:
    """What it leaves open is found after the test, as in all tests."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait()

    def close_after(rounds: int) -> None:
        if rounds:
            proxy._loop.call_soon_threadsafe(close_after, rounds - 1)
        else:
            proxy.close_soon().add_done_callback(lambda _: closed.set())

    closed = threading.Event()
    with (
        ExitStack() as clients,
        socket.create_server(("127.0.0.1", 0)) as server,
        Proxy(server.getsockname()[1]) as proxy,
    ):
        proxy._loop.call_soon_threadsafe(hold)
        held.wait()
        for _ in range(3):
            clients.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        close_after(before)  # it learns of both at once
        go_on.set()
        closed.wait()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


START = message(b"", (196_608).to_bytes(4) + b"user\0duly\0\0")
PARSE = message(b"P", b"s1\0SELECT duly.commit_1($1)\0\0\0")
OTHER = message(b"P", b"s2\0SELECT duly.settle_1($1)\0\0\0")
BIND = message(b"B", b"\0s1\0\0\0")
BEGIN, COMMIT_IT = message(b"Q", b"\nBEGIN; SELECT 1\n\0"), message(b"Q", b"COMMIT\0")


def deciding(*sent: bytes) -> list[bytes]:
    """The messages that commit a batch, sent byte by byte."""
    requests = Requests()
    data = b"".join((START, *sent))
    return [message.data for n in range(len(data)) for message in requests.feed(data[n : n + 1]) if message.decides]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((PARSE, BIND, message(b"S", b"")), [BIND]),
        ((PARSE, BEGIN, BIND, COMMIT_IT), [COMMIT_IT]),
        ((BEGIN, COMMIT_IT, PARSE, BIND), [BIND]),
        ((PARSE, BEGIN, BIND, message(b"Q", b"ROLLBACK\0"), COMMIT_IT), []),
        ((OTHER, message(b"B", b"\0s2\0\0\0")), []),
    ],
)
def test_what_decides_a_commit_is_its_call_or_the_end_of_its_transaction(
    sent: tuple[bytes, ...], expected: list[bytes]
) -> None:
    assert expected == deciding(*sent)
