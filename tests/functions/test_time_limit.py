"""The time limit of actions: one timer for all of them, with the manners of `asyncio.timeout`."""

from __future__ import annotations

import asyncio

import pytest

from duly.run.time_limit import TimeLimit

SECONDS = 0.02
FOREVER = 3_600.0


async def within(limit: TimeLimit, seconds: float) -> str:
    """What comes of a block that takes so long."""
    try:
        with limit.applied() as timeout:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return f"timed out, expired: {timeout.expired}"
    return f"ended, expired: {timeout.expired}"


async def test_a_block_that_takes_too_long_raises_a_timeout_error_and_the_others_go_on() -> None:
    limit = TimeLimit(SECONDS)
    ended = await asyncio.gather(within(limit, 0), within(limit, FOREVER), within(limit, 0), within(limit, FOREVER))
    assert ended == ["ended, expired: False", "timed out, expired: True"] * 2
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_blocks_that_began_later_end_later() -> None:
    limit, order = TimeLimit(SECONDS), list[str]()

    async def run(name: str) -> None:
        await within(limit, FOREVER)
        order.append(name)

    first = asyncio.create_task(run("first"))
    await asyncio.sleep(SECONDS / 2)
    await asyncio.gather(first, run("second"))
    assert order == ["first", "second"]


async def test_a_block_that_is_cancelled_by_its_caller_is_cancelled_and_not_timed_out() -> None:
    task = asyncio.create_task(within(TimeLimit(FOREVER), FOREVER))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_block_whose_caller_cancels_it_when_its_time_is_over_is_cancelled() -> None:
    limit = TimeLimit(0.0)  # expires as soon as the event loop runs again

    async def run() -> str:
        with limit.applied():
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.sleep(FOREVER)
        return "went on"

    task = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_error_of_the_block_itself_is_not_taken_for_the_limit() -> None:
    with pytest.raises(TimeoutError, match="of the network"), TimeLimit(FOREVER).applied() as timeout:
        raise TimeoutError("of the network")
    assert not timeout.expired


async def test_a_block_that_ends_although_it_was_cancelled_keeps_its_outcome() -> None:
    limit = TimeLimit(SECONDS)
    with limit.applied() as timeout:
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            result = "cleaned up"
    assert (result, timeout.expired) == ("cleaned up", True)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_blocks_within_blocks_have_their_own_time() -> None:
    outer, inner = TimeLimit(FOREVER), TimeLimit(SECONDS)
    with outer.applied() as timeout:
        assert await within(inner, FOREVER) == "timed out, expired: True"
        await asyncio.sleep(0)
    assert not timeout.expired


async def test_a_closed_limit_leaves_no_timer_in_the_event_loop() -> None:
    limit = TimeLimit(FOREVER)
    assert await within(limit, 0) == "ended, expired: False"
    timer = limit._timer
    assert timer is not None
    limit.close()
    assert timer.cancelled()
