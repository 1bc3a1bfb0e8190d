"""What may be scheduled, with what and for when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from duly import (
    ArgumentValidationError,
    FunctionNotFoundError,
    InvalidIdError,
    InvalidScheduleError,
    MutationCtx,
    api,
    internal,
    internal_action,
    mutation,
)
from duly.testing import Harness
from tests.scheduler.app import CALLERS, NOW, act, answer_of, call, modules, note, noted, notes, public

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

FIVE_YEARS = 158_112_000_000
"""5 · 366 days."""
BERLIN = timezone(timedelta(hours=1))


async def undecorated(ctx: MutationCtx) -> None: ...


@pytest.fixture
def t() -> Harness:
    return Harness(modules(globals()))


def times(jobs: list[dict[str, Any]]) -> list[float]:
    return [job["scheduledTime"] - NOW for job in jobs]


# When.

DELAYS: list[tuple[Any, float]] = [
    (0, 0),
    (-0.0, 0),
    (0.25, 0.25),
    (1, 1),
    (1_500.5, 1_500.5),
    (timedelta(0), 0),
    (timedelta(microseconds=250), 0.25),
    (timedelta(days=1), 86_400_000),
    (FIVE_YEARS, FIVE_YEARS),
    (float(FIVE_YEARS), FIVE_YEARS),
    (timedelta(days=1_830), FIVE_YEARS),
]


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_delay_is_milliseconds_or_a_timedelta_up_to_five_years(t: Harness, caller: str) -> None:
    async with t:
        for delay, _ in DELAYS:
            await call(t, caller, lambda scheduler, delay=delay: scheduler.run_after(delay, note))
        assert times(await t.jobs()) == [after for _, after in DELAYS]


class Nowhere(tzinfo):
    """A zone that does not know its offset: a datetime in it is naive."""

    def utcoffset(self, dt: datetime | None, /) -> None:
        return None


BAD_DELAYS: list[tuple[Any, str]] = [
    (-1, "got a delay of -1 ms, expected a finite one that is not negative"),
    (-0.001, "got a delay of -0.001 ms, expected a finite one that is not negative"),
    (-(10**5_000), "got a delay of -1000000000000000.0 ms, expected a finite one that is not negative"),
    (timedelta(microseconds=-1), "got a delay of -0.001 ms, expected a finite one that is not negative"),
    (nan, "got a delay of nan ms, expected a finite one that is not negative"),
    (inf, "got a delay of inf ms, expected a finite one that is not negative"),
    (-inf, "got a delay of -inf ms, expected a finite one that is not negative"),
    (True, "got the delay True (bool), expected milliseconds or a timedelta"),
    (None, "got the delay None (NoneType), expected milliseconds or a timedelta"),
    ("1", "got the delay '1' (str), expected milliseconds or a timedelta"),
    (Decimal(1), "got the delay Decimal('1') (Decimal), expected milliseconds or a timedelta"),
    (FIVE_YEARS + 1, "got a time 1,830.1 days in the future, expected at most 1,830 days"),
    (FIVE_YEARS + 0.001, "got a time 1,830.1 days in the future, expected at most 1,830 days"),
    (
        timedelta(days=1_830, microseconds=1),
        "got a time 1,830.1 days in the future, expected at most 1,830 days",
    ),
    (timedelta.max, "got a time 11,574,074.1 days in the future, expected at most 1,830 days"),
    (10**5_000, "got a time 11,574,074.1 days in the future, expected at most 1,830 days"),
    (1e308, "got a time 11,574,074.1 days in the future, expected at most 1,830 days"),
]


@pytest.mark.parametrize("caller", CALLERS)
async def test_any_other_delay_is_refused_and_named(t: Harness, caller: str) -> None:
    async with t:
        for delay, message in BAD_DELAYS:
            answer = await answer_of(t, caller, lambda scheduler, delay=delay: scheduler.run_after(delay, note))
            assert answer.removesuffix(", five years (SCHEDULE_WINDOW_MS)") == f"InvalidScheduleError: {message}"
        assert await t.jobs() == []


TIMES: list[tuple[Any, float]] = [
    (NOW, 0),
    (int(NOW), 0),
    (NOW + 0.25, 0.25),
    (NOW - 5_000, -5_000),
    (datetime(2030, 1, 1, tzinfo=UTC), 0),
    (datetime(2030, 1, 1, 1, tzinfo=BERLIN), 0),
    (datetime(2030, 1, 1, 0, 0, 0, 250, tzinfo=UTC), 0.25),
    (datetime(2029, 12, 31, tzinfo=UTC), -86_400_000),
    (NOW + FIVE_YEARS, FIVE_YEARS),
    (NOW - FIVE_YEARS, -FIVE_YEARS),
    (datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=1_830), FIVE_YEARS),
    (datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=1_830), -FIVE_YEARS),
]


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_time_is_milliseconds_or_an_aware_datetime_within_five_years_of_now(t: Harness, caller: str) -> None:
    async with t:
        for when, _ in TIMES:
            await call(t, caller, lambda scheduler, when=when: scheduler.run_at(when, note))
        assert times(await t.jobs()) == [after for _, after in TIMES]


_WANTED = "expected milliseconds since 1970 or an aware datetime"
BAD_TIMES: list[tuple[Any, str]] = [
    (NOW + FIVE_YEARS + 1, "got a time 1,830.1 days in the future, expected at most 1,830 days"),
    (NOW - FIVE_YEARS - 1, "got a time 1,830.1 days in the past, expected at most 1,830 days"),
    (
        NOW / 1000 + 60,
        "got a time 21,893.1 days in the past, expected at most 1,830 days, five years (SCHEDULE_WINDOW_MS); it looks like"
        " seconds since 1970, expected milliseconds (multiply by 1000) or an aware datetime",
    ),
    (
        datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC) + timedelta(days=1_830),
        "got a time 1,830.1 days in the future, expected at most 1,830 days",
    ),
    (
        datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=1_830, microseconds=1),
        "got a time 1,830.1 days in the past, expected at most 1,830 days",
    ),
    (0, "got a time 21,915.0 days in the past, expected at most 1,830 days"),
    (-1, "got a time 21,915.1 days in the past, expected at most 1,830 days"),
    (10**5_000, "got a time 11,552,159.1 days in the future, expected at most 1,830 days"),
    (-(10**5_000), "got a time 11,595,989.1 days in the past, expected at most 1,830 days"),
    (
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        "got a time 2,910,982.5 days in the future, expected at most 1,830 days",
    ),
    (
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
        "got a time 741,077.5 days in the past, expected at most 1,830 days",
    ),
    (datetime(2030, 1, 1), "got the naive datetime 2030-01-01T00:00:00, expected an aware one such as"),
    (datetime(2030, 1, 1, tzinfo=Nowhere()), "got the naive datetime 2030-01-01T00:00:00, expected an aware one such"),
    (date(2030, 1, 1), f"got the time datetime.date(2030, 1, 1) (date), {_WANTED}"),
    (timedelta(days=1), f"got the time datetime.timedelta(days=1) (timedelta), {_WANTED}"),
    (nan, f"got the time nan (float), {_WANTED}"),
    (inf, f"got the time inf (float), {_WANTED}"),
    (-inf, f"got the time -inf (float), {_WANTED}"),
    (True, f"got the time True (bool), {_WANTED}"),
    (None, f"got the time None (NoneType), {_WANTED}"),
    ("tomorrow", f"got the time 'tomorrow' (str), {_WANTED}"),
]


@pytest.mark.parametrize("caller", CALLERS)
async def test_any_other_time_is_refused_and_named(t: Harness, caller: str) -> None:
    async with t:
        for when, message in BAD_TIMES:
            answer = await answer_of(t, caller, lambda scheduler, when=when: scheduler.run_at(when, note))
            assert answer.startswith(f"InvalidScheduleError: {message}")
        assert await t.jobs() == []


@pytest.mark.both_engines
@pytest.mark.parametrize("microseconds", [0, 1, 11, 27, 32, 999])
async def test_five_years_are_five_years_at_every_fraction_of_a_millisecond(microseconds: int) -> None:
    # Late in 2034 a time five years ahead needs one more bit than now, which costs the last digit.
    start = datetime(2035, 6, 1, 12, 0, 0, microseconds, tzinfo=UTC)
    async with Harness(modules(globals()), start=start) as t:
        for delay in (FIVE_YEARS, timedelta(days=1_830)):
            await call(t, "mutation_calls", lambda scheduler, delay=delay: scheduler.run_after(delay, note))
            await call(t, "action_calls", lambda scheduler, delay=delay: scheduler.run_after(delay, note))
        for when in (start + timedelta(days=1_830), start - timedelta(days=1_830)):
            await call(t, "mutation_calls", lambda scheduler, when=when: scheduler.run_at(when, note))
        late = start + timedelta(days=1_830, microseconds=1)
        early = start - timedelta(days=1_830, microseconds=1)
        for when in (late, early):
            await answer_of(t, "mutation_calls", lambda scheduler, when=when: scheduler.run_at(when, note))
        assert len(await t.jobs()) == 6


@pytest.mark.both_engines
async def test_in_a_mutation_a_delay_counts_from_its_begin_and_in_an_action_from_now(t: Harness) -> None:
    async with t:

        async def twice(ctx: Any) -> list[float]:
            asked = [ctx.now]
            await ctx.scheduler.run_after(1_000, note)
            t._clock.set(t._clock.now() + 500)  # pyright: ignore[reportPrivateUsage]
            await ctx.scheduler.run_after(1_000, note)
            return [*asked, ctx.now]

        assert await t.transaction(twice) == [NOW, NOW]
        assert times(await t.jobs()) == [1_000, 1_000]
        source = modules({"twice": internal_action(twice)})
    async with Harness(source) as t:
        assert await t.action("app:twice") == [NOW, NOW + 500]
        assert times(await t.jobs()) == [1_000, 1_500]


# Which function.


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_row_names_the_function_in_one_way_however_it_was_referred_to(t: Harness, caller: str) -> None:
    refs: list[tuple[Any, str]] = [
        ("app:note", "app:note"),
        ("app.py:note", "app:note"),
        ("app.js:note", "app:note"),
        (note, "app:note"),
        (api.app.note, "app:note"),
        (internal.app.note, "app:note"),
        (public, "app:public"),
        (act, "app:act"),
        ("app", "app:default"),
        ("app:default", "app:default"),
        ("admin/users:ban", "admin/users:ban"),
        ("admin/users.py:ban", "admin/users:ban"),
        (internal.admin.users.ban, "admin/users:ban"),
    ]
    async with t:
        for ref, _ in refs:
            await call(t, caller, lambda scheduler, ref=ref: scheduler.run_after(0, ref))
        names = [job["name"] for job in await t.jobs()]
        assert names == [name for _, name in refs]
        for name in names:  # and that name is a reference
            await call(t, caller, lambda scheduler, name=name: scheduler.run_after(0, name))
        assert [job["name"] for job in await t.jobs()] == [*names, *names]


@mutation
async def of_another_app(ctx: MutationCtx) -> None: ...


ELSEWHERE = [of_another_app]
del of_another_app  # so that it is none of this module's, which are the app's


@pytest.mark.parametrize("caller", CALLERS)
async def test_what_names_no_mutation_or_action_of_the_app_is_refused_at_the_call(t: Harness, caller: str) -> None:
    bad: list[tuple[Any, type[Exception], str]] = [
        (notes, InvalidScheduleError, "app:notes is a query, expected a mutation or an action"),
        ("app:notes", InvalidScheduleError, "app:notes is a query, expected a mutation or an action"),
        (api.app.notes, InvalidScheduleError, "app:notes is a query, expected a mutation or an action"),
        ("app:nothing", FunctionNotFoundError, "got the function 'app:nothing'"),
        ("nowhere:note", FunctionNotFoundError, "got the function 'nowhere:note', which does not exist; did you mean"),
        (api.app.nothing, FunctionNotFoundError, "got the function api.app.nothing"),
        ("", FunctionNotFoundError, "got the function ''"),
        (ELSEWHERE[0], FunctionNotFoundError, "of_another_app"),
        (undecorated, FunctionNotFoundError, "expected a function"),
        (None, FunctionNotFoundError, "got None (NoneType), expected a function"),
        (5, FunctionNotFoundError, "got 5 (int), expected a function"),
        (["app:note"], FunctionNotFoundError, "expected a function"),
    ]
    async with t:
        for ref, error, message in bad:
            answer = await answer_of(t, caller, lambda scheduler, ref=ref: scheduler.run_after(0, ref))
            assert answer.startswith(f"{error.__name__}: ")
            assert message in answer
        assert await t.jobs() == []


# With what.


@pytest.mark.both_engines
@pytest.mark.parametrize("caller", CALLERS)
async def test_arguments_are_any_values_and_come_as_they_were(t: Harness, caller: str) -> None:
    values: list[Any] = [2**63 - 1, -(2**63), 0.1, "tea\u0000ß🫖", b"\x00\xff", None, True, [1, [2]], {"a": {"b": []}}]
    async with t:
        for value in values:
            await call(t, caller, lambda scheduler, value=value: scheduler.run_after(0, note, {"value": value}))
            await call(t, caller, lambda scheduler, value=value: scheduler.run_after(0, act, {"value": value}))
        assert [job["args"] for job in await t.jobs()] == [[{"value": value}] for value in values for _ in "12"]
        await t.run_until_idle()
        assert await t.query(notes) == values
        assert noted == values


@pytest.mark.parametrize("caller", CALLERS)
async def test_no_arguments_are_an_empty_dict(t: Harness, caller: str) -> None:
    async with t:
        await call(t, caller, lambda scheduler: scheduler.run_after(0, note))
        await call(t, caller, lambda scheduler: scheduler.run_after(0, note, None))
        await call(t, caller, lambda scheduler: scheduler.run_at(NOW, note, {}))
        assert [job["args"] for job in await t.jobs()] == [[{}], [{}], [{}]]


@pytest.mark.parametrize("caller", CALLERS)
async def test_arguments_that_are_no_values_are_refused_at_the_call(t: Harness, caller: str) -> None:
    deep: Any = 1
    for _ in range(17):
        deep = [deep]
    bad: list[tuple[Any, str]] = [
        ([1], "app:note: got [1] (list), expected the arguments as a dict"),
        ("x", "app:note: got 'x' (str), expected the arguments as a dict"),
        ({"value": {1, 2}}, "app:note: at .value: got {1, 2} (set)"),
        ({"value": object}, "app:note: at .value: got"),
        ({"value": 2**63}, "app:note: at .value: got an int of 65 bits, expected at most 64"),
        ({"value": deep}, "a value nested more than 16 levels deep"),
        ({1: 2}, "app:note: at [1]: got the field name 1 (int), expected a str"),
    ]
    async with t:
        for args, message in bad:
            answer = await answer_of(t, caller, lambda scheduler, args=args: scheduler.run_after(0, note, args))
            assert answer.startswith("ArgumentValidationError: ")
            assert message in answer
        assert await t.jobs() == []


async def test_arguments_are_those_of_the_call_whatever_becomes_of_the_dict(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            args = {"value": [1]}
            await ctx.scheduler.run_after(0, note, args)
            args["value"].append(2)

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == [[1]]


async def test_arguments_are_validated_when_the_function_runs_and_not_before(t: Harness) -> None:
    async with t:
        for function in (note, act):
            await call(t, "mutation_calls", lambda scheduler, f=function: scheduler.run_after(0, f, {"valu": 1}))
        await t.run_until_idle()
        assert [job["state"] for job in await t.jobs()] == [
            {
                "kind": "failed",
                "error": f"ArgumentValidationError: app:{name}: at .valu: not a declared field; declared are .value",
            }
            for name in ("note", "act")
        ]


async def test_a_call_that_was_refused_leaves_the_mutation_as_it_was(t: Harness) -> None:
    async with t:

        async def schedule(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(0, note, {"value": 1})
            for act in (
                lambda: ctx.scheduler.run_after(-1, note),
                lambda: ctx.scheduler.run_at(0, note),
                lambda: ctx.scheduler.run_after(0, notes),
                lambda: ctx.scheduler.run_after(0, "app:nothing"),
                lambda: ctx.scheduler.run_after(0, note, {"value": {1}}),
                lambda: ctx.scheduler.cancel("abc"),
            ):
                with pytest.raises(
                    (InvalidScheduleError, FunctionNotFoundError, ArgumentValidationError, InvalidIdError)
                ):
                    await act()
            await ctx.scheduler.run_after(0, note, {"value": 2})

        await t.transaction(schedule)
        await t.run_until_idle()
        assert await t.query(notes) == [1, 2]
