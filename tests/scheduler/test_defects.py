"""Defects that are put into duly on purpose: the state machine finds each of them soon."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import Phase

from duly.ctx.caller import Caller
from duly.ctx.scheduler import ActionScheduler, job_number
from duly.database.batch import Batch
from duly.database.transaction import Transaction
from duly.errors import InvalidScheduleError
from duly.model import jobs
from duly.model.cron_log import NO_RECORD, RunRecord
from duly.model.job_state import MOVES
from duly.run.job_runner import JobRunner
from duly.run.runner import Runner
from duly.storage.rows import JOBS, Job
from duly.workers.executor import Executor
from tests.scheduler.steps import Difference
from tests.scheduler.test_state_machine import play

PROGRAMS: Final = 100

Patch = pytest.MonkeyPatch


def a_cancel_is_forgotten(patch: Patch) -> None:
    cancel = jobs.cancel

    async def forgetful(transaction: Transaction, id: int, own: int | None, missing_ok: bool = False) -> bool:
        was_pending = await cancel(transaction, id, own, missing_ok)
        job = await transaction.get(JOBS, id)
        if isinstance(job, Job):
            transaction.write(JOBS, id, job, job._replace(state="pending", due=transaction.now, completed_time=None))
        return was_pending

    patch.setattr(jobs, "cancel", forgetful)


def a_mutation_cancels_itself(patch: Patch) -> None:
    cancel = jobs.cancel
    patch.setattr(jobs, "cancel", lambda transaction, id, own, *more: cancel(transaction, id, None, *more))


def a_cancel_just_before_in_the_same_commit_is_missed(patch: Patch) -> None:
    patch.setattr(Batch, "latest_job", lambda batch, id, job: job)


def what_a_canceled_action_schedules_runs(patch: Patch) -> None:
    patch.setattr(jobs, "is_canceled", lambda row: False)


def what_a_mutation_of_a_canceled_action_schedules_runs(patch: Patch) -> None:
    patch.setattr(Caller, "inner", lambda caller, name: Caller(caller.identity, None, caller.depth + 1))


def a_canceled_action_succeeds_after_all(patch: Patch) -> None:
    def end(batch: Batch, id: int, epoch: int, error: str | None, record: RunRecord = NO_RECORD) -> None:
        job = batch.row(JOBS, id)
        if isinstance(job, Job) and error is None:
            batch.succeed(job)
        elif isinstance(job, Job):
            batch.attempt(jobs.fail, job, error)

    patch.setitem(MOVES, "canceled", {**MOVES["canceled"], "succeed": "success", "fail": "failed"})
    patch.setattr(jobs, "end_action", end)


def an_interrupted_action_runs_again(patch: Patch) -> None:
    move = jobs._move

    def again(transaction: Transaction, job: Job, event: str, **more: Any) -> None:
        if event == jobs.INTERRUPT:
            transaction.write(JOBS, job.id, job, job._replace(state="pending", due=transaction.now, epoch=None))
        else:
            move(transaction, job, event, **more)

    patch.setattr(jobs, "_move", again)


def what_is_due_runs_in_the_order_of_scheduling(patch: Patch) -> None:
    claim = jobs.claim

    def by_id(*args: Any) -> Any:
        claimed = claim(*args)
        return claimed._replace(mutations=sorted(claimed.mutations), actions=sorted(claimed.actions))

    patch.setattr(jobs, "claim", by_id)


def a_time_in_the_past_comes_behind_what_is_due(patch: Patch) -> None:
    write = Transaction.write

    def from_now(transaction: Transaction, table: Any, id: int, old: Any, new: Any) -> None:
        if isinstance(new, Job) and old is None and new.due is not None:
            new = new._replace(due=max(new.due, transaction.now))
        write(transaction, table, id, old, new)

    patch.setattr(Transaction, "write", from_now)


def a_time_in_the_past_waits_for_the_end_of_the_batch(patch: Patch) -> None:
    patch.setattr(Batch, "overdue", property(lambda batch: math.inf, lambda batch, due: None), raising=False)


def a_failed_sub_transaction_has_scheduled(patch: Patch) -> None:
    within = Runner.mutation_within

    async def leaky(runner: Runner, parent: Transaction, *args: Any) -> Any:
        children: list[Transaction] = []
        child = parent.child

        class Parent:
            usage = parent.usage
            merge = parent.merge

            def child(self) -> Transaction:
                children.append(child())
                return children[-1]

        try:
            return await within(runner, Parent(), *args)  # type: ignore[arg-type]
        except Exception:
            parent.writes.setdefault(JOBS.name, {}).update(children[0].writes.get(JOBS.name, {}))
            raise

    patch.setattr(Runner, "mutation_within", leaky)


def what_a_failed_sub_transaction_scheduled_counts(patch: Patch) -> None:
    patch.setattr("duly.database.usage.Usage.write_counts", property(lambda usage: (), lambda usage, written: None))


def the_window_ends_just_before_five_years(patch: Patch) -> None:
    patch.setattr("duly.ctx.schedule_time._WINDOW_MS", 5 * 366 * 24 * 3600 * 1000 - 1)


def what_fails_is_as_if_it_had_succeeded(patch: Patch) -> None:
    async def succeed(transaction: Transaction, job: Job, error: str, record: RunRecord = NO_RECORD) -> None:
        jobs.succeed(transaction, job)

    patch.setattr(jobs, "fail", succeed)


def an_action_may_not_cancel_itself(patch: Patch) -> None:
    async def cancel(scheduler: ActionScheduler, id: str, *, missing_ok: bool = False) -> bool:
        number = job_number(scheduler._invoker, id)
        if number == scheduler._job:
            raise InvalidScheduleError("it is the action itself")
        return await scheduler._invoker.commit(lambda transaction: jobs.cancel(transaction, number, None, missing_ok))

    patch.setattr(ActionScheduler, "cancel", cancel)


def one_action_too_many_runs(patch: Patch) -> None:
    init = Executor.__init__
    patch.setattr(
        Executor,
        "__init__",
        lambda self, database, runner, most, rng: init(self, database, runner, most + 1, rng),
    )


def a_deploy_changes_what_was_scheduled_before(patch: Patch) -> None:
    """A mutation that has become an action is run no more."""

    async def drop(transaction: Transaction, job: Job, queue: str) -> None:
        await jobs.fail(transaction, job, "FunctionNotFoundError: of another kind")

    patch.setattr(jobs, "change_queue", drop)


def the_scheduled_time_of_the_past_is_now(patch: Patch) -> None:
    schedule = jobs.schedule

    def now(transaction: Transaction, name: str, queue: str, args: str, when: float, parent: int | None) -> int:
        return schedule(transaction, name, queue, args, max(when, transaction.now), parent)

    patch.setattr(jobs, "schedule", now)


def a_mutation_runs_twice(patch: Patch) -> None:
    def twice(run: Callable[..., None]) -> Callable[..., None]:
        def again(runner: JobRunner, batch: Any, function: Any, job: Job, *more: Any) -> None:
            run(runner, batch, function, job, *more)
            if job.id % 5 == 0 and batch.latest_job(job.id, job).state == "success":
                run(runner, batch, function, job, *more)

        return again

    for path in ("_run_plain", "_run_mutation"):
        patch.setattr(JobRunner, path, twice(getattr(JobRunner, path)))


def a_pause_is_forgotten(patch: Patch) -> None:
    async def never(transaction: Transaction) -> None:
        return None

    patch.setattr("duly.model.executor_pause.paused_since", never)


def rows_expire_a_tick_late(patch: Patch) -> None:
    patch.setattr(jobs, "RETENTION_MS", 7 * 24 * 3600 * 1000 + 0.25)


def a_canceled_function_is_run_again(patch: Patch) -> None:
    patch.setattr(jobs, "FAILED", "canceled")


def an_action_has_no_grace(patch: Patch) -> None:
    stop = Executor.stop
    patch.setattr(Executor, "stop", lambda executor, grace_seconds=0.0: stop(executor, 0.0))


DEFECTS: Final[list[Callable[[Patch], None]]] = [
    # Those that are found soonest; these the suite looks for, `make soak` looks for all.
    a_mutation_runs_twice,
    what_fails_is_as_if_it_had_succeeded,
    an_interrupted_action_runs_again,
    a_pause_is_forgotten,
    rows_expire_a_tick_late,
    # The others.
    a_cancel_is_forgotten,
    a_mutation_cancels_itself,
    a_cancel_just_before_in_the_same_commit_is_missed,
    what_a_canceled_action_schedules_runs,
    what_a_mutation_of_a_canceled_action_schedules_runs,
    a_canceled_action_succeeds_after_all,
    what_is_due_runs_in_the_order_of_scheduling,
    a_time_in_the_past_comes_behind_what_is_due,
    a_time_in_the_past_waits_for_the_end_of_the_batch,
    a_failed_sub_transaction_has_scheduled,
    what_a_failed_sub_transaction_scheduled_counts,
    the_window_ends_just_before_five_years,
    an_action_may_not_cancel_itself,
    one_action_too_many_runs,
    a_deploy_changes_what_was_scheduled_before,
    the_scheduled_time_of_the_past_is_now,
    a_canceled_function_is_run_again,
    an_action_has_no_grace,
]
IN_SUITE: Final = 5


def is_found(defect: Callable[[Patch], None]) -> bool:
    """Whether one of the first programs tells duly with a defect from its model."""
    with pytest.MonkeyPatch.context() as patch:
        defect(patch)
        try:
            play(0, PROGRAMS, [Phase.generate])
        except Difference:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS[:IN_SUITE], ids=lambda defect: defect.__name__)
def test_a_defect_is_found(defect: Callable[[Patch], None]) -> None:
    assert is_found(defect)
