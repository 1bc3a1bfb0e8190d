"""Which line of the application a thread is at, and what is the application's code at all."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

DULY: Final = str(Path(__file__).parent.parent.parent) + os.sep
_LIBRARIES: Final = (
    DULY,
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib", "scripts")),
    "<frozen",
)
_ELSEWHERE: Final = frozenset({"site-packages", "dist-packages"})  # those of the user or the system


def is_application(file: str) -> bool:
    """Whether a file of source is the application's, and not one of Python, of a library or of duly."""
    return not file.startswith(_LIBRARIES) and _ELSEWHERE.isdisjoint(file.split(os.sep))


def application_line(frame: FrameType | None) -> str:
    """The innermost line of the application, as `orders.py:12`; "" if there is none."""
    while frame is not None and not is_application(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def line_in_thread(thread: int) -> str:
    """The innermost line of the application that a thread is at; "" if there is none."""
    with no_collection():
        return application_line(frames_by_thread().get(thread))


BLOCKED_LOOP_ADVICE: Final = "await what it waits for, or write the action as `def`, which runs in a thread"
"""What to do about code that holds up the event loop."""


@contextmanager
def no_collection() -> Generator[None]:
    """Keep Python from collecting garbage while frames are looked at.

    Before 3.11.9 it did so while it held a lock of the interpreter that the begin of a thread takes, too. What is
    collected may run code that lets others go on: then each waits for the other, for ever (CPython's issue 106883).
    """
    with _looking:
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if is_enabled:
                gc.enable()


_looking: Final = threading.Lock()  # one watchdog must not allow what another has forbidden
frames_by_thread: Final = sys._current_frames  # pyright: ignore[reportPrivateUsage]
