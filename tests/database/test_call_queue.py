"""The queue between the event loop and the committer: order, batches, and the end."""

from __future__ import annotations

from typing import Any

from duly.database.call_queue import CallQueue, QueuedCall

batch: Any = None


def call(name: str, exclusive: bool = False) -> QueuedCall:
    future: Any = None
    return QueuedCall(lambda batch: name, future, exclusive, "", True, 0.0)


def queue_of(*calls: QueuedCall) -> CallQueue:
    queue = CallQueue()
    for queued in calls:
        queue.put(queued)
    return queue


def names(calls: list[QueuedCall]) -> list[str]:
    return [queued.work(batch) for queued in calls]


def test_calls_join_a_batch_in_their_order_up_to_one_that_needs_a_batch_of_its_own() -> None:
    queue = queue_of(call("a"), call("b"), call("c", exclusive=True), call("d"))
    taken: list[QueuedCall] = []
    while queue.take_into(taken):
        pass
    assert names(taken) == ["a", "b"]
    assert names(queue.take_all()) == ["c", "d"]


def test_calls_that_are_put_back_come_first() -> None:
    queue = queue_of(call("a"), call("b"), call("c"), call("d"))
    taken: list[QueuedCall] = []
    while len(taken) < 3:
        queue.take_into(taken)
    queue.put_back(taken[1:])
    assert names(queue.take_all()) == ["b", "c", "d"]


def test_the_end_comes_after_all_calls_before_it() -> None:
    queue = queue_of(call("a"), call("b"))
    queue.end()
    first = queue.next()
    assert first is not None
    assert names([first]) == ["a"]
    queue.receive()  # the mark, too
    second = queue.next()
    assert second is not None
    assert names([second]) == ["b"]
    assert queue.next() is None


def test_a_queue_that_is_cut_off_ends_after_the_calls_that_were_received() -> None:
    queue = queue_of(call("a"))
    queue.receive()
    queue.cut_off()
    queue.put(call("b"))
    first = queue.next()
    assert first is not None
    assert names([first]) == ["a"]
    assert queue.next() is None
    assert names(queue.take_all()) == ["b"]


def test_a_call_waits_whether_it_was_received_or_not() -> None:
    queue = queue_of()
    assert not queue.has_more()
    queue.put(call("a"))
    assert queue.has_more()
    queue.receive()
    assert queue.has_more()
    queue.take_all()
    assert not queue.has_more()
