"""The executor: runs scheduled functions when they are due, mutations exactly once, actions at most once.

What the store refuses, such as a full disk, it refuses to a batch as a whole. Then batches get smaller until one has a
single function: that one is postponed, and does not hold up the others any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from math import inf
from random import Random
from typing import Any, Final, NamedTuple

from duly import faults
from duly.database.batch import Batch
from duly.database.database import Database
from duly.database.environment import drop_due_after
from duly.database.read_set import ReadSet
from duly.errors import StoreError, StoreLostError
from duly.limits import CLOCK_BACK_MS, CLOSING_NOTICE_SECONDS, DUE_BATCH_MAX, DUE_BATCHES_MORE, INTERRUPT_SECONDS
from duly.logs import log_of
from duly.model import crons, executor_pause, jobs
from duly.run.job_runner import JobRunner
from duly.storage.rows import JOBS, Job
from duly.values.index_keys import Interval
from duly.workers.running_actions import CalledActions

_log: Final = log_of("duly.worker")
_BATCH_SIZE_MIN: Final = 16
"""So many are claimed at first, and later by so many more than have run: the arguments of many might fill the memory,
or take the store longer than anybody waits for an answer."""
_NAMED_MAX: Final = 8  # actions, in one line of the log


class BatchResult(NamedTuple):
    """What one batch did for the executor."""

    version: int = 0
    """The version of the store it has read."""
    epoch: int = 0
    """In which the actions were started."""
    ran: int = 0
    """Scheduled functions that were run, started or found done."""
    started: Sequence[Job] = ()
    """Actions that are marked as started."""
    next_due: float | None = None
    """When the next function is due, which may be now; None when nothing is pending."""
    waiting: bool = False
    """Whether actions are due that wait for a running one to end."""
    is_more: bool = False
    """Whether the batch has left mutations to the next ones."""
    paused: bool = False
    """Whether nothing starts until somebody resumes the executor."""

    def followed_by(self, more: BatchResult | BaseException) -> BatchResult:
        """What two batches did. What a second one was refused is found out by the next first one."""
        if isinstance(more, BaseException):
            return self._replace(next_due=0.0)
        due = min((due for due in (self.next_due, more.next_due) if due is not None), default=None)
        return self._replace(ran=self.ran + more.ran, next_due=due)


class Executor:
    """Runs what is due, in steps: each is one batch of mutations, and the start of due actions."""

    def __init__(self, database: Database, runner: JobRunner, actions_max: int, chance: Random) -> None:
        self._database = database
        self._runner = runner
        self._actions_max = actions_max
        self._running: dict[asyncio.Task[None], tuple[Job, int]] = {}
        """The actions it runs, and the epoch in which each was started."""
        self._regrouped = database.membership_changed
        self._last = BatchResult()
        self._freed: asyncio.Future[None] | None = None
        self.called_actions = CalledActions()
        """Actions that somebody has called, which it does not run, but ends as it does its own."""
        self._chance = chance
        self._latest = -inf
        """The latest time that the clock has shown, since it was set back last."""
        self._claimed_max = _BATCH_SIZE_MIN
        self._batches_more = 0
        """How many batches shall run what one has claimed, beside that one."""
        self._taken: list[Job] = []
        """What the last batch that claims has begun to run or start."""
        self._refused = False
        """Whether the store has refused that batch: then `_claimed_max` holds for both queues together."""

    @property
    def running(self) -> int:
        """How many scheduled actions run now."""
        return len(self._running)

    async def recover(self) -> None:
        """Fail the actions that processes which are lost left running."""
        faults.at("recovery.begun")
        left: Interval | None = jobs.RUNNING
        while left is not None:
            recover = partial(jobs.recover, is_lost=self._database.is_lost, among=left)
            lost, left = await self._runner.commit(recover)
            for job in lost:
                self._runner.log_interrupted(job)

    async def step(self) -> float | None:
        if self._regrouped.done():
            regrouped = self._database.membership_changed
            self._disown()
            await self.recover()
            self._regrouped = regrouped  # not before: what fails is tried again
        await self.check_clock()
        await self.run_batch()
        return self._runner.clock.now() if self._is_set_back else self._last.next_due

    async def check_clock(self) -> None:
        """Have crons set right once the clock is found set back: by what it showed before, they are far ahead."""
        now, latest = self._runner.clock.now(), self._latest
        if self._is_set_back:
            await self._runner.commit(crons.clamp_all)
            _log.warning("the clock was set back by %.0f s: crons were set right by it", (latest - now) / 1000)
            latest = now
        self._latest = max(latest, now)

    @property
    def _is_set_back(self) -> bool:
        return self._runner.clock.now() < self._latest - CLOCK_BACK_MS

    def _disown(self) -> None:
        """Stop actions that this process ran when it was taken for lost: they have failed."""
        for task, (_, epoch) in self._running.items():
            if epoch != self._database.epoch:
                task.cancel()

    async def run_batch(self) -> BatchResult:
        """Run a batch of what is due now, and some more where there is much."""
        others = self._batches_more
        self._batches_more = 0
        self._taken = []  # those of the batch before have nothing to do with what this one is refused
        first = self._database.commit(self._claim_and_run, is_awaited=False)
        going_on = [self._database.commit(self._run_claimed, is_awaited=False) for _ in range(others)]
        rest = asyncio.gather(*going_on, return_exceptions=True) if others else None
        try:
            result = await first
        except StoreLostError:
            self._claimed_max = max(self._claimed_max // 2, 1)  # nobody's fault, but the answer may be too long
            raise
        except StoreError as error:
            if not self._taken:
                raise
            return await self._suspect(self._taken, error)
        self._refused = False
        for job in result.started:
            self._start(job, result)
        for more in await rest if rest else ():
            result = result.followed_by(more)
        if result.waiting and len(self._running) < self._actions_max:
            result = result._replace(next_due=0.0)  # some ended while the batch was under way
        # Not before there is more to do than one batch can: who has one function to run waits for one batch only.
        self._batches_more = DUE_BATCHES_MORE if result.is_more and self._database.is_shared else 0
        # Slow functions fill a batch with few: the next one takes hardly more from the store than it can run.
        each = result.ran // (1 + others)
        self._claimed_max = min(each + each // 4 + _BATCH_SIZE_MIN, DUE_BATCH_MAX) * (1 + self._batches_more)
        self._last = result
        return result

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Done when a function is scheduled that is due before the next one known, or when an action may start."""
        reads = ReadSet() if self._last.paused else jobs.due_before(self._last.next_due)
        wakers: list[asyncio.Future[Any]] = [
            self._database.watch(executor_pause.watch(reads), self._last.version),
            asyncio.shield(self._regrouped),
        ]
        if self._running:
            self._freed = asyncio.get_running_loop().create_future()
            wakers.append(self._freed)
        return wakers

    async def _suspect(self, taken: list[Job], error: StoreError) -> BatchResult:
        """After the store has refused a batch, find whose fault it is: take fewer, or postpone the only one."""
        self._refused, self._claimed_max = True, max(len(taken) // 2, 1)
        if len(taken) == 1:
            faults.at("job.refused")
            back_off = partial(jobs.back_off, id=taken[0].id, share=self._chance.random())
            delay = await self._runner.commit(back_off)  # if this fails, too, nobody can run
            _log.warning("%s is tried again in %.1f s: %s", taken[0].name, delay / 1000, error)
        self._last = self._last._replace(ran=0, started=(), next_due=0.0)  # come again at once
        return self._last

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Let the actions that run end, also those that were called, for so long; then interrupt the others.

        That is recorded of those that were scheduled. Those that ignore it are still `running` afterwards: their end is
        queued to be recorded.
        """
        try:
            if grace_seconds > 0:
                told = min(grace_seconds, CLOSING_NOTICE_SECONDS)
                await self._have_ended(told)
                self._tell_waits(grace_seconds - told)
                await self._have_ended(grace_seconds - told)
        finally:
            await self._interrupt()

    async def _have_ended(self, seconds: float) -> None:
        if running := [*self._running, *self.called_actions.ends]:
            await asyncio.wait(running, timeout=seconds)

    def _tell_waits(self, seconds: float) -> None:
        names = sorted([*(job.name for job, _ in self._running.values()), *self.called_actions.names])
        if names and seconds > 0:
            these = ", ".join(names[:_NAMED_MAX]) + ("" if len(names) <= _NAMED_MAX else ", …")
            _log.warning(
                "closing waits up to %.3g s more for %s: %s; cancelling it, as Ctrl-C does, interrupts them",
                seconds,
                "a running action" if len(names) == 1 else f"{len(names)} running actions",
                these,
            )

    async def _interrupt(self) -> None:
        for task in tuple(self._running):
            task.cancel()
        self.called_actions.interrupt()
        try:
            await self._have_ended(INTERRUPT_SECONDS)
        finally:
            for job, epoch in self._running.values():
                self._runner.give_up(job, epoch)

    # In the batch.

    def _claim_and_run(self, batch: Batch) -> BatchResult:
        self._taken, self._latest = [], max(self._latest, batch.now)
        if batch.attempt(executor_pause.paused_since) is not None:
            return BatchResult(batch.version, self._database.epoch, paused=True)
        free = self._actions_max - len(self._running)  # it can only grow while this runs
        # One more of each than may be run tells whether there are more.
        claimed = jobs.claim(batch, self._claimed_max + 1, free + 1)
        batch.prefetch(job.args for job in claimed.mutations)
        epoch, started = self._database.epoch, list[Job]()
        ran = self._run(batch, claimed.mutations[: self._claimed_max], self._taken)
        is_more = ran < len(claimed.mutations)
        if self._database.is_shared:
            batch.claimed.clear()
            batch.claimed.update((job.id, job) for job in claimed.mutations[ran : self._claimed_max])
            drop_due_after(batch.claimed, batch.overdue)
        next_dues = [claimed.next_due, batch.now if is_more else None]
        startable = [job for job in claimed.actions[:free] if (job.due or 0.0) <= batch.overdue]
        if self._refused:
            startable = startable[: self._claimed_max - ran]
        if len(startable) < min(len(claimed.actions), free):
            next_dues.append(batch.now)
        for job in startable:
            self._taken.append(job)
            ran += 1
            if self._runner.run_due(batch, job, epoch):
                started.append(job)
        next_dues.append(jobs.first_due(batch))
        next_due = min((due for due in next_dues if due is not None), default=None)
        return BatchResult(batch.version, epoch, ran, started, next_due, len(claimed.actions) > free, is_more)

    def _run_claimed(self, batch: Batch) -> BatchResult:
        """Run what an earlier batch has claimed and left, without asking the store: it may still be committed."""
        paused = batch.attempt(executor_pause.paused_since) is not None
        left = tuple(batch.claimed.values())
        ran = 0 if paused else self._run(batch, left, [])
        for job in left[:ran]:
            del batch.claimed[job.id]  # now, for there may be another one like this in the batch
        return BatchResult(batch.version, self._database.epoch, ran, next_due=jobs.first_due(batch))

    def _run(self, batch: Batch, mutations: Sequence[Job], taken: list[Job]) -> int:
        """Run as many as there is time for, and one in any case: a slow store must not keep all of them waiting.

        Where one schedules a function that was due before the next one, that comes first, so the batch ends.
        """
        for job in mutations[:DUE_BATCH_MAX]:
            if (taken and batch.is_time_up) or (job.due or 0.0) > batch.overdue:
                break
            taken.append(job)
            self._runner.run_due(batch, job, self._database.epoch)
        return len(taken)

    # Actions.

    def _start(self, job: Job, result: BatchResult) -> None:
        task = asyncio.create_task(self._run_action(job, result), name=f"duly action {job.name}")
        self._running[task] = job, result.epoch

    async def _run_action(self, job: Job, result: BatchResult) -> None:
        try:
            # A later call of the same batch, or of one that followed at once, may have canceled it.
            if not jobs.is_canceled(self._database.commit_log.latest(JOBS, job.id, result.version)):
                await self._runner.run_started(job, result.epoch)
        finally:
            # Here and not in a callback: the next drain must count this one as ended.
            task = asyncio.current_task()
            if task is not None:
                self._running.pop(task, None)
            if self._freed is not None and not self._freed.done():
                self._freed.set_result(None)
