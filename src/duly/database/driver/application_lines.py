"""Distinguishes the application's code from Python, libraries and duly, and finds the line that a thread is at."""

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
_SITE_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})  # of the user or the system


def is_application(file: str) -> bool:
    """Return whether a source file belongs to the application, and not to Python, a library or duly."""
    return not file.startswith(_LIBRARIES) and _SITE_PACKAGES.isdisjoint(file.split(os.sep))


def file_of(frame: FrameType) -> str:
    """Return the source file of a frame. Code that was generated counts to the module that it was generated for.

    Python generates methods of named tuples and dataclasses from text, and calls their file `<string>`, which is also
    what it calls the text of `python -c`.
    """
    file, module = frame.f_code.co_filename, frame.f_globals
    if file != "<string>":
        return file
    if str(module.get("__name__")).startswith("namedtuple_"):  # it has a module of its own
        return "<frozen collections>"
    return str(module.get("__file__", file))


def application_line(frame: FrameType | None) -> str:
    """Return the innermost line of the application in a stack, as `orders.py:12`; "" if there is none."""
    while frame is not None and not is_application(file_of(frame)):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def line_in_thread(thread: int) -> str:
    """Return the innermost line of the application that a thread is at; "" if there is none."""
    with no_collection():
        return application_line(frames_by_thread().get(thread))


BLOCKED_LOOP_ADVICE: Final = "await what it waits for, or write the action as `def`, which runs in a thread"
"""Advice on code that blocks the event loop."""


@contextmanager
def no_collection() -> Generator[None]:
    """Keep Python from collecting garbage while frames are inspected.

    Before 3.11.9 Python could collect while it held an interpreter lock that a starting thread takes as well. Code
    that the collection runs may switch threads: then both threads wait for each other for ever (CPython issue 106883).
    """
    with _inspecting:
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if is_enabled:
                gc.enable()


_inspecting: Final = threading.Lock()  # one watchdog must not enable the collection while another inspects frames
frames_by_thread: Final = sys._current_frames  # pyright: ignore[reportPrivateUsage]
