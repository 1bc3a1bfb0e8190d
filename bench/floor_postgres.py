"""The floor of each workload on PostgreSQL: the same rows with nothing but asyncpg, one statement a commit.

The tables are a store that duly has made, so that they and their indexes cannot differ; so are the jobs, which are
copies of a row that duly has written. Nothing here validates, locks, logs, schedules, wakes or remembers.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from time import perf_counter, time
from typing import Any

import orjson

from bench import stores
from bench.product import AT_ONCE, CALLERS, CALLS_PER_SECOND, COUNTERS, TEXT, Figures, open_app
from bench.report import percentiles

BATCH = 512
# Without statistics PostgreSQL may read and sort all of a table; duly sets the same.
BY_INDEX = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off", "jit": "off"}


# Calls.


async def inserts_in_turn(store: str, count: int) -> Figures:
    return await _inserts(store, count, 1)


async def inserts_at_once(store: str, count: int) -> Figures:
    return await _inserts(store, max(count // CALLERS, 1) * CALLERS, CALLERS)


async def _inserts(store: str, count: int, together: int) -> Figures:
    async with _made(store) as postgres:
        insert = f"INSERT INTO {stores.table_of(store, 'notes')} SELECT * FROM unnest($1::bigint[], $2::text[])"
        if together == 1:
            insert = f"INSERT INTO {stores.table_of(store, 'notes')} VALUES (($1::bigint[])[1], ($2::text[])[1])"
        documents = [orjson.dumps({"n": n, "text": TEXT}).decode() for n in range(count)]
        seconds = await _write(postgres, insert, [_ids(count), documents], together)
    stores.check_rows(store, "notes", count)
    return (count / seconds,)


# Scheduled functions.


async def job_inserts(store: str, count: int) -> Figures:
    async with _made(store) as postgres:
        seconds = await _insert_jobs(postgres, count)
    assert stores.states(store) == {"pending": count}
    return (count / seconds,)


async def job_ends(store: str, count: int) -> Figures:
    async with _made(store) as postgres:
        await _insert_jobs(postgres, count)
        end = await postgres.prepare(_END)

        async def batch(jobs: list[int]) -> None:
            await end.fetch(jobs, 1_000 * time())

        seconds = await _drain(store, postgres, batch)
    stores.check_all_succeeded(store, count)
    return (count / seconds,)


async def job_counts(store: str, count: int) -> Figures:
    async with _made(store) as postgres:
        await _insert_jobs(postgres, count)
        counters, events = stores.table_of(store, "counters"), stores.table_of(store, "events")
        ids, chance = _ids(min(COUNTERS, count)), Random(1)
        insert = f"INSERT INTO {counters} SELECT * FROM unnest($1::bigint[], $2::text[])"
        await _write(postgres, insert, [ids, ['{"n":0}'] * len(ids)], AT_ONCE)
        read = await postgres.prepare(f"SELECT id, document FROM {counters} WHERE id = ANY ($1::bigint[])")
        write = await postgres.prepare(_COUNT_AND_END.format(counters=counters, events=events))

        async def batch(jobs: list[int]) -> None:
            chosen = chance.choices(ids, k=len(jobs))
            numbers = {id: orjson.loads(document)["n"] for id, document in await read.fetch(list(set(chosen)))}
            for counter in chosen:
                numbers[counter] += 1
            rows = [f'{{"counter":"{counter:032x}","n":{job}}}' for job, counter in zip(jobs, chosen, strict=True)]
            counts = [f'{{"n":{n}}}' for n in numbers.values()]
            await write.fetch(jobs, 1_000 * time(), list(numbers), counts, rows)

        seconds = await _drain(store, postgres, batch)
    stores.check_counted(store, count)
    stores.check_all_succeeded(store, count)
    return (count / seconds,)


# Waits.


async def claims(store: str, count: int) -> Figures:
    """From the return of what inserts a job to the answer of what claims it."""
    async with _made(store) as postgres, _connection(store) as other:
        insert, claim = await postgres.prepare(_INSERT_JOBS), await other.prepare(_CLAIM)

        async def wait(job: list[Any]) -> float:
            await insert.fetch(*job)
            returned = perf_counter()
            assert await claim.fetch(1_000 * time(), BATCH)
            return perf_counter() - returned

        return await _waits(postgres, count, wait)


async def notified_claims(store: str, count: int) -> Figures:
    """The same by a connection that the one that inserts notifies."""
    async with _made(store) as postgres, _connection(store) as other:
        insert = await postgres.prepare(f"WITH new AS ({_INSERT_JOBS}) SELECT pg_notify('bench', '')")
        claim, heard = await other.prepare(_CLAIM), asyncio.Event()
        await other.add_listener("bench", lambda *_: heard.set())

        async def claimed() -> float:
            await heard.wait()
            assert await claim.fetch(1_000 * time(), BATCH)
            return perf_counter()

        async def wait(job: list[Any]) -> float:
            heard.clear()
            claiming = asyncio.create_task(claimed())
            await insert.fetch(*job)
            returned = perf_counter()
            return await claiming - returned

        return await _waits(postgres, count, wait)


async def _waits(postgres: Any, count: int, wait: Callable[[list[Any]], Awaitable[float]]) -> Figures:
    waits, started = list[float](), perf_counter()
    for n in range(count + 1):
        await asyncio.sleep(started + n / CALLS_PER_SECOND - perf_counter())
        waits.append(1_000 * await wait(await _jobs(postgres, 1)))
        await postgres.execute("DELETE FROM jobs")
    return percentiles(waits[1:])  # the first one had it all warm


# The rows that duly writes.


@asynccontextmanager
async def _made(store: str) -> AsyncIterator[Any]:
    """A connection to a store whose tables duly has made, with a job to copy that duly has written."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        await app.mutation("bench:schedule_noops", {"first": 0, "count": 1, "due": 1_000 * time()})
    async with _connection(store) as postgres:
        await postgres.execute("CREATE TEMPORARY TABLE template AS SELECT * FROM jobs; DELETE FROM jobs")
        yield postgres


