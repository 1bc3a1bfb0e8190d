"""Attributes that are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)


class made_once(Generic[T_co]):
    """An attribute that is made when it is first read. Then it is the instance's own: reading it calls nothing.

    Like `functools.cached_property`, but it does not touch the `__dict__` of the instance: Python 3.11 would then make
    a real dict of it, and each later read of any attribute would take several times as long.
    """

    def __init__(self, make: Callable[[Any], T_co]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T_co: ...

    def __get__(self, instance: object, owner: type) -> Self | T_co:
        if instance is None:
            return self
        made = self._make(instance)
        object.__setattr__(instance, self._name, made)  # also if its class is frozen
        return made
