"""How the handler of an action runs: in the event loop, or in a thread if it is a `def`, and for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from duly.ctx.context import ActionCtx
from duly.ctx.sync_context import SyncActionCtx
from duly.database.database import Database
from duly.errors import LimitError
from duly.run.containment import contained_call
from duly.run.threads import Threads
from duly.run.time_limit import TimeLimit


class ActionHandlers:
    """The handlers of actions of one app that run now. They belong to the event loop in which this was made."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._threads = Threads(database)
        self._time_limit = TimeLimit(seconds)

    def close(self) -> None:
        """Start no more in threads. Those that run cannot be stopped, and go on alone."""
        self._threads.close()
        self._time_limit.close()

    async def run(
        self,
        name: str,
        handler: Callable[..., Any],
        blocking: bool,
        ctx: ActionCtx,
        arguments: dict[str, Any],
        respond: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Any:
        """Run a handler, then `respond` with its value while `ctx` may still be used, and return the value.

        Await it `contained`, because it runs code of the application.
        """
        timeout, ended = self._time_limit.applied(), None
        try:
            with timeout:
                if blocking:
                    call = partial(contained_call, handler, SyncActionCtx(ctx, self._threads), arguments)
                    ended = await self._threads.start(call)
                    value = await ended
                else:
                    value = await handler(ctx, **arguments)
                    ctx.calls.check(name)
                if respond is not None:
                    await respond(value)
        except TimeoutError:
            if not timeout.expired:
                raise  # the handler raised it
            raise self._timeout_error(name, blocking, ended) from None
        finally:
            ctx.calls.end()  # even if a thread goes on, because nothing can stop the thread
        return value

    def _timeout_error(self, name: str, blocking: bool, ended: asyncio.Future[Any] | None) -> LimitError:
        limit = self._time_limit.seconds
        if blocking and ended is None:
            return self._threads.none_free(name, limit)
        goes_on = "; its thread cannot be stopped and goes on" if blocking else ""
        return LimitError(
            f"{name}: it ran longer than {limit:g} s (action_seconds_max){goes_on}; do a part and schedule the rest"
        )
