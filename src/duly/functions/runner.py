"""Runs functions: a query on a snapshot, a mutation in a batch, an action in the event loop, a due job in its turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from duly import faults
from duly.clock import Clock, monotonic
from duly.database.asking import check_awaited
from duly.database.batch import Batch
from duly.database.database import Database, Read
from duly.database.transaction import Transaction
from duly.database.usage import Quota
from duly.errors import ArgumentValidationError, FunctionError, FunctionNotFoundError, LimitError, StoreError
from duly.functions.acting import contained, contained_call
from duly.functions.context import NOBODY, ActionCtx, Caller, MutationCtx, QueryCtx, SyncActionCtx
from duly.functions.define import ACTION, MUTATION, QUERY, Ref
from duly.functions.failure import describe
from duly.functions.registry import Registered, Registry
from duly.functions.rehearsal import attempt_twice
from duly.functions.run import LOG, Run, shown
from duly.functions.threads import Threads
from duly.limits import (
    ERROR_TEXT_LENGTH_MAX,
    OF_ANY_SIZE,
    POSTPONED_MS,
    WARNING_SECONDS,
    unlimited,
)
from duly.model import crons, jobs
from duly.model.cron_log import NO_ACCOUNT, Account, plain
from duly.model.job_state import SUCCESS
from duly.storage.rows import JOBS, Job
from duly.values.ids import IdCodec
from duly.values.value import dumps, loads

T = TypeVar("T")

CALL_INTERRUPTED: Final = (
    "interrupted: the app was closed before this action ended, or its caller was cancelled. It may have done all, some"
    " or nothing of its work"
)
_RECORD_SECONDS: Final = (0.5, 15.0)  # first and longest pause before the end of an action is recorded again


class Runner:
    """Runs the functions of a registry against a database."""

    def __init__(self, database: Database, registry: Registry, clock: Clock, development: bool, chance: Random) -> None:
        self.registry = registry
        """Replaced as a whole when the application is loaded anew."""
        self.limits = registry.limits
        self.clock = clock
        self.chance = chance
        """Where actions get theirs from; transactions have seeds of their own."""
        self.ids: IdCodec = database.ids
        self._database = database
        self.development = development
        self.warned: dict[tuple[str, str], float] = {}  # when to warn again, by function and limit
        self._unlimited = Quota(unlimited(registry.limits))
        self._threads = Threads(database)

    def use(self, registry: Registry) -> None:
        """Find functions in this registry from now on."""
        self.registry = registry

    def close(self) -> None:
        """Start no more actions in threads. Those that run cannot be stopped, and go on alone."""
        self._threads.close()

    def job_id(self, number: int) -> str:
        return self.ids.encode(JOBS.number, number)

    def commit(self, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run one transaction of the system's own."""
        return self._database.commit(lambda batch: batch.attempt(unit))

    # Calls from outside, and from actions.

    async def read(
        self,
        function: Registered,
        args: dict[str, Any] | None,
        caller: Caller = NOBODY,
    ) -> Read[Any]:
        """Run a query; its value or its error come with what it has read."""
        text = function.encode(args)

        async def unit(transaction: Transaction) -> Any:
            ctx = QueryCtx(self, function.name, transaction, caller)
            arguments = function.arguments(text, ctx.access)
            value = self._result(function, ctx, await function.handler(ctx, **arguments), caller.gets_plain)
            if transaction.usage.is_near:
                self._warn(function, transaction)
            return value

        started = monotonic()
        outcome = await self._database.read(unit, function.name)
        self._told(function.name, QUERY, started, outcome.error, args=text)
        return outcome

    async def query(
        self,
        function: Registered,
        args: dict[str, Any] | None,
        caller: Caller = NOBODY,
    ) -> Any:
        """Run a query and return its value."""
        outcome = await self.read(function, args, caller)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def mutation(
        self,
        function: Registered,
        args: dict[str, Any] | None,
        caller: Caller = NOBODY,
    ) -> asyncio.Future[Any]:
        """Run a mutation; the future has its value once it is durable."""
        text = function.encode(args)
        checked, started = list[dict[str, Any]](), monotonic()
        try:
            checked.append(function.arguments(text, self._database))
        except ArgumentValidationError as error:
            if not self._database.is_shared:
                self._told(function.name, MUTATION, started, error, args=text)
                raise
            # It may name a table that another node has just made: the batch will know.

        async def unit(transaction: Transaction) -> Any:
            ctx = MutationCtx(self, function.name, transaction, caller)
            # A handler may change its arguments: a rehearsal, or another run after a conflict, gets its own.
            given = checked.pop() if checked else function.arguments(text, ctx.access)
            value = self._result(function, ctx, await function.handler(ctx, **given), caller.gets_plain)
            if transaction.usage.is_near:
                self._warn(function, transaction)
            return value

        def attempt(batch: Batch) -> Any:
            return context.copy().run(self._attempt, batch, function, text, unit)  # run again, it begins with the same

        context = copy_context()
        return self._database.commit(attempt, args=text)

    async def action(
        self,
        function: Registered,
        args: dict[str, Any] | None,
        caller: Caller = NOBODY,
    ) -> Any:
        """Run an action in this event loop, or in a thread if it is a plain function."""
        started = monotonic()
        try:
            value = await contained(self._acted(function, args, caller))
        except Exception as error:
            self._told(function.name, ACTION, started, error, args=args)
            raise
        except asyncio.CancelledError:
            self._told(function.name, ACTION, started, FunctionError(CALL_INTERRUPTED), args=args)
            raise
        self._told(function.name, ACTION, started, args=args)
        return value

    async def _acted(self, function: Registered, args: object, caller: Caller) -> Any:
        """What an action returns, whose code runs from here on: that of its types validates its arguments."""
        text = function.encode(args)
        arguments: dict[str, Any] | None = None
        with suppress(ArgumentValidationError):  # it may name a table that another node has just made
            arguments = function.arguments(text, self._database)
        if arguments is None:
            await self._database.refresh()
            arguments = function.arguments(text, self._database)
        ctx = ActionCtx(self, function.name, caller)
        try:
            value = await self._act(function, ctx, arguments)
        finally:
            ctx.calls.end()  # also where a thread goes on, which nothing can stop
        return function.result(value, self._database, caller.gets_plain)

    async def _act(self, function: Registered, ctx: ActionCtx, arguments: dict[str, Any]) -> Any:
        most = self.limits.action_seconds_max
        timeout, ended = asyncio.timeout(most), None
        try:
            async with timeout:
                if not function.blocking:
                    value = await function.handler(ctx, **arguments)
                    ctx.calls.check(function.name)
                    return value
                call = partial(contained_call, function.handler, SyncActionCtx(ctx, self._threads), arguments)
                ended = await self._threads.begin(call)
                return await ended
        except TimeoutError:
            if not timeout.expired():
                raise  # its own
            if function.blocking and ended is None:
                raise self._threads.none_free(function.name, most) from None
            goes_on = "; its thread cannot be stopped and goes on" if function.blocking else ""
            raise LimitError(
                f"{function.name}: it ran longer than {most:g} s (action_seconds_max){goes_on}; do a part and"
                " schedule the rest"
            ) from None

    async def transaction(self, unit: Callable[[MutationCtx], Awaitable[T]]) -> T:
        """Run a function that is no part of the application as a mutation."""

        async def run(transaction: Transaction) -> T:
            transaction.usage.quota = self._unlimited
            value = await unit(MutationCtx(self, "transaction", transaction))
            check_awaited(transaction, "transaction")
            return value

        context = copy_context()
        return await self._database.commit(lambda batch: context.copy().run(batch.attempt, run))

    # Calls within a transaction.

    async def query_within(self, transaction: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any:
        function, own = self.registry.find(ref, (QUERY,)), transaction.child()
        try:
            ctx = QueryCtx(self, function.name, own, caller)
            arguments = function.arguments(function.encode(args), ctx.access)
            return self._result(function, ctx, await function.handler(ctx, **arguments))
        finally:
            own.end()

    async def mutation_within(self, parent: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any:
        function = self.registry.find(ref, (MUTATION,))
        transaction, written = parent.child(), parent.usage.written
        try:
            ctx = MutationCtx(self, function.name, transaction, caller)
            arguments = function.arguments(function.encode(args), ctx.access)
            value = self._result(function, ctx, await function.handler(ctx, **arguments))
            parent.merge(transaction)
        except BaseException:
            parent.usage.written = written  # what is undone does not count
            raise
        finally:
            transaction.end()
        return value

    def _result(self, function: Registered, ctx: QueryCtx, value: object, as_plain: bool = False) -> Any:
        """What a call returns whose handler returned `value`."""
        if ctx.transaction.calls and isinstance(ctx, MutationCtx):
            check_awaited(ctx.transaction, function.name)
        return None if value is None and function.returns_none else function.result(value, ctx.access, as_plain)

    def _warn(self, function: Registered, transaction: Transaction) -> None:
        """Say that a call came close to a limit, now and then: a function that does so often does it always."""
        for limit, text in transaction.usage.near().items():
            now = monotonic()
            if now >= self.warned.get((function.name, limit), now):
                self.warned[function.name, limit] = now + WARNING_SECONDS
                LOG.warning("%s is close to a limit: %s", function.name, text)

    def _attempt(
        self, batch: Batch, function: Registered, args: str, unit: Callable[[Transaction], Coroutine[Any, Any, T]]
    ) -> T:
        started = monotonic()
        try:
            if self.development:
                value = attempt_twice(batch, function.name, unit)
            else:
                value = batch.attempt(unit, handler=function.name)
        except Exception as error:
            self._told(function.name, MUTATION, started, error, batch=batch, args=args)
            raise
        self._told(function.name, MUTATION, started, batch=batch, args=args)
        return value

    # Scheduled functions.

    def run_due(self, batch: Batch, job: Job, epoch: int) -> bool:
        """Run a due mutation, or mark a due action as started; tell whether it was an action.

        Its row counts as the batch has left it, for an earlier call of the batch may have canceled it.
        """
        latest = batch.latest(JOBS, job.id, job)
        if latest is not job and latest != job:
            return False
        faults.at("job.claimed")
        if job.name == crons.CLOCK:
            self._tick(batch, job)
            return False
        function = self.registry.functions.get(job.name)
        if function is not None and function.kind == MUTATION:
            self._run_mutation(batch, function, job)
        elif function is not None and function.kind == ACTION and job.queue == ACTION:
            batch.attempt(jobs.start, job, epoch)
            return True
        elif function is not None and function.kind == ACTION:
            batch.attempt(jobs.change_lane, job, ACTION)  # it was a mutation when it was scheduled
        elif batch.catalog.deploy not in ("", self.registry.mark):
            # A newer version of the application may know it: a node that runs that gets it, or this one asks again.
            batch.attempt(jobs.postpone, job, batch.now + POSTPONED_MS)
        else:
            error = _not_runnable(job.name, function, self.registry.meant(job.name))
            self._told(job.name, job.queue, monotonic(), error, job, batch)
            batch.attempt(jobs.fail, job, describe(error))
        return False

    def _tick(self, batch: Batch, clock: Job) -> None:
        try:
            batch.attempt(crons.tick, clock)
        except Exception as error:
            if batch.broken is not None:
                raise
            LOG.error("a cron gave up, for its clock cannot go on: %s", describe(error), exc_info=error)
            batch.attempt(crons.give_up, clock, describe(error, ERROR_TEXT_LENGTH_MAX))

    def _run_mutation(self, batch: Batch, function: Registered, job: Job) -> None:
        started, caller = monotonic(), _caller_of(job)
        begun = None if job.cron is None else self.clock.now()  # time stands still in the batch
        try:
            if self.development:
                attempt_twice(batch, function.name, self._job, function, job, caller, begun)
            else:  # in a context of its own: what it sets there is not for those after it
                copy_context().run(batch.attempt, self._job, function, job, caller, begun, handler=function.name)
        except Exception as error:
            if batch.broken is not None:
                raise
            self._told(job.name, MUTATION, started, error, job, batch)
            account = NO_ACCOUNT if begun is None else self._account(begun, caller)
            batch.attempt(jobs.fail, job, describe(error, ERROR_TEXT_LENGTH_MAX), account)
        else:
            self._told(job.name, MUTATION, started, None, job, batch)

    async def _job(
        self, transaction: Transaction, function: Registered, job: Job, caller: Caller, begun: float | None
    ) -> None:
        """A scheduled mutation and the end of its job, as one transaction."""
        if caller.lines:
            caller.lines.clear()  # those of a rehearsal
        ctx = MutationCtx(self, function.name, transaction, caller)
        arguments = function.arguments(job.args, ctx.access)
        value = self._result(function, ctx, await function.handler(ctx, **arguments), caller.gets_plain)
        if transaction.usage.is_near:
            self._warn(function, transaction)
        faults.at("job.ran")
        if begun is None:
            jobs.succeed(transaction, job)
        else:
            await crons.end(transaction, job, SUCCESS, None, self._account(begun, caller, value))

    async def run_started(self, job: Job, epoch: int) -> None:
        """Run an action that is marked as started, and record how it ended."""
        faults.at("action.marked")
        failure: Exception | None = None
        error: str | None = None
        value, caller, started, begun = None, _caller_of(job), monotonic(), self.clock.now()
        try:
            function = self.registry.find(job.name, (ACTION,))
            value = await contained(self._acted(function, loads(job.args), caller))
        except asyncio.CancelledError:
            failure, error = FunctionError(jobs.INTERRUPTED), jobs.INTERRUPTED
        except Exception as raised:
            failure, error = raised, describe(raised, ERROR_TEXT_LENGTH_MAX)
        if self._database.is_open:  # else whoever opens the store next will tell of it
            self._told(job.name, ACTION, started, failure, job)
        faults.at("action.ran")
        account = NO_ACCOUNT if job.cron is None else self._account(begun, caller, value)
        await self._record_end(job, epoch, error, account)
        faults.at("action.recorded")

    async def _record_end(self, job: Job, epoch: int, error: str | None, account: Account) -> None:
        """Record it, however long the store refuses: nobody else knows how the action ended."""
        pause = _RECORD_SECONDS[0]
        while True:
            try:
                end = partial(jobs.end_action, id=job.id, epoch=epoch, error=error, account=account)
                # Not as what somebody waits for: that would be withdrawn where this is cancelled.
                return await self._database.commit(partial(Batch.attempt, unit=end), is_awaited=False)
            except StoreError as refused:
                if not self._database.is_open:
                    return None  # this process is lost: the next one will know
                LOG.warning("%s has ended, which the store refuses to record; trying again", job.name)
                if type(refused) is StoreError:  # it may be the text that it cannot hold
                    error, account = error and plain(error), account.plain
            except Exception as unfit:  # then without what cannot be recorded
                error, account = describe(unfit, ERROR_TEXT_LENGTH_MAX), NO_ACCOUNT
                LOG.exception("%s has ended, which cannot be recorded as it is; trying again: %s", job.name, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RECORD_SECONDS[1])

    def give_up(self, job: Job, epoch: int) -> None:
        """Queue to be recorded that an action was interrupted, which goes on as if it was not."""
        with suppress(StoreError):  # the process is lost: the next one will know
            recorded = self.commit(partial(jobs.end_action, id=job.id, epoch=epoch, error=jobs.INTERRUPTED))
            recorded.add_done_callback(lambda done: done.cancelled() or done.exception())
            self.tell_interrupted(job)

    def tell_interrupted(self, job: Job) -> None:
        """Tell the log of an action that has failed because nobody knows how it ended."""
        self._told(job.name, ACTION, monotonic(), FunctionError(jobs.INTERRUPTED), job)

    def _account(self, begun: float, caller: Caller, value: Any = None) -> Account:
        """What a run of a cron that ends now leaves to its log."""
        return Account(dumps(value, OF_ANY_SIZE), caller.lines or (), begun, self.clock.now())

    def _told(
        self,
        name: str,
        kind: str,
        started: float,
        error: Exception | None = None,
        job: Job | None = None,
        batch: Batch | None = None,
        args: object = None,
    ) -> None:
        """Tell the log of a run, which was that of `job` if it was scheduled; if in a batch, once that is durable."""
        # Nobody else hears of a scheduled function that failed.
        level = logging.ERROR if error is not None and job is not None else logging.INFO
        if LOG.isEnabledFor(level):
            id = None if job is None or job.cron is not None else self.job_id(job.id)
            text = shown(args) if job is None else job.args
            run = Run(name, kind, id, job is not None, (monotonic() - started) * 1000, error, text)
            tell = partial(run.tell, level, copy_context())
            if batch is None:
                tell()
            else:
                batch.afterwards.append(tell)


def _caller_of(job: Job) -> Caller:
    """Runs of crons have no row that anybody may see, but a log."""
    return Caller(None, job.id, gets_plain=True) if job.cron is None else Caller(lines=[], gets_plain=True)


def _not_runnable(name: str, function: Registered | None, meant: str) -> FunctionNotFoundError:
    expected = "expected the mutation or action that was scheduled"
    if function is None:
        return FunctionNotFoundError(f"{name} does not exist (any more), {expected}{meant and f'; {meant}'}")
    return FunctionNotFoundError(f"{name} is a query now, {expected}")
