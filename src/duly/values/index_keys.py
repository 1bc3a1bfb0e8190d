"""Index keys: bytes that sort as the values do, and the intervals between them.

The order of values is: missing < None < numbers < False < True < strings < bytes < arrays < objects. Numbers
compare exactly, ints with floats. A key is the encoding of the indexed fields followed by the id of the document. So
all keys of an index differ, and equal values are in the order of creation.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple, cast

from duly.values.plain import UNSET

_MISSING, _NULL, _NUMBER, _FALSE, _TRUE = b"\x01", b"\x03", b"\x0d", b"\x0e", b"\x0f"
_STRING, _BYTES, _ARRAY, _OBJECT, _END = b"\x10", b"\x11", b"\x12", b"\x15", b"\x00"
_LAST = b"\xff"  # above every tag, and above the first byte of every id

_pack_number = struct.Struct(">QH").pack
_pack_double = struct.Struct(">d").pack
_unpack_bits = struct.Struct(">Q").unpack
_pack_id = struct.Struct(">Q").pack


def encode(value: object) -> bytes:
    """Return one value as bytes that compare as the values do.

    >>> encode(2) < encode(2.5) < encode(10) < encode(True) < encode("a") < encode("b")
    True
    """
    kind = type(value)
    if kind is str:
        return _STRING + _terminated(cast("str", value).encode())
    if kind is int or kind is float:
        return _number(cast("float", value))
    if value is None:
        return _NULL
    if value is UNSET:
        return _MISSING
    if kind is bool:
        return _TRUE if value else _FALSE
    return _encode_other(value)


def _encode_other(value: object) -> bytes:
    if isinstance(value, bytes):
        return _BYTES + _terminated(value)
    if isinstance(value, list):
        return _ARRAY + b"".join(encode(item) for item in cast("list[object]", value)) + _END
    if isinstance(value, dict):
        fields = sorted(cast("dict[str, object]", value).items())
        return _OBJECT + b"".join(encode(name) + encode(item) for name, item in fields) + _END
    # Members of enums count as their values, whatever their str() is.
    if isinstance(value, str):
        return _STRING + _terminated(str.encode(value))
    if isinstance(value, int | float):
        return _number(int(value) if isinstance(value, int) else float(value))
    raise TypeError(f"got {value!r} ({type(value).__name__}), expected a value that can be compared")


def _terminated(text: bytes) -> bytes:
    return text.replace(b"\x00", b"\x00\xff") + _END


def _number(value: float) -> bytes:
    # The nearest double, then how far an int is from it (at most 512, half the spacing of doubles at 2^63):
    # ints above 2^53 stay distinct, and equal ints and floats get equal keys.
    double = float(value) or 0.0  # one zero
    if double != double:
        double = math.nan  # one NaN: that of inf - inf has a sign
    bits: int = _unpack_bits(_pack_double(double))[0]
    bits = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    distance = value - int(double) if type(value) is int else 0
    return _NUMBER + _pack_number(bits, distance + 0x8000)


def compare(a: Any, b: Any) -> int:
    """Return -1, 0 or 1 as `a` comes before `b`, equals it or comes after it. Their encodings compare the same.

    >>> compare(1, 1.0), compare(None, False), compare("b", "a")
    (0, -1, 1)
    """
    kind, other = type(a), type(b)  # pyright: ignore[reportUnknownVariableType]
    if kind is other is str or ((kind is int or kind is float) and (other is int or other is float)):
        if a < b:
            return -1
        if a > b:
            return 1
        if a == b:
            return 0  # else one of them is NaN
    first, second = encode(a), encode(b)
    return (first > second) - (first < second)


def encode_id(id: int) -> bytes:
    """Return the id of a document as the last part of a key."""
    return _pack_id(id)


def field_of(document: dict[str, Any], path: str) -> object:
    """Return the field `a.b.c` of a document, UNSET if it or an object on its path is missing."""
    value: Any = document
    for name in path.split("."):
        if type(value) is not dict or name not in value:
            return UNSET
        value = cast("dict[str, Any]", value)[name]
    return value


class Cut(NamedTuple):
    """A place between keys: before or after all keys that begin with `values`, and with `id` if it is given."""

    values: tuple[object, ...]
    after: bool
    id: int | None = None

    def key(self) -> bytes:
        prefix = b"".join(map(encode, self.values))
        if self.id is not None:
            prefix += encode_id(self.id)
        return prefix + _LAST if self.after else prefix


FIRST = Cut((), after=False)
LAST = Cut((), after=True)


class Interval(NamedTuple):
    """The keys of one index between two cuts."""

    lower: Cut
    upper: Cut


EVERYTHING = Interval(FIRST, LAST)
