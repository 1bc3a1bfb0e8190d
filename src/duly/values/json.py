"""Values, which documents, arguments and results consist of, and their JSON.

A value is None, a bool, a 64-bit int, a float, a str, bytes, a list or a dict with str keys. Ints and floats keep
their type in storage; instances of subclasses become instances of the type itself, and tuples become lists. A value
that JSON lacks is written as an object with one field that starts with `$`, as no field of an application may:
`{"$bytes": "aGk="}`, `{"$float": "nan"}`.
"""

from __future__ import annotations

import base64
import math
import re
from enum import Enum
from typing import Any, Final, cast

import orjson

from duly.errors import LimitError, SchemaValidationError, ValidationError
from duly.limits import DEFAULTS, FIELD_NAME_LENGTH_MAX, Limits
from duly.values.plain import UNSET as UNSET
from duly.values.plain import to_plain
from duly.values.text import step

Document = dict[str, Any]

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1


class NotAValueError(ValidationError):
    """Something that is not a value. The path to it grows while the error leaves nested values."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.path))
        return f"at {path}: {self.reason}" if path else self.reason


def dumps(value: object, limits: Limits = DEFAULTS) -> str:
    """Return a value as JSON. Raises NotAValueError for anything else.

    >>> dumps({"n": 1, "x": 1.0})
    '{"n":1,"x":1.0}'
    """
    given: Any = value
    if _walk_object(given, 1, limits) if type(value) is dict else _walk(value, 0, limits):
        value = _escaped(to_plain(value))
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:  # names may be of subclasses of str
        return orjson.dumps(_escaped(to_plain(value))).decode()
    except TypeError as error:  # the only cause left is text that is not Unicode
        raise NotAValueError(f"got text with a lone surrogate, expected Unicode text ({error})") from None


def loads(text: str) -> Any:
    """Return the value of a text that `dumps` wrote."""
    value = orjson.loads(text)
    return _unescaped(value) if SPECIAL in text and '"$' in text else value


def _walk(value: Any, depth: int, limits: Limits) -> bool:
    """Return whether a value contains anything that plain JSON lacks. Raises NotAValueError if it is not a value."""
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
    if len(value) > limits.object_fields_max and (fields := _fields_in(value)) > limits.object_fields_max:
        raise NotAValueError(
            f"got an object of {fields} fields, expected at most {limits.object_fields_max} (object_fields_max)"
        )
    special = False
    key: Any = None
    try:
        if not _good_names.issuperset(value):
            for key in value:
                _check_name(key)
        for key, item in value.items():  # noqa: B007  the error below names it
            kind: object = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is str or item is None or kind is bool or (kind is int and INT_MIN <= item <= INT_MAX):
                continue
            special = item is UNSET or _walk(item, depth, limits) or special
    except NotAValueError as error:
        error.path.append(f".{key}" if isinstance(key, str) and key.isprintable() and key else step(key))
        raise
    return special


def _fields_in(value: dict[Any, Any]) -> int:
    return sum(item is not UNSET for item in value.values())


def _walk_array(value: list[object] | tuple[object, ...], depth: int, limits: Limits) -> bool:
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
    if isinstance(value, bytes | str | float):
        return True
    if isinstance(value, int):
        _check_int(value)
    elif isinstance(value, dict):
        _walk_object(cast("Document", value), depth + 1, limits)
    elif isinstance(value, list | tuple):
        _walk_array(cast("list[object]", value), depth + 1, limits)
    elif (plain := to_plain(value)) is not value:  # a dataclass or a model
        _walk(plain, depth, limits)
    else:
        raise NotAValueError(
            f"got {_kind(value)}, expected a value: None, bool, int, float, str, bytes, list or dict{_hint(value)}"
        )
    return True


_NAMED: Final = "; name it in an annotation, such as `{}: {}`, or give it in another form"
_HINTS: Final = {
    **dict.fromkeys(("set", "frozenset", "deque", "range", "generator", "dict_keys", "dict_values"), "; use a list"),
    **dict.fromkeys(("bytearray", "memoryview"), "; use bytes"),
    **dict.fromkeys(("mappingproxy", "UserDict", "ChainMap"), "; use a dict"),
    "datetime": f"{_NAMED.format('at', 'datetime')}: milliseconds since 1970 as a float",
    "date": f"{_NAMED.format('day', 'date')}: text, as of date.isoformat()",
    "time": f"{_NAMED.format('at', 'time')}: text, as of time.isoformat()",
    "timedelta": f"{_NAMED.format('length', 'timedelta')}: milliseconds as a float",
    "UUID": f"{_NAMED.format('key', 'UUID')}: text, as of str()",
    "Decimal": f"{_NAMED.format('price', 'Decimal')}: text, as of str()",
    "Unset": "; UNSET is for fields, which it leaves out or removes, and for comparisons",
}


def _hint(value: object) -> str:
    kind = type(value)
    if isinstance(value, Enum):
        return f"{_NAMED.format('kind', kind.__name__)}: its value"
    if kind.__module__ == "numpy":
        return "; use its item() or tolist()"
    return _HINTS.get(kind.__name__, "")


def _check_int(value: int) -> bool:
    if not INT_MIN <= value <= INT_MAX:
        raise NotAValueError(f"got an int of {value.bit_length() + 1} bits, expected at most 64; use a float or a str")
    return False


def _too_deep(limits: Limits) -> NotAValueError:
    deepest = limits.value_depth_max
    return NotAValueError(
        f"got a value nested more than {deepest} levels deep, expected at most {deepest} (value_depth_max)"
    )


# Field names repeat: valid ones are remembered, so that a field costs one look-up.
_good_names: set[object] = set()
_GOOD_NAMES_MAX: Final = 10_000


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise NotAValueError(f"got the field name {name!r} ({type(name).__name__}), expected a str")
    if len(name) > FIELD_NAME_LENGTH_MAX:
        raise NotAValueError(
            f"got the field name {_short(name)} of {len(name):,} characters, expected at most {FIELD_NAME_LENGTH_MAX:,}"
            " (FIELD_NAME_LENGTH_MAX)"
        )
    if name[:1] == "$":
        raise NotAValueError(
            f"got the field name {_short(name)}, expected one that does not start with '$', which is the system's"
        )
    if len(_good_names) < _GOOD_NAMES_MAX:
        _good_names.add(name)


def _kind(value: object) -> str:
    return f"{_short(value)} ({type(value).__name__})"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _escaped(value: object) -> object:
    """Return a plain value with an object in place of all that JSON lacks, and with names that are exactly str."""
    if isinstance(value, dict):
        return {str.__str__(key): _escaped(item) for key, item in cast("Document", value).items()}
    if isinstance(value, list):
        return [_escaped(item) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return value


def _unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescaped(item) for item in cast("list[object]", value)]
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
    """Return a dict, dataclass or model as the dict that is stored. Its fields must not have names of the system."""
    given: Any = value if type(value) is dict else to_plain(value)  # pyright: ignore[reportUnknownVariableType]
    document: Document = given
    if not isinstance(given, dict):
        raise SchemaValidationError(f"{what}: got {_kind(value)}, expected a dict")  # pyright: ignore[reportUnknownArgumentType]
    if _own_names.issuperset(document):
        return document
    for name in cast("dict[object, object]", document):
        if isinstance(name, str) and name[:1] == "_" and document[name] is not UNSET:
            raise SchemaValidationError(
                f"{what}: got the field {name!r}, expected names that do not start with '_';"
                " those belong to the system, which sets `_id` and `_creationTime` itself"
            )
    if len(_own_names) < _GOOD_NAMES_MAX:
        _own_names.update(
            name for name in cast("dict[object, object]", document) if isinstance(name, str) and name[:1] != "_"
        )
    return document


# Names that the system does not use, remembered like `_good_names`.
_own_names: set[object] = set()


def size(text: str) -> int:
    """Return the size of a value as limits count it: the length of its JSON in UTF-8, where bytes count unencoded.

    >>> size(dumps({"a": "é"})), size(dumps(b"hi"))
    (10, 4)
    """
    length = len(text) if text.isascii() else len(text.encode())
    return length - _excess(text) if SPECIAL in text else length


def _excess(text: str) -> int:
    """Return by how much the JSON of all bytes is longer than the bytes themselves between two quotes."""
    return sum(len(found[0]) - 2 - (3 * len(found[1]) // 4 - len(found[2])) for found in _in_base64.finditer(text))


SPECIAL: Final = "$"
"""A character that the JSON of bytes contains, and other JSON rarely. To look for one character is fast."""
# Nothing else matches, because quotes within texts are escaped.
_in_base64: Final = re.compile(r'\{"\$bytes":"([^"=]*(=*))"\}')


CHARACTER_BYTES_MAX: Final = 4
"""The bytes that a character has at most in UTF-8."""


def check_size(text: str, limits: Limits, name: str, what: str) -> str:
    """Return `text`. Raises LimitError if it is larger than the limit `name`."""
    limit = getattr(limits, name)
    if len(text) * CHARACTER_BYTES_MAX > limit and size(text) > limit:
        raise LimitError(f"{what}: got {size(text):,} bytes, expected at most {limit:,} ({name})")
    return text
