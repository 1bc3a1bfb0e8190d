"""Runs calls: a query on a snapshot, a mutation in a batch, an action in the event loop or in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from random import Random
from typing import Any, Final, TypeVar

from duly.clock import Clock, monotonic
from duly.ctx.caller import ANONYMOUS, Caller
from duly.ctx.context import MutationCtx, QueryCtx, action_context, mutation_context, query_context
from duly.database.batch import Batch
from duly.database.database import Database, QueryOutcome
from duly.database.driver.trampoline import drive
from duly.database.driver.unawaited import check_awaited
from duly.database.transaction import Transaction
from duly.database.usage import SoftLimits
from duly.declare.function import ACTION, MUTATION, QUERY
from duly.declare.http_router import HTTP, HttpHandler
from duly.declare.references import Ref
from duly.declare.registered import RegisteredFunction
from duly.declare.registry import Registry
from duly.errors import ArgumentValidationError, FunctionError
from duly.limits import WARNING_SECONDS, unlimited
from duly.model import client_requests
from duly.model.client_requests import Answer
from duly.run.action_handlers import ActionHandlers
from duly.run.containment import contained
from duly.run.determinism import attempt_with_rehearsal
from duly.run.run_log import LOG, RunLog
from duly.storage.rows import JOBS
from duly.values.ids import IdCodec

T = TypeVar("T")

QueryCall = tuple[RegisteredFunction, str, Caller]
"""A query, its arguments as JSON, and for whom it runs."""

_ATOMS: Final = frozenset((type(None), str, int, float, bool))
CALL_INTERRUPTED: Final = (
    "interrupted: the app was closed before this action ended, or its caller was cancelled. It may have done all, some"
    " or nothing of its work"
)


class Runner:
    """Runs the functions of a registry against a database. Contexts know it as an `Invoker`."""

    def __init__(self, database: Database, registry: Registry, clock: Clock, development: bool, rng: Random) -> None:
        self.registry = registry
        """Replaced as a whole when the application is reloaded."""
        self.limits = registry.limits
        self.clock = clock
        self.rng = rng
        """The randomness of actions; transactions have seeds of their own."""
        self.ids: IdCodec = database.ids
        self.database = database
        self.development = development
        self.run_log = RunLog(database.ids)
        self._log_run = self.run_log.record
        self._next_warning: dict[tuple[str, str], float] = {}  # by function and topic
        self._unlimited = SoftLimits(unlimited(registry.limits))
        self._handlers = ActionHandlers(database, registry.limits.action_seconds_max)

    def use(self, registry: Registry) -> None:
        """Find functions in this registry from now on."""
        self.registry = registry

    def close(self) -> None:
        """Start no more actions in threads. Those that run cannot be stopped, and go on alone."""
        self._handlers.close()

    def job_id(self, number: int) -> str:
        return self.ids.encode(JOBS.number, number)

    def commit(self, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run a transaction of the system."""
        return self.database.commit(lambda batch: batch.attempt(unit))

    def warn_now_and_then(self, key: tuple[str, str], text: str, *args: object) -> None:
        """Log a warning, at most once in WARNING_SECONDS for the same function and topic."""
        now = monotonic()
        if now >= self._next_warning.get(key, now):
            self._next_warning[key] = now + WARNING_SECONDS
            LOG.warning(text, *args)

    # Queries.

    async def read(
        self, function: RegisteredFunction, args: dict[str, Any] | None, caller: Caller = ANONYMOUS
    ) -> QueryOutcome[Any]:
        """Run a query. Returns its value or its error, with its read set."""
        [outcome] = await self.read_together([(function, function.encode(args), caller)])
        return outcome

    async def read_together(self, calls: Sequence[QueryCall]) -> list[QueryOutcome[Any]]:
        """Run several queries on one snapshot, with arguments as JSON."""
        started = monotonic()
        outcomes = await self.database.read_together([(self._query_unit(*call), call[0].name) for call in calls])
        for (function, text, _), outcome in zip(calls, outcomes, strict=True):
            self._log_run(function.name, QUERY, started, outcome.error, args=text)
        return outcomes

    def _query_unit(
        self, function: RegisteredFunction, text: str, caller: Caller
    ) -> Callable[[Transaction], Coroutine[Any, Any, Any]]:
        async def unit(transaction: Transaction) -> Any:
            ctx = query_context(self, function.name, transaction, caller)
            arguments = function.arguments(text, ctx.mapper)
            value = self.result(function, ctx, await function.handler(ctx, **arguments), caller.wants_plain)
            if transaction.usage.is_near_limit:
                self.warn_of_limits(function, transaction)
            return value

        return unit

    async def query(self, function: RegisteredFunction, args: dict[str, Any] | None, caller: Caller = ANONYMOUS) -> Any:
        """Run a query and return its value."""
        outcome = await self.read(function, args, caller)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    # Mutations.

    def mutation(
        self, function: RegisteredFunction, args: dict[str, Any] | None, caller: Caller = ANONYMOUS
    ) -> asyncio.Future[Any]:
        """Run a mutation; the future has its value once it is durable."""
        text = function.encode(args)
        checked, context = self._checked_arguments(function, text), copy_context()
        is_plain = function.is_plain and not self.development and (caller.request is None or caller.request_is_new)
        attempt = self._attempt_plain if is_plain else self._attempt
        # A copy for each attempt: it starts with the context variables as the caller has set them.
        return self.database.commit(
            lambda batch: context.copy().run(attempt, batch, function, text, caller, checked), args=text
        )

    def _attempt_plain(
        self, batch: Batch, function: RegisteredFunction, text: str, caller: Caller, checked: list[dict[str, Any]]
    ) -> Any:
        started, transaction = monotonic(), batch.begin()
        if caller.lines:
            caller.lines.clear()  # those of a run before a conflict
        try:
            # A handler may change its arguments: a run after a conflict gets arguments of its own.
            arguments = checked.pop() if checked else function.arguments(text, batch)
            value = self.run_plain(batch, function, transaction, caller, arguments)
            if caller.request is not None:
                client_requests.record(transaction, caller.request, Answer(value, caller.lines or []))
            batch.keep(transaction)
        except Exception as error:
            self._log_run(function.name, MUTATION, started, error, batch=batch, args=text)
            raise
        finally:
            batch.end(transaction)
        self._log_run(function.name, MUTATION, started, batch=batch, args=text)
        return value

    def _checked_arguments(self, function: RegisteredFunction, text: str) -> list[dict[str, Any]]:
        """Return the arguments of one run in a list, or raise at once that they do not fit, without a batch.

        The list is empty if the engine is shared and they do not fit. They may name a table that another node has just
        created, so the batch checks them again.
        """
        try:
            return [function.arguments(text, self.database)]
        except ArgumentValidationError as error:
            if self.database.is_shared:
                return []
            self._log_run(function.name, MUTATION, monotonic(), error, args=text)
            raise

    def run_plain(
        self,
        batch: Batch,
        function: RegisteredFunction,
        transaction: Transaction,
        caller: Caller,
        arguments: dict[str, Any],
    ) -> Any:
        """Run the handler of a plain mutation in a transaction of a batch, and return its validated result.

        The path of nearly all mutations, called and scheduled: only the handler's own code is a coroutine, and only
        while it runs is the time limited. What else may run code of the application takes the longer path, in which
        all of a call is one coroutine: arguments and results that are instances, development, the runs of crons.
        """
        ctx = mutation_context(self, function.name, transaction, caller)
        value = drive(function.handler(ctx, **arguments), batch, batch.watched, function.name)
        if transaction.calls:
            check_awaited(transaction, function.name)
        if value is None and function.returns_none:
            pass  # as most scheduled functions end
        elif type(value) in _ATOMS:
            value = function.result(value, ctx.mapper, caller.wants_plain)
        else:
            late = self._late_result(function, ctx, value, caller)
            value = drive(late, batch, batch.watched, function.name)
        if transaction.usage.is_near_limit:
            self.warn_of_limits(function, transaction)
        return value

    async def _late_result(self, function: RegisteredFunction, ctx: QueryCtx, value: object, caller: Caller) -> Any:
        """Validate a result in a coroutine, whose time is limited: it may hold objects of the application."""
        return self.result(function, ctx, value, caller.wants_plain)

    def _attempt(
        self, batch: Batch, function: RegisteredFunction, text: str, caller: Caller, checked: list[dict[str, Any]]
    ) -> Any:
        async def unit(transaction: Transaction) -> Any:
            if caller.lines:
                caller.lines.clear()  # those of a rehearsal, or of a run before a conflict
            if (known := await self._answer_to(transaction, caller)) is not None:
                return known.value
            ctx = mutation_context(self, function.name, transaction, caller)
            # A handler may change its arguments: a rehearsal, and a run after a conflict, get arguments of their own.
            given = checked.pop() if checked else function.arguments(text, ctx.mapper)
            value = self.result(function, ctx, await function.handler(ctx, **given), caller.wants_plain)
            if transaction.usage.is_near_limit:
                self.warn_of_limits(function, transaction)
            if caller.request is not None:
                client_requests.record(transaction, caller.request, Answer(value, caller.lines or []))
            return value

        started = monotonic()
        try:
            if self.development:
                value = attempt_with_rehearsal(batch, function.name, unit)
            else:
                value = batch.attempt(unit, handler=function.name)
        except Exception as error:
            self._log_run(function.name, MUTATION, started, error, batch=batch, args=text)
            raise
        self._log_run(function.name, MUTATION, started, batch=batch, args=text)
        return value

    async def _answer_to(self, transaction: Transaction, caller: Caller) -> Answer | None:
        """Return the answer to a request that was committed before, with its log lines in those of the caller."""
        if caller.request is None or caller.request_is_new:
            return None
        known = await client_requests.find(transaction, caller.request)
        if known is not None and caller.lines is not None:
            caller.lines += known.lines
        return known

    async def transaction(self, unit: Callable[[MutationCtx], Awaitable[T]]) -> T:
        """Run a function that does not belong to the application as a mutation."""

        async def run(transaction: Transaction) -> T:
            transaction.usage.soft_limits = self._unlimited
            value = await unit(mutation_context(self, "transaction", transaction, ANONYMOUS))
            check_awaited(transaction, "transaction")
            return value

        context = copy_context()
        return await self.database.commit(lambda batch: context.copy().run(batch.attempt, run))

    # Actions.

    async def action(
        self, function: RegisteredFunction, args: dict[str, Any] | None, caller: Caller = ANONYMOUS
    ) -> Any:
        """Run an action in this event loop, or in a thread if it is a `def`."""
        return await self._logged(function.name, ACTION, args, self._encode_and_run(function, args, caller))

    async def run_action(self, function: RegisteredFunction, text: str, caller: Caller) -> Any:
        """Run an action, without a record in the log, with arguments as JSON.

        Await it `contained`, because it runs code of the application.
        """
        try:
            arguments = function.arguments(text, self.database)
        except ArgumentValidationError:  # they may name a table that another node has just created
            arguments = None
        if arguments is None:
            await self.database.refresh()
            arguments = function.arguments(text, self.database)
        ctx = action_context(self, function.name, caller)
        value = await self._handlers.run(function.name, function.handler, function.blocking, ctx, arguments)
        if value is None and function.returns_none:
            return None
        return function.result(value, self.database, caller.wants_plain)

    async def _encode_and_run(self, function: RegisteredFunction, args: object, caller: Caller) -> Any:
        return await self.run_action(function, function.encode(args), caller)

    async def http_action(
        self,
        handler: HttpHandler,
        request: Any,
        respond: Callable[[Any], Awaitable[None]],
        about: dict[str, Any],
        caller: Caller,
    ) -> None:
        """Run the handler of a route with a request, as an action, and `respond` with what it returns.

        The response is a part of the run: its body may be a generator, which may use `ctx`. `about` is what the log has
        in place of arguments.
        """
        ctx = action_context(self, handler.name, caller)

        def handle(ctx: object) -> Any:
            return handler.handle(ctx, request)

        run = self._handlers.run(handler.name, handle, handler.blocking, ctx, {}, respond)
        await self._logged(handler.name, HTTP, about, run)

    async def _logged(self, name: str, kind: str, args: object, action: Coroutine[Any, Any, T]) -> T:
        """Await an action and log how it ended."""
        started = monotonic()
        try:
            value = await contained(action)
        except Exception as error:
            self._log_run(name, kind, started, error, args=args)
            raise
        except asyncio.CancelledError:
            self._log_run(name, kind, started, FunctionError(CALL_INTERRUPTED), args=args)
            raise
        self._log_run(name, kind, started, args=args)
        return value

    # Calls within a transaction.

    async def query_within(self, transaction: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any:
        function, child = self.registry.find(ref, (QUERY,)), transaction.child()
        try:
            ctx = query_context(self, function.name, child, caller)
            arguments = function.arguments(function.encode(args), ctx.mapper)
            return self.result(function, ctx, await function.handler(ctx, **arguments))
        finally:
            child.end()

    async def mutation_within(self, parent: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any:
        function = self.registry.find(ref, (MUTATION,))
        child, written = parent.child(), parent.usage.write_counts
        try:
            ctx = mutation_context(self, function.name, child, caller)
            arguments = function.arguments(function.encode(args), ctx.mapper)
            value = self.result(function, ctx, await function.handler(ctx, **arguments))
            parent.merge(child)
        except BaseException:
            parent.usage.write_counts = written  # undone writes do not count
            raise
        finally:
            child.end()
        return value

    # What every run in a transaction does at its end.

    def result(self, function: RegisteredFunction, ctx: QueryCtx, value: object, as_plain: bool = False) -> Any:
        """Return the validated result of a handler. Raises FunctionError if it left a call without `await`."""
        if ctx.transaction.calls and isinstance(ctx, MutationCtx):
            check_awaited(ctx.transaction, function.name)
        return None if value is None and function.returns_none else function.result(value, ctx.mapper, as_plain)

    def warn_of_limits(self, function: RegisteredFunction, transaction: Transaction) -> None:
        """Warn that a call came close to a limit."""
        for limit, text in transaction.usage.near_limits().items():
            self.warn_now_and_then((function.name, limit), "%s is close to a limit: %s", function.name, text)
