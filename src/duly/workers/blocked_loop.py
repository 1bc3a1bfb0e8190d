"""In development, says when an action holds up the event loop, and at which line. It asks from a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from duly.clock import monotonic
from duly.database.driver.application_lines import BLOCKED_LOOP_ADVICE, line_in_thread
from duly.limits import LOOP_BLOCKED_SECONDS
from duly.logs import log_of

_log: Final = log_of("duly.loop")
_PAUSE_SECONDS: Final = 0.2  # from an answer of the loop to the next question
_WAITS: Final = 10  # until it counts as held up


class BlockedLoopDetector:
    """Asks the event loop again and again whether it goes on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._of = threading.get_ident()
        self._closed = threading.Event()
        threading.Thread(target=self._serve, name="duly-blocked-loop", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    # In the thread.

    def _serve(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            beat, asked = threading.Event(), monotonic()
            try:
                self._loop.call_soon_threadsafe(beat.set)
            except RuntimeError:  # it was closed without closing the app
                return
            # In several waits, so that it is asked for some time after a pause of the whole process, too.
            went_on = any(beat.wait(LOOP_BLOCKED_SECONDS / _WAITS) for _ in range(_WAITS))
            if not went_on and self._loop.is_running() and not self._closed.is_set():
                self._tell(beat, asked)

    def _tell(self, beat: threading.Event, asked: float) -> None:
        line = line_in_thread(self._of)  # "" where duly itself takes long, or the machine: that nobody can change here
        if line:
            _log.warning("%s holds up the event loop: calls and other actions wait; %s", line, BLOCKED_LOOP_ADVICE)
        while not beat.wait(_PAUSE_SECONDS):
            if self._closed.is_set():
                return
        if line:
            _log.warning("%s has held up the event loop for %.1f s", line, monotonic() - asked)
