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

from duly.database.asking import Method, forgotten, noting, uncontained

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
        raise uncontained(error) from error
    except GeneratorExit as error:
        if _current_task() is not task:
            raise  # nobody runs this any more: the coroutine is thrown away, with its event loop
        raise uncontained(error) from error
    except BaseException as error:
        raise uncontained(error) from error


def contained_call(handler: Callable[..., Any], ctx: object, arguments: dict[str, Any]) -> Any:
    """The same for a plain function."""
    try:
        return handler(ctx, **arguments)
    except StopIteration as error:  # no future can hold it
        raise uncontained(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise uncontained(error) from error


class Calls:
    """The calls of an action's `ctx` that must have been begun when it returns.

    An action may make millions of them, so those that are done are forgotten now and then.
    """

    def __init__(self) -> None:
        self._calls: list[CoroutineType[Any, Any, Any]] = []
        self._most = _CALLS_KEPT

    def append(self, call: CoroutineType[Any, Any, Any]) -> None:
        if len(self._calls) >= self._most:
            self._calls = [call for call in self._calls if call.cr_frame is not None]  # who is done has none
            self._most = 2 * len(self._calls) + _CALLS_KEPT
        self._calls.append(call)

    def check(self, name: str) -> None:
        """Raise if a call was neither awaited nor handed to a task: those that a task still runs are its own affair."""
        left = [call for call in self._calls if getcoroutinestate(call) == CORO_CREATED]
        if left:
            tasks = {task.get_coro() for task in asyncio.all_tasks()}
            left = [call for call in left if call not in tasks]
        if left:
            raise forgotten(name, left, "What this action did before stays")


def must_be_begun(method: Method) -> Method:
    """Note the calls of a method of an action's `ctx`: one that nobody awaits does nothing, and would say nothing."""
    return noting(method, attrgetter("calls"))


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None
