"""Scheduled functions, transaction by transaction."""

from __future__ import annotations

from functools import partial

import pytest

from duly.database.batch import Batch
from duly.database.transaction import Transaction
from duly.model import jobs
from duly.model.job_admin import commit
from duly.model.job_state import FAILED, IN_PROGRESS, SUCCESS
from duly.storage.rows import ACTION, JOBS, Job
from tests.model.test_job_admin import NOW, opened

EPOCH = 7


@pytest.mark.parametrize(("error", "ended"), [(None, SUCCESS), ("on purpose", FAILED)])
async def test_the_end_of_an_action_is_recorded_by_the_process_that_runs_it_and_by_no_other(
    store: str, error: str | None, ended: str
) -> None:
    def start(batch: Batch) -> Job:
        jobs.start(batch, batch.attempt(look), EPOCH)
        return batch.attempt(look)

    async def schedule(transaction: Transaction) -> int:
        return jobs.schedule(transaction, "a:a", ACTION, "{}", NOW, None)

    async def look(transaction: Transaction) -> Job:
        found = await transaction.get(JOBS, id)
        assert isinstance(found, Job)
        return found

    async with opened(store) as database:
        id = await commit(database, schedule)
        job = await database.commit(start)
        assert (job.state, job.epoch) == (IN_PROGRESS, EPOCH)
        for epoch in (EPOCH - 1, EPOCH + 1):
            await database.commit(partial(jobs.end_action, id=id, epoch=epoch, error=error))
            assert await commit(database, look) == job
        await database.commit(partial(jobs.end_action, id=id, epoch=EPOCH, error=error))
        assert await commit(database, look) == job._replace(state=ended, epoch=None, error=error, completed_time=NOW)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_all_actions_of_a_lost_process_fail_however_many_are_looked_at_at_once(
    store: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(jobs, "_RECOVERED_AT_ONCE", 2)

    async def run_one(transaction: Transaction) -> int:
        return jobs.schedule(transaction, "a:a", ACTION, "{}", NOW, None)

    def start(batch: Batch, id: int) -> None:
        job = batch.row(JOBS, id)
        assert isinstance(job, Job)
        jobs.start(batch, job, EPOCH)

    async def state(transaction: Transaction, id: int) -> str:
        job = await transaction.get(JOBS, id)
        assert isinstance(job, Job)
        return job.state

    async with opened(store) as database:
        ids = [await commit(database, run_one) for _ in range(count)]
        for id in ids:
            await database.commit(partial(start, id=id))
        found, left = list[Job](), jobs.RUNNING
        while left is not None:
            lost, left = await commit(database, partial(jobs.recover, is_lost=lambda epoch: epoch == EPOCH, among=left))
            found += lost
        assert [job.id for job in found] == ids
        assert {await commit(database, partial(state, id=id)) for id in ids} == {FAILED}
