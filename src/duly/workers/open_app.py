"""What an open app holds: its database, its runner, and the workers that run beside it, until all are closed."""

from __future__ import annotations

import asyncio
from random import Random

from duly.clock import Clock
from duly.database.database import Database
from duly.limits import INTERRUPT_SECONDS
from duly.run.runner import Runner
from duly.workers import loop
from duly.workers.blocked_loop import BlockedLoopDetector
from duly.workers.executor import Executor


class OpenApp:
    """It belongs to the event loop that it was made in."""

    def __init__(
        self,
        database: Database,
        runner: Runner,
        executor: Executor,
        workers: list[loop.Worker],
        clock: Clock,
        detector: BlockedLoopDetector | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.database = database
        self.runner = runner
        self.executor = executor
        self.reloading = asyncio.Lock()
        """Schemas are applied one after the other."""
        self._detector = detector
        self._stop: asyncio.Future[None] = self.loop.create_future()
        self._tasks = [asyncio.create_task(loop.run(worker, clock, Random(), self._stop)) for worker in workers]

    @property
    def is_orphaned(self) -> bool:
        """Whether its event loop is closed, so that nothing in it goes on."""
        return self.loop.is_closed()

    async def release(self) -> None:
        """Free the store of one that is orphaned."""
        try:
            await self.database.close()
        finally:
            self._end()

    async def close(self, grace_seconds: float) -> None:
        """Each step is taken whatever becomes of those before it: the store must not stay owned."""
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
        for task in self._tasks:
            task.cancel()
        await self.database.abandon()
        await self.executor.stop()
        self._end()

    def _end(self) -> None:
        self.runner.close()  # last, for it refuses what threads wait for
        if self._detector is not None:
            self._detector.close()
