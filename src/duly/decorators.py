"""The decorators `@query`, `@mutation`, `@action` and their internal forms."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, overload

from duly.ctx.context import ActionCtx, MutationCtx, QueryCtx
from duly.ctx.sync_context import SyncActionCtx
from duly.declare.function import ACTION, MUTATION, QUERY, AsyncFunction, BlockingFunction, Fields, Function, R
from duly.hints import decorator_keyword_hint
from duly.values.schema.v import Declared

P = ParamSpec("P")
C = TypeVar("C")


class Decorator(Generic[C]):
    """`@query`, `@mutation` and their internal forms: bare, or with `args=` and `returns=`."""

    def __init__(self, kind: str, public: bool) -> None:
        self._kind = kind
        self._public = public

    @overload
    def __call__(
        self, handler: Callable[Concatenate[C, P], Awaitable[R]], /
    ) -> AsyncFunction[Concatenate[C, P], R]: ...

    @overload
    def __call__(
        self, *, args: Fields | None = None, returns: Declared | None = None
    ) -> Callable[[Callable[Concatenate[C, P], Awaitable[R]]], AsyncFunction[Concatenate[C, P], R]]: ...

    def __call__(self, *handlers: Any, **declared: Any) -> Any:
        return _decorate(self._kind, self._public, handlers, declared)


class OfAction(Protocol):
    """Makes an action of an `async def`, or of a `def` that runs in a thread."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[ActionCtx, P], Awaitable[R]], /
    ) -> AsyncFunction[Concatenate[ActionCtx, P], R]: ...

    @overload
    def __call__(
        self, handler: Callable[Concatenate[SyncActionCtx, P], R], /
    ) -> BlockingFunction[Concatenate[SyncActionCtx, P], R]: ...


class ActionDecorator:
    """`@action` and `@internal_action`: bare, or with `args=` and `returns=`."""

    def __init__(self, public: bool) -> None:
        self._public = public

    @overload
    def __call__(
        self, handler: Callable[Concatenate[ActionCtx, P], Awaitable[R]], /
    ) -> AsyncFunction[Concatenate[ActionCtx, P], R]: ...

    @overload
    def __call__(
        self, handler: Callable[Concatenate[SyncActionCtx, P], R], /
    ) -> BlockingFunction[Concatenate[SyncActionCtx, P], R]: ...

    @overload
    def __call__(self, *, args: Fields | None = None, returns: Declared | None = None) -> OfAction: ...

    def __call__(self, *handlers: Any, **declared: Any) -> Any:
        return _decorate(ACTION, self._public, handlers, declared)


def _decorate(kind: str, public: bool, handlers: tuple[Any, ...], declared: dict[str, Any]) -> Any:
    _check_keywords(kind, public, declared)

    def decorate(handler: Callable[..., Any]) -> Function[..., Any]:
        _check_handler(handler, kind)
        form = AsyncFunction if inspect.iscoroutinefunction(handler) else BlockingFunction
        return form(handler, kind, public, declared.get("args"), declared.get("returns"))

    return decorate(*handlers) if handlers else decorate


def _check_keywords(kind: str, public: bool, declared: Mapping[str, object]) -> None:
    for name in declared:
        if name not in ("args", "returns"):
            own = kind if public else f"internal_{kind}"
            raise TypeError(f"@{own}: got the keyword {name}=, {decorator_keyword_hint(name, kind)}")


def _check_handler(handler: object, kind: str) -> None:
    if not inspect.isfunction(handler):
        raise TypeError(f"@{kind}: got {handler!r}, expected a function")
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(
            f"@{kind}: got {handler.__qualname__} with `yield`, expected a function that returns its result as a whole:"
            " collect it in a list, or return it page by page (paginate)"
        )
    if kind != ACTION and not inspect.iscoroutinefunction(handler):
        raise TypeError(
            f"@{kind}: got the plain function {handler.__qualname__}, expected `async def {handler.__name__}(ctx, …)`"
        )


query: Final[Decorator[QueryCtx]] = Decorator(QUERY, True)
"""Make a query of an `async def`: it reads one snapshot of the database and writes nothing.

    @query
    async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None:
        return await ctx.db.get(order_id)
"""
mutation: Final[Decorator[MutationCtx]] = Decorator(MUTATION, True)
"""Make a mutation of an `async def`: its reads, writes and schedules are one transaction.

    @mutation
    async def create(ctx: MutationCtx, items: list[str]) -> Id:
        return await ctx.db.insert("orders", {"items": items})

It may await only calls of `ctx`. If it raises, nothing of it remains.
"""
action: Final = ActionDecorator(True)
"""Make an action of an `async def`, or of a `def` that runs in a thread: it may do anything.

    @action
    async def charge(ctx: ActionCtx, order_id: Id) -> None:
        await payments.charge(...)
        await ctx.run_mutation(internal.orders.mark_paid, {"order_id": order_id})

Each call of `ctx` is a transaction of its own.
"""
internal_query: Final[Decorator[QueryCtx]] = Decorator(QUERY, False)
"""A `query` that clients cannot call; other functions, the command line and tests can."""
internal_mutation: Final[Decorator[MutationCtx]] = Decorator(MUTATION, False)
"""A `mutation` that clients cannot call; other functions, the scheduler and the command line can."""
internal_action: Final = ActionDecorator(False)
"""An `action` that clients cannot call; other functions, the scheduler and the command line can."""
