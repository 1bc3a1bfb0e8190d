"""Actions that run in this process: those that the executor has started, and those that were called.

A scheduled action runs in a task of its own. A called action runs in the task of its caller, and can be interrupted
without cancelling that task. When the app is closed, both get a grace period and then are interrupted. For a scheduled
action, the interruption is recorded. The caller of a called action gets a FunctionError. All of this happens in the
event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from duly.database.database import Database
from duly.errors import FunctionError
from duly.limits import CLOSING_NOTICE_SECONDS, INTERRUPT_SECONDS
from duly.logs import log_of
from duly.model import jobs
from duly.run.job_runner import JobRunner
from duly.run.runner import CALL_INTERRUPTED
from duly.storage.rows import JOBS, Job

T = TypeVar("T")

_log: Final = log_of("duly.worker")
_NAMED_MAX: Final = 8  # actions, in one line of the log


class CalledActions:
    """The actions that were called and run now, in the tasks of their callers."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Timeout, tuple[str, asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self._running.values()]

    @property
    def ends(self) -> list[asyncio.Future[None]]:
        """One future for each action, done when the action has ended."""
        return [ended for _, ended in self._running.values()]

    async def run(self, name: str, action: Coroutine[Any, Any, T]) -> T:
        """Await an action. Raises FunctionError if the action is interrupted."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A timeout without a deadline. To interrupt, reschedule it: it knows its own cancellation from the caller's.
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._running[timeout] = name, ended
                return await action
        except TimeoutError:
            if not timeout.expired():
                raise  # raised by the action
            raise FunctionError(CALL_INTERRUPTED) from None
        finally:
            self._running.pop(timeout, None)
            ended.set_result(None)

    def interrupt(self) -> None:
        """Interrupt all of them. An action that ignores the interruption goes on."""
        for timeout in self._running:
            if not timeout.expired():
                timeout.reschedule(0.0)


class RunningActions:
    """The scheduled actions that run now, up to `limit`, and the called actions, which it only ends."""

    def __init__(self, database: Database, runner: JobRunner, limit: int) -> None:
        self._database = database
        self._runner = runner
        self._limit = limit
        self._tasks: dict[asyncio.Task[None], tuple[Job, int]] = {}
        """Each action with the epoch of this process in which it was started."""
        self._ended: asyncio.Future[None] | None = None
        self.called = CalledActions()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many more may start. Read in the committer's thread too: it can only grow while a batch runs."""
        return self._limit - len(self._tasks)

    def start(self, job: Job, version: int, epoch: int) -> None:
        """Run an action that a batch has marked as started, in an epoch and after a version of the store."""
        task = asyncio.create_task(self._run(job, version, epoch), name=f"duly action {job.name}")
        self._tasks[task] = job, epoch

    async def _run(self, job: Job, version: int, epoch: int) -> None:
        try:
            # A later call of the same batch, or of a batch that followed at once, may have canceled it.
            if not jobs.is_canceled(self._database.commit_log.latest(JOBS, job.id, version)):
                await self._runner.run_started(job, epoch)
        finally:
            # Here and not in a callback: the next batch must count this action as ended.
            task = asyncio.current_task()
            if task is not None:
                self._tasks.pop(task, None)
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    def next_end(self) -> asyncio.Future[None] | None:
        """Return a future that is done when one of the scheduled actions ends; None if none runs."""
        if not self._tasks:
            return None
        self._ended = asyncio.get_running_loop().create_future()
        return self._ended

    def cancel_fenced(self) -> None:
        """Cancel the actions of an earlier epoch: other nodes considered this process lost and have failed them."""
        for task, (_, epoch) in self._tasks.items():
            if epoch != self._database.epoch:
                task.cancel()

    async def stop(self, grace_seconds: float) -> None:
        """Wait this long for all actions to end, then interrupt the others.

        The interruption of a scheduled action is recorded. An action that ignores it stays in this set, and a record of
        its end is queued.
        """
        try:
            if grace_seconds > 0:
                silent_seconds = min(grace_seconds, CLOSING_NOTICE_SECONDS)
                await self._wait(silent_seconds)
                self._log_waiting(grace_seconds - silent_seconds)
                await self._wait(grace_seconds - silent_seconds)
        finally:
            await self._interrupt()

    async def _wait(self, seconds: float) -> None:
        if running := [*self._tasks, *self.called.ends]:
            await asyncio.wait(running, timeout=seconds)

    def _log_waiting(self, seconds: float) -> None:
        names = sorted([*(job.name for job, _ in self._tasks.values()), *self.called.names])
        if names and seconds > 0:
            these = ", ".join(names[:_NAMED_MAX]) + ("" if len(names) <= _NAMED_MAX else ", …")
            _log.warning(
                "closing waits up to %.3g s more for %s: %s; cancelling it, as Ctrl-C does, interrupts them",
                seconds,
                "a running action" if len(names) == 1 else f"{len(names)} running actions",
                these,
            )

    async def _interrupt(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        self.called.interrupt()
        try:
            await self._wait(INTERRUPT_SECONDS)
        finally:
            for job, epoch in self._tasks.values():
                self._runner.give_up(job, epoch)
