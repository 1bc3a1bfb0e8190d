"""Names that people look for where they are not: an AttributeError that says what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

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
