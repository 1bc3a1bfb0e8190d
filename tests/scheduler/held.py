"""Exact interleavings: the thread that commits stands still at a point until the test lets it go on."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

from duly import App, MutationCtx, faults
from duly.limits import BATCH_SECONDS_MAX

_PATIENCE: Final = 20.0


class Held:
    """The thread that commits, held where it calls `stand`: in a handler, or at the fault point that is given.

        async with Held(app, "job.claimed") as held:
            running = asyncio.create_task(t.run_until_idle())
            await held.arrived()
            canceling = asyncio.create_task(t.mutation("app:cancel", {"id": id}))
            await held.queued(1)
        # here it goes on

    A point that every batch passes counts in the one that has claimed a function.
    """

    def __init__(self, app: App, point: str | None = None) -> None:
        self._database = app.database
        self._point = point
        self._arrived = asyncio.Event()
        self._go_on = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queued = 0

    def stand(self) -> None:
        faults.disarm()
        self._queued = 0
        self._loop.call_soon_threadsafe(self._arrived.set)
        self._go_on.wait(_PATIENCE)

    async def fills_a_batch(self, ctx: MutationCtx) -> None:
        """A mutation that stands, and takes all the time of its batch: what waits goes into the next one, together."""
        self.stand()
        time.sleep(2 * BATCH_SECONDS_MAX)  # noqa: ASYNC251  mutations run in a thread

    async def arrived(self) -> None:
        await asyncio.wait_for(self._arrived.wait(), _PATIENCE)

    async def queued(self, calls: int) -> None:
        """Wait until so many calls are queued behind the one that is held."""
        async with asyncio.timeout(_PATIENCE):
            while self._queued < calls:
                await asyncio.sleep(0.0005)

    async def __aenter__(self) -> Self:
        commit, learn = self._database.commit, self._database._refresh_in_batch  # pyright: ignore[reportPrivateUsage]

        def counted(work: Any, *more: Any, **named: Any) -> asyncio.Future[Any]:
            future = commit(work, *more, **named)
            self._queued += work != learn  # which comes by itself, where there are other nodes
            return future

        self._database.commit = counted
        point = self._point
        if point == "job.claimed":
            faults.arm(point, self.stand)
        elif point is not None:
            faults.arm("job.claimed", lambda: faults.arm(point, self.stand))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._database.commit
        faults.disarm()
        self._go_on.set()
