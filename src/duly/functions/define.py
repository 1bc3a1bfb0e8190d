"""Decorators that make queries, mutations and actions of plain functions, and references to them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from duly.functions.absent import instead_of_keyword, lacks
from duly.functions.arguments import declared_arguments
from duly.values.annotations import arguments_of, ctx_of, returns_of
from duly.values.checks import Validator
from duly.values.validators import Declared, as_validator

if TYPE_CHECKING:
    from duly.functions.context import ActionCtx, MutationCtx, QueryCtx, SyncActionCtx

P = ParamSpec("P")
C = TypeVar("C")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    R = TypeVarWithDefault("R", default=Any)  # what a name or a path refers to is not known before it runs
    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)  # a function that gives an int gives an object
else:
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)

QUERY: Final = "query"
MUTATION: Final = "mutation"
ACTION: Final = "action"

Fields = Declared
"""Declared arguments: names and validators, `{"order_id": v.id("orders")}`, or a validator of them as one object."""


@lacks(
    "got {name} of a function: in a mutation or an action schedule it, await ctx.scheduler.run_after(0, …)",
    "delay",
    "apply_async",
)
class Function(Generic[P, R_co]):
    """A decorated function. It is a reference to itself, and calling it calls the plain function.

    Calling one function from another with `ctx.run_query` and its kin validates, and makes a sub-transaction;
    a plain call `await other(ctx, x=1)` does neither.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        kind: str,
        public: bool,
        args: Fields | None,
        returns: Declared | None,
    ) -> None:
        self.handler = handler
        self.kind = kind
        self.public = public
        self.args = args
        self.returns = returns
        self.__name__ = handler.__name__
        self.__module__ = handler.__module__
        self.__qualname__ = handler.__qualname__
        self.__doc__ = handler.__doc__
        self.__wrapped__ = handler

    # Compiled when an application is loaded: what annotations name may stand below the function.

    @cached_property
    def takes(self) -> Validator:
        """What its arguments must look like. TypeError where the handler takes others."""
        declared: Validator
        if self.args is None:
            declared = arguments_of(self.handler)
        else:
            declared = declared_arguments(self.handler, as_validator(self.args, "args="))
        _check_ctx(self.handler, self.kind)
        return declared

    @cached_property
    def gives(self) -> Validator | None:
        """What its result must look like; None where that is not said."""
        return returns_of(self.handler) if self.returns is None else as_validator(self.returns)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.__module__}.{self.__qualname__}>"


class AsyncFunction(Function[P, R_co]):
    """One of an `async def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        coroutine: Coroutine[Any, Any, R_co] = self.handler(*args, **kwargs)
        return coroutine


class BlockingFunction(Function[P, R_co]):
    """One of a `def`, an action that runs in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return cast("R_co", self.handler(*args, **kwargs))


class Decorator(Generic[C]):
    """`@query`, `@mutation` and their internal kin: bare, or with `args=` and `returns=`."""

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
            raise TypeError(f"@{own}: got the keyword {name}=, {instead_of_keyword(name, kind)}")


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


_CTX: Final = {
    QUERY: ("QueryCtx", "a query"),
    MUTATION: ("MutationCtx", "a mutation"),
    ACTION: ("ActionCtx", "an `async def` action"),
}
_BLOCKING_CTX: Final = ("SyncActionCtx", "a `def` action")
_CTX_CLASSES: Final = {*(name for name, _ in _CTX.values()), _BLOCKING_CTX[0]}


def _check_ctx(handler: Callable[..., Any], kind: str) -> None:
    """Refuse the class of another ctx. By its name, for a string may name what only type checkers import."""
    wanted, who = _CTX[kind] if inspect.iscoroutinefunction(handler) else _BLOCKING_CTX
    name, given = ctx_of(handler)
    is_base = kind == MUTATION and given == _CTX[QUERY][0]  # a mutation can do all that a query can
    if given in _CTX_CLASSES and given != wanted and not is_base:
        raise TypeError(f"{handler.__name__}() has {name}: {given}, expected {name}: {wanted}, which {who} gets")


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


class Reference:
    """A function by its place: `api.orders.create` is `"orders:create"`, `api.admin.users.ban` `"admin/users:ban"`."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        child = Reference((*self._path, name))
        self.__dict__[name] = child  # the next look-up finds it without this method
        return child

    def __getitem__(self, name: str) -> Reference:
        """A function by a name that is data: `internal["admin/users:ban"]` is `internal.admin.users.ban`."""
        module, _, function = canonical(name).partition(":")
        return Reference((*self._path, *module.split("/"), function))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    def __str__(self) -> str:
        *module, function = self._path or ("",)
        return f"{'/'.join(module)}:{function}"

    def __repr__(self) -> str:
        return ".".join(("api", *self._path))


api: Final = Reference(())
"""References to functions: `api.module.function`."""
internal: Final = Reference(())
"""The same references; by convention for functions that clients cannot call."""

Ref = Function[..., R] | Reference | str
"""What names a function: itself, `api.module.function`, or `"module:function"`."""


def canonical(name: str) -> str:
    """`"folder/module:function"` of any spelling of it, without `.py` or `.js`.

    >>> canonical("orders.js:create")
    'orders:create'
    """
    module, _, function = name.partition(":")
    return f"{module.removesuffix('.py').removesuffix('.js')}:{function or 'default'}"
