"""Calls with arguments that a function does not have: an error that says what to write instead of a TypeError."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_IN_A_DICT: Final = ("args", "fields", "document")
"""Parameters that take what people give by keyword elsewhere."""
_SHOWN_MAX: Final = 80


def explained(error: type[Exception], hint: str = "", of: Mapping[str, str] | None = None) -> Callable[[F], F]:
    """Make a function say what to write instead, `hint` or what `of` says of a keyword, where it is called otherwise.

    Not by a `**rest`, which would hide the mistake from type checkers.

        @explained(QueryError, 'expected .filter(lambda q: q.field("status") == "new")')
        def filter(self, build): ...
    """

    def mark(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                misfit = unfit(function, args, kwargs, hint, of or {})
                if misfit is None:
                    raise  # it is of the body
            raise error(misfit)

        return cast("F", call)

    return mark


def unfit(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    hint: str = "",
    of: Mapping[str, str] | None = None,
) -> str | None:
    """What is wrong with a call of a function, None if it can be called so."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as misfit:
        unknown = {name: value for name, value in kwargs.items() if name not in signature.parameters}
        got = ", ".join(f"{name}={_shown(value)}" for name, value in unknown.items()) if unknown else str(misfit)
        name = function.__name__
        instead = next((of[one] for one in unknown if of and one in of), hint) or _instead(name, signature, unknown)
        return f"{name}: {'got ' if unknown else ''}{got}, {instead}"
    return None


def _instead(name: str, signature: inspect.Signature, unknown: dict[str, Any]) -> str:
    parameters = [one for one in signature.parameters if one not in ("self", "ctx")]
    taken = next((one for one in parameters if one in _IN_A_DICT), None)
    if unknown and taken is not None:
        before = [one for one in parameters[: parameters.index(taken)] if one != "table"]
        given = "{" + ", ".join(f"{key!r}: {_shown(value)}" for key, value in unknown.items()) + "}"
        return f"expected a dict: {name}({', '.join([*before, given])})"
    return f"expected {name}({', '.join(parameters)})"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # of the application's own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
