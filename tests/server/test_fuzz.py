"""Frames, messages and requests that are mutated at random: the server answers or closes, and nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import traceback
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random

import pytest

from duly.server.protocols import HttpConnection, WebSocketConnection
from duly.server.service import Service
from duly.server.socket import Connection
from duly.sync.session import Session
from duly.testing import Harness
from tests import leaks
from tests.server import fuzz_app
from tests.server.answers import CLOSE_CODES, Frames, Responses
from tests.server.mutating import Conversation, Input, frame, text_of
from tests.server.mutating_http import Requests
from tests.server.raw import FINAL, TEXT, RawConnection, connected
from tests.server.support import Client, Socket, client_of
from tests.support import until

AT_ONCE = 12
"""Connections that are open at once."""
LAST = 1_000_000
"""The first request of those that end a part of a conversation. What came before it has been dealt with."""
SECONDS = 30.0
"""How long a connection may take, on a machine that is busy."""
BYTES_MAX = 256 << 10
"""How much memory inputs may leave in use, however many they are: caches, and what Python keeps to use it again."""
BLOCKS_MAX = 4_000
"""The same as a number of blocks."""


class Fuzzer:
    """Sends inputs over many connections. Those of each follow from the seed and its number."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client, self.seed = client, seed
        self.token = fuzz_app.ONE.token()
        self.sent = self.connections = 0
        """Frames and requests, and connections."""
        self.ends: Counter[int | None] = Counter()
        """With which codes connections have ended."""

    async def run(self, count: int) -> None:
        end = self.sent + count

        async def work() -> None:
            while self.sent < end:
                self.connections += 1
                await self.connection(self.connections)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    async def connection(self, number: int) -> None:
        rng, key, inputs = Random(f"{self.seed}/{number}"), f"key{number % 8}", list[Input]()
        try:
            async with asyncio.timeout(SECONDS), connected(self.client.address) as connection:
                if rng.random() < 0.5:
                    await self.converse(rng, key, connection, inputs)
                else:
                    await self.request(rng, key, connection, inputs)
        except Exception as error:
            sent = "\n".join(f"{one.kind}: {one.data!r:.1000}" for one in inputs)
            error.add_note(f"DULY_FUZZ_SEED={self.seed}, connection {number}:\n{sent}")
            raise
        self.sent += sum(one.count for one in inputs)

    async def converse(self, rng: Random, key: str, connection: RawConnection, inputs: list[Input]) -> None:
        """Hold a conversation over a WebSocket, and then send what is none."""
        client, frames = Conversation(rng, key, self.token), Frames()
        inputs.append(Input(frame(rng, FINAL | TEXT, text_of(client.connect())), "connect"))
        inputs += [client.mild() for _ in range(rng.randint(10, 50))]
        await connection.upgrade()
        await _write(rng, connection, b"".join(one.data for one in inputs) + _last(rng, key, LAST))
        if rng.random() < 0.05:
            connection.writer.transport.abort()
            return
        await _answered(connection, frames, LAST)
        wild = [client.wild() for _ in range(rng.randint(1, 3))]
        wild += [client.mild() for _ in range(rng.choice([0, 0, 5]))]
        rng.shuffle(wild)
        inputs += wild
        with suppress(OSError):  # the server may have closed it by now
            await _write(rng, connection, b"".join(one.data for one in wild))
            if rng.random() < 0.1:
                connection.writer.transport.abort()
            elif all(one.is_framed for one in wild):
                await connection.send(_last(rng, key, LAST + 1))
                await _answered(connection, frames, LAST + 1)
            else:
                connection.writer.write_eof()
                while data := await connection.reader.read(1 << 16):
                    frames.receive(data)
        self.ends[frames.close_code] += 1
        if {one.kind for one in wild} <= {"mild", "field", "text", "other JSON"}:  # else it may be the client's own
            assert frames.close_code in {*CLOSE_CODES, None}

    async def request(self, rng: Random, key: str, connection: RawConnection, inputs: list[Input]) -> None:
        """Send requests, of which each is answered, and then something that is none."""
        client, responses = Requests(rng, key, self.token), Responses()
        inputs += [client.mild() for _ in range(rng.randint(0, 12))]
        await _write(rng, connection, b"".join(one.data for one in inputs))
        while responses.count < len(inputs):
            data = await connection.reader.read(1 << 16)
            assert data, f"the server ended the connection after {responses.count} answers"
            responses.receive(data)
        assert responses.is_whole
        inputs.append(client.wild())
        with suppress(OSError):
            await _write(rng, connection, inputs[-1].data)
            if rng.random() < 0.5:
                await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            connection.writer.write_eof()
            while data := await connection.reader.read(1 << 16):
                responses.receive(data)


async def _write(rng: Random, connection: RawConnection, data: bytes) -> None:
    """Write in pieces, which need not arrive as such."""
    for _ in range(rng.choice([0, 0, 1, 3])):
        cut = rng.randrange(len(data) + 1)
        await connection.send(data[:cut])
        data = data[cut:]
        await asyncio.sleep(0)
    await connection.send(data)


