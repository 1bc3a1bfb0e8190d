"""Stops a handler that runs too long: a handler stuck in a loop must not hold up the calls of others.

Each thread that drives handlers is a `WatchedThread`; one thread, the `Watchdog`, looks at all of them. When the time
of a run is over, the watchdog raises an `Interruption` in the middle of the handler's code, again and again until the
handler leaves. Whatever it leaves with, the run has failed: `drive` makes a LimitError of it.

Where an Interruption can arrive:

- Only while the handler's code runs, not while the engine answers it or a batch is committed. Thread and watchdog
  ensure that as in Dekker's algorithm: the thread closes, then checks whether its run has expired; the watchdog marks
  the run as expired, then checks whether the thread is open. One of them sees the other. A thread that sees it lets
  the watchdog finish what it has begun, takes back what has not arrived, and goes on.
- Of that code, only where the innermost frame is the application's, or a library's when nothing else was seen for a
  while; never in duly, logging, threading or an import, which hold locks and change shared state. From the look at
  the frame to the raise, nothing lets the thread go on.

Time is counted in waits of the watchdog and not taken from a clock, so that a process that was stopped, or a machine
that was asleep, does not find all its handlers late when it wakes. While no handler runs, the watchdog sleeps.

Code in C cannot be interrupted: `time.sleep`, a socket, a regular expression that explodes. The Interruption arrives
when it returns; then the run fails. Nor can a handler that catches everything and goes on without end, unless an
Interruption happens to find it outside of its `try`.

What a handler's line triggers, the callback of a weak reference or a `__del__`, is handler code from this point of
view: as with KeyboardInterrupt, Python prints an exception that arrives in there, and the next one comes soon.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from duly.database.driver.application_lines import (
    DULY,
    application_line,
    frames_by_thread,
    is_application,
    no_collection,
)
from duly.errors import LimitError

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

_LOOKS: Final = 10  # in the time that a handler has
_AGAIN_SECONDS: Final = 0.05  # from one Interruption to the next: a handler may clean up in between
_RETRY_SECONDS: Final = 0.001  # to the next look at a handler that is not in code of its own
_MISSES_MAX: Final = 50  # such looks, before a library is interrupted too


class Interruption(BaseException):
    """What is raised in a handler whose time is over. No Exception, for a handler catches those; never seen outside."""


class WatchedThread:
    """A thread that drives handlers, one after another, as the watchdog sees it."""

    __slots__ = (
        "_age",
        "_line",
        "_may_sleep",
        "_misses",
        "_seconds",
        "_seen",
        "_raise_lock",
        "_thread",
        "_wake",
        "handler",
        "is_open",
        "expired_run",
        "run",
    )

    def __init__(self, thread: int, seconds: float, wake: threading.Event) -> None:
        self.handler: str | None = None
        """Whose run it is; None between two."""
        self.run = 0
        """The number of the run, from one `begin` to the next."""
        self.is_open = False
        """Whether code of the handler is running. To be set around it, inside of `guard`."""
        self.expired_run = -1
        """The last run whose time is over."""
        self._line = ""  # where that was found
        self._misses = 0  # how often it was not where it may be interrupted
        self._raise_lock = threading.Lock()
        self._thread = thread
        self._seconds = seconds
        self._seen = -1  # the run that was there at the last look, and for how long it has been there
        self._age = 0.0
        self._wake = wake
        self._may_sleep = True  # whether the watchdog has seen nothing that keeps it awake

    # In the thread itself.

    def begin(self, handler: str) -> None:
        """Begin a run: from now on its time is counted."""
        self.run += 1
        self.handler = handler
        if self._may_sleep:
            self._may_sleep = False
            self._wake.set()

    def guard(self, act: Callable[[WatchedThread, A, B], T], one: A, other: B) -> T:
        """Run `act(self, one, other)`, which opens and closes this. If the run is over, raise an Interruption instead.

        In there an Interruption may arrive after any call. That of `acquire` is the last: whoever was about to raise
        one has done so, and nobody begins to, for this is closed.
        """
        try:
            return act(self, one, other)
        finally:
            self.is_open = False
            if self.expired_run == self.run:
                try:
                    self._raise_lock.acquire()
                    _raise_in(self._thread, _NOTHING)
                except Interruption:
                    pass
                self._raise_lock.release()
                raise Interruption

    def timeout_error(self, line: str) -> LimitError:
        """What to say of a run that is over; `line` is where it was if no Interruption found it."""
        line = self._line or line
        return LimitError(
            f"{self.handler}: it ran longer than {self._seconds:g} s (handler_seconds_max)"
            f"{line and f', stopped at {line}'}; do a part and schedule the rest"
        )

    # In the thread of the watchdog.

    def look(self, passed: float) -> float | None:
        """Count the seconds since the last look; say in how many to look again, None if nothing has run since."""
        self._may_sleep = True  # whoever begins from here on says so
        run = self.run
        if run == self._seen and self.handler is None:
            return None
        # Not None, whether a handler runs now or not: else many short ones would each wake the watchdog.
        self._may_sleep = False
        if run != self._seen:
            self._seen, self._age = run, 0.0
        else:
            self._age += passed
        if self._age < self._seconds:
            return self._seconds / _LOOKS
        return _AGAIN_SECONDS if self.interrupt(run) else _RETRY_SECONDS

    def interrupt(self, run: int) -> bool:
        """Declare a run over, and raise an Interruption in it if it is where that may be done; tell whether it is."""
        with self._raise_lock, no_collection():
            if run < self.expired_run:
                return False
            if run > self.expired_run:
                self.expired_run, self._line, self._misses = run, "", 0
            frame = frames_by_thread().get(self._thread)
            if frame is None or not self._may_be_left(frame.f_code.co_filename):
                self._misses += 1
                return False
            line = self._line or application_line(frame)
            if not self._raise_in_run(run, frame.f_code.co_filename):
                return False
            self._line = line
            return True

    def _may_be_left(self, file: str) -> bool:
        return is_application(file) or (self._misses >= _MISSES_MAX and not file.startswith(_NEVER))

    def _raise_in_run(self, run: int, file: str) -> bool:
        # Python lets other threads run only after calls, at jumps back and at the begin of functions. There is none
        # from the look, which the `for` takes, to the act, which is a call: so the thread is still where it was seen.
        for frames in iter(frames_by_thread, None):
            if self.is_open and self.run == run and frames[self._thread].f_code.co_filename == file:
                _raise_in(self._thread, Interruption)
                return True
            break
        return False


UNWATCHED: Final = WatchedThread(0, 0.0, threading.Event())
"""Stands for the thread of units that are no handler, and have all the time they need."""


class Watchdog:
    """Looks at the threads that drive the handlers of one database, from a thread of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: dict[int, WatchedThread] = {}
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="duly-watchdog", daemon=True)
        self._thread.start()

    def current_thread(self) -> WatchedThread:
        """The thread that calls."""
        thread = threading.get_ident()
        watched = self._watched.get(thread)
        if watched is None:
            watched = self._watched[thread] = WatchedThread(thread, self._seconds, self._wake)
        return watched

    def watches_current_thread(self) -> bool:
        """Whether the thread that calls is one that drives handlers."""
        return threading.get_ident() in self._watched

    def watches(self, watched: WatchedThread) -> bool:
        """Whether it is one of the threads that drive handlers here."""
        return watched in list(self._watched.values())  # a thread may join them meanwhile

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def _serve(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            self._wake.clear()
            pauses = [watched.look(pause) for watched in list(self._watched.values())]
            running = [pause for pause in pauses if pause is not None]
            if not running and not self._closed.is_set():
                self._wake.wait()  # whoever began since it was cleared has set it
            pause = min(running, default=0.0)


# Where a library may be interrupted, and where never.
_NEVER: Final = (DULY, str(Path(logging.__file__).parent) + os.sep, threading.__file__, "<frozen")

# Looked up as an item, it is an object of our own: nobody else changes what it takes.
_raise_in: Final = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in.restype = ctypes.c_int
_NOTHING: Final[Any] = ctypes.py_object()  # NULL, which takes back what has not arrived

__all__ = ["UNWATCHED", "Interruption", "Watchdog", "WatchedThread"]
