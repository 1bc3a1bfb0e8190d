"""`ctx.scheduler`: run a function later, exactly once."""

from __future__ import annotations

from typing import Any, cast

from duly.ctx.calls import ActionCalls, must_be_started
from duly.ctx.db.document_mapper import DocumentMapper
from duly.ctx.invoker import Invoker
from duly.ctx.schedule_time import Delay, Moment, check_window, delay_ms, moment_ms
from duly.database.driver.unawaited import must_be_awaited
from duly.database.transaction import Transaction
from duly.declare.function import ACTION, QUERY
from duly.declare.references import Ref
from duly.declare.registered import RegisteredFunction
from duly.errors import ArgumentValidationError, InvalidIdError, InvalidScheduleError
from duly.hints import scheduler_name_hints
from duly.model import jobs
from duly.storage.rows import JOBS
from duly.values.ids import hint_of
from duly.values.json import check_size, size
from duly.values.schema.annotations import Id
from duly.values.schema.validator import Ids


@scheduler_name_hints
class Scheduler:
    """`ctx.scheduler` of a mutation: what it schedules and cancels is part of the transaction."""

    __slots__ = ("_mapper", "_job", "_invoker", "transaction")

    def __init__(self, invoker: Invoker, mapper: DocumentMapper, job: int | None) -> None:
        self._invoker = invoker
        self._mapper = mapper
        self.transaction = mapper.transaction
        self._job = job

    @must_be_awaited
    async def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta; 0 is right after this commits.

        Returns its id in `_scheduled_functions`.

            await ctx.scheduler.run_after(timedelta(days=30), internal.orders.archive, {"order_id": order_id})
        """
        now = self.transaction.now
        return self._schedule(now + delay_ms(delay), ref, args)

    @must_be_awaited
    async def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime.

        A time in the past is due at once, before what became due later. At most five years from now, either way.

            await ctx.scheduler.run_at(datetime(2030, 1, 1, tzinfo=UTC), api.greetings.send)
        """
        return self._schedule(moment_ms(when), ref, args)

    @must_be_awaited
    async def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function: a pending one will not run, and the result of a running action is dropped.

            was_pending = await ctx.scheduler.cancel(reminder_id, missing_ok=True)

        Raises AlreadyCompletedError if it has completed, even if so long ago that its row has expired, unless
        `missing_ok` is set. Canceling twice does nothing. Returns whether this call canceled it.
        """
        return await jobs.cancel(self.transaction, job_number(self._invoker, id), self._job, missing_ok)

    def _schedule(self, when: float, ref: Ref[Any], args: dict[str, Any] | None) -> Id[Any]:
        function = schedulable(self._invoker, ref)
        text = function.encode(args)
        if (misfit := function.misfit(args, text, self._mapper)) is not None:
            refuse(self._invoker, function, misfit)
        transaction = self.transaction
        check_window(when, transaction.now)
        transaction.usage.schedule(size(text))
        id = jobs.schedule(transaction, function.name, function.kind, text, when, self._job)
        made: Id[Any] = self._mapper.ids.encode(JOBS.number, id)  # type: ignore[assignment]
        return made


@scheduler_name_hints
class ActionScheduler:
    """`ctx.scheduler` of an action: each call is a commit of its own, and stays when the action fails."""

    __slots__ = ("_job", "_invoker", "calls")

    def __init__(self, invoker: Invoker, job: int | None, calls: ActionCalls) -> None:
        self._invoker = invoker
        self._job = job
        self.calls = calls

    @must_be_started
    async def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta. Returns its id."""
        return await self._schedule(self._invoker.clock.now() + delay_ms(delay), ref, args)

    @must_be_started
    async def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime."""
        return await self._schedule(moment_ms(when), ref, args)

    @must_be_started
    async def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function, as in a mutation, or the running action itself. Returns whether it did."""
        self.calls.check_loop()
        number = job_number(self._invoker, id)
        return await self._invoker.commit(lambda transaction: jobs.cancel(transaction, number, None, missing_ok))

    async def _schedule(self, when: float, ref: Ref[Any], args: dict[str, Any] | None) -> Id[Any]:
        self.calls.check_loop()
        function = schedulable(self._invoker, ref)
        text = function.encode(args)
        check_window(when, self._invoker.clock.now())
        check_size(text, self._invoker.limits, "scheduled_arguments_bytes_max", f"{function.name}: arguments")
        await self._check_arguments(function, args, text)

        async def unit(transaction: Transaction) -> int:
            return jobs.schedule(transaction, function.name, function.kind, text, when, self._job)

        id = await self._invoker.commit(unit)
        return cast("Id[Any]", self._invoker.job_id(id))

    async def _check_arguments(self, function: RegisteredFunction, args: object, text: str) -> None:
        database = self._invoker.database
        if function.misfit(args, text, database) is not None:
            await database.refresh()  # they may name a table that another node has just created
            check_arguments(self._invoker, function, args, text, database)


def schedulable(invoker: Invoker, ref: Ref[Any]) -> RegisteredFunction:
    """Return the function that a reference names, if it can be scheduled."""
    function = invoker.registry.find(ref)
    if function.kind == QUERY:
        raise InvalidScheduleError(
            f"{function.name} is a query, expected a mutation or an {ACTION}: a query has no effect"
        )
    return function


def check_arguments(invoker: Invoker, function: RegisteredFunction, args: object, text: str, ids: Ids) -> None:
    """Check now whether a function will accept its arguments."""
    misfit = function.misfit(args, text, ids)
    if misfit is not None:
        refuse(invoker, function, misfit)


def refuse(invoker: Invoker, function: RegisteredFunction, misfit: ArgumentValidationError) -> None:
    """Raise the error in development. In production, log a warning, at most once in a while: a later version of the
    function may accept the arguments, and be deployed before the function runs.
    """
    if invoker.development:
        raise misfit
    text = "scheduled with arguments that fail unless a later version takes them: %s"
    invoker.warn_now_and_then((function.name, "arguments"), text, misfit)


def job_number(invoker: Invoker, id: object) -> int:
    """Return the number of an id of `_scheduled_functions`."""
    decoded = invoker.ids.decode(id)
    if decoded is not None and decoded[0] != JOBS.number:
        table = invoker.database.table_of(str(id))
        whose = (
            "another table" if table is None else repr(table)
        )  # a table that is being created is invisible to other calls
        raise InvalidIdError(f"got the id {id} of a document of {whose}, expected one of {JOBS.name!r}")
    if decoded is None:
        raise InvalidIdError(f"got {id!r:.80} ({type(id).__name__}){hint_of(id)}, expected an id of {JOBS.name!r}")
    return decoded[1]
