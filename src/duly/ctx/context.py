"""The contexts of handlers: QueryCtx, MutationCtx, and ActionCtx of an `async def` action."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from random import Random
from typing import Any, Final, TypeVar, cast, overload

from duly.ctx.call_log import CallLog
from duly.ctx.caller import Caller, Identity
from duly.ctx.calls import ActionCalls, must_be_started
from duly.ctx.db.document_mapper import DocumentMapper, mapper_of
from duly.ctx.db.reader import DatabaseReader
from duly.ctx.db.writer import DatabaseWriter
from duly.ctx.invoker import Invoker
from duly.ctx.scheduler import ActionScheduler, Scheduler
from duly.database.driver.unawaited import must_be_awaited
from duly.database.transaction import Transaction
from duly.declare.function import ACTION, MUTATION, QUERY, R
from duly.declare.references import Ref
from duly.errors import FunctionError
from duly.hints import argument_hint, name_hint
from duly.made_once import made_once
from duly.values.schema.annotations import Id

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T", bound="QueryCtx")


class Auth:
    """`ctx.auth`."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get_user_identity(self) -> Identity | None:
        """Return the identity of the caller; None if anonymous. Scheduled functions run anonymously.

        In an HTTP action it raises an error if the token of the request is not valid.
        """
        return self._caller.known_identity()


NO_DATABASE: Final = "got ctx.{name} in an action: read with ctx.run_query, write with ctx.run_mutation"


@name_hint("got ctx.{name}, expected ctx.run_query, run_mutation or run_action", "runQuery", "runMutation", "runAction")
class _Ctx:
    """The part that every context has."""

    # Each call and each job has one. It is made by a function and not by `__init__`: see `Usage`.
    _invoker: Invoker
    _name: str
    _caller: Caller
    _random: Random | None = None
    _log: logging.Logger | None = None

    @property
    def auth(self) -> Auth:
        """The identity of the caller: `await ctx.auth.get_user_identity()`."""
        return Auth(self._caller)

    @property
    def random(self) -> Random:
        """A source of randomness that belongs to this call."""
        if self._random is None:
            self._random = self._new_random()
        return self._random

    def _new_random(self) -> Random:
        return Random(self._invoker.rng.getrandbits(64))

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines belong to this call: `ctx.log.info("charged %s", order_id)`."""
        if self._log is None:
            self._log = CallLog(self._name, self._invoker.limits, self._caller.lines)
        return self._log

    @property
    def scheduled_function_id(self) -> Id[Any] | None:
        """The id of the scheduled function that this call is, or is a part of; None if there is none."""
        job = self._caller.job
        return None if job is None else cast("Id[Any]", self._invoker.job_id(job))

    # Typed as asyncio.gather is: a tuple of what each one returns.

    @overload
    async def gather(self, a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...

    @overload
    async def gather(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...

    @overload
    async def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
    ) -> tuple[A, B, C, D]: ...

    @overload
    async def gather(self, *awaitables: Awaitable[A]) -> list[A]: ...

    async def gather(self, *awaitables: Awaitable[Any]) -> Any:
        """Await several calls of `ctx` and return their results in order; use it in place of asyncio.gather.

        user, orders = await ctx.gather(ctx.db.get(user_id), ctx.db.query("orders").take(10))
        """
        return await self._results(awaitables)

    async def _results(self, awaitables: tuple[Awaitable[Any], ...]) -> list[Any]:
        return list(await asyncio.gather(*awaitables))


@name_hint("got ctx.{name} in a query, which only reads: schedule from a @mutation or an @action", "scheduler")
@name_hint("got ctx.{name} in a query, which only reads: make it a @mutation", "run_mutation")
@name_hint("got ctx.{name} in a query, which only reads: run it from an @action", "run_action")
class QueryCtx(_Ctx):
    """The context of a query: one snapshot to read."""

    # Made together with it and not when they are first read: a look for what is not there yet takes longer.
    transaction: Transaction
    mapper: DocumentMapper
    """The mapper that `db` works with; it knows the ids of tables that this call has created."""
    db: DatabaseReader
    """The database, for reading."""

    def _new_random(self) -> Random:
        return Random(self.transaction.new_seed())

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines belong to this call: `ctx.log.info("charged %s", order_id)`."""
        log = super().log
        log.disabled = self.transaction.is_dry_run
        return log

    @property
    def now(self) -> float:
        """The time of this call in milliseconds since 1970; it stands still while the call runs."""
        return self.transaction.now

    @argument_hint(FunctionError)
    async def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query in this call's transaction: it sees the same snapshot and this call's writes."""
        result: R = await self._invoker.query_within(self.transaction, ref, args, self._caller.inner(self._name))
        return result

    async def _results(self, awaitables: tuple[Awaitable[Any], ...]) -> list[Any]:
        try:
            return [await awaitable for awaitable in awaitables]
        finally:
            for awaitable in awaitables:  # an error may have left some of them unstarted
                if isinstance(awaitable, Coroutine):
                    awaitable.close()


@name_hint(
    "got ctx.{name} in a mutation, which may run again: schedule it, await ctx.scheduler.run_after(0, …)", "run_action"
)
class MutationCtx(QueryCtx):
    """The context of a mutation: one transaction to read, write and schedule in."""

    db: DatabaseWriter  # pyright: ignore[reportIncompatibleVariableOverride]  # nobody sets it
    """The database, for reading and writing."""

    @made_once
    def scheduler(self) -> Scheduler:
        """Schedules functions, as part of this transaction."""
        return Scheduler(self._invoker, self.mapper, self._caller.job)

    @must_be_awaited
    async def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation as a sub-transaction: if it raises, only its own writes and schedules are undone."""
        result: R = await self._invoker.mutation_within(self.transaction, ref, args, self._caller.inner(self._name))
        return result