def _connection(store: str) -> Any:
    return stores.connection(store, **BY_INDEX)


def _ids(count: int) -> range:
    """Ids that take as many bytes as those of duly."""
    return range(1 << 58, (1 << 58) + (count << 10), 1 << 10)


async def _jobs(postgres: Any, count: int) -> list[Any]:
    """Copies of the job, by column."""
    [(_, name, _, *others)] = await postgres.fetch(f"SELECT {', '.join(_COLUMNS)} FROM template")
    args = [f'{{"n":{n}}}' for n in range(count)]
    return [_ids(count), [name] * count, args, *([value] * count for value in others)]


async def _insert_jobs(postgres: Any, count: int) -> float:
    return await _write(postgres, _INSERT_JOBS, await _jobs(postgres, count), AT_ONCE)


# PostgreSQL.


async def _drain(store: str, postgres: Any, batch: Callable[[list[int]], Awaitable[None]]) -> float:
    """Seconds to claim and work off all that is due, a batch in a transaction."""
    claim = await postgres.prepare(_CLAIM)
    stores.checkpoint(store)
    gc.collect()
    started = perf_counter()
    while claimed := await claim.fetch(1_000 * time(), BATCH):
        await batch([job["id"] for job in claimed])
    return perf_counter() - started


async def _write(postgres: Any, sql: str, columns: Sequence[Sequence[Any]], together: int) -> float:
    """Seconds to run a statement for all values of the columns, so many together in a transaction."""
    statement = await postgres.prepare(sql)
    gc.collect()
    started = perf_counter()
    for first in range(0, len(columns[0]), together):
        await statement.fetch(*(column[first : first + together] for column in columns))
    return perf_counter() - started


_COLUMNS = {
    "id": "bigint",
    "name": "text",
    "args": "text",
    "scheduled_time": "double precision",
    "due": "double precision",
    "state": "text",
    "lane": "text",
    "parent": "bigint",
}
_INSERT_JOBS = "INSERT INTO jobs ({}) SELECT * FROM unnest({})".format(
    ", ".join(_COLUMNS), ", ".join(f"${n}::{type}[]" for n, type in enumerate(_COLUMNS.values(), 1))
)
_CLAIM = "SELECT * FROM jobs WHERE lane = 'mutation' AND due <= $1 ORDER BY due, id LIMIT $2"
_ENDED = "ended AS (DELETE FROM jobs WHERE id = ANY ($1::bigint[]) RETURNING *)"
_COMPLETE = """
INSERT INTO completed_jobs
SELECT id, name, args, scheduled_time, 'success', lane, parent, NULL, $2::double precision FROM ended
"""
_END = f"WITH {_ENDED} {_COMPLETE}"
_COUNT_AND_END = f"""
WITH {_ENDED},
counted AS (
    UPDATE {{counters}} AS old SET document = new.document
    FROM unnest($3::bigint[], $4::text[]) AS new (id, document) WHERE old.id = new.id
),
noted AS (INSERT INTO {{events}} SELECT * FROM unnest($1::bigint[], $5::text[]))
{_COMPLETE}
"""
