"""The calls that an action makes on its `ctx`: all are awaited, in the right event loop, before the action ends."""

from __future__ import annotations

import asyncio
from inspect import CORO_CREATED, getcoroutinestate
from operator import attrgetter
from types import CoroutineType
from typing import Any, Final

from duly.database.driver.unawaited import Method, recording_calls, unawaited_error
from duly.database.transaction import ended_error
from duly.errors import FunctionError

_CALLS_KEPT_MIN: Final = 64


class ActionCalls:
    """The calls that an action makes on its `ctx`: each must be started before the action returns.

    They belong to one event loop, and are refused after the action has ended. An action may make millions of calls, so
    completed ones are dropped from time to time.
    """

    def __init__(self) -> None:
        self._calls: list[CoroutineType[Any, Any, Any]] = []
        self._kept_max = _CALLS_KEPT_MIN
        self._loop = asyncio.get_running_loop()
        self._has_ended = False

    def append(self, call: CoroutineType[Any, Any, Any]) -> None:
        if self._has_ended:
            call.close()
            raise ended_error()
        if len(self._calls) >= self._kept_max:
            self._calls = [call for call in self._calls if call.cr_frame is not None]  # a completed coroutine has none
            self._kept_max = 2 * len(self._calls) + _CALLS_KEPT_MIN
        self._calls.append(call)

    def check(self, name: str) -> None:
        """Raise if a call was neither awaited nor given to a task. Calls that a task still runs are allowed."""
        if left := self._not_started():
            raise unawaited_error(name, left, "What this action did before stays")

    def _not_started(self) -> list[CoroutineType[Any, Any, Any]]:
        if not self._calls:
            return []
        left = [call for call in self._calls if getcoroutinestate(call) == CORO_CREATED]
        tasks = {task.get_coro() for task in asyncio.all_tasks()} if left else ()
        return [call for call in left if call not in tasks]

    def end(self) -> None:
        """Refuse later calls, and close those that were never started."""
        self._has_ended = True
        for call in self._not_started():
            call.close()

    def check_open(self) -> None:
        """Raise if the action has ended, or if this is not the app's event loop."""
        if self._has_ended:
            raise ended_error()
        self.check_loop()

    def check_loop(self) -> None:
        """Raise if this is not the app's event loop."""
        if running_loop() is not self._loop:
            raise FunctionError(
                "got a call of `ctx` in another event loop than the app's, expected it there: from a thread,"
                " asyncio.run_coroutine_threadsafe(ctx.run_query(…), loop).result(), or write the action as `def`"
            )


def must_be_started(method: Method) -> Method:
    """Record the calls of a method of an action's `ctx`: one without `await` would silently do nothing."""
    return recording_calls(method, attrgetter("calls"))


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
