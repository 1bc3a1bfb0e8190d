"""The states of a pending batch, and the batches after a conflict."""

from __future__ import annotations

from typing import Any

import pytest

from duly.database.call_queue import QueuedCall
from duly.database.pending_batch import NEXT, BatchState, ConflictBackoff, PendingBatch
from duly.limits import EXCLUSIVE_BATCHES_MAX, EXCLUSIVE_BATCHES_MIN

QUEUED, RUN, IN_FLIGHT, DURABLE, FAILED = BatchState

future: Any = None
CALL = QueuedCall(lambda batch: None, future, False, "", True, 0.0)


def pending(*states: BatchState) -> PendingBatch:
    """A batch that has gone through these states."""
    batch = PendingBatch(CALL, exclusive=False)
    for state in states:
        batch.move(state)
    return batch


def test_every_state_is_reached_from_the_queue() -> None:
    reached, todo = {QUEUED}, [QUEUED]
    while todo:
        new = NEXT[todo.pop()] - reached
        reached |= new
        todo += new
    assert reached == set(BatchState)


def test_a_durable_batch_stays_durable() -> None:
    assert [state for state in BatchState if not NEXT[state]] == [DURABLE]


@pytest.mark.parametrize(
    "states", [(RUN, DURABLE), (RUN, IN_FLIGHT, DURABLE), (RUN, FAILED, RUN, DURABLE), (RUN, IN_FLIGHT, FAILED, RUN)]
)
def test_a_batch_goes_through_states_one_by_one(states: tuple[BatchState, ...]) -> None:
    assert pending(*states).state is states[-1]


@pytest.mark.parametrize("states", [(IN_FLIGHT,), (DURABLE,), (RUN, QUEUED), (RUN, DURABLE, FAILED), (FAILED, DURABLE)])
def test_a_batch_leaves_out_no_state(states: tuple[BatchState, ...]) -> None:
    with pytest.raises(AssertionError):
        pending(*states)


def test_each_failed_attempt_is_counted() -> None:
    batch = pending(RUN)
    batch.fail()
    batch.fail()
    assert (batch.state, batch.failures) == (FAILED, 2)


def test_after_a_conflict_some_batches_are_exclusive_and_after_each_further_one_twice_as_many() -> None:
    backoff = ConflictBackoff()
    lengths: list[int] = []
    for _ in range(6):
        backoff.on_conflict()
        lengths.append(exclusive_batches(backoff))
    assert lengths[:3] == [EXCLUSIVE_BATCHES_MIN, 2 * EXCLUSIVE_BATCHES_MIN, 4 * EXCLUSIVE_BATCHES_MIN]
    assert lengths[-1] == EXCLUSIVE_BATCHES_MAX
    backoff.on_success()
    backoff.on_conflict()
    assert exclusive_batches(backoff) == EXCLUSIVE_BATCHES_MIN


def exclusive_batches(backoff: ConflictBackoff) -> int:
    count = 0
    while backoff.take_exclusive():
        count += 1
    return count
