"""`ctx.scheduler`: run a function later, exactly once."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from duly.clock import monotonic, to_milliseconds
from duly.database.asking import must_be_awaited
from duly.errors import ArgumentValidationError, InvalidIdError, InvalidScheduleError
from duly.functions.absent import without_scheduling_by_other_names
from duly.functions.access import Access
from duly.functions.acting import Calls, must_be_begun
from duly.functions.define import ACTION, QUERY, Ref
from duly.functions.registry import Registered
from duly.limits import SCHEDULE_WINDOW_MS, WARNING_SECONDS
from duly.logs import log_of
from duly.model import jobs
from duly.storage.rows import JOBS
from duly.values.annotations import Id
from duly.values.checks import Ids
from duly.values.ids import hint_of
from duly.values.value import check_size, size

if TYPE_CHECKING:
    from duly.functions.runner import Runner

Delay = float | timedelta
"""Milliseconds, or a timedelta."""
Moment = float | datetime
"""Milliseconds since 1970, or an aware datetime."""

_log: Final = log_of("duly.run")
_FOREVER_MS: Final = 1e15  # beyond every window; an int may be too large for a float
_ROUNDING_MS: Final = 0.0005  # what a sum of a time and a delay may be off; half of what a datetime can tell
_WINDOW_MS: Final = SCHEDULE_WINDOW_MS + _ROUNDING_MS


@without_scheduling_by_other_names
class Scheduler:
    """`ctx.scheduler` of a mutation: what it schedules and cancels is part of the transaction."""

    __slots__ = ("_access", "_job", "_runner", "transaction")

    def __init__(self, runner: Runner, access: Access, job: int | None) -> None:
        self._runner = runner
        self._access = access
        self.transaction = access.transaction
        self._job = job

    @must_be_awaited
    async def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta; 0 is right after this commits.

        Returns its id in `_scheduled_functions`.

            await ctx.scheduler.run_after(timedelta(days=30), internal.orders.archive, {"order_id": order_id})
        """
        now = self.transaction.now
        return await self._schedule(now + delay_ms(delay), ref, args)

    @must_be_awaited
    async def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime.

        A time in the past is due at once, before what became due later; within five years either way.

            await ctx.scheduler.run_at(datetime(2030, 1, 1, tzinfo=UTC), api.greetings.send)
        """
        return await self._schedule(moment_ms(when), ref, args)

    @must_be_awaited
    async def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function: pending, it will not run; a running action's result is dropped.

            was_pending = await ctx.scheduler.cancel(reminder_id, missing_ok=True)

        AlreadyCompletedError if it has completed, or did so long ago that its row has expired, unless `missing_ok`;
        canceling twice does nothing. Returns whether it canceled.
        """
        return await jobs.cancel(self.transaction, job_number(self._runner, id), self._job, missing_ok)

    async def _schedule(self, when: float, ref: Ref[Any], args: dict[str, Any] | None) -> Id[Any]:
        function = schedulable(self._runner, ref)
        text = function.encode(args)
        if (misfit := function.misfit(args, text, self._access)) is not None:
            refuse(self._runner, function, misfit)
        check_window(when, self.transaction.now)
        self.transaction.usage.schedule(size(text))
        id = await jobs.schedule(self.transaction, function.name, function.kind, text, when, self._job)
        return cast("Id[Any]", self._runner.job_id(id))


