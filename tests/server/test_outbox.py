"""What clients are sent, in which order, and when they are given up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.websockets import WebSocket

from duly.server.outbox import Liveness, Outbox, Texts
from duly.server.service import Flushes
from duly.sync.effects import Close
from duly.sync.protocol import QueryUpdated, StateVersion, Transition
from duly.sync.results import SharedResults


class Reader:
    """Stands for the socket of a client that takes a message whenever it is told to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.may_take = asyncio.Semaphore(0)

    async def send(self, message: dict[str, Any]) -> None:
        await self.may_take.acquire()
        self.taken.append(message["text"])

    async def close(self, code: int, reason: str) -> None:
        self.taken.append((code, reason))


def sending(outbox: Outbox, reader: Reader) -> asyncio.Task[None]:
    return asyncio.create_task(outbox.send_all(cast("WebSocket", reader)))


async def test_messages_are_sent_in_order_until_the_connection_is_closed() -> None:
    calls: list[str] = []
    reader = Reader()
    outbox = Outbox(on_sent=lambda: calls.append("sent"))
    task = sending(outbox, reader)
    for output in ("a", "b", Close(1011, "bye")):
        outbox.put(output)
    assert outbox.is_sending
    for _ in range(2):
        reader.may_take.release()

    await task

    assert (reader.taken, calls) == (["a", "b", (1011, "bye")], [])


async def test_it_is_told_when_the_client_has_taken_all() -> None:
    all_sent = asyncio.Event()
    reader = Reader()
    outbox = Outbox(on_sent=all_sent.set)
    task = sending(outbox, reader)
    outbox.put("a")
    reader.may_take.release()

    await all_sent.wait()

    assert (reader.taken, outbox.is_sending) == (["a"], False)
    task.cancel()


async def test_a_client_that_has_heard_nothing_for_15_seconds_is_sent_a_ping() -> None:
    liveness, outbox = Liveness(), Outbox(on_sent=lambda: None)
    task = asyncio.create_task(asyncio.sleep(0))
    with liveness.watched(outbox, task, lambda: None):
        liveness.check(outbox.silent_since + 14.9)
        assert not outbox.is_sending
        liveness.check(outbox.silent_since + 15.1)
        assert outbox.is_sending
        liveness.check(outbox.silent_since + 15.2)
    reader = Reader()
    writing = sending(outbox, reader)
    reader.may_take.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert reader.taken == ['{"type":"Ping"}']
    writing.cancel()
    await task


async def test_a_client_that_takes_nothing_for_30_seconds_is_given_up() -> None:
    liveness, outbox, reader = Liveness(), Outbox(on_sent=lambda: None), Reader()
    task = sending(outbox, reader)
    with liveness.watched(outbox, task, lambda: None):
        outbox.put("a")
        await asyncio.sleep(0)
        assert outbox.busy_since is not None
        liveness.check(outbox.busy_since + 29.9)
        assert not task.cancelling()
        liveness.check(outbox.busy_since + 30.1)
        assert task.cancelling()


async def test_the_token_of_each_connection_is_checked_whenever_they_are_looked_at() -> None:
    liveness, outbox = Liveness(), Outbox(on_sent=lambda: None)
    task, checks = asyncio.create_task(asyncio.sleep(0)), list[str]()
    with liveness.watched(outbox, task, lambda: checks.append("a")):
        with liveness.watched(Outbox(on_sent=lambda: None), task, lambda: checks.append("b")):
            liveness.check(outbox.silent_since)
        liveness.check(outbox.silent_since)
    assert checks == ["a", "b", "a"]
    await task


def test_equal_transitions_have_one_text() -> None:
    texts = Texts()

    def moved(ts: int, value: bytes) -> Transition:
        return Transition(StateVersion(1, 0, 5), StateVersion(1, 0, ts), (QueryUpdated(0, value),))

    first = texts.of(moved(6, b"1"))

    assert texts.of(moved(6, b"1")) is first
    assert texts.of(moved(6, b"2")) != first
    assert texts.of(moved(7, b"2")) != texts.of(moved(6, b"2"))


class Versions:
    """Stands for the results: the version that is known now."""

    version = 5

    def settle(self) -> int:
        return self.version


class Watcher:
    def __init__(self) -> None:
        self.flushed: list[int] = []

    def flush(self, version: int) -> None:
        self.flushed.append(version)


async def test_a_wake_up_of_a_newer_version_is_not_lost_in_the_flush_of_an_older_one() -> None:
    versions, one, other = Versions(), Watcher(), Watcher()
    flushes = Flushes(cast("SharedResults", versions))
    flushes.soon(one)
    flushes.soon(one)
    flushes.soon(other)
    versions.version = 6
    flushes.soon(one)
    assert one.flushed == []

    await asyncio.sleep(0)

    assert (one.flushed, other.flushed) == ([5, 6], [5])
