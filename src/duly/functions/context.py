"""What a handler receives: QueryCtx, MutationCtx, ActionCtx, and SyncActionCtx for actions in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from duly.database.asking import must_be_awaited
from duly.database.transaction import Transaction
from duly.errors import FunctionError, LimitError
from duly.functions.absent import lacks, without_scheduling_by_other_names
from duly.functions.access import Access
from duly.functions.acting import Calls, must_be_begun
from duly.functions.call_log import CallLog
from duly.functions.cursors import Journal
from duly.functions.db import DatabaseReader, DatabaseWriter
from duly.functions.define import R, Ref
from duly.functions.scheduling import ActionScheduler, Delay, Moment, Scheduler
from duly.keywords import explained
from duly.limits import CALL_DEPTH_MAX
from duly.values.annotations import Id

if TYPE_CHECKING:
    from duly.functions.runner import Runner
    from duly.functions.threads import Threads

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

Identity = dict[str, Any]
"""Who calls: `tokenIdentifier`, `subject`, `issuer`, and what else the identity provider says."""


class Auth:
    """`ctx.auth`."""

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    async def get_user_identity(self) -> Identity | None:
        """Who calls, None for nobody. Scheduled functions run as nobody."""
        return deepcopy(self._identity)


@dataclass(slots=True)
class Caller:
    """On whose behalf a function runs."""

    identity: Identity | None = None
    job: int | None = None
    """The scheduled function that it is, or is a part of."""
    depth: int = 0
    """How many calls of functions by functions have led here."""
    lines: list[str] | None = None
    """Where what is written to `ctx.log` is kept as well."""
    gets_plain: bool = False
    """Whether results are for somebody outside, who gets plain values instead of instances."""
    journal: Journal | None = None
    """Where the pages of a live query ended."""

    def inner(self, name: str) -> Caller:
        """The caller of what the function `name` calls."""
        depth = self.depth + 1
        if depth > CALL_DEPTH_MAX:
            raise LimitError(
                f"{name}: got {depth} calls of functions by functions, each within the one before, expected at most"
                f" {CALL_DEPTH_MAX} (CALL_DEPTH_MAX)"
            )
        return Caller(self.identity, self.job, depth, self.lines, journal=self.journal)

    @staticmethod
    def live(identity: Identity | None) -> Caller:
        """One for whom a query runs again and again."""
        return Caller(identity, journal=Journal())


NOBODY: Final = Caller()

_NO_DATABASE: Final = "got ctx.{name} in an action: read with ctx.run_query, write with ctx.run_mutation"


@lacks("got ctx.{name}, expected ctx.run_query, run_mutation or run_action", "runQuery", "runMutation", "runAction")
class _Ctx:
    """What every handler has."""

    _random: Random | None = None
    _log: logging.Logger | None = None

    def __init__(self, runner: Runner, name: str, caller: Caller) -> None:
        self._runner = runner
        self._name = name
        self._caller = caller

    @property
    def auth(self) -> Auth:
        """The identity of the caller: `await ctx.auth.get_user_identity()`."""
        return Auth(self._caller.identity)

    @property
    def random(self) -> Random:
        """A source of randomness that belongs to this call."""
        if self._random is None:
            self._random = self._new_random()
        return self._random

    def _new_random(self) -> Random:
        return Random(self._runner.chance.getrandbits(64))

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines belong to this call: `ctx.log.info("charged %s", order_id)`."""
        if self._log is None:
            self._log = CallLog(self._name, self._runner.limits, self._caller.lines)
        return self._log

    @property
    def scheduled_function_id(self) -> Id[Any] | None:
        """The id in `_scheduled_functions` that this call is, or is a part of; None if it is of none."""
        job = self._caller.job
        return None if job is None else cast("Id[Any]", self._runner.job_id(job))

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


@lacks("got ctx.{name} in a query, which only reads: schedule from a @mutation or an @action", "scheduler")
@lacks("got ctx.{name} in a query, which only reads: make it a @mutation", "run_mutation")
@lacks("got ctx.{name} in a query, which only reads: run it from an @action", "run_action")
class QueryCtx(_Ctx):
    """The context of a query: one snapshot to read."""

    _access: Access | None = None

    def __init__(
        self,
        runner: Runner,
        name: str,
        transaction: Transaction,
        caller: Caller = NOBODY,
    ) -> None:
        # Not by `super()`, which takes longer than all of this: every call and every job makes one.
        self._runner = runner
        self._name = name
        self._caller = caller
        self.transaction = transaction

    def _new_random(self) -> Random:
        return Random(self.transaction.new_seed())

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines belong to this call: `ctx.log.info("charged %s", order_id)`."""
        log = super().log
        log.disabled = self.transaction.is_rehearsal
        return log

    @property
    def access(self) -> Access:
        """What `db` works with; it knows the ids of tables that this call has made."""
        if self._access is None:
            self._access = Access(self.transaction, self._runner.ids, self._caller.journal)
        return self._access

    @property
    def db(self) -> DatabaseReader:
        """The database, for reading."""
        return DatabaseReader(self.access)

    @property
    def now(self) -> float:
        """The time of this call in milliseconds since 1970; it stands still while the call runs."""
        return self.transaction.now

    @explained(FunctionError)
    async def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query in this call's transaction: it sees the same snapshot and this call's writes."""
        return await self._runner.query_within(self.transaction, ref, args, self._caller.inner(self._name))

    async def _results(self, awaitables: tuple[Awaitable[Any], ...]) -> list[Any]:
        try:
            return [await awaitable for awaitable in awaitables]
        finally:
            for awaitable in awaitables:  # those that an error kept from their turn
                if isinstance(awaitable, Coroutine):
                    awaitable.close()