@without_scheduling_by_other_names
class ActionScheduler:
    """`ctx.scheduler` of an action: each call is a commit of its own, and stays when the action fails."""

    __slots__ = ("_job", "_runner", "calls")

    def __init__(self, runner: Runner, job: int | None, calls: Calls) -> None:
        self._runner = runner
        self._job = job
        self.calls = calls

    @must_be_begun
    async def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta. Returns its id."""
        return await self._schedule(self._runner.clock.now() + delay_ms(delay), ref, args)

    @must_be_begun
    async def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime."""
        return await self._schedule(moment_ms(when), ref, args)

    @must_be_begun
    async def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function, as in a mutation; also the running action itself. Returns whether it did."""
        self.calls.check_loop()
        number = job_number(self._runner, id)
        return await self._runner.commit(lambda transaction: jobs.cancel(transaction, number, None, missing_ok))

    async def _schedule(self, when: float, ref: Ref[Any], args: dict[str, Any] | None) -> Id[Any]:
        self.calls.check_loop()
        function = schedulable(self._runner, ref)
        text = function.encode(args)
        check_window(when, self._runner.clock.now())
        check_size(text, self._runner.limits, "scheduled_arguments_bytes_max", f"{function.name}: arguments")
        await self._check_arguments(function, args, text)
        id = await self._runner.commit(
            lambda transaction: jobs.schedule(transaction, function.name, function.kind, text, when, self._job)
        )
        return cast("Id[Any]", self._runner.job_id(id))

    async def _check_arguments(self, function: Registered, args: object, text: str) -> None:
        store = self._runner._database  # pyright: ignore[reportPrivateUsage]
        if function.misfit(args, text, store) is not None:
            await store.refresh()  # they may name a table that another node has just made
            check_arguments(self._runner, function, args, text, store)


def schedulable(runner: Runner, ref: Ref[Any]) -> Registered:
    """The function a reference names, if it can be scheduled."""
    function = runner.registry.find(ref)
    if function.kind == QUERY:
        raise InvalidScheduleError(
            f"{function.name} is a query, expected a mutation or an {ACTION}: a query has no effect"
        )
    return function


def check_arguments(runner: Runner, function: Registered, args: object, text: str, ids: Ids) -> None:
    """Find out now that a function will not take its arguments."""
    misfit = function.misfit(args, text, ids)
    if misfit is not None:
        refuse(runner, function, misfit)


def refuse(runner: Runner, function: Registered, misfit: ArgumentValidationError) -> None:
    """Raise it in development. In production it is a warning, now and then: a later version may take the arguments, and
    be deployed by the time at which it runs.
    """
    if runner.development:
        raise misfit
    key, now = (function.name, "arguments"), monotonic()
    if now >= runner.warned.get(key, now):
        runner.warned[key] = now + WARNING_SECONDS
        _log.warning("scheduled with arguments that fail unless a later version takes them: %s", misfit)


def job_number(runner: Runner, id: object) -> int:
    """The number of an id of `_scheduled_functions`."""
    decoded = runner.ids.decode(id)
    if decoded is not None and decoded[0] != JOBS.number:
        table = runner._database.table_of(str(id))  # pyright: ignore[reportPrivateUsage]
        whose = "another table" if table is None else repr(table)  # no other call sees one that is being created
        raise InvalidIdError(f"got the id {id} of a document of {whose}, expected one of {JOBS.name!r}")
    if decoded is None:
        raise InvalidIdError(f"got {id!r:.80} ({type(id).__name__}){hint_of(id)}, expected an id of {JOBS.name!r}")
    return decoded[1]


def delay_ms(delay: object) -> float:
    """A delay in milliseconds; it must be finite and not negative."""
    if isinstance(delay, timedelta):
        delay = delay / timedelta(milliseconds=1)
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise InvalidScheduleError(
            f"got the delay {delay!r:.80} ({type(delay).__name__}), expected milliseconds or a timedelta"
        )
    if not 0 <= delay < math.inf:  # neither is NaN
        shown = max(delay, -_FOREVER_MS) if isinstance(delay, int) else delay
        raise InvalidScheduleError(f"got a delay of {shown} ms, expected a finite one that is not negative")
    return float(min(delay, _FOREVER_MS))  # no instance of a subclass


def moment_ms(when: object) -> float:
    """A time in milliseconds since 1970."""
    if isinstance(when, datetime):
        try:
            return to_milliseconds(when)
        except ValueError as error:
            raise InvalidScheduleError(str(error)) from None
    if isinstance(when, bool) or not isinstance(when, int | float) or not -math.inf < when < math.inf:
        raise InvalidScheduleError(
            f"got the time {when!r:.80} ({type(when).__name__}), expected milliseconds since 1970 or an aware datetime"
        )
    return float(max(-_FOREVER_MS, min(when, _FOREVER_MS)))


def check_window(when: float, now: float) -> None:
    """Raise unless a time is at most five years away."""
    if not -_WINDOW_MS <= when - now <= _WINDOW_MS:
        days = math.ceil(abs(when - now) / 8_640_000) / 10  # rounded up: it is more than what is allowed
        seconds = "; it looks like seconds since 1970, expected milliseconds (multiply by 1000) or an aware datetime"
        raise InvalidScheduleError(
            f"got a time {days:,.1f} days in the {'future' if when > now else 'past'}, expected at most"
            f" {SCHEDULE_WINDOW_MS // 86_400_000:,} days, five years (SCHEDULE_WINDOW_MS)"
            f"{seconds if abs(when * 1000 - now) <= _WINDOW_MS else ''}"
        )
