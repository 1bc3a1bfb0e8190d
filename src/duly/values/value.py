"""Values: what documents, arguments and results may hold, and their JSON form.

A value is None, a bool, a 64-bit int, a float, a str, bytes, a list or a dict with str keys. Ints and floats keep
their type through storage. What JSON cannot say is written as an object with one field that starts with `$`,
which no field of an application may: `{"$bytes": "aGk="}`, `{"$float": "nan"}`.
"""

from __future__ import annotations

import base64
import math
from typing import Any, Final, cast, final

import orjson

from duly.errors import LimitError, SchemaValidationError, ValidationError
from duly.limits import DEFAULTS, FIELD_NAME_LENGTH_MAX, Limits
from duly.values.checks import to_plain

Document = dict[str, Any]

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1


@final
class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""The absence of a field: `patch(id, {"note": UNSET})` removes it, `q.eq("note", UNSET)` finds documents without it."""


class NotAValueError(ValidationError):
    """Something is not a value; the path to it is put together while the error travels up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.path))
        return f"at {path}: {self.reason}" if path else self.reason


def dumps(value: object, limits: Limits = DEFAULTS) -> str:
    """Check that `value` is one and write it as JSON.

    >>> dumps({"n": 1, "x": 1.0})
    '{"n":1,"x":1.0}'
    """
    if _walk(value, 0, limits):
        value = _escaped(value)
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:  # names may be members of enums
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:  # all that is left to refuse is text that is not Unicode
        raise NotAValueError(f"got text with a lone surrogate, expected Unicode text ({error})") from None


def loads(text: str) -> Any:
    """Read what `dumps` wrote."""
    value = orjson.loads(text)
    return _unescaped(value) if '"$' in text else value


def _walk(value: Any, depth: int, limits: Limits) -> bool:
    """Raise if `value` is not a value; tell whether it holds something that plain JSON cannot say."""
    kind: object = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is str or value is None or kind is bool:
        return False
    if kind is int:
        return _check_int(value)
    if kind is float:
        return not math.isfinite(value)
    if kind is dict:
        return _walk_object(value, depth + 1, limits)
    if kind is list:
        return _walk_array(value, depth + 1, limits)
    return _walk_other(value, depth, limits)


def _walk_object(value: dict[Any, Any], depth: int, limits: Limits) -> bool:
    if depth > limits.value_depth_max:
        raise _too_deep(limits)
    if len(value) > limits.object_fields_max:
        raise NotAValueError(
            f"got an object of {len(value)} fields, expected at most {limits.object_fields_max} (object_fields_max)"
        )
    special = False
    key: Any = None
    try:
        if not value.keys() <= _good_names:
            for key in value:
                _check_name(key)
        for key, item in value.items():  # noqa: B007  the error below names it
            kind: object = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is str or item is None or kind is bool or (kind is int and INT_MIN <= item <= INT_MAX):
                continue
            special = _walk(item, depth, limits) or special
    except NotAValueError as error:
        error.path.append(f".{key}" if isinstance(key, str) else f"[{key!r}]")
        raise
    return special


def _walk_array(value: list[object], depth: int, limits: Limits) -> bool:
    if depth > limits.value_depth_max:
        raise _too_deep(limits)
    if len(value) > limits.array_length_max:
        raise NotAValueError(
            f"got an array of {len(value)} elements, expected at most {limits.array_length_max} (array_length_max);"
            " a longer list is better kept as documents of a table"
        )
    special, position = False, -1
    try:
        for position, item in enumerate(value):  # noqa: B007  the error below names it
            special = _walk(item, depth, limits) or special
    except NotAValueError as error:
        error.path.append(f"[{position}]")
        raise
    return special


def _walk_other(value: object, depth: int, limits: Limits) -> bool:
    if isinstance(value, bytes):
        return True
    if isinstance(value, str):
        return False
    if isinstance(value, int):
        return _check_int(value)
    if isinstance(value, dict):
        return _walk_object(cast("Document", value), depth + 1, limits)
    if isinstance(value, list):
        return _walk_array(cast("list[object]", value), depth + 1, limits)
    if to_plain(value) is not value:  # a dataclass or a model
        _walk(to_plain(value), depth, limits)
        return True
    hint = {
        "set": "; use a list",
        "frozenset": "; use a list",
        "tuple": "; use a list",
        "datetime": "; use milliseconds since 1970 as a float",
        "Unset": "; UNSET is for the fields of patch and for comparisons",
    }.get(type(value).__name__, "")
    raise NotAValueError(
        f"got {_short(value)} ({type(value).__name__}), expected a value: None, bool, int, float, str, bytes,"
        f" list or dict{hint}"
    )


def _check_int(value: int) -> bool:
    if not INT_MIN <= value <= INT_MAX:
        raise NotAValueError(f"got an int of {value.bit_length() + 1} bits, expected at most 64; use a float or a str")
    return False


def _too_deep(limits: Limits) -> NotAValueError:
    deepest = limits.value_depth_max
    return NotAValueError(
        f"got a value nested more than {deepest} levels deep, expected at most {deepest} (value_depth_max)"
    )


# Field names repeat: those seen to be good are remembered, so that a document costs one look-up a field.
_good_names: set[object] = set()
_GOOD_NAMES_MAX: Final = 10_000


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise NotAValueError(f"got the field name {name!r} ({type(name).__name__}), expected a str")
    if not (name.isascii() and name.isprintable()) or not 0 < len(name) <= FIELD_NAME_LENGTH_MAX:
        raise NotAValueError(
            f"got the field name {_short(name)}, expected 1 to {FIELD_NAME_LENGTH_MAX} printable ASCII characters"
        )
    if name[0] == "$":
        raise NotAValueError(f"got the field name {_short(name)}, expected one that does not start with '$'")
    if len(_good_names) < _GOOD_NAMES_MAX:
        _good_names.add(name)


def _kind(value: object) -> str:
    return f"{_short(value)} ({type(value).__name__})"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _escaped(value: object) -> object:
    value = to_plain(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in cast("Document", value).items()}
    if isinstance(value, list):
        return [_escaped(item) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return value


def _unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescaped(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("Document", value)
    if len(fields) == 1:
        if "$bytes" in fields:
            return base64.b64decode(fields["$bytes"])
        if "$float" in fields:
            return float(fields["$float"])
    return {key: _unescaped(item) for key, item in fields.items()}


def check_document(value: object, what: str) -> Document:
    """The dict that is to be stored: a dict, dataclass or model whose fields leave the system's names alone."""
    plain: Any = value if type(value) is dict else to_plain(value)  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(plain, dict):
        raise SchemaValidationError(f"{what}: got {_kind(cast('object', value))}, expected a dict")
    document = cast("Document", plain)
    for name in cast("dict[object, object]", document):
        if isinstance(name, str) and name[:1] == "_":
            raise SchemaValidationError(
                f"{what}: got the field {name!r}, expected names that do not start with '_';"
                " those belong to the system, which sets `_id` and `_creationTime` itself"
            )
    return document


def size(text: str) -> int:
    """The bytes that a JSON text takes."""
    return len(text) if text.isascii() else len(text.encode())


def check_size(text: str, limits: Limits, name: str, what: str) -> str:
    """`text`, if it is not larger than the limit called `name`."""
    most = getattr(limits, name)
    if len(text) * 4 > most and size(text) > most:  # a character takes at most 4 bytes
        raise LimitError(f"{what}: got {size(text):,} bytes, expected at most {most:,} ({name})")
    return text