@lacks(
    "got ctx.{name} in a mutation, which may run again: schedule it, await ctx.scheduler.run_after(0, …)", "run_action"
)
class MutationCtx(QueryCtx):
    """The context of a mutation: one transaction to read, write and schedule in."""

    _scheduler: Scheduler | None = None
    _db: DatabaseWriter | None = None

    @property
    def db(self) -> DatabaseWriter:
        """The database, for reading and writing."""
        if self._db is None:
            self._db = DatabaseWriter(self.access)
        return self._db

    @property
    def scheduler(self) -> Scheduler:
        """Schedules functions, as part of this transaction."""
        if self._scheduler is None:
            self._scheduler = Scheduler(self._runner, self.access, self._caller.job)
        return self._scheduler

    @must_be_awaited
    async def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation as a sub-transaction: if it raises, only its own writes and schedules are undone."""
        return await self._runner.mutation_within(self.transaction, ref, args, self._caller.inner(self._name))


@lacks(_NO_DATABASE, "db")
class ActionCtx(_Ctx):
    """The context of an `async def` action: each call is a transaction of its own."""

    def __init__(self, runner: Runner, name: str, caller: Caller) -> None:
        super().__init__(runner, name, caller)
        self.calls = Calls()
        """Those that it must not forget to await, and until when it may make them."""

    @property
    def now(self) -> float:
        """The time, in milliseconds since 1970."""
        return self._runner.clock.now()

    @property
    def scheduler(self) -> ActionScheduler:
        """Schedules functions; each call is committed at once and stays when the action fails."""
        return ActionScheduler(self._runner, self._caller.job, self.calls)

    @explained(FunctionError)
    async def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query on a snapshot of its own."""
        self.calls.check_open()
        function = self._runner.registry.find(ref, ("query",))
        return await self._runner.query(function, args, self._caller.inner(self._name))

    @must_be_begun
    async def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation; it is committed when this returns."""
        self.calls.check_loop()
        function = self._runner.registry.find(ref, ("mutation",))
        return await self._runner.mutation(function, args, self._caller.inner(self._name))

    @must_be_begun
    async def run_action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run another action and wait for it."""
        self.calls.check_loop()
        function = self._runner.registry.find(ref, ("action",))
        return await self._runner.action(function, args, self._caller.inner(self._name))


@without_scheduling_by_other_names
class SyncScheduler:
    """`ctx.scheduler` of a `def` action: the calls block."""

    def __init__(self, scheduler: ActionScheduler, threads: Threads) -> None:
        self._scheduler = scheduler
        self._threads = threads

    @explained(FunctionError)
    def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta. Returns its id."""
        self._threads.check()
        return self._threads.ask(self._scheduler.run_after(delay, ref, args))

    @explained(FunctionError)
    def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime."""
        self._threads.check()
        return self._threads.ask(self._scheduler.run_at(when, ref, args))

    def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function, as in a mutation; also the running action itself. Returns whether it did."""
        self._threads.check()
        return self._threads.ask(self._scheduler.cancel(id, missing_ok=missing_ok))


class SyncAuth:
    """`ctx.auth` of a `def` action."""

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    def get_user_identity(self) -> Identity | None:
        """Who calls, None for nobody. Scheduled functions run as nobody."""
        return deepcopy(self._identity)


@lacks(_NO_DATABASE, "db")
class SyncActionCtx:
    """The context of a `def` action, which runs in a thread: what is awaited elsewhere blocks here."""

    def __init__(self, ctx: ActionCtx, threads: Threads) -> None:
        self._ctx = ctx
        self._threads = threads
        self.auth = SyncAuth(ctx._caller.identity)  # pyright: ignore[reportPrivateUsage]
        """The identity of the caller: `ctx.auth.get_user_identity()`."""
        self.scheduler = SyncScheduler(ctx.scheduler, threads)
        """Schedules functions; each call is committed at once and stays when the action fails."""
        self.random = ctx.random
        """A source of randomness that belongs to this call."""
        self.log = ctx.log
        """A logger whose lines belong to this call."""
        self.scheduled_function_id = ctx.scheduled_function_id
        """The id in `_scheduled_functions` that this call is, or is a part of; None if it is of none."""

    def wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the app's event loop and return its result.

        FunctionError in that loop itself, which it would hold up for ever, and in a query or mutation. StoreError after
        the app was closed.
        """
        return self._threads.ask(coroutine)

    @property
    def now(self) -> float:
        """The time, in milliseconds since 1970."""
        return self._ctx.now

    @explained(FunctionError)
    def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query on a snapshot of its own."""
        self._threads.check()
        return self.wait(self._ctx.run_query(ref, args))

    @explained(FunctionError)
    def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation; it is committed when this returns."""
        self._threads.check()
        return self.wait(self._ctx.run_mutation(ref, args))

    @explained(FunctionError)
    def run_action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run another action and wait for it."""
        self._threads.check()
        return self.wait(self._ctx.run_action(ref, args))
