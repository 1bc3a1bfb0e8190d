"""Scheduled functions, transaction by transaction."""

from __future__ import annotations

from functools import partial

import pytest

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
    async def start(transaction: Transaction) -> Job:
        await jobs.start(transaction, await look(transaction), EPOCH)
        return await look(transaction)

    async def look(transaction: Transaction) -> Job:
        found = await transaction.get(JOBS, id)
        assert isinstance(found, Job)
        return found

    async with opened(store) as database:
        id = await commit(database, lambda transaction: jobs.schedule(transaction, "a:a", ACTION, "{}", NOW, None))
        job = await commit(database, start)
        assert (job.state, job.epoch) == (IN_PROGRESS, EPOCH)
        for epoch in (EPOCH - 1, EPOCH + 1):
            await commit(database, partial(jobs.end_action, id=id, epoch=epoch, error=error))
            assert await commit(database, look) == job
        await commit(database, partial(jobs.end_action, id=id, epoch=EPOCH, error=error))
        assert await commit(database, look) == job._replace(state=ended, epoch=None, error=error, completed_time=NOW)
