"""Threads for `def` actions, and their way back into the event loop of the app.

Nothing can stop a thread. So these are daemon threads, which keep no process alive, and each of their calls is answered
or refused. Otherwise a thread that waits for an event loop that is gone would wait for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from inspect import CORO_CLOSED, getcoroutinestate, iscoroutine
from typing import Any, TypeVar

from duly.ctx.calls import running_loop
from duly.database.committer import closed_error
from duly.database.database import Database
from duly.database.transaction import ended_error
from duly.errors import FunctionError, LimitError, StoreError
from duly.limits import BLOCKING_ACTIONS_MAX

T = TypeVar("T")


class Threads:
    """The threads of one app; they belong to the event loop in which this object was made."""

    def __init__(self, database: Database) -> None:
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._free = asyncio.Semaphore(BLOCKING_ACTIONS_MAX)
        self._running: set[asyncio.Future[Any]] = set()
        """One future for each call that holds a thread; done earlier if its action was given up."""
        self._lock = threading.Lock()
        self._answers: set[Future[Any]] = set()
        """The results that threads wait for."""
        self._is_closed = False

    async def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Wait for a free thread, and start a call in it, which may raise only an Exception.

        Returns the future of its result. Cancelling the future gives up the call, which goes on in its thread.
        """
        await self._free.acquire()
        ended: asyncio.Future[T] = self._loop.create_future()
        try:
            if self._is_closed:
                raise closed_error()
            serve = threading.Thread(target=copy_context().run, args=(self._serve, call, ended), daemon=True)
            serve.name = f"duly-action-{serve.name}"
            serve.start()
        except BaseException:
            self._free.release()
            raise
        self._running.add(ended)
        return ended

    def none_free(self, name: str, seconds: float) -> LimitError:
        """Return the error of an action that waited so long for a free thread."""
        given_up = sum(ended.done() for ended in self._running)
        return LimitError(
            f"{name}: it did not begin, for it got none of the {BLOCKING_ACTIONS_MAX:,} threads of `def` actions"
            f" (BLOCKING_ACTIONS_MAX) within {seconds:g} s (action_seconds_max): {given_up:,} of them are held by"
            " actions that ran out of time or were interrupted, and go on. Call fewer at once, give what they wait for"
            " a time limit of its own, or make them `async def`; what is stuck ends with its process"
        )

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and wait for its result in this thread.

        Raises FunctionError in a thread that the coroutine itself needs; StoreError after `close`.
        """
        answer: Future[T] = Future()
        try:
            self.check()
            with self._lock:
                if self._is_closed:
                    raise closed_error()
                self._answers.add(answer)
            self._call_soon(self._start_task, coroutine, answer)
        except (FunctionError, StoreError):
            coroutine.close()
            raise
        return answer.result()

    def check(self) -> None:
        """Raise if waiting for the event loop in this thread would never end."""
        if self._is_closed:
            raise closed_error()
        if running_loop() is self._loop:
            where, instead = "the event loop of the app", "await ctx.run_query(…) of an `async def` action"
        elif self._database.is_driving_thread():
            where, instead = "a query or mutation", "that of the query or mutation itself"
        else:
            return
        raise FunctionError(
            f"got a call of the `ctx` of a `def` action in {where}, which would wait for itself; expected it in the"
            f" thread of the action, or {instead}"
        )

    def close(self) -> None:
        """Start no more calls, and refuse those that threads wait for. Running threads go on."""
        with self._lock:
            self._is_closed = True
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(closed_error())

    def _call_soon(self, act: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(act, *args)
        except RuntimeError:  # it was closed without closing the app
            raise closed_error() from None

    # In the threads.

    def _serve(self, call: Callable[[], T], ended: asyncio.Future[T]) -> None:
        with suppress(StoreError):
            try:
                value = call()
            except Exception as error:
                self._call_soon(self._end, ended, None, error)
            else:
                self._call_soon(self._end, ended, value, None)

    # In the event loop.

    def _end(self, ended: asyncio.Future[Any], value: object, error: Exception | None) -> None:
        self._free.release()
        self._running.discard(ended)
        if ended.done():
            return  # the action was given up
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(value)

    def _start_task(self, coroutine: Coroutine[Any, Any, Any], answer: Future[Any]) -> None:
        try:
            if iscoroutine(coroutine) and getcoroutinestate(coroutine) == CORO_CLOSED:
                raise ended_error()  # the action has ended meanwhile
            task = asyncio.ensure_future(coroutine)
        except Exception as error:
            self._answers.discard(answer)
            if not answer.done():
                answer.set_exception(error)
            return
        task.add_done_callback(lambda done: self._answer(answer, done))

    def _answer(self, answer: Future[Any], task: asyncio.Future[Any]) -> None:
        self._answers.discard(answer)
        error = None if task.cancelled() else task.exception()
        if answer.done():
            return  # the app was closed meanwhile
        if task.cancelled():
            answer.cancel()
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())
