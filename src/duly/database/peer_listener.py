"""The peer listener: waits for updates of other nodes in a thread of its own, and notifies the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from duly.clock import monotonic
from duly.errors import StoreError
from duly.limits import NODE_FRESH_SECONDS, STORE_PAUSE_SECONDS
from duly.logs import log_of
from duly.storage.conflicts import Conflict
from duly.storage.engine import PeerUpdate, SharedEngine

_log: Final = log_of("duly.nodes")


class PeerListener:
    """Calls `on_update` in the event loop with each update of other nodes."""

    def __init__(self, engine: SharedEngine, on_update: Callable[[PeerUpdate], None]) -> None:
        self._engine = engine
        self._on_update = on_update
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._answered = monotonic()  # when the event loop last ran a callback of this listener
        self._thread = threading.Thread(target=self._listen, name="duly-nodes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._engine.stop_listening()
        self._thread.join()

    def _listen(self) -> None:
        failing = False
        while not self._closing.is_set():
            try:
                update = self._engine.wait_for_peers(monotonic() - self._answered < NODE_FRESH_SECONDS)
            except Exception as error:  # of any kind: a node that stops listening counts as lost
                if not failing:
                    unexpected = not isinstance(error, StoreError | Conflict)
                    _log.warning("the store gives no answer, trying again: %s", error, exc_info=unexpected)
                failing = True
                self._closing.wait(STORE_PAUSE_SECONDS)
                continue
            if failing:
                _log.warning("the store answers again")
                # Updates were lost in between.
                update, failing = update._replace(has_commits=True, membership_changed=True), False
            try:
                self._loop.call_soon_threadsafe(self._deliver, update)
            except RuntimeError:  # the loop was closed without closing the app
                return

    def _deliver(self, update: PeerUpdate) -> None:
        self._answered = monotonic()
        self._on_update(update)
