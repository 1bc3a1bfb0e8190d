"""Selections of scheduled functions: read in their order from whatever indexes have them, each once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import product
from random import Random

import pytest

from duly.app import engine_of
from duly.clock import ManualClock
from duly.database.database import Database
from duly.database.transaction import Transaction
from duly.model import jobs
from duly.model.job_admin import (
    Position,
    Selection,
    cancel_selected,
    commit,
    count,
    newest,
    read,
    select_all,
    select_some,
)
from duly.model.job_state import CANCELED, PENDING
from duly.storage.rows import JOBS, Job

NOW = 1_800_000_000_000.0


@asynccontextmanager
async def opened(store: str) -> AsyncGenerator[Database]:
    database = await Database.open(engine_of(store), ManualClock(NOW))
    try:
        yield database
    finally:
        await database.close()


async def with_jobs(database: Database, *given: tuple[str, str, float]) -> list[Job]:
    """Scheduled functions, as (name, state, time)."""

    async def unit(transaction: Transaction) -> list[Job]:
        made: list[Job] = []
        for name, state, time in given:
            id = transaction.new_id()
            pending = state == PENDING
            made.append(
                Job(
                    id,
                    name,
                    "{}",
                    time,
                    NOW if pending else None,
                    state,
                    "mutation",
                    None,
                    None,
                    None,
                    None if pending else NOW,
                )
            )
            transaction.write(JOBS, id, None, made[-1])
        return made

    return await commit(database, unit)


@pytest.mark.parametrize("descending", [False, True])
async def test_every_selection_has_what_fits_in_its_order_however_few_are_read_at_once(
    store: str, descending: bool
) -> None:
    rng = Random(1)
    async with opened(store) as database:
        given = [
            (
                rng.choice(["a:a", "a:b", "a:b", "a:b"]),
                rng.choice([PENDING, PENDING, CANCELED]),
                NOW + rng.randrange(20),
            )
            for _ in range(120)
        ]
        all_jobs = await with_jobs(database, *given)
        for state, name, before, limit in product(
            (None, PENDING, CANCELED), (None, "a:a", "a:b", "a:c"), (None, NOW + 7), (None, all_jobs[60].id)
        ):
            selection = Selection(state, name, before, newest=limit, descending=descending)
            expected = sorted(
                (
                    job
                    for job in all_jobs
                    if state in (None, job.state)
                    and name in (None, job.name)
                    and (before is None or job.scheduled_time < before)
                    and (limit is None or job.id <= limit)
                ),
                key=lambda job: (job.scheduled_time if state or name else 0, job.id),
                reverse=descending,
            )
            for rows in (1, 7, 500):
                assert [job async for job in pages(database, selection, rows)] == expected


async def pages(database: Database, selection: Selection, rows: int) -> AsyncGenerator[Job]:
    place: Position | None = None
    while True:
        at = place

        async def unit(transaction: Transaction, at: Position | None = at) -> tuple[list[Job], Position | None]:
            return await select_some(transaction, selection, at, rows)

        found, place = await read(database, unit)
        for job in found:
            yield job
        if place is None:
            return


async def test_what_is_rare_among_a_state_and_what_is_rare_among_a_name_is_found_in_few_steps(store: str) -> None:
    async with opened(store) as database:
        canceled = [("often", CANCELED, NOW + n) for n in range(2_000)]
        pending = [("other", PENDING, NOW + n) for n in range(2_000)]
        await with_jobs(database, *canceled, *pending, ("often", PENDING, NOW + 5_000))
        steps = 0

        async def unit(transaction: Transaction) -> tuple[list[Job], Position | None]:
            nonlocal steps
            steps += 1
            return await select_some(transaction, Selection(PENDING, "often"), place, 100)

        found: list[Job] = []
        place: Position | None = None
        while not found:
            some, place = await read(database, unit)
            found += some
        assert [job.scheduled_time for job in found] == [NOW + 5_000]
        assert steps <= 21


async def test_what_is_scheduled_after_the_count_is_not_canceled(store: str) -> None:
    async with opened(store) as database:
        await with_jobs(database, *[("a:a", PENDING, NOW + n) for n in range(3)])
        last = await read(database, newest)
        await with_jobs(database, ("a:a", PENDING, NOW + 1))
        assert await cancel_selected(database, Selection(PENDING, "a:a", newest=last)) == 3
        left = [job async for job in select_all(database, Selection(PENDING, "a:a"))]
        assert [job.scheduled_time for job in left] == [NOW + 1]


async def test_a_function_that_is_canceled_by_a_selection_has_completed_now(store: str) -> None:
    async with opened(store) as database:
        [job] = await with_jobs(database, ("a:a", PENDING, NOW + 1))
        await cancel_selected(database, Selection(PENDING))
        [canceled] = [job async for job in select_all(database, Selection())]
        assert canceled == job._replace(state=CANCELED, due=None, completed_time=NOW)
        with pytest.raises(Exception, match="which is canceled"):
            await commit(database, lambda transaction: jobs.retry(transaction, job.id))


async def test_counting_ends_at_its_limit(store: str) -> None:
    async with opened(store) as database:
        await with_jobs(database, *[("a:a", PENDING, NOW)] * 5)
        assert await count(database, Selection(PENDING), 10) == 5
        assert await count(database, Selection(PENDING), 4) == 4
        assert await count(database, Selection(CANCELED), 4) == 0
