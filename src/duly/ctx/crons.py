"""`crons`: crons that functions register, look up and change while the application runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import wraps
from typing import (
    Any,
    Concatenate,
    Literal,
    NotRequired,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

from duly.ctx.context import ActionCtx, MutationCtx, QueryCtx
from duly.ctx.db.document_mapper import mapper_of
from duly.ctx.invoker import Invoker
from duly.ctx.scheduler import check_arguments, schedulable
from duly.database.transaction import Transaction
from duly.declare.cron_jobs import GivenOptions, check_identifier, check_jitter, checked
from duly.declare.references import Ref
from duly.declare.registered import encode_arguments
from duly.errors import FunctionError
from duly.hints import call_mismatch, name_hint
from duly.model import cron_schedule
from duly.model import crons as model
from duly.storage.rows import CRONS
from duly.values.ids import creation_time
from duly.values.json import size

T = TypeVar("T")
C = TypeVar("C")
P = ParamSpec("P")


class EveryInterval(TypedDict):
    """A schedule with a fixed interval: milliseconds, or a timedelta."""

    kind: Literal["interval"]
    ms: float | timedelta


class ByExpression(TypedDict):
    """A schedule by a cron expression, in UTC or in a zone."""

    kind: Literal["cron"]
    cron: str
    tz: NotRequired[str]


GivenSchedule: TypeAlias = EveryInterval | ByExpression | dict[str, Any]
"""Type checkers accept any dict, for one that is assigned to a name first. Editors complete the other forms."""


def _must_be_awaited(
    method: Callable[Concatenate[Crons, C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Crons, C, P], Coroutine[Any, Any, T]]:
    """Record the calls in the transaction or the action: a call without `await` would silently do nothing."""

    @wraps(method)
    def call(self: Crons, ctx: C, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        _invoker(ctx)
        try:
            coroutine = method(self, ctx, *args, **kwargs)
        except TypeError:  # none of its lines has run
            raise FunctionError(call_mismatch(method, (self, ctx, *args), kwargs) or "") from None
        recorder: Any = _transaction(ctx) or ctx
        recorder.calls.append(coroutine)
        return coroutine

    return cast("Callable[Concatenate[Crons, C, P], Coroutine[Any, Any, T]]", call)


@name_hint(
    "got crons.{name} of `from duly import crons`: in crons.py write `crons = cron_jobs()`; functions have"
    " await crons.register(ctx, …)",
    *("interval", "hourly", "daily", "weekly", "monthly", "cron"),
)
class Crons:
    """Crons at run time. In a mutation, each call is part of its transaction; in an action, each call is a commit.

        from duly import crons

        id = await crons.register(ctx, {"kind": "cron", "cron": "0 9 * * 1", "tz": "Europe/Berlin"}, internal.tasks.run)
        await crons.pause(ctx, id)

    These crons share the table `_cron_jobs` with the crons that are declared in `crons.py`. A cron is named by its id
    or its name. InvalidScheduleError says that there is no such cron, or what is wrong with a schedule.
    """

    @_must_be_awaited
    async def register(
        self,
        ctx: MutationCtx | ActionCtx,
        schedule: GivenSchedule,
        ref: Ref[Any],
        args: dict[str, Any] | None = None,
        name: str | None = None,
        **options: Unpack[GivenOptions],
    ) -> str:
        """Add a cron: `{"kind": "interval", "ms": 60_000}`, first after one interval, or `{"kind": "cron", "cron": …,
        "tz": …}`. Returns its id."""
        _check_writes(ctx)
        invoker = _invoker(ctx)
        function = schedulable(invoker, ref)
        parsed, text = cron_schedule.parse(schedule), function.encode(args)
        known, chosen = None if name is None or name == "" else check_identifier(name), checked(options, parsed)

        async def unit(transaction: Transaction) -> str:
            check_arguments(invoker, function, args, text, mapper_of(transaction, invoker.ids))
            transaction.usage.schedule(size(text))
            cron_name = known or f"cron {transaction.new_seed():016x}"
            spec = model.Spec(cron_name, function.name, function.kind, text, parsed, chosen)
            return _id(invoker, await model.add(transaction, spec, model.RUNTIME))

        return await _run(ctx, unit)

    @_must_be_awaited
    async def get(self, ctx: QueryCtx | MutationCtx | ActionCtx, id_or_name: str) -> dict[str, Any] | None:
        """Return the row of a cron in `_cron_jobs`; None if there is none."""

        async def unit(transaction: Transaction) -> dict[str, Any] | None:
            found = await model.look_up(transaction, _invoker(ctx).ids, id_or_name)
            return None if found is None else _document(_invoker(ctx), *found)

        return await _run(ctx, unit)

    @_must_be_awaited
    async def list(self, ctx: QueryCtx | MutationCtx | ActionCtx) -> list[dict[str, Any]]:
        """Return all crons, those from code too, in the order of their creation."""

        async def unit(transaction: Transaction) -> list[dict[str, Any]]:
            return [_document(_invoker(ctx), id, cron) for id, cron in await model.all_crons(transaction)]

        return await _run(ctx, unit)

    @_must_be_awaited
    async def pause(self, ctx: MutationCtx | ActionCtx, id_or_name: str) -> None:
        """Pause a cron until it is resumed. A run in progress goes on."""
        await _act(ctx, id_or_name, model.pause)

    @_must_be_awaited
    async def resume(self, ctx: MutationCtx | ActionCtx, id_or_name: str) -> None:
        """Resume a cron from now on: slots that passed during the pause do not run."""
        await _act(ctx, id_or_name, model.resume)

    @_must_be_awaited
    async def delete(self, ctx: MutationCtx | ActionCtx, id_or_name: str) -> None:
        """Delete a cron. A run in progress goes on."""
        await _act(ctx, id_or_name, model.delete)

    @_must_be_awaited
    async def update(
        self,
        ctx: MutationCtx | ActionCtx,
        id_or_name: str,
        schedule: GivenSchedule | None = None,
        args: dict[str, Any] | None = None,
    ) -> None:
        """Change the schedule of a cron, which then counts from now, or its arguments. A different schedule drops the
        slots that wait. A cron that was paused because its clock could not go on is resumed."""
        parsed = None if schedule is None else cron_schedule.parse(schedule)

        async def act(transaction: Transaction, id: int, cron: model.Cron) -> None:
            fields: dict[str, Any] = {}
            if parsed is not None:
                check_jitter(cron["jitter"], parsed)
                fields["schedule"] = cron_schedule.to_dict(parsed)
            if args is not None:
                fields["args"] = _arguments(_invoker(ctx), cron["function"], args, transaction)
                transaction.usage.schedule(size(fields["args"]))
            await model.change(transaction, id, cron, fields)

        await _act(ctx, id_or_name, act)


crons = Crons()
"""Registers and changes crons in functions: `await crons.register(ctx, …)`."""


def _arguments(invoker: Invoker, name: str, args: object, transaction: Transaction) -> str:
    """Return new arguments of a cron as JSON. The function of the cron may be gone."""
    function = invoker.registry.functions.get(name)
    if function is None:
        return encode_arguments(name, args, invoker.limits)
    text = function.encode(args)
    check_arguments(invoker, function, args, text, mapper_of(transaction, invoker.ids))
    return text


async def _act(ctx: MutationCtx | ActionCtx, id_or_name: str, act: model.CronOperation) -> None:
    _check_writes(ctx)

    async def unit(transaction: Transaction) -> None:
        await act(transaction, *await model.must_find(transaction, _invoker(ctx).ids, id_or_name))

    await _run(ctx, unit)


async def _run(ctx: QueryCtx | MutationCtx | ActionCtx, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
    """Run a unit in the transaction of a query or mutation, or in a transaction of its own."""
    transaction = _transaction(ctx)
    if transaction is not None:
        return await unit(transaction)
    cast("ActionCtx", ctx).calls.check_loop()
    return await _invoker(ctx).commit(unit)


def _invoker(ctx: object) -> Invoker:
    invoker: Invoker | None = getattr(ctx, "_invoker", None)
    if invoker is None:
        raise FunctionError(
            f"got {type(ctx).__name__} as ctx, expected that of a mutation or of an `async def` action; a `def` action"
            " calls a mutation with ctx.run_mutation"
        )
    return invoker


def _check_writes(ctx: object) -> None:
    if not hasattr(ctx, "scheduler"):
        raise FunctionError(
            f"got {type(ctx).__name__} as ctx, expected that of a mutation or of an `async def` action: a query only"
            " reads"
        )


def _transaction(ctx: object) -> Transaction | None:
    return getattr(ctx, "transaction", None)


def _document(invoker: Invoker, number: int, cron: model.Cron) -> dict[str, Any]:
    return model.document_of(cron, _id(invoker, number), creation_time(number))


def _id(invoker: Invoker, number: int) -> str:
    return invoker.ids.encode(CRONS.number, number)
