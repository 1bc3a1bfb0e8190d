"""What is said of a function that failed: the exception, and the application's own lines."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Final

# Frames of Python, of libraries and of duly tell an application's author nothing.
_NOT_THE_APPLICATION: Final = (
    str(Path(__file__).parent.parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<frozen",
)
_FRAMES_MAX: Final = 8


def describe(error: BaseException) -> str:
    """The exception and where it came from, innermost line last.

    ValueError: no such item
      at create_order (orders.py:12)
    """
    frames = [
        f"  at {frame.name} ({Path(frame.filename).name}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THE_APPLICATION)
    ]
    head = "".join(traceback.format_exception_only(error)).rstrip()
    if type(error).__module__.startswith("duly."):
        head = head.removeprefix(f"{type(error).__module__}.")
    return "\n".join([head, *frames[-_FRAMES_MAX:]])
