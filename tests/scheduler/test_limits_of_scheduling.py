"""How much one mutation may schedule."""

from __future__ import annotations

import pytest

from duly import (
    ActionCtx,
    LimitError,
    Limits,
    MutationCtx,
    action,
    internal_mutation,
    mutation,
)
from duly.testing import Harness
from tests.scheduler.app import CALLERS, answer_of, call, modules, note

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def t() -> Harness:
    return Harness(modules(globals()))


@mutation
async def schedules(ctx: MutationCtx, sizes: list[int], catches: bool = False) -> int:
    """One function with arguments of each size, at least 12 bytes: `{"value":""}`. Tells how many were accepted."""
    done = 0
    for size in sizes:
        try:
            await ctx.scheduler.run_after(0, note, {"value": "x" * (size - 12)})
        except LimitError:
            if not catches:
                raise
        else:
            done += 1
    return done


@mutation
async def schedules_in_nested_ones(ctx: MutationCtx, counts: list[int]) -> None:
    for count in counts:
        await ctx.run_mutation(schedules, {"sizes": [12] * count})


@internal_mutation
async def schedules_and_fails(ctx: MutationCtx, count: int) -> None:
    await ctx.run_mutation(schedules, {"sizes": [12] * count})
    raise ValueError("undone")


@mutation
async def schedules_again_and_again(ctx: MutationCtx, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ValueError, match="undone"):
            await ctx.run_mutation(schedules_and_fails, {"count": 3})
    await ctx.run_mutation(schedules, {"sizes": [12] * 3})


@action
async def action_schedules(ctx: ActionCtx, sizes: list[int]) -> None:
    for size in sizes:
        await ctx.scheduler.run_after(0, note, {"value": "x" * (size - 12)})


FEW = Limits(scheduled_functions_max=3, scheduled_arguments_bytes_max=100)


def test_a_mutation_may_schedule_a_thousand_functions_with_eight_mebibytes() -> None:
    assert (Limits().scheduled_functions_max, Limits().scheduled_arguments_bytes_max) == (1_000, 8_388_608)


async def test_limits_hold_to_the_function_and_to_the_byte_and_errors_have_both_counts() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        await t.mutation(schedules, {"sizes": [12, 12, 12]})
        await t.mutation(schedules, {"sizes": [40, 40, 20]})
        assert len(await t.jobs()) == 6
        with pytest.raises(LimitError) as caught:
            await t.mutation(schedules, {"sizes": [12, 12, 12, 12]})
        assert str(caught.value) == (
            "got 4 functions scheduled by one function, with 48 bytes of arguments, expected at most 3"
            " (scheduled_functions_max); schedule one that schedules the rest"
        )
        with pytest.raises(LimitError) as caught:
            await t.mutation(schedules, {"sizes": [40, 40, 21]})
        assert str(caught.value) == (
            "got 3 functions scheduled by one function, with 101 bytes of arguments, expected at most 100"
            " (scheduled_arguments_bytes_max); store the data and schedule its id"
        )
        assert len(await t.jobs()) == 6


async def test_bytes_of_arguments_are_those_of_utf_8() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        await call(t, "mutation_calls", lambda scheduler: scheduler.run_after(0, note, {"value": "ß" * 44}))
        for caller in CALLERS:
            answer = await answer_of(t, caller, lambda scheduler: scheduler.run_after(0, note, {"value": "ß" * 45}))
            assert "102 bytes" in answer
            assert "expected at most 100 (scheduled_arguments_bytes_max)" in answer


async def test_a_mutation_may_catch_the_limit_and_what_was_refused_does_not_count() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        assert await t.mutation(schedules, {"sizes": [12, 12, 12, 12], "catches": True}) == 3
        assert await t.mutation(schedules, {"sizes": [90, 90, 12, 10], "catches": True}) == 1
        assert await t.mutation(schedules, {"sizes": [101, 80, 20], "catches": True}) == 2
        assert len(await t.jobs()) == 6


async def test_nested_mutations_share_the_limits_and_those_that_fail_give_back_what_they_took() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        await t.mutation(schedules_in_nested_ones, {"counts": [1, 1, 1]})
        with pytest.raises(LimitError, match=r"got 4 functions scheduled .* \(scheduled_functions_max\)"):
            await t.mutation(schedules_in_nested_ones, {"counts": [2, 2]})
        await t.mutation(schedules_again_and_again, {"times": 5})
        assert len(await t.jobs()) == 6


async def test_an_action_schedules_as_many_as_it_likes_and_only_one_call_is_limited() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        await t.action(action_schedules, {"sizes": [100] * 7})
        assert len(await t.jobs()) == 7
        with pytest.raises(LimitError) as caught:
            await t.action(action_schedules, {"sizes": [12, 101]})
        assert str(caught.value) == (
            "app:note: arguments: got 101 bytes, expected at most 100 (scheduled_arguments_bytes_max)"
        )
        assert len(await t.jobs()) == 8  # what came before it stays


async def test_each_scheduled_mutation_has_limits_of_its_own() -> None:
    async with Harness(modules(globals()), limits=FEW) as t:
        for _ in range(2):
            await call(t, "mutation_calls", lambda scheduler: scheduler.run_after(0, schedules, {"sizes": [12] * 3}))
        await call(t, "mutation_calls", lambda scheduler: scheduler.run_after(0, schedules, {"sizes": [12] * 4}))
        await t.run_until_idle()
        jobs = await t.jobs()
        assert [job["state"]["kind"] for job in jobs] == ["success", "success", "failed", *["success"] * 6]
        assert jobs[2]["state"]["error"].startswith("LimitError: got 4 functions scheduled by one function, with 48")
