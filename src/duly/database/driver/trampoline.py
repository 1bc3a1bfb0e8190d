"""The trampoline: drives the coroutine of a handler, and answers the requests that it yields.

A handler never waits for an event loop. Where a transaction cannot answer a read itself, it yields a request
(`ask`); `drive` gets the answer and sends it into the coroutine. Only a row that is read by its id is answered at
once, in the middle of the handler's code (`Transaction.row`, `WatchedThread.closed`). So the same handler runs in the
committer's thread, in a reader's thread and in tests. A handler that awaits anything else gets a FunctionError at that
line.
"""

from __future__ import annotations

import traceback
import types
from collections.abc import Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeVar, get_args

from duly.database.driver.application_lines import application_line, file_of, is_application
from duly.database.driver.watchdog import UNWATCHED, Interruption, WatchedThread
from duly.errors import AppError, FunctionError
from duly.storage.requests import Request

T = TypeVar("T")


@types.coroutine
def ask(request: Request) -> Generator[Request, Any, Any]:
    """Yield a request to the trampoline and return its answer."""
    return (yield request)


class Source(Protocol):
    """What answers the requests of a coroutine."""

    def answer(self, request: Request) -> Any: ...


def drive(
    coroutine: Coroutine[Any, Any, T],
    source: Source,
    watched: WatchedThread = UNWATCHED,
    handler: str = "",
) -> T:
    """Run a coroutine to its end, and answer its requests.

    A coroutine that awaits anything else gets a FunctionError at that line. If `handler` names the coroutine and
    `watched` is the calling thread, its time is limited: after that, `drive` stops the coroutine and raises LimitError.
    """
    if not handler:
        watched = UNWATCHED
    watched.begin(handler)
    mark = [watched]
    before = _driven.set(mark)
    try:
        return watched.guard(_trampoline, coroutine, source)
    except Interruption as interruption:
        error = watched.timeout_error(_awaiting_line(coroutine))
        for _ in range(_INTERRUPTIONS_MAX):  # it may catch an Interruption and go on
            with suppress(Interruption):
                watched.guard(_throw_interruption, coroutine, source)
        raise error from interruption
    finally:
        watched.handler = None
        mark[0] = UNWATCHED
        _driven.reset(before)


_INTERRUPTIONS_MAX: Final = 10
_driven: Final[ContextVar[list[WatchedThread]]] = ContextVar("driven")
_NOT_DRIVEN: Final = [UNWATCHED]


def driving_thread() -> WatchedThread:
    """Return the thread whose query or mutation created this context, while it runs; else UNWATCHED.

    The context may have been copied to another thread: that thread gets the same answer.
    """
    return _driven.get(_NOT_DRIVEN)[0]


def _trampoline(watched: WatchedThread, coroutine: Coroutine[Any, Any, T], source: Source) -> T:
    """Resume the coroutine until it ends. Except in an answer, an Interruption may arrive at any line."""
    run = watched.run
    reply: Any = None
    foreign: FunctionError | None = None
    try:
        while True:
            watched.is_open = True
            request = coroutine.send(reply) if foreign is None else coroutine.throw(foreign)
            watched.is_open = False
            if watched.expired_run == run:
                raise Interruption
            if type(request) in _REQUESTS:
                reply, foreign = source.answer(request), None
            else:
                foreign = _foreign_await(request)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except Interruption:
        raise
    except BaseException as error:
        with suppress(RuntimeError):  # a handler that awaits something while it is closed must not hide the error
            watched.is_open = True
            coroutine.close()
        if needs_loop(error):
            raise _foreign_await(f"something of {_library_of(error)}").with_traceback(error.__traceback__) from error
        if isinstance(error, Exception):
            raise
        raise base_exception_error(error) from error  # SystemExit and the like must not end the committer's thread


def base_exception_error(error: BaseException) -> FunctionError:
    """Return the error of a function that raised a BaseException such as SystemExit."""
    text = f"got {type(error).__name__} from a function, expected a result or an error"
    return FunctionError(f"{text}: {error}" if str(error) else text).with_traceback(error.__traceback__)


def _throw_interruption(watched: WatchedThread, coroutine: Coroutine[Any, Any, Any], _: object) -> None:
    watched.is_open = True
    coroutine.throw(Interruption())


def _awaiting_line(coroutine: Any) -> str:
    """Return the line of the application at which a coroutine waits for an answer, "" if it has ended."""
    line = ""
    while coroutine is not None:
        line = application_line(getattr(coroutine, "cr_frame", None)) or line
        coroutine = getattr(coroutine, "cr_await", None)
    return line


def needs_loop(error: BaseException) -> bool:
    """Return whether an error was raised because no event loop runs, directly or as the cause of a chain.

    The chain ends at an AppError: an application raises that on purpose.
    """
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if cause is None or isinstance(cause, AppError):
            break
        if isinstance(cause, RuntimeError) and str(cause).startswith(_NO_LOOP):
            return True
        if isinstance(cause, AttributeError) and str(cause).startswith(_NONE_INSTEAD_OF_LOOP):
            return _modules_of(cause)[-1] in _LOOPS
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def _library_of(error: BaseException) -> str:
    """Return the library that the application called and that raised an error."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "").partition(".")[0]
        if is_application(file_of(frame)):
            found = ""
        elif not found and name not in ("duly", "contextlib"):
            found = name
    return found or "asyncio"


def _modules_of(error: BaseException) -> list[str]:
    frames = traceback.walk_tb(error.__traceback__)
    return [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames] or [""]


_CAUSES_MAX: Final = 8
_LOOPS: Final = ("asyncio", "uvloop", "anyio", "sniffio", "trio")
_NO_LOOP: Final = (
    "no running event loop",
    "There is no current event loop",
    "no current event loop",
    "Not currently running on any asynchronous event loop",  # anyio
    "unknown async library",  # sniffio
    "must be called from async context",  # trio
)
_NONE_INSTEAD_OF_LOOP: Final = ("'NoneType' object has no attribute", "'RunContext' object has no attribute")
_REQUESTS = frozenset(get_args(Request))


def _foreign_await(awaited: object) -> FunctionError:
    return FunctionError(
        f"a query or mutation awaited {'a pause' if awaited is None else str(awaited)[:80]}, expected only calls of"
        " `ctx`; it may be run again, so it cannot wait for timers, networks or threads. Do that in an action"
        " (schedule one with ctx.scheduler.run_after), or use ctx.gather instead of asyncio.gather"
    )
