"""How a handler is called, with ctx first and everything else by its name: what that leaves no room for is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from duly.values.checks import Ids, Mismatch, Validator
from duly.values.containers import ObjectValidator, OptionalValidator


class CtxValidator(Validator):
    """Accepts nothing: Python would take an argument of this name for ctx."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        raise Mismatch("this is the name of the first parameter, which is ctx; expected another name")

    def describe(self) -> str:
        return "nothing"


def names_of_ctx(handler: Callable[..., Any]) -> set[str]:
    """What the first parameter is called, by a handler and by what it wraps, where it can be given by name."""
    signatures = (inspect.signature(handler, follow_wrapped=inner) for inner in (False, True))
    firsts = [next(iter(signature.parameters.values()), None) for signature in signatures]
    return {first.name for first in firsts if first is not None and first.kind is first.POSITIONAL_OR_KEYWORD}


def check_called(handler: Callable[..., Any], arguments: ObjectValidator) -> None:
    """Raise a TypeError where an argument has the name of ctx, or where what wraps a handler does not take it."""
    outer = list(inspect.signature(handler, follow_wrapped=False).parameters.values())[1:]
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in outer)
    by_name = {one.name for one in outer if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    called = getattr(handler, "__name__", None) or repr(handler)
    for name, field in arguments.fields.items():
        if isinstance(field, OptionalValidator) and isinstance(field.member, CtxValidator):
            continue
        if name in names_of_ctx(handler):
            raise TypeError(f"{called}() has the argument {name}, expected another name: its ctx bears that one")
        if not takes_more and name not in by_name:
            raise TypeError(
                f"{called}() takes the argument {name}, but what wraps it does not: give the wrapper `**arguments`,"
                " and hand them on"
            )