def _last(rng: Random, key: str, request: int) -> bytes:
    """A mutation that ends a part of a conversation."""
    call = {"udfPath": "app:put", "args": [{"key": key, "value": request}]}
    return frame(rng, FINAL | TEXT, text_of({"type": "Mutation", "requestId": request, **call}))


async def _answered(connection: RawConnection, frames: Frames, request: int) -> None:
    """Wait until a mutation is answered, and so all before it, or until the connection is ended with a code."""
    while not frames.is_closed and not any(one.get("requestId") == request for one in frames.messages):
        data = await connection.reader.read(1 << 16)
        assert data, "the server ended the connection without a code"
        frames.receive(data)


# What must be as before.


@asynccontextmanager
async def behaving(client: Client) -> AsyncGenerator[list[int]]:
    """A client that counts, and is shown each count. Yields the counts."""
    counts, done = [0], asyncio.Event()

    async def count(socket: Socket) -> None:
        while not done.is_set():
            await socket.mutate(counts[-1], "app:add_one")
            response = await socket.next()
            assert (response["type"], response["result"]) == ("MutationResponse", counts[-1] + 1)
            assert await socket.transition() == {0: counts[-1] + 1}
            counts.append(counts[-1] + 1)
            await asyncio.sleep(0.01)

    async with client.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:count")
        assert await socket.transition() == {0: 0}
        async with asyncio.TaskGroup() as group:
            group.create_task(count(socket))
            try:
                yield counts
            finally:
                done.set()


def left(t: Harness) -> dict[str, int]:
    """How many there are of all that a client might leave behind."""
    gc.collect()
    service: Service = t.app.asgi.state.services._service  # pyright: ignore
    results, objects = service.results, Counter(type(one) for one in gc.get_objects())
    return {
        **{one.__name__: objects[one] for one in (Connection, Session, HttpConnection, WebSocketConnection)},
        "tasks": len(asyncio.all_tasks()),
        "tasks of the service": len(service._tasks),
        "results": len(results._entries) + len(results._for_all) + len(results._watched) + len(results._due),
        "watched": len(service.liveness._watched),
        "sockets": sum("socket:" in one for one in leaks.opened()),
        "threads": sum(not one.name.startswith("duly-reader") for one in threading.enumerate()),
    }


async def check_left(t: Harness, before: dict[str, int]) -> None:
    def more() -> dict[str, int]:
        return {name: count - before[name] for name, count in left(t).items() if count > before[name]}

    with suppress(TimeoutError):
        await until(lambda: not more())
    assert more() == {}


class Complaints(logging.Handler):
    """Keeps the records that no client must be able to cause: of errors that no function of the application raised."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            if record.levelno >= logging.ERROR and record.name != "duly.run":
                self.found.append(f"{record.name}: {record.getMessage()}")
        elif not any(
            frame.f_code.co_filename == fuzz_app.__file__ for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            self.found.append(f"{record.name}: {record.getMessage()}\n{''.join(traceback.format_exception(error))}")


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Keep these records, and have nobody else keep the others: hundreds of thousands of them."""
    handler, loggers = Complaints(), [logging.getLogger(name) for name in ("duly", "uvicorn", "asyncio", "websockets")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield handler.found
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


async def growth_of(t: Harness, fuzzer: Fuzzer, count: int) -> int:
    """By how many bytes the memory in use has grown after some inputs."""
    before = left(t)
    tracemalloc.start()
    try:
        await fuzzer.run(count)
        await check_left(t, before)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


LONG = (pytest.mark.soak, pytest.mark.timeout(4 * 3_600))


@pytest.mark.slow
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=LONG)])
async def test_whatever_clients_send_is_answered_or_ends_their_connection_and_leaves_nothing_behind(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    monkeypatch.setattr("duly.database.commit_log.LOG_COMMITS_MAX", 50)  # so that it is full before memory is measured
    seed = int(os.environ.get("DULY_FUZZ_SEED", 1 if count == 20_000 else int.from_bytes(os.urandom(4))))
    async with Harness(fuzz_app.APP) as t, client_of(t.app) as client:
        with complaints() as found:
            async with behaving(client) as counts:
                before, fuzzer = left(t), Fuzzer(client, seed)
                await fuzzer.run(count // 10)  # what is made once, or cached
                await check_left(t, before)
                blocks = sys.getallocatedblocks()
                await fuzzer.run(count * 8 // 10)
                await check_left(t, before)
                blocks = sys.getallocatedblocks() - blocks
                growth = await growth_of(t, fuzzer, count // 10)
    about = f"DULY_FUZZ_SEED={seed}: {fuzzer.connections} connections, which ended with {fuzzer.ends}"
    assert not found, f"{about}\n{found[0]}"
    assert growth < BYTES_MAX and blocks < BLOCKS_MAX, f"{about}; {growth:,} bytes and {blocks:,} blocks are left"
    assert counts[-1] > fuzzer.connections / 10, about  # the other one was never kept waiting for long
    assert {1000, 1002} <= fuzzer.ends.keys(), about
