"""Names and keywords that people look for where they are not: an error that says what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

T = TypeVar("T")


def lacks(message: str, *names: str) -> Callable[[type[T]], type[T]]:
    """Make a class say what to do instead of using one of `names`, which it does not have. `{name}` is that name.

    It stays an AttributeError, so that `hasattr` is False, and type checkers see nothing of it. Not a `__getattr__`:
    that would slow down whatever the class does have, on the way of every call.

        @lacks("got ctx.{name} in a mutation, which may run again: schedule it", "run_action")
        class MutationCtx: ...
    """

    def mark(lacking: type[T]) -> type[T]:
        for name in names:
            setattr(lacking, name, _Absent(message.format(name=name)))
        return lacking

    return mark


class _Absent:
    """An attribute that is not there."""

    __slots__ = ("_message",)

    def __init__(self, message: str) -> None:
        self._message = message

    def __get__(self, instance: object, owner: type) -> NoReturn:
        # Without `name`, or a traceback would go on to guess at one that is spelled alike.
        raise AttributeError(self._message, obj=owner if instance is None else instance)


def instead_of_keyword(name: str, kind: str) -> str:
    """What to write instead of a keyword of a decorator that it does not have."""
    return _INSTEAD.get(name, "expected args= or returns=").format(kind=kind)


_VISIBILITY: Final = "expected another decorator: @{kind} is public, @internal_{kind} is not"
_LATER: Final = (
    "expected none: the function itself catches the error and schedules the next attempt, with ctx.scheduler.run_after"
)
_WHEN: Final = (
    "expected none: when a function runs is said where it is scheduled, by ctx.scheduler.run_after, or in crons.py, by"
    " crons.interval and its kin"
)
_TIME: Final = "expected none: limits=Limits(…) of the App has handler_seconds_max and action_seconds_max, for all"
_NAME: Final = "expected none: a function is named by its module and its own name, module:function"
_BELOW: Final = "expected the function below the decorator: `async def` after the line @{kind}(…)"
_ORDER: Final = (
    "expected none: functions run in the order of their due time; limits=Limits(…) of the App has actions_running_max"
)
_KEYWORDS: Final = {
    ("public", "internal", "private", "visibility"): _VISIBILITY,
    ("retry", "retries", "max_retries", "retry_delay", "retry_policy", "backoff", "attempts"): _LATER,
    ("delay", "schedule", "cron", "interval", "every", "run_after", "run_at", "eta", "countdown"): _WHEN,
    ("timeout", "time_limit", "timeout_seconds"): _TIME,
    ("name", "path", "module"): _NAME,
    ("handler", "func", "fn"): _BELOW,
    ("queue", "priority", "lane", "concurrency", "max_concurrency", "lock", "unique"): _ORDER,
    ("arguments", "params", "arg", "input", "argument"): "expected args=",
    ("return_", "result", "output", "return_type", "response_model"): "expected returns=",
}
_INSTEAD: Final = {name: instead for names, instead in _KEYWORDS.items() for name in names}


def without_scheduling_by_other_names(scheduler: type[T]) -> type[T]:
    """The names that other schedulers have for what `ctx.scheduler` does."""
    for message, names in _SCHEDULING:
        scheduler = lacks("got ctx.scheduler.{name}, expected " + message, *names)(scheduler)
    return scheduler


_SCHEDULING: Final = (
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
