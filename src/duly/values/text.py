"""Values and keys as text for messages: short, and with the type where the text does not show it."""

from __future__ import annotations

import json
import reprlib
from typing import Final

_LENGTH_MAX: Final = 80


def show(value: object) -> str:
    """Return a value as text for a message, with its type unless that is obvious. The text is short.

    >>> show("tea"), show(5)
    ('"tea"', '5 (int)')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        text = value if len(value) <= _LENGTH_MAX - 4 else f"{value[: _LENGTH_MAX - 5]}…"
        # A lone surrogate would make the message impossible to send.
        return _shortened(json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False))
    try:
        text = _REPR.repr(value)
    except Exception:  # an int of thousands of digits, or a class of the application
        return f"a value of type {type(value).__name__}"
    return f"{_shortened(text)} ({type(value).__name__})"


def step(key: object) -> str:
    """Return a key or a position as a step of a path: `.name`, `["any text"]`, `[3]`."""
    if isinstance(key, int):
        return f"[{key}]"
    if isinstance(key, str) and key.isidentifier() and len(key) <= _LENGTH_MAX:
        return f".{key}"
    return f"[{show(key)}]"


def _shortened(text: str) -> str:
    return text if len(text) <= _LENGTH_MAX else f"{text[: _LENGTH_MAX - 1]}…"


_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _LENGTH_MAX
