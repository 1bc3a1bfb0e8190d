"""Comparisons, indexes, times and references that cannot be."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    InvalidScheduleError,
    MutationCtx,
    QueryError,
    mutation,
)
from duly.declare.registry import Registry
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@pytest.mark.parametrize("value", [{1}, timedelta(1), "\ud800", 2**64, [object()]])
async def test_only_values_can_be_compared(value: Any) -> None:
    async with Harness({}) as t:
        with pytest.raises(QueryError, match="comparing '_creationTime'"):
            await t.transaction(
                lambda ctx: (
                    ctx.db.query("rows").with_index("by_creation_time", lambda q: q.gt("_creationTime", value)).first()
                )
            )


async def test_the_executors_own_order_is_no_index() -> None:
    async with Harness({}) as t:
        with pytest.raises(QueryError, match="got the index 'by_due', expected one of by_creation_time, by_state"):
            await t.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").with_index("by_due").first())


@mutation
async def put(ctx: MutationCtx) -> None: ...


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["above all floats", "below all floats"])
async def test_a_time_that_no_float_holds_is_refused(number: int) -> None:
    async with Harness({"app": SimpleNamespace(put=put)}) as t:
        with pytest.raises(InvalidScheduleError):
            await t.transaction(lambda ctx: ctx.scheduler.run_after(number, put))
        with pytest.raises(InvalidScheduleError):
            await t.transaction(lambda ctx: ctx.scheduler.run_at(number, put))


def test_reference_look_ups_survive_what_cannot_be_hashed() -> None:
    with pytest.raises(Exception, match=r"got \{\} \(dict\), expected a function"):
        Registry({}).find({})  # pyright: ignore[reportArgumentType]
