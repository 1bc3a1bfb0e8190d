"""Actions that somebody has called and waits for: they run in the caller's task, and can be interrupted without it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from duly.errors import FunctionError
from duly.run.runner import CALL_INTERRUPTED

T = TypeVar("T")


class CalledActions:
    """The called actions of an app that run now."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Timeout, tuple[str, asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def names(self) -> list[str]:
        """The name of each."""
        return [name for name, _ in self._running.values()]

    @property
    def ends(self) -> list[asyncio.Future[None]]:
        """Done when they have ended, one for each."""
        return [ended for _, ended in self._running.values()]

    async def run(self, name: str, action: Coroutine[Any, Any, T]) -> T:
        """Await an action. FunctionError when it is interrupted."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A time limit that is set when the time has come: it knows what is its own cancelling and what the caller's.
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._running[limit] = name, ended
                return await action
        except TimeoutError:
            if not limit.expired():
                raise  # its own
            raise FunctionError(CALL_INTERRUPTED) from None
        finally:
            self._running.pop(limit, None)
            ended.set_result(None)

    def interrupt(self) -> None:
        """Interrupt all of them. Those that ignore it go on."""
        for limit in self._running:
            if not limit.expired():
                limit.reschedule(0.0)
