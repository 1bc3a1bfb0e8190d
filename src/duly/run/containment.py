"""Containment: the handler of an action ends with a result, an Exception, or the cancellation of its caller.

A CancelledError counts as the caller's only if the caller's task was cancelled. One that the handler raises by itself,
for example of a task that it has cancelled, is an error like any other. So is every other BaseException: it would end
more than the action, namely the thread, the event loop, or the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from duly.database.driver.trampoline import base_exception_error

T = TypeVar("T")


async def contained(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await code of the application. A BaseException that is no Exception becomes a FunctionError."""
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
            raise  # the coroutine is thrown away, with its event loop
        raise base_exception_error(error) from error
    except BaseException as error:
        raise base_exception_error(error) from error


def contained_call(handler: Callable[..., Any], ctx: object, arguments: dict[str, Any]) -> Any:
    """Call a handler that is a plain function, contained in the same way."""
    try:
        return handler(ctx, **arguments)
    except StopIteration as error:  # no future can hold it
        raise base_exception_error(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise base_exception_error(error) from error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None
