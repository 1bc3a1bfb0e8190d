"""The executor: runs scheduled functions when they are due, mutations exactly once, actions at most once.

A step is one batch: it claims due functions, runs the mutations, and marks the actions as started; once it is durable,
the event loop starts those actions. `claim_size.py` says how many a batch claims, and what happens if the store refuses
one of them; `running_actions.py` runs the actions.

Two threads work here:

    the event loop           step, run_batch, check_clock, wakers, and all changes of `_claim_size` and `_actions`
    the committer's thread   _claim_and_run, _run_claimed and what they call; each gets a Batch

After a conflict, the committer may call the second group again for the same batch, while the event loop waits. So both
threads use only these: `_claim_size` and `_actions`, which the committer's thread only reads; `attempted`, the list of
one batch, which the event loop reads after that batch has failed; `_latest`, which the committer's thread only raises.
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
from duly.limits import CLOCK_BACK_MS, DUE_BATCH_MAX, DUE_SECONDS_BEHIND_CALLS_MAX
from duly.logs import log_of
from duly.model import crons, executor_pause, jobs
from duly.run.job_runner import JobRunner
from duly.storage.rows import Job
from duly.values.index_keys import Interval
from duly.workers.claim_size import ClaimSize
from duly.workers.running_actions import RunningActions

_log: Final = log_of("duly.worker")


class BatchResult(NamedTuple):
    """What a batch did for the executor."""

    version: int = 0
    """The version of the store that it has read."""
    epoch: int = 0
    """The epoch of this process in which it started actions."""
    ran: int = 0
    """Scheduled functions that it ran, started, or found already ended."""
    started: Sequence[Job] = ()
    """Actions that it has marked as started."""
    next_due: float | None = None
    """When the next function is due, which may be now; None if nothing is pending."""
    waiting: bool = False
    """Whether due actions wait until a running action ends."""
    is_more: bool = False
    """Whether the batch has left mutations that are due."""
    paused: bool = False
    """Whether the executor is paused, so that nothing may start."""

    def followed_by(self, more: BatchResult | BaseException) -> BatchResult:
        """Combine this result with the result of a follow-up. If that one failed, the next batch finds out why."""
        if isinstance(more, BaseException):
            return self._replace(next_due=0.0)
        due = min((due for due in (self.next_due, more.next_due) if due is not None), default=None)
        return self._replace(ran=self.ran + more.ran, next_due=due)


class Executor:
    """Runs what is due, in steps: each is a batch of mutations, and the start of due actions."""

    def __init__(self, database: Database, runner: JobRunner, actions_max: int, rng: Random) -> None:
        self._database = database
        self._runner = runner
        self._rng = rng
        self._membership_changed = database.membership_changed
        self._claim_size = ClaimSize()
        self._actions = RunningActions(database, runner, actions_max)
        self.called_actions = self._actions.called
        """Actions that were called. The executor does not run them, but it ends them when the app is closed."""
        self._last = BatchResult()
        self._latest = -inf
        """The latest time that the clock has shown since it was last set back."""

    @property
    def running(self) -> int:
        """How many scheduled actions run now."""
        return len(self._actions)

    async def recover(self) -> None:
        """Fail the actions that lost processes left running."""
        faults.at("recovery.begun")
        left: Interval | None = jobs.RUNNING
        while left is not None:
            recover = partial(jobs.recover, is_lost=self._database.is_lost, among=left)
            lost, left = await self._runner.commit(recover)
            for job in lost:
                self._runner.log_interrupted(job)

    async def step(self) -> float | None:
        if self._membership_changed.done():
            next_change = self._database.membership_changed
            self._actions.cancel_fenced()
            await self.recover()
            self._membership_changed = next_change  # not before: if recovery fails, the next step tries again
        await self.check_clock()
        await self.run_batch()
        return self._runner.clock.now() if self._is_set_back else self._last.next_due

    async def check_clock(self) -> None:
        """If the clock was set back, move crons back, too: their times, made by the old clock, are far ahead."""
        now, latest = self._runner.clock.now(), self._latest
        if self._is_set_back:
            await self._runner.commit(crons.clamp_all)
            _log.warning("the clock was set back by %.0f s: crons were moved back with it", (latest - now) / 1000)
            latest = now
        self._latest = max(latest, now)

    @property
    def _is_set_back(self) -> bool:
        return self._runner.clock.now() < self._latest - CLOCK_BACK_MS

    async def run_batch(self) -> BatchResult:
        """Run a batch of what is due now, and its follow-ups."""
        follow_ups = self._claim_size.take_follow_ups()
        attempted: list[Job] = []
        batch = self._database.commit(partial(self._claim_and_run, attempted), is_awaited=False)
        following = [self._database.commit(self._run_claimed, is_awaited=False) for _ in range(follow_ups)]
        rest = asyncio.gather(*following, return_exceptions=True) if follow_ups else None
        try:
            result = await batch
        except StoreLostError:
            self._claim_size.on_store_lost()
            raise
        except StoreError as error:
            if not attempted:
                raise
            return await self._on_refused(attempted, error)
        for job in result.started:
            self._actions.start(job, result.version, result.epoch)
        for more in await rest if rest else ():
            result = result.followed_by(more)
        if result.waiting and self._actions.free > 0:
            result = result._replace(next_due=0.0)  # some ended while the batch was under way
        self._claim_size.adapt(result.ran, 1 + follow_ups, result.is_more and self._database.is_shared)
        self._last = result
        return result

    async def _on_refused(self, attempted: list[Job], error: StoreError) -> BatchResult:
        """After the store has refused a batch: claim less, or postpone the function if it was the only one."""
        self._claim_size.on_refused(len(attempted))
        if len(attempted) == 1:
            faults.at("job.refused")
            [job] = attempted
            back_off = partial(jobs.back_off, id=job.id, share=self._rng.random())
            delay = await self._runner.commit(back_off)  # if this fails too, nothing can run
            _log.warning("%s is tried again in %.1f s: %s", job.name, delay / 1000, error)
        self._last = self._last._replace(ran=0, started=(), next_due=0.0)  # step again at once
        return self._last

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Return futures that are done when a function becomes due earlier than known, or when an action may start."""
        reads = ReadSet() if self._last.paused else jobs.due_before(self._last.next_due)
        wakers: list[asyncio.Future[Any]] = [
            self._database.watch(executor_pause.watch(reads), self._last.version),
            asyncio.shield(self._membership_changed),
        ]
        next_end = self._actions.next_end()
        return wakers if next_end is None else [*wakers, next_end]

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """End the actions that run, scheduled or called: `RunningActions.stop`."""
        await self._actions.stop(grace_seconds)

    # In the committer's thread.

    def _claim_and_run(self, attempted: list[Job], batch: Batch) -> BatchResult:
        """Claim due functions, run mutations, mark actions as started. `attempted` gets what it runs and starts."""
        attempted.clear()  # entries of an earlier run of the same batch
        self._latest = max(self._latest, batch.now)
        if batch.attempt(executor_pause.paused_since) is not None:
            return BatchResult(batch.version, self._database.epoch, paused=True)
        if batch.has_caller:
            batch.seconds_max = DUE_SECONDS_BEHIND_CALLS_MAX
        epoch, free, limit = self._database.epoch, self._actions.free, self._claim_size.limit
        # One more of each than may run shows whether more are due.
        claimed = jobs.claim(batch, limit + 1, free + 1)
        batch.prefetch(job.args for job in claimed.mutations)
        ran = self._run_mutations(batch, claimed.mutations[:limit], attempted)
        is_more = ran < len(claimed.mutations)
        if self._database.is_shared:
            batch.claimed.clear()
            batch.claimed.update((job.id, job) for job in claimed.mutations[ran:limit])
            drop_due_after(batch.claimed, batch.overdue)
        startable = [job for job in claimed.actions[:free] if (job.due or 0.0) <= batch.overdue]
        if self._claim_size.is_refused:
            startable = startable[: limit - ran]
        is_held_back = len(startable) < min(len(claimed.actions), free)
        started = self._mark_actions(batch, startable, epoch, attempted)
        next_dues = (claimed.next_due, batch.now if is_more or is_held_back else None, jobs.first_due(batch))
        next_due = min((due for due in next_dues if due is not None), default=None)
        is_waiting = len(claimed.actions) > free
        return BatchResult(batch.version, epoch, len(attempted), started, next_due, is_waiting, is_more)

    def _run_claimed(self, batch: Batch) -> BatchResult:
        """Run the rest of a claim, in a follow-up. It reads no row of the store, which may still commit the claim."""
        paused = batch.attempt(executor_pause.paused_since) is not None
        left = tuple(batch.claimed.values())
        ran = 0 if paused else self._run_mutations(batch, left, [])
        for job in left[:ran]:
            del batch.claimed[job.id]  # at once: the next follow-up may be in the same batch
        return BatchResult(batch.version, self._database.epoch, ran, next_due=jobs.first_due(batch))

    def _run_mutations(self, batch: Batch, mutations: Sequence[Job], attempted: list[Job]) -> int:
        """Run as many as there is time for, but at least one: otherwise a slow store would delay all of them for ever.

        If one of them schedules a function that was due before the next one, that function comes first: the batch ends.
        """
        run_due, epoch = self._runner.run_due, self._database.epoch
        for job in mutations[:DUE_BATCH_MAX]:
            if (attempted and batch.is_time_up()) or (batch.overdue < inf and (job.due or 0.0) > batch.overdue):
                break
            attempted.append(job)
            run_due(batch, job, epoch)
        return len(attempted)

    def _mark_actions(self, batch: Batch, actions: list[Job], epoch: int, attempted: list[Job]) -> list[Job]:
        """Mark actions as started. Return the marked ones: others were canceled, or are no actions any more."""
        started: list[Job] = []
        for job in actions:
            attempted.append(job)
            if self._runner.run_due(batch, job, epoch):
                started.append(job)
        return started
