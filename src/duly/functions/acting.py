"""Runs the handler of an action so that nothing comes out of it but a result, an Exception or the caller's own end.

A CancelledError is the end of the caller only if somebody has cancelled the caller. One that the handler raises by
itself, of a task that it has cancelled, say, is an error like any other; so is whatever else is no Exception, for it
would end more than the action: the thread, the event loop, or the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from inspect import CORO_CREATED, getcoroutinestate
from operator import attrgetter
from types import CoroutineType
from typing import Any, Final, TypeVar

from duly.database.driver.trampoline import base_exception_error
from duly.database.driver.unawaited import Method, recording_calls, unawaited_error
from duly.database.transaction import ended_error
from duly.errors import FunctionError

T = TypeVar("T")

_CALLS_KEPT: Final = 64


async def contained(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await what runs an application's code. What is no Exception becomes a FunctionError."""
    task = _current_task()
    before = 0 if task is None else task.cancelling()
    try:
        return await coroutine
    except Exception:
        raise
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling() > before:
            raise
        raise base_exception_error(error) from error
    except GeneratorExit as error:
        if _current_task() is not task:
            raise  # nobody runs this any more: the coroutine is thrown away, with its event loop
        raise base_exception_error(error) from error
    except BaseException as error:
        raise base_exception_error(error) from error


def contained_call(handler: Callable[..., Any], ctx: object, arguments: dict[str, Any]) -> Any:
    """The same for a plain function."""
    try:
        return handler(ctx, **arguments)
    except StopIteration as error:  # no future can hold it
        raise base_exception_error(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise base_exception_error(error) from error


class Calls:
    """The calls of an action's `ctx`: those that must have been begun when it returns, and where and until when.

    An action may make millions of them, so those that are done are forgotten now and then.
    """

    def __init__(self) -> None:
        self._calls: list[CoroutineType[Any, Any, Any]] = []
        self._most = _CALLS_KEPT
        self._loop = asyncio.get_running_loop()
        self._are_over = False

    def append(self, call: CoroutineType[Any, Any, Any]) -> None:
        if self._are_over:
            call.close()
            raise ended_error()
        if len(self._calls) >= self._most:
            self._calls = [call for call in self._calls if call.cr_frame is not None]  # who is done has none
            self._most = 2 * len(self._calls) + _CALLS_KEPT
        self._calls.append(call)

    def check(self, name: str) -> None:
        """Raise if a call was neither awaited nor handed to a task: those that a task still runs are its own affair."""
        if left := self._left():
            raise unawaited_error(name, left, "What this action did before stays")

    def _left(self) -> list[CoroutineType[Any, Any, Any]]:
        left = [call for call in self._calls if getcoroutinestate(call) == CORO_CREATED]
        tasks = {task.get_coro() for task in asyncio.all_tasks()} if left else ()
        return [call for call in left if call not in tasks]

    def end(self) -> None:
        """Refuse all that is made from now on, or that was made and left alone."""
        self._are_over = True
        for call in self._left():
            call.close()

    def check_open(self) -> None:
        """Raise if the action has ended, or if this is not the app's event loop."""
        if self._are_over:
            raise ended_error()
        self.check_loop()

    def check_loop(self) -> None:
        """Raise if this is not the app's event loop."""
        if running_loop() is not self._loop:
            raise FunctionError(
                "got a call of `ctx` in another event loop than the app's, expected it there: from a thread,"
                " asyncio.run_coroutine_threadsafe(ctx.run_query(…), loop).result(), or write the action as `def`"
            )


def must_be_begun(method: Method) -> Method:
    """Note the calls of a method of an action's `ctx`: one that nobody awaits does nothing, and would say nothing."""
    return recording_calls(method, attrgetter("calls"))


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None
