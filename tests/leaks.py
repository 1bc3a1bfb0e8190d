"""What a test opened and left open: files, sockets, threads, processes, stores, temporary files.

It is told of in the very test, and not in a later one that happens to be running when garbage is collected.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests import postgres

PATIENCE = 20.0
"""How long a thread that nobody joins may take to end, on a machine that is busy."""

_OBJECTS_MAX: Final = 3_000
"""So many are looked at after each test, and after it by each collection of the next: half a millisecond."""

_DESCRIPTORS: Final = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)
_THREADS: Final = Path("/proc/self/task")
_NOT_OURS: Final = ("pytest-of-", "pymp-")  # of pytest and of multiprocessing

folder: str | None = None
"""Of the temporary files of this process, and of no other."""

_kept: set[str] = set()


class Leak(Exception):
    """Something was opened and not closed."""


@contextmanager
def kept() -> Iterator[None]:
    """What is opened here lasts as long as this process does."""
    before = opened()
    yield
    _kept.update(opened() - before)


@contextmanager
def none(whose: str) -> Iterator[None]:
    """Raise a `Leak` if anything is open afterwards that was not before."""
    before = opened()
    _lost.clear()
    yield
    _collect()
    for thread in threading.enumerate():
        if _name(thread) not in before | _kept:
            thread.join(PATIENCE)
            _collect()  # what it held
    left = opened() - before - _kept
    told, _lost[:] = [*(thing + _about(thing) for thing in sorted(left)), *_lost], []
    if told and "PYTEST_CURRENT_TEST" in os.environ:  # else pytest stops amid a module, and is about to end
        _kept.update(left)  # it is told of once
        raise Leak(f"{whose} left behind " + "\n  and ".join(told))


def _collect() -> None:
    """Have what nobody closed complain of it now, also what a test that failed still refers to."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        with suppress(AttributeError):
            delattr(sys, name)
    gc.collect()
    if len(gc.get_objects()) > _OBJECTS_MAX:  # what a test has imported or cached, and stays
        gc.freeze()


def opened() -> set[str]:
    """Everything there is now, one line for each."""
    return {*_descriptors(), *_threads(), *_children(), *_temporary(), *(f"the store {s}" for s in postgres.stores)}


def _descriptors() -> Iterator[str]:
    for fd in {*os.listdir(_DESCRIPTORS)} - {"0", "1", "2"} if _DESCRIPTORS else ():  # those are pytest's
        with suppress(OSError):  # it was that of the list itself
            what = os.readlink(f"{_DESCRIPTORS}/{fd}") if _DESCRIPTORS == "/proc/self/fd" else str(os.fstat(int(fd)))
            yield f"descriptor {fd}, {what}"


def _threads() -> Iterator[str]:
    return (_name(thread) for thread in threading.enumerate())


def _name(thread: threading.Thread) -> str:
    return f"thread {thread.name!r} ({thread.ident})"


def _children() -> Iterator[str]:
    """The processes that this one has started and not waited for, where the system tells."""
    for thread in _THREADS.iterdir() if _THREADS.exists() else ():
        with suppress(OSError):  # it has ended
            for child in (thread / "children").read_text().split():
                yield f"process {child}"


def _temporary() -> Iterator[str]:
    for name in os.listdir(folder) if folder else ():
        if not name.startswith(_NOT_OURS):
            yield f"temporary file {folder}/{name}"


def _about(thing: str) -> str:
    kind, number, *_ = thing.replace(",", "").split()
    with suppress(OSError):
        if kind == "process":
            command = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            return f", {command[:200]}" if command else ", which has ended, and nobody has waited for it"
        if kind == "descriptor" and "socket:" in thing:
            with socket.socket(fileno=os.dup(int(number))) as copy:
                return f" of {copy.getsockname()}"
    return ""


_lost: list[str] = []


class _Lost(logging.Handler):
    """asyncio only logs what has become of a task that nobody waits for."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(("Task was destroyed", "Task exception was never", "Future exception was never")):
            _lost.append(message)


def watch_asyncio() -> None:
    logging.getLogger("asyncio").addHandler(_Lost())
