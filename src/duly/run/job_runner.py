"""Runs scheduled functions: a mutation and the end of its job in one commit, an action between two commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from logging import INFO
from typing import Any, Final, TypeVar

from duly import faults
from duly.clock import Clock, monotonic
from duly.ctx.caller import Caller, caller_of_job
from duly.ctx.context import mutation_context
from duly.database.batch import Batch
from duly.database.transaction import Transaction
from duly.declare.function import ACTION, MUTATION
from duly.declare.registered import RegisteredFunction
from duly.errors import FunctionError, FunctionNotFoundError, StoreError
from duly.limits import ERROR_TEXT_LENGTH_MAX, OF_ANY_SIZE, POSTPONED_MS
from duly.model import crons, jobs
from duly.model.cron_log import NO_RECORD, RunRecord, to_ascii
from duly.model.job_state import SUCCESS
from duly.run.containment import contained
from duly.run.determinism import attempt_with_rehearsal
from duly.run.failure import describe
from duly.run.run_log import LOG, is_logged
from duly.run.runner import Runner
from duly.storage.rows import Job
from duly.values.json import dumps

T = TypeVar("T")

_RECORD_SECONDS: Final = (0.5, 15.0)  # first and longest pause before the end of an action is recorded again


class JobRunner:
    """Runs scheduled functions for the executor, with the functions and the database of a `Runner`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._database = runner.database
        self._development = runner.development
        self._result = runner.result
        self._run = runner.run_plain
        self._log_run = runner.run_log.record
        self.clock: Clock = runner.clock

    def commit(self, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run a transaction of the system."""
        return self._runner.commit(unit)

    # In a batch, in the thread that commits.

    def run_due(self, batch: Batch, job: Job, epoch: int) -> bool:
        """Run a due mutation, or mark a due action as started. Returns whether it was an action.

        The row of the job is read as the batch has left it: an earlier call of the batch may have canceled it.
        """
        id, name, args, *_, cron = job  # at once: to read a field of a tuple by its name takes longer
        latest = batch.latest_job(id, job)
        if latest is not job and latest != job:
            return False
        if faults.armed:
            faults.at("job.claimed")
        registry = self._runner.registry
        function = registry.functions.get(name)
        if name == crons.CLOCK:
            self._tick(batch, job)
        elif function is not None and function.kind == MUTATION:
            if function.is_plain and cron is None and not self._development:
                self._run_plain(batch, function, job, id, args)
            else:
                self._run_mutation(batch, function, job)
        elif function is not None and function.kind == ACTION and job.queue == ACTION:
            jobs.start(batch, job, epoch)
            return True
        elif function is not None and function.kind == ACTION:
            batch.attempt(jobs.change_queue, job, ACTION)  # it was a mutation when it was scheduled
        elif batch.catalog.deploy not in ("", registry.mark):
            # A newer version of the application may have it. A node with that version runs it, or this one tries again.
            batch.attempt(jobs.postpone, job, batch.now + POSTPONED_MS)
        else:
            error = _not_runnable(job.name, function, registry.suggestion(name))
            self._log_run(job.name, job.queue, monotonic(), error, job, batch)
            batch.attempt(jobs.fail, job, describe(error))
        return False

    def _tick(self, batch: Batch, clock: Job) -> None:
        try:
            batch.attempt(crons.tick, clock)
        except Exception as error:
            if batch.engine_error is not None:
                raise
            LOG.error("a cron gave up, for its clock cannot go on: %s", describe(error), exc_info=error)
            batch.attempt(crons.pause_broken, clock, describe(error, ERROR_TEXT_LENGTH_MAX))

    def _run_mutation(self, batch: Batch, function: RegisteredFunction, job: Job) -> None:
        started, caller = monotonic(), _caller_of(job)
        begun = None if job.cron is None else self.clock.now()  # the time of the batch stands still
        try:
            if self._development:
                attempt_with_rehearsal(batch, function.name, self._mutate_and_end, function, job, caller, begun)
            else:  # in a context of its own, so that the jobs after it do not see its context variables
                copy_context().run(
                    batch.attempt, self._mutate_and_end, function, job, caller, begun, handler=function.name
                )
        except Exception as error:
            if batch.engine_error is not None:
                raise
            self._log_run(job.name, MUTATION, started, error, job, batch)
            record = NO_RECORD if begun is None else self._run_record(begun, caller)
            batch.attempt(jobs.fail, job, describe(error, ERROR_TEXT_LENGTH_MAX), record)
        else:
            self._log_run(job.name, MUTATION, started, None, job, batch)

    def _run_plain(self, batch: Batch, function: RegisteredFunction, job: Job, id: int, args: str) -> None:
        """Run a plain mutation and the end of its job: see `Runner.run_plain`. Others take `_mutate_and_end`."""
        started, transaction = monotonic(), batch.begin()
        try:
            try:
                arguments = function.arguments(args, batch)
                # In a context of its own: its context variables are not for the jobs after it.
                copy_context().run(self._run, batch, function, transaction, caller_of_job(id), arguments)
                if faults.armed:
                    faults.at("job.ran")
                jobs.succeed(transaction, job)
                batch.keep(transaction)
            finally:
                batch.end(transaction)
        except Exception as error:
            if batch.engine_error is not None:
                raise
            self._log_run(job.name, MUTATION, started, error, job, batch)
            batch.attempt(jobs.fail, job, describe(error, ERROR_TEXT_LENGTH_MAX))
        else:
            if is_logged(INFO):
                self._log_run(job.name, MUTATION, started, None, job, batch)

    async def _mutate_and_end(
        self, transaction: Transaction, function: RegisteredFunction, job: Job, caller: Caller, begun: float | None
    ) -> None:
        """Run a scheduled mutation and the end of its job, as one transaction."""
        if caller.lines:
            caller.lines.clear()  # the lines of a rehearsal
        ctx = mutation_context(self._runner, function.name, transaction, caller)
        arguments = function.arguments(job.args, ctx.mapper)
        value = self._result(function, ctx, await function.handler(ctx, **arguments), caller.wants_plain)
        if transaction.usage.is_near_limit:
            self._runner.warn_of_limits(function, transaction)
        faults.at("job.ran")
        if begun is None:
            jobs.succeed(transaction, job)
        else:
            await crons.end_run(transaction, job, SUCCESS, None, self._run_record(begun, caller, value))

    # In the event loop.

    async def run_started(self, job: Job, epoch: int) -> None:
        """Run an action that is marked as started, and record how it ended."""
        if faults.armed:
            faults.at("action.marked")
        failure: Exception | None = None
        error: str | None = None
        value, caller, started = None, _caller_of(job), monotonic()
        begun = 0.0 if job.cron is None else self.clock.now()
        try:
            function = self._runner.registry.find(job.name, (ACTION,))
            value = await contained(self._runner.run_action(function, job.args, caller))
        except asyncio.CancelledError:
            failure, error = FunctionError(jobs.INTERRUPTED), jobs.INTERRUPTED
        except Exception as raised:
            failure, error = raised, describe(raised, ERROR_TEXT_LENGTH_MAX)
        if self._database.is_open:  # otherwise, the process that opens the store next logs it
            self._log_run(job.name, ACTION, started, failure, job)
        if faults.armed:
            faults.at("action.ran")
        record = NO_RECORD if job.cron is None else self._run_record(begun, caller, value)
        await self._record_end(job, epoch, error, record)
        if faults.armed:
            faults.at("action.recorded")

    async def _record_end(self, job: Job, epoch: int, error: str | None, record: RunRecord) -> None:
        """Record how an action ended, however long the store refuses: only this process knows it."""
        pause = _RECORD_SECONDS[0]
        while True:
            try:
                end = partial(jobs.end_action, id=job.id, epoch=epoch, error=error, record=record)
                # Not as a call that is awaited: cancelling this coroutine would withdraw it.
                return await self._database.commit(end, is_awaited=False)
            except StoreError as refused:
                if not self._database.is_open:
                    return None  # this process is lost: the next one recovers the job
                LOG.warning("%s has ended, which the store refuses to record; trying again", job.name)
                if type(refused) is StoreError:  # perhaps the store cannot hold the text
                    error, record = error and to_ascii(error), record.in_ascii
            except Exception as raised:  # try again without the parts that cannot be recorded
                error, record = describe(raised, ERROR_TEXT_LENGTH_MAX), NO_RECORD
                LOG.exception("%s has ended, which cannot be recorded as it is; trying again: %s", job.name, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RECORD_SECONDS[1])

    def give_up(self, job: Job, epoch: int) -> None:
        """Queue a record that an action was interrupted, although the action itself goes on."""
        with suppress(StoreError):  # this process is lost: the next one recovers the job
            recorded = self._database.commit(partial(jobs.end_action, id=job.id, epoch=epoch, error=jobs.INTERRUPTED))
            recorded.add_done_callback(lambda done: done.cancelled() or done.exception())
            self.log_interrupted(job)

    def log_interrupted(self, job: Job) -> None:
        """Log an action that counts as failed because its outcome is unknown."""
        self._log_run(job.name, ACTION, monotonic(), FunctionError(jobs.INTERRUPTED), job)

    def _run_record(self, begun: float, caller: Caller, value: Any = None) -> RunRecord:
        """Return what the run of a cron that ends now leaves in its log."""
        lines = [line.text for line in caller.lines or () if line.level != "DEBUG"]
        return RunRecord(dumps(value, OF_ANY_SIZE), lines, begun, self.clock.now())


def _caller_of(job: Job) -> Caller:
    """Return the caller. The run of a cron has no visible row; its lines go into the log of the cron."""
    return caller_of_job(job.id) if job.cron is None else Caller(lines=[], wants_plain=True)


def _not_runnable(name: str, function: RegisteredFunction | None, suggestion: str) -> FunctionNotFoundError:
    expected = "expected the mutation or action that was scheduled"
    if function is None:
        hint = suggestion and f"; {suggestion}"
        return FunctionNotFoundError(f"{name} does not exist (any more), {expected}{hint}")
    return FunctionNotFoundError(f"{name} is a query now, {expected}")
