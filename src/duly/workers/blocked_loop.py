"""In development, logs when an action blocks the event loop, and at which line.

A thread schedules a callback in the loop again and again, and measures how long the loop takes to run it: the
event-loop lag.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from duly.clock import monotonic
from duly.database.driver.application_lines import BLOCKED_LOOP_ADVICE, line_in_thread
from duly.limits import LOOP_BLOCKED_SECONDS
from duly.logs import log_of

_log: Final = log_of("duly.loop")
_PAUSE_SECONDS: Final = 0.2  # from one callback to the next
_WAITS: Final = 10  # parts of the time until the loop counts as blocked


class BlockedLoopDetector:
    """Watches the event loop that it is made in, from a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._closed = threading.Event()
        threading.Thread(target=self._serve, name="duly-blocked-loop", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    # In the thread.

    def _serve(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            responded, since = threading.Event(), monotonic()
            try:
                self._loop.call_soon_threadsafe(responded.set)
            except RuntimeError:  # the loop was closed without closing the app
                return
            # Several short waits: after a pause of the whole process, the loop still gets some of them.
            is_free = any(responded.wait(LOOP_BLOCKED_SECONDS / _WAITS) for _ in range(_WAITS))
            if not is_free and self._loop.is_running() and not self._closed.is_set():
                self._log_block(responded, since)

    def _log_block(self, responded: threading.Event, since: float) -> None:
        line = line_in_thread(self._loop_thread)  # "" if duly itself or the machine is slow
        if line:
            _log.warning("%s holds up the event loop: calls and other actions wait; %s", line, BLOCKED_LOOP_ADVICE)
        while not responded.wait(_PAUSE_SECONDS):
            if self._closed.is_set():
                return
        if line:
            _log.warning("%s has held up the event loop for %.1f s", line, monotonic() - since)
