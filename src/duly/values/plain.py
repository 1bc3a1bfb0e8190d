"""Plain values: instances as dicts, tuples as lists, instances of subclasses as instances of the type itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, final
from weakref import WeakKeyDictionary

from duly.limits import VALUE_DEPTH_CEILING
from duly.values.pydantic_data import data_of, is_pydantic

SYSTEM_FIELDS: Final = ("_id", "_creationTime")
"""The fields of every document that the system sets."""

_LEAVES: Final = frozenset((str, int, float, bool, bytes, type(None)))


@final
class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""A missing field: `patch(id, {"note": UNSET})` removes it, `q.eq("note", UNSET)` finds documents without it.

A field that is UNSET in what is stored, sent or returned is left out."""


def to_plain(value: Any) -> Any:
    """Return a value with all dataclass instances and pydantic models as dicts; the value itself if nothing changes.

    A class can be built from its dict again: computed fields are left out, and fields of pydantic are under the names
    that it accepts, excluded fields included. Tuples become lists, instances of subclasses of str, int, float, bytes,
    list and dict become instances of the type itself, and fields that are UNSET are left out.

    >>> to_plain([Order(items=["tea"])])
    [{'items': ['tea']}]
    """
    return value if type(value) in _LEAVES else _to_plain(value, 0)


def _to_plain(value: object, depth: int) -> Any:
    if depth > VALUE_DEPTH_CEILING:  # deeper is refused anyway, and may be a cycle
        return value
    given: Any = value
    if isinstance(value, dict):
        return _plain_fields(given, depth + 1)
    if isinstance(value, list | tuple):
        return _plain_elements(given, depth + 1)
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        plain = _to_plain(_with_system_fields(value, fields_of(value)), depth)
        write = writers.get(kind)
        return plain if write is None else write(plain)
    if is_pydantic(kind):
        return _to_plain(_with_system_fields(value, data_of(value)), depth)
    return _plain_leaf(given)


def _with_system_fields(instance: object, fields: Any) -> Any:
    """Return the fields with the system fields, which an instance has if it was read from the database."""
    if not getattr(instance, "_id", None):
        return fields
    for name in SYSTEM_FIELDS:
        if name not in fields and getattr(instance, name, None) is not None:
            fields[name] = getattr(instance, name)
    return fields


writers: Final = WeakKeyDictionary[type, Callable[[Any], Any]]()
"""Converters of the plain fields of dataclasses to their stored forms, for classes that an annotation has named."""


def _plain_fields(given: dict[Any, Any], depth: int) -> dict[Any, Any]:
    result = given if type(given) is dict else dict(given)
    for key, item in given.items():
        if type(item) in _LEAVES:
            continue
        plain = _to_plain(item, depth)
        if plain is item and item is not UNSET:
            continue
        result = dict(given) if result is given else result
        if item is UNSET:
            del result[key]
        else:
            result[key] = plain
    return result


def _plain_elements(given: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    result = given if type(given) is list else list(given)
    for index, item in enumerate(given):
        if type(item) in _LEAVES:
            continue
        plain = _to_plain(item, depth)
        if plain is not item:
            result = list(given) if result is given else result
            result[index] = plain
    return result


def _plain_leaf(value: Any) -> Any:
    """Return an instance of a subclass as one of the type itself; a member of an enum, too, whatever its str() is."""
    for kind, plain in _TYPES:
        if isinstance(value, kind):
            return plain(value)
    return value


_TYPES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
)


def fields_of(instance: Any) -> dict[str, Any]:
    """Return the fields that a dataclass instance can be built from again. Nested instances stay instances."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance) if field.init}
