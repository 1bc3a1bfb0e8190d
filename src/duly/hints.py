"""Hints in place of bare errors: what to write instead of a name or an argument that does not exist here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, NoReturn, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# Names.


def name_hint(message: str, *names: str) -> Callable[[type[T]], type[T]]:
    """Make the use of one of `names`, which a class does not have, raise an error with a hint. `{name}` is that name.

    The error stays an AttributeError, so `hasattr` is False, and type checkers do not see the names. A `__getattr__`
    would do the same, but slow down the attributes that the class does have, on the path of every call.

        @name_hint("got ctx.{name} in a mutation, which may run again: schedule it", "run_action")
        class MutationCtx: ...
    """

    def mark(cls: type[T]) -> type[T]:
        for name in names:
            setattr(cls, name, _MissingAttribute(message.format(name=name)))
        return cls

    return mark


class _MissingAttribute:
    """A descriptor that raises an AttributeError with a hint."""

    __slots__ = ("_message",)

    def __init__(self, message: str) -> None:
        self._message = message

    def __get__(self, instance: object, owner: type) -> NoReturn:
        # Without `name`: a traceback would add a guess at a name that is spelled alike.
        raise AttributeError(self._message, obj=owner if instance is None else instance)


def scheduler_name_hints(scheduler: type[T]) -> type[T]:
    """Add hints for the names that other schedulers use for what `ctx.scheduler` does."""
    for message, names in _SCHEDULER_NAMES:
        scheduler = name_hint("got ctx.scheduler.{name}, expected " + message, *names)(scheduler)
    return scheduler


_SCHEDULER_NAMES: Final = (
    (
        "ctx.scheduler.run_after(delay, function, {{…}}), with milliseconds or a timedelta, or run_at(when, …)",
        ("run_in", "after", "later", "enqueue", "enqueue_in", "call_later", "delay", "schedule", "submit", "add_job"),
    ),
    ("ctx.scheduler.run_after(0, function, {{…}})", ("run", "run_now", "run_soon", "call_soon", "spawn", "defer")),
    ("ctx.scheduler.run_after", ("runAfter",)),
    ("ctx.scheduler.run_at", ("runAt", "at", "enqueue_at", "call_at")),
    (
        "crons.interval(…) in crons.py, or `from duly import crons` and await crons.register(ctx, …)",
        ("every", "run_every", "cron", "interval", "repeat", "periodic"),
    ),
    (
        'ctx.db.system.get(id) or ctx.db.system.query("_scheduled_functions")',
        ("get", "status", "state", "list", "jobs", "pending", "result"),
    ),
    ("ctx.scheduler.cancel(id)", ("remove", "delete", "revoke", "abort", "cancel_all")),
)


def decorator_keyword_hint(name: str, kind: str) -> str:
    """Return what to write instead of a keyword that the decorator of a `kind` of function does not have."""
    return _DECORATOR_HINTS.get(name, "expected args= or returns=").format(kind=kind)


_VISIBILITY: Final = "expected another decorator: @{kind} is public, @internal_{kind} is not"
_RETRY: Final = (
    "expected none: the function itself catches the error and schedules the next attempt, with ctx.scheduler.run_after"
)
_TIME_OF_RUN: Final = (
    "expected none: when a function runs is said where it is scheduled, by ctx.scheduler.run_after, or in crons.py, by"
    " crons.interval and its kin"
)
_TIME_LIMIT: Final = (
    "expected none: limits=Limits(…) of the App has handler_seconds_max and action_seconds_max, for all"
)
_NAME: Final = "expected none: a function is named by its module and its own name, module:function"
_HANDLER: Final = "expected the function below the decorator: `async def` after the line @{kind}(…)"
_ORDER: Final = (
    "expected none: functions run in the order of their due time; limits=Limits(…) of the App has actions_running_max"
)
_DECORATOR_KEYWORDS: Final = {
    ("public", "internal", "private", "visibility"): _VISIBILITY,
    ("retry", "retries", "max_retries", "retry_delay", "retry_policy", "backoff", "attempts"): _RETRY,
    ("delay", "schedule", "cron", "interval", "every", "run_after", "run_at", "eta", "countdown"): _TIME_OF_RUN,
    ("timeout", "time_limit", "timeout_seconds"): _TIME_LIMIT,
    ("name", "path", "module"): _NAME,
    ("handler", "func", "fn"): _HANDLER,
    ("queue", "priority", "lane", "concurrency", "max_concurrency", "lock", "unique"): _ORDER,
    ("arguments", "params", "arg", "input", "argument"): "expected args=",
    ("return_", "result", "output", "return_type", "response_model"): "expected returns=",
}
_DECORATOR_HINTS: Final = {name: hint for names, hint in _DECORATOR_KEYWORDS.items() for name in names}

# Arguments.


def argument_hint(
    error: type[Exception], hint: str = "", by_keyword: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """Make a function raise an `error` with a hint if it is called with arguments that it does not have.

    The hint is the one that `by_keyword` has for an unknown keyword, else `hint`, else the right form of the call.
    A `**rest` parameter would do the same, but hide the mistake from type checkers.

        @argument_hint(QueryError, 'expected .filter(lambda q: q.field("status") == "new")')
        def filter(self, build): ...
    """

    def mark(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                mismatch = call_mismatch(function, args, kwargs, hint, by_keyword)
                if mismatch is None:
                    raise  # the body raised it
            raise error(mismatch)

        return cast("F", call)

    return mark


def call_mismatch(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    hint: str = "",
    by_keyword: Mapping[str, str] | None = None,
) -> str | None:
    """Return how the arguments of a call do not fit a function, with a hint; None if they fit."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as mismatch:
        unknown = {name: value for name, value in kwargs.items() if name not in signature.parameters}
        got = ", ".join(f"{name}={_text(value)}" for name, value in unknown.items()) if unknown else str(mismatch)
        name, hints = function.__name__, by_keyword or {}
        expected = next((hints[one] for one in unknown if one in hints), hint) or _form(name, signature, unknown)
        return f"{name}: {'got ' if unknown else ''}{got}, {expected}"
    return None


_DICT_PARAMETERS: Final = ("args", "fields", "document")
"""Parameters that take a dict. In other libraries, its items are passed by keyword."""


def _form(name: str, signature: inspect.Signature, unknown: dict[str, Any]) -> str:
    """Return the right form of a call, with the unknown keywords in a dict if the function takes one."""
    parameters = [one for one in signature.parameters if one not in ("self", "ctx")]
    parameter = next((one for one in parameters if one in _DICT_PARAMETERS), None)
    if unknown and parameter is not None:
        before = [one for one in parameters[: parameters.index(parameter)] if one != "table"]
        as_dict = "{" + ", ".join(f"{key!r}: {_text(value)}" for key, value in unknown.items()) + "}"
        return f"expected a dict: {name}({', '.join([*before, as_dict])})"
    return f"expected {name}({', '.join(parameters)})"


_VALUE_LENGTH_MAX: Final = 80


def _text(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # raised by a class of the application
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _VALUE_LENGTH_MAX else f"{text[: _VALUE_LENGTH_MAX - 1]}…"
