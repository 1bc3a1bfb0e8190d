"""Calls that must be awaited: a call of `ctx` without `await` does nothing, so the function that made it fails."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine
from functools import wraps
from operator import attrgetter
from typing import Any, Protocol, TypeVar, cast

from duly.errors import FunctionError
from duly.hints import call_mismatch

Method = TypeVar("Method", bound="Callable[..., Coroutine[Any, Any, Any]]")
"""An `async def`: pyright infers a CoroutineType as its result, mypy a Coroutine."""


class RecordsCalls(Protocol):
    """A transaction, as far as it records the calls that its handler must await."""

    calls: list[types.CoroutineType[Any, Any, Any]]


def must_be_awaited(method: Method) -> Method:
    """Record the calls of a method in its transaction; `check_awaited` finds those that were not awaited."""
    return recording_calls(method, attrgetter("transaction.calls"))


def recording_calls(method: Method, calls_of: Callable[[Any], Any]) -> Method:
    """Record the calls of a method in the list that `calls_of` finds in its object."""

    @wraps(method)
    def call(self: object, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        try:
            coroutine = method(self, *args, **kwargs)
        except TypeError:  # calling an `async def` runs none of its lines: the arguments do not fit
            raise FunctionError(call_mismatch(method, (self, *args), kwargs) or "") from None
        calls_of(self).append(coroutine)
        return coroutine

    return cast("Method", call)


def check_awaited(transaction: RecordsCalls, name: str) -> None:
    """Raise FunctionError if a call was not awaited to its end."""
    for call in transaction.calls:
        if call.cr_frame is not None:  # a finished coroutine has no frame
            break
    else:
        return
    left = [call for call in transaction.calls if call.cr_frame is not None]
    raise unawaited_error(name, left, "Nothing of this function is stored")


def unawaited_error(name: str, left: list[types.CoroutineType[Any, Any, Any]], consequence: str) -> FunctionError:
    """Close the calls that were not awaited, and return the error of the function that made them."""
    for call in left:
        call.close()
    calls = ", ".join(dict.fromkeys(call.__name__ for call in left))
    return FunctionError(
        f"{name}: got {'a call' if len(left) == 1 else f'{len(left)} calls'} of `ctx` ({calls}) without `await`, which"
        f" did nothing; expected `await ctx.…`. {consequence}"
    )
