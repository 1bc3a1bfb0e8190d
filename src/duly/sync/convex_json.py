"""Values in the JSON of the official Convex clients.

Their numbers are all floats, or explicit 64-bit integers. Ours are ints and floats, so both ways lose nothing that the
other side could tell:

    here                                  there
    int up to ±2^53                       a number, written 3.0: the HTTP client of Python refuses 3
    a larger int                          {"$integer": base64 of 8 bytes}
    float                                 a number; {"$float": …} for NaN, infinities and -0.0
    bytes                                 {"$bytes": base64}

A number with an integral value arrives as an int, `3.0` too: a validator that wants a float makes one of it.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from duly.errors import ArgumentValidationError
from duly.limits import VALUE_DEPTH_CEILING

EXACT_MAX: Final = 1 << 53
"""Up to this, each whole number is a float of its own."""


class EncodingError(ArgumentValidationError):
    """JSON that stands for no value."""


# Out.

_BUFFER_BYTES: Final = 4_096
"""What orjson keeps allocated for each text that it returns, however short."""


def dumps(value: object) -> bytes:
    """Return a value as clients read it. Equal values give equal bytes, whatever the order of their fields."""
    return shortened(orjson.dumps(_encoded(value), option=orjson.OPT_SORT_KEYS))


def shortened(text: bytes) -> bytes:
    """Return a text of orjson that takes no more memory than its length: thousands of results are kept."""
    return bytes(memoryview(text)) if len(text) < _BUFFER_BYTES else text


def dumps_clean(value: object) -> bytes:
    """Return a value as JSON for people: large ints, bytes and special floats as text, which cannot be read back."""
    return orjson.dumps(_walked(value, _clean), option=orjson.OPT_SORT_KEYS)


def dumps_export(value: object) -> bytes:
    """Return a value as JSON that keeps ints exact: each int is written out, each float has a point."""
    return orjson.dumps(_walked(value, _exported), option=orjson.OPT_SORT_KEYS)


FORMATS: Final[dict[str, Callable[[object], bytes]]] = {
    "convex_encoded_json": dumps,
    "convex_json": dumps,
    "json": dumps_clean,
    "convex_clean_json": dumps_clean,
    "export_json": dumps_export,
}
"""The forms that a caller over HTTP may ask for, by their names there."""


def _encoded(value: object) -> object:
    return _walked(value, _special)


def _walked(value: object, leaf: Callable[[object], object]) -> object:
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is dict:
        return {name: _walked(item, leaf) for name, item in cast("dict[str, object]", value).items()}
    if kind is list:
        return [_walked(item, leaf) for item in cast("list[object]", value)]
    return leaf(value)


def _special(value: object) -> object:
    if isinstance(value, int):
        return float(value) if -EXACT_MAX <= value <= EXACT_MAX else {"$integer": _base64(struct.pack("<q", value))}
    if isinstance(value, float):
        return {"$float": _base64(struct.pack("<d", value))} if _is_special(value) else value
    return {"$bytes": _base64(cast("bytes", value))}


def _clean(value: object) -> object:
    if isinstance(value, int):
        return value if -EXACT_MAX <= value <= EXACT_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    return _base64(cast("bytes", value))


def _exported(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    return value if isinstance(value, int) else _base64(cast("bytes", value))


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _is_special(value: float) -> bool:
    return not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# In.


def decode(json: object, depth: int = 0) -> Any:
    """Return the value that parsed JSON stands for. Raises EncodingError."""
    if depth > VALUE_DEPTH_CEILING:  # before Python's own limit of nested calls
        raise EncodingError(f"got a value nested more than {VALUE_DEPTH_CEILING} levels deep (VALUE_DEPTH_CEILING)")
    kind = type(json)
    if kind is int or kind is float:
        return _number(cast("float", json))
    if kind is list:
        return [decode(item, depth + 1) for item in cast("list[object]", json)]
    if kind is not dict:
        return json
    fields = cast("dict[str, object]", json)
    if len(fields) == 1:
        [(name, text)] = fields.items()
        if name[:1] == "$":
            return _decoded_special(name, text)
    for name in fields:
        if name[:1] == "$":
            raise EncodingError(f"got the field name {name!r:.80}, expected one that does not start with '$'")
    return {name: decode(item, depth + 1) for name, item in fields.items()}


def _number(number: float) -> float:
    """Return a number of JSON, which is a float there, as the int that it equals if it is one for certain."""
    as_float = float(number)
    is_exact = as_float.is_integer() and -EXACT_MAX <= as_float <= EXACT_MAX
    return int(as_float) if is_exact and not _is_special(as_float) else as_float


def _decoded_special(name: str, text: object) -> object:
    if name not in ("$integer", "$float", "$bytes"):
        raise EncodingError(f"got an object with the field {name!r:.80}, expected '$integer', '$float' or '$bytes'")
    try:
        data = base64.b64decode(cast("str", text), validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise EncodingError(f"got {text!r:.80} in {name!r}, expected a text in base64") from None
    if name == "$bytes":
        return data
    if len(data) != 8:
        raise EncodingError(f"got {len(data)} bytes in {name!r}, expected 8")
    if name == "$integer":
        return struct.unpack("<q", data)[0]
    number: float = struct.unpack("<d", data)[0]
    if not _is_special(number):
        raise EncodingError(f"got {number} in '$float', expected a number: only NaN, infinities and -0.0 need it")
    return number


# Timestamps: unsigned 64-bit integers, as text.


def encode_ts(ts: int) -> str:
    return _base64(struct.pack("<Q", ts))


def decode_ts(text: object) -> int:
    """Return a timestamp. Raises EncodingError."""
    try:
        ts: int = struct.unpack("<Q", base64.b64decode(cast("str", text), validate=True))[0]
    except (TypeError, ValueError, binascii.Error, struct.error):
        raise EncodingError(f"got the timestamp {text!r:.80}, expected 8 bytes in base64") from None
    if ts >= 1 << 63:
        raise EncodingError(f"got the timestamp {ts}, expected one below 2^63")
    return ts
