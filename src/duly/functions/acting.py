"""Runs the handler of an action so that nothing comes out of it but a result, an Exception or the caller's own end.

A CancelledError is the end of the caller only if somebody has cancelled the caller. One that the handler raises by
itself, of a task that it has cancelled, say, is an error like any other; so is whatever else is no Exception, for it
would end more than the action: the thread, the event loop, or the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from duly.database.asking import uncontained
from duly.functions.context import SyncActionCtx

T = TypeVar("T")

ACTION_THREADS: Final = "duly-action"
"""How the names of the threads begin that run actions which are plain functions."""


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


def contained_call(handler: Callable[..., Any], ctx: SyncActionCtx, arguments: dict[str, Any]) -> Any:
    """The same for a plain function."""
    try:
        return handler(ctx, **arguments)
    except StopIteration as error:  # no future can hold it
        raise uncontained(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise uncontained(error) from error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None
