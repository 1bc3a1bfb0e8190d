"""Stops a handler that runs too long: a handler stuck in a loop must not hold up the calls of others.

Each thread that drives handlers is a `WatchedThread`; one thread, the `Watchdog`, looks at all of them. When the time
of a run is over, the watchdog raises an `Interruption` in the middle of the handler's code, again and again until the
handler leaves. Whatever it leaves with, the run has failed: `drive` makes a LimitError of it.

Where an Interruption can arrive:

- Only while the handler's code runs, not while the engine answers it or a batch is committed. Thread and watchdog
  ensure that as in Dekker's algorithm: the thread closes, then checks whether its run has expired; the watchdog marks
  the run as expired, then checks whether the thread is open. One of them sees the other. A thread that sees it lets
  the watchdog finish what it has begun, takes back what has not arrived, and goes on.
- Within that code, only while the innermost frame is the application's, or a library's if the watchdog has seen nothing
  else for a while. Never in duly, logging, threading or an import, which hold locks and change shared state. Between
  the look at the frame and the raise, the thread cannot go on.

Time is counted in waits of the watchdog and not taken from a clock, so that a process that was stopped, or a machine
that was asleep, does not find all its handlers late when it wakes. While no handler runs, the watchdog sleeps.

Code in C cannot be interrupted: `time.sleep`, a socket, a regular expression that explodes. The Interruption arrives
when it returns; then the run fails. A handler that catches everything and goes on without end cannot be stopped either,
unless an Interruption happens to arrive outside of its `try`.

A line of a handler may trigger the callback of a weak reference, or a `__del__`. Here they count as handler code: as
with KeyboardInterrupt, Python prints an exception that arrives in them, and the next one comes soon.
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
    file_of,
    frames_by_thread,
    is_application,
    no_collection,
)
from duly.errors import LimitError

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

_LOOKS: Final = 10  # within the time limit of a handler
_AGAIN_SECONDS: Final = 0.05  # between two Interruptions: a handler may clean up meanwhile
_RETRY_SECONDS: Final = 0.001  # until the next look at a handler that is not in the application's code
_MISSES_MAX: Final = 50  # such looks before library code is interrupted as well


class Interruption(BaseException):
    """Raised in a handler whose time is over. Not an Exception, as handlers catch those; it never leaves `drive`."""


class WatchedThread:
    """A thread that drives handlers, one after another, as the watchdog sees it.

    | field                                  | written by                          | read by  |
    | -------------------------------------- | ----------------------------------- | -------- |
    | `run` `handler` `is_open`              | the thread itself                   | both     |
    | `expired_run` `_line` `_misses`        | the watchdog, under `_raise_lock`   | both     |
    | `_seen` `_age`                         | the watchdog                        | watchdog |
    | `_may_sleep`                           | both: see `begin` and `look`        | both     |
    """

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
        """The name of the handler that runs; None between two runs."""
        self.run = 0
        """The number of the current or last run; `begin` counts it up."""
        self.is_open = False
        """Whether code of the handler is running. Set around it, inside of `guard`."""
        self.expired_run = -1
        """The last run whose time is over."""
        self._line = ""  # of the application, where an Interruption was raised first
        self._misses = 0  # looks at which the run could not be interrupted
        self._raise_lock = threading.Lock()
        self._thread = thread
        self._seconds = seconds
        self._seen = -1  # the run of the last look, and for how many seconds it has been seen
        self._age = 0.0
        self._wake = wake
        self._may_sleep = True  # false while the watchdog is awake because of this thread

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

        In the `finally` an Interruption may still arrive, after any call. The call of `acquire` is the last one: by
        then the watchdog has finished what it had begun, and it begins nothing new, because `is_open` is false.
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

    def closed(self, act: Callable[[A], T], argument: A) -> T:
        """Call `act` in the middle of a handler's code: until it returns, no Interruption arrives.

        None has to be looked for, as after the end of a run: one that was raised has arrived in the handler's own code.
        """
        was_open, self.is_open = self.is_open, False
        try:
            return act(argument)
        finally:
            self.is_open = was_open

    def timeout_error(self, line: str) -> LimitError:
        """Return the error of a run that is over. `line` is where it was if no Interruption was raised in it."""
        line = self._line or line
        return LimitError(
            f"{self.handler}: it ran longer than {self._seconds:g} s (handler_seconds_max)"
            f"{line and f', stopped at {line}'}; do a part and schedule the rest"
        )

    # In the thread of the watchdog.

    def look(self, passed: float) -> float | None:
        """Count the seconds since the last look. Return the seconds until the next one; None if nothing has run."""
        self._may_sleep = True  # from here on, `begin` wakes the watchdog
        run = self.run
        if run == self._seen and self.handler is None:
            return None
        # Stay awake even if no handler runs now: else each of many short runs would wake the watchdog.
        self._may_sleep = False
        if run != self._seen:
            self._seen, self._age = run, 0.0
        else:
            self._age += passed
        if self._age < self._seconds:
            return self._seconds / _LOOKS
        return _AGAIN_SECONDS if self.interrupt(run) else _RETRY_SECONDS

    def interrupt(self, run: int) -> bool:
        """Mark a run as expired, and raise an Interruption in it if its frame allows that; return whether it did."""
        with self._raise_lock, no_collection():
            if run < self.expired_run:
                return False
            if run > self.expired_run:
                self.expired_run, self._line, self._misses = run, "", 0
            frame = frames_by_thread().get(self._thread)
            if frame is None or not self._may_interrupt(file_of(frame)):
                self._misses += 1
                return False
            line = self._line or application_line(frame)
            if not self._raise_in_run(run, frame.f_code.co_filename, frame.f_globals):
                return False
            self._line = line
            return True

    def _may_interrupt(self, file: str) -> bool:
        return is_application(file) or (self._misses >= _MISSES_MAX and not file.startswith(_NEVER))

    def _raise_in_run(self, run: int, file: str, module: dict[str, Any]) -> bool:
        # Python switches threads only after calls, at backward jumps and at the begin of functions. There is none of
        # these between the look, which the `for` takes, and the raise, which is a call: so the thread has not moved.
        for frames in iter(frames_by_thread, None):
            frame = frames[self._thread]
            if self.is_open and self.run == run and frame.f_code.co_filename == file and frame.f_globals is module:
                _raise_in(self._thread, Interruption)
                return True
            break
        return False


UNWATCHED: Final = WatchedThread(0, 0.0, threading.Event())
"""Stands for any thread whose coroutine is no handler, and has no time limit."""


class Watchdog:
    """Watches the threads that drive the handlers of one database, from a thread of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: dict[int, WatchedThread] = {}
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="duly-watchdog", daemon=True)
        self._thread.start()

    def current_thread(self) -> WatchedThread:
        """Return the calling thread, watched from now on."""
        thread = threading.get_ident()
        watched = self._watched.get(thread)
        if watched is None:
            watched = self._watched[thread] = WatchedThread(thread, self._seconds, self._wake)
        return watched

    def watches_current_thread(self) -> bool:
        """Return whether the calling thread is one that drives handlers."""
        return threading.get_ident() in self._watched

    def watches(self, watched: WatchedThread) -> bool:
        """Return whether a thread is one of those that drive handlers here."""
        return watched in list(self._watched.values())  # copied: other threads may add themselves meanwhile

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
                self._wake.wait()  # a run that began after `clear` has set it
            pause = min(running, default=0.0)


# Code that is never interrupted, not even as a library.
_NEVER: Final = (DULY, str(Path(logging.__file__).parent) + os.sep, threading.__file__, "<frozen")

# Looked up as an item, it is an object of our own: other code cannot change its argument types.
_raise_in: Final = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in.restype = ctypes.c_int
_NOTHING: Final[Any] = ctypes.py_object()  # NULL: cancels an exception that has not arrived

__all__ = ["UNWATCHED", "Interruption", "Watchdog", "WatchedThread"]
