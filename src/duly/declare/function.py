"""A function of an application as its decorator leaves it: the handler, its kind, and what it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

from duly.declare.arguments import declared_arguments
from duly.hints import name_hint
from duly.values.schema.signatures import arguments_of, ctx_of, returns_of
from duly.values.schema.v import Declared, as_validator
from duly.values.schema.validator import Validator

P = ParamSpec("P")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    R = TypeVarWithDefault("R", default=Any)  # a name or a path says nothing of the result
    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)  # a function that gives an int gives an object
else:
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)

QUERY: Final = "query"
MUTATION: Final = "mutation"
ACTION: Final = "action"

Fields = Declared
"""Declared arguments: names and validators, `{"order_id": v.id("orders")}`, or a validator of them as one object."""


@name_hint(
    "got {name} of a function: in a mutation or an action schedule it, await ctx.scheduler.run_after(0, …)",
    "delay",
    "apply_async",
)
class Function(Generic[P, R_co]):
    """A decorated function. It is a reference to itself, and calling it calls the plain function.

    `ctx.run_query`, `ctx.run_mutation` and `ctx.run_action` validate arguments and results, and run a sub-transaction.
    A plain call, `await other(ctx, x=1)`, does neither.
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

    # Compiled when the application is loaded: an annotation may name a class that stands below the function.

    @cached_property
    def argument_validator(self) -> Validator:
        """The validator of its arguments. Raises TypeError if the handler has other parameters."""
        declared: Validator
        if self.args is None:
            declared = arguments_of(self.handler)
        else:
            declared = declared_arguments(self.handler, as_validator(self.args, "args="))
        check_ctx(self.handler, self.kind)
        return declared

    @cached_property
    def return_validator(self) -> Validator | None:
        """The validator of its result; None if it declares none."""
        return returns_of(self.handler) if self.returns is None else as_validator(self.returns)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.__module__}.{self.__qualname__}>"


class AsyncFunction(Function[P, R_co]):
    """A function made of an `async def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        coroutine: Coroutine[Any, Any, R_co] = self.handler(*args, **kwargs)
        return coroutine


class BlockingFunction(Function[P, R_co]):
    """An action made of a `def`: it runs in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return cast("R_co", self.handler(*args, **kwargs))


_CTX: Final = {
    QUERY: ("QueryCtx", "a query"),
    MUTATION: ("MutationCtx", "a mutation"),
    ACTION: ("ActionCtx", "an `async def` action"),
}
_BLOCKING_CTX: Final = ("SyncActionCtx", "a `def` action")
_CTX_CLASSES: Final = {*(name for name, _ in _CTX.values()), _BLOCKING_CTX[0]}


def check_ctx(handler: Callable[..., Any], kind: str) -> None:
    """Refuse the context of another kind. It compares names: an annotation may name what only type checkers import."""
    wanted, function = _CTX[kind] if inspect.iscoroutinefunction(handler) else _BLOCKING_CTX
    name, given = ctx_of(handler)
    is_base = kind == MUTATION and given == _CTX[QUERY][0]  # a mutation can do all that a query can
    if given in _CTX_CLASSES and given != wanted and not is_base:
        raise TypeError(f"{handler.__name__}() has {name}: {given}, expected {name}: {wanted}, which {function} gets")
