"""Pydantic models as data: the fields that a model can be built from again, under the names that it accepts."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from duly.limits import VALUE_DEPTH_CEILING
from duly.values.times import written_time

_LEAVES: Final = frozenset((str, int, float, bool, bytes, type(None)))
_IN_JSON: Final = (date, time, timedelta, Decimal, UUID, Enum)
"""Types that pydantic writes as JSON and reads back as equal. Others are not: a SecretStr would become asterisks."""
_Field: TypeAlias = tuple[str, str, str, bool, bool]
"""Its name, its names in dumps and in input, whether it may be excluded, whether it accepts any value."""

_known: Final = WeakKeyDictionary[type[Any], list[_Field]]()
"""The fields of classes that have had instances, and so do not change any more."""


def is_pydantic(kind: type) -> bool:
    """Return whether a class is a pydantic model, by its attributes: duly never imports pydantic."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


def data_of(instance: Any) -> Any:
    """Return the data that the class of a model can be built from again.

    >>> class Order(BaseModel):
    ...     at: datetime = Field(validation_alias="placedAt", serialization_alias="At", exclude=True)
    >>> data_of(Order(placedAt=datetime(2030, 1, 1)))
    {'placedAt': '2030-01-01T00:00:00.000000'}
    """
    # The serializers of the model count, so its dump is used, and corrected: each value is compared with its dump.
    return _data(instance, instance.model_dump(by_alias=True, round_trip=True, warnings=False))


def _data(value: Any, dumped: Any) -> Any:
    if type(dumped) in _LEAVES:
        return dumped
    if _is_model(value):
        return data_of(value) if dumped is value else _data_of_model(value, dumped)
    if isinstance(dumped, dict):
        items = cast("dict[object, Any]", dumped).items()
        return {_in_json(key): _data(_part(value, key, item), item) for key, item in items}
    if isinstance(dumped, list | tuple):
        return [_data(one, part) for one, part in _pairs(value, cast("list[Any]", dumped))]
    if isinstance(dumped, set | frozenset):
        return _in_order([_data(part, part) for part in cast("set[Any]", dumped)])
    return _in_json(dumped)


def _data_of_model(instance: Any, dumped: Any) -> Any:
    model: Any = instance.__class__
    if _is_root(instance):
        return _data(instance.root, dumped)
    if model.__pydantic_decorators__.model_serializers or not isinstance(dumped, dict):
        return _data(dumped, dumped)
    left = dict(cast("dict[str, Any]", dumped))
    result: dict[str, Any] = {}
    values: dict[str, Any] = instance.__dict__
    for name, dumped_as, input_as, is_hidden, is_open in _fields(model):
        if dumped_as in left:
            form = left.pop(dumped_as)
            if type(form) in _LEAVES:
                result[input_as] = form
                continue
        elif is_hidden:
            form = values.get(name)
        else:  # a field of a subclass, where the declared type is its base
            continue
        value = values.get(name)
        # A text in a field of type Any would not be read back as the same value. So such values are refused.
        result[input_as] = form if is_open and not _is_model(value) else _data(value, form)
    return result | left if left else result


def _fields(model: Any) -> list[_Field]:
    fields = _known.get(model)
    if fields is None:
        fields = _known[model] = [
            (
                name,
                info.serialization_alias or name,
                input_name(name, info),
                bool(info.exclude) or getattr(info, "exclude_if", None) is not None,
                info.annotation in (Any, object),
            )
            for name, info in model.model_fields.items()
        ]
    return fields


def _is_model(value: object) -> bool:
    return is_pydantic(type(value))


def _is_root(instance: object) -> bool:
    return getattr(instance, "__pydantic_root_model__", False)


def _pairs(value: Any, parts: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Yield the elements of a list with their forms in the dump, or the forms twice if the list has another origin."""
    given = cast("list[Any]", value) if isinstance(value, list | tuple) else parts
    return zip(given if len(given) == len(parts) else parts, parts, strict=True)


def _part(value: Any, key: Any, default: Any) -> Any:
    if isinstance(value, dict):
        return cast("dict[object, Any]", value).get(key, default)
    return getattr(value, key, default) if dataclasses.is_dataclass(value) else default


def _in_json(leaf: Any) -> Any:
    if not isinstance(leaf, _IN_JSON):
        return leaf
    if isinstance(leaf, Enum):
        return _in_json(leaf.value)
    if isinstance(leaf, datetime | time):
        return written_time(leaf)
    in_json: Callable[[Any], Any] = importlib.import_module("pydantic_core").to_jsonable_python  # loaded with the model
    return in_json(leaf)


def _in_order(parts: list[Any]) -> list[Any]:
    """Return a set as a list in the same order in all processes, because unchanged documents are not written."""
    try:
        return sorted(parts)
    except TypeError:
        return sorted(parts, key=repr)


def input_name(name: str, info: Any) -> str:
    """Return the name under which a model accepts a field: of several, the first that is not of the system."""
    alias = info.validation_alias
    if isinstance(alias, str):
        return alias
    choices: Iterable[object] = getattr(alias, "choices", ())
    names = [choice for choice in choices if isinstance(choice, str)]
    return next((choice for choice in names if choice[:1] != "_"), names[0] if names else name)


def without_hidden(value: Any, plain: Any, depth: int = 0) -> Any:
    """Return `plain`, which was made from `value`, without the fields that a model excludes: callers never see them.

    >>> without_hidden([User(name="Ada", password="x")], [{"name": "Ada", "password": "x"}])
    [{'name': 'Ada'}]
    """
    if depth > VALUE_DEPTH_CEILING:  # deeper is refused anyway, and may be a cycle
        return plain
    while _is_model(value) and _is_root(value):
        value = value.root
    if isinstance(plain, list):
        return [without_hidden(one, part, depth + 1) for one, part in _pairs(value, cast("list[object]", plain))]
    if not isinstance(plain, dict):
        return plain
    fields = cast("dict[str, Any]", plain)
    if _is_model(value):
        return _without_hidden_fields(value, fields, depth)
    return {key: without_hidden(_part(value, key, None), part, depth + 1) for key, part in fields.items()}


def _without_hidden_fields(instance: Any, plain: dict[str, Any], depth: int) -> dict[str, Any]:
    model: Any = instance.__class__
    result = dict(plain)
    for name, info in model.model_fields.items():
        key, value = input_name(name, info), getattr(instance, name, None)
        condition = getattr(info, "exclude_if", None)
        if info.exclude or (condition is not None and condition(value)):
            result.pop(key, None)
        elif key in result:
            result[key] = without_hidden(value, result[key], depth + 1)
    return result
