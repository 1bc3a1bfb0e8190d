"""The parts of an open app: its database, its runner and its workers, and the order in which they are closed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from duly.clock import Clock
from duly.database.database import Database
from duly.errors import StoreError
from duly.limits import INTERRUPT_SECONDS
from duly.run.runner import Runner
from duly.workers.blocked_loop import BlockedLoopDetector
from duly.workers.executor import Executor
from duly.workers.loop import Worker, run_worker

ORPHANED: Final = (
    "got a call of an app whose event loop is closed, expected one that was closed before its loop: `await app.close()`"
    " or `await app.crash()` in this one frees the store"
)


class OpenApp:
    """The parts of an app, from its opening to its closing. It belongs to the event loop that it was made in."""

    def __init__(
        self,
        database: Database,
        runner: Runner,
        executor: Executor,
        workers: list[Worker],
        clock: Clock,
        detector: BlockedLoopDetector | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.database = database
        self.runner = runner
        self.executor = executor
        self.reloading = asyncio.Lock()
        """Held while a schema is applied: one at a time."""
        self.is_open = True
        """False from the beginning of its closing."""
        self._detector = detector
        self._stop: asyncio.Future[None] = self.loop.create_future()
        self._tasks = [asyncio.create_task(run_worker(worker, clock, Random(), self._stop)) for worker in workers]

    @property
    def is_orphaned(self) -> bool:
        """Whether its event loop was closed, so that its tasks do not go on."""
        return self.loop.is_closed()

    def check_loop(self) -> None:
        """Raise StoreError if this is not called in the event loop that opened the app."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            return
        if self.is_orphaned:
            raise StoreError(ORPHANED)
        if running is not None:
            raise StoreError(
                "got a call from another event loop than the one that opened the app, expected it from that one; from"
                " another thread, use asyncio.run_coroutine_threadsafe(app.query(…), loop)"
            )

    def begin_closing(self) -> None:
        """Mark the app as closed, so that its subscriptions end. Raises FunctionError in a query or a mutation."""
        self.database.refuse_in_handlers()
        self.is_open = False

    async def release(self) -> None:
        """Close the store of an orphaned app."""
        try:
            await self.database.close()
        finally:
            self._end()

    async def close(self, grace_seconds: float) -> None:
        """Close all parts in order. Each step is done even if one before it fails: the store must not stay owned."""
        self.database.announce_closing(grace_seconds + INTERRUPT_SECONDS)
        if not self._stop.done():
            self._stop.set_result(None)
        self.database.begin_closing()
        try:
            await asyncio.gather(*self._tasks)
        except asyncio.CancelledError:
            grace_seconds = 0.0
            raise
        finally:
            try:
                await self.executor.stop(grace_seconds)
            finally:
                try:
                    await self.database.close()
                finally:
                    self._end()

    async def crash(self) -> None:
        """Stop without committing what is queued."""
        for task in self._tasks:
            task.cancel()
        await self.database.abandon()
        await self.executor.stop()
        self._end()

    def _end(self) -> None:
        self.runner.close()  # last: from here on, calls from threads are refused
        if self._detector is not None:
            self._detector.close()