@name_hint(NO_DATABASE, "db")
class ActionCtx(_Ctx):
    """The context of an `async def` action: each call is a transaction of its own."""

    calls: ActionCalls

    @property
    def now(self) -> float:
        """The time, in milliseconds since 1970."""
        return self._invoker.clock.now()

    @property
    def scheduler(self) -> ActionScheduler:
        """Schedules functions; each call is committed at once and stays when the action fails."""
        return ActionScheduler(self._invoker, self._caller.job, self.calls)

    @argument_hint(FunctionError)
    async def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query on a snapshot of its own."""
        self.calls.check_open()
        function = self._invoker.registry.find(ref, (QUERY,))
        result: R = await self._invoker.query(function, args, self._caller.inner(self._name))
        return result

    @must_be_started
    async def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation; it is committed when this returns."""
        self.calls.check_loop()
        function = self._invoker.registry.find(ref, (MUTATION,))
        result: R = await self._invoker.mutation(function, args, self._caller.inner(self._name))
        return result

    @must_be_started
    async def run_action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run another action and wait for it."""
        self.calls.check_loop()
        function = self._invoker.registry.find(ref, (ACTION,))
        result: R = await self._invoker.action(function, args, self._caller.inner(self._name))
        return result


def query_context(invoker: Invoker, name: str, transaction: Transaction, caller: Caller) -> QueryCtx:
    """Return the context of a run of the query `name`."""
    return _over(QueryCtx(), DatabaseReader(), invoker, name, transaction, caller)


def mutation_context(invoker: Invoker, name: str, transaction: Transaction, caller: Caller) -> MutationCtx:
    """Return the context of a run of the mutation `name`."""
    return _over(MutationCtx(), DatabaseWriter(), invoker, name, transaction, caller)


def _over(ctx: T, reader: DatabaseReader, invoker: Invoker, name: str, transaction: Transaction, caller: Caller) -> T:
    ctx._invoker = invoker  # pyright: ignore[reportPrivateUsage]
    ctx._name = name  # pyright: ignore[reportPrivateUsage]
    ctx._caller = caller  # pyright: ignore[reportPrivateUsage]
    ctx.transaction = reader.transaction = transaction
    ctx.mapper = reader._mapper = mapper_of(transaction, invoker.ids, caller.journal)  # pyright: ignore[reportPrivateUsage]
    ctx.db = reader
    return ctx


def action_context(invoker: Invoker, name: str, caller: Caller) -> ActionCtx:
    """Return the context of a run of the action `name`."""
    ctx = ActionCtx()
    ctx._invoker = invoker  # pyright: ignore[reportPrivateUsage]
    ctx._name = name  # pyright: ignore[reportPrivateUsage]
    ctx._caller = caller  # pyright: ignore[reportPrivateUsage]
    ctx.calls = ActionCalls()
    return ctx
