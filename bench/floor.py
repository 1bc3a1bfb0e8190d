"""The floor of each workload: the same rows, or the same waits, with nothing but SQLite, a queue and timers.

The file is a store that duly has made, so that tables and indexes cannot differ; so are the rows, which are copies
of rows that duly has written. Nothing here validates, schedules, wakes or remembers.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from array import array
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from random import Random
from statistics import median
from time import perf_counter, time
from typing import Any, NamedTuple

import apsw
import orjson

from bench import handlers, stores
from bench.product import (
    AT_ONCE,
    CALLERS,
    CALLS_PER_SECOND,
    COUNTERS,
    TEXT,
    Figures,
    open_app,
    random_offsets,
    until_done,
)
from bench.report import percentiles
from duly.storage.engine import Changeset
from duly.storage.sqlite.engine import SqliteEngine

BATCH = 512
RHYTHM_CALLS = 200
"""How many calls of duly are made to find out the pause between their commits."""

Row = dict[str, Any]
"""A row by column."""


# Calls.


async def inserts_in_turn(store: str, count: int) -> Figures:
    """One after another, in the rhythm of calls: a commit begins as long after the one before as in duly.

    On a virtual machine a commit right after another one can take a fraction of the time of one after a pause, for the
    host still polls: commits without pauses are no floor for calls that come one by one. The pauses stand for the work
    of duly, so their time does not count.
    """
    await _make_store(store)
    return _inserts(store, count, partial(_write_with_pauses, seconds=await _seconds_between_commits(store)))


async def inserts_without_pauses(store: str, count: int) -> Figures:
    await _make_store(store)
    return _inserts(store, count, partial(_write, together=1))


async def inserts_at_once(store: str, count: int) -> Figures:
    await _make_store(store)
    return _inserts(store, max(count // CALLERS, 1) * CALLERS, partial(_write, together=CALLERS))


def _inserts(store: str, count: int, write: Callable[[str, str, list[tuple[Any, ...]]], float]) -> Figures:
    insert = f"INSERT INTO {stores.table_of(store, 'notes')} (id, document) VALUES (?, ?)"
    documents = [(id, orjson.dumps({"n": n, "text": TEXT}).decode()) for n, id in enumerate(_ids(count))]
    seconds = write(store, insert, documents)
    stores.check_rows(store, "notes", count)
    return (count / seconds,)


async def _seconds_between_commits(store: str) -> float:
    """How long duly takes from the end of a commit to the next one, while calls come one after another."""
    commit, moments = SqliteEngine.commit, list[float]()

    def timed(engine: SqliteEngine, changes: Changeset) -> int:
        moments.append(perf_counter())
        try:
            return commit(engine, changes)
        finally:
            moments.append(perf_counter())

    async with open_app(store, executor=False) as app:
        SqliteEngine.commit = timed
        try:
            for n in range(RHYTHM_CALLS):
                await app.mutation("bench:insert", {"n": n, "text": TEXT})
        finally:
            SqliteEngine.commit = commit
    _write(store, f"DELETE FROM {stores.table_of(store, 'notes')} WHERE id > ?", [(0,)], 1)
    return median(begun - ended for ended, begun in zip(moments[1::2], moments[2::2], strict=False))


# Scheduled functions.


async def job_inserts(store: str, count: int) -> Figures:
    life = (await _make_store(store)).mutation
    seconds = _write(store, *_jobs(life.pending, count), AT_ONCE)
    assert stores.states(store) == {"pending": count}
    return (count / seconds,)


async def job_updates(store: str, count: int) -> Figures:
    life = (await _make_store(store)).mutation
    _write(store, *_jobs(life.pending, count), count)
    succeed = _Change(life.pending, life.success)
    seconds = _drain(store, life.pending, BATCH, succeed)
    stores.check_all_succeeded(store, count)
    return (count / seconds,)


async def job_counts(store: str, count: int) -> Figures:
    life = (await _make_store(store)).mutation
    _write(store, *_jobs(life.pending, count), count)
    counters = _ids(min(COUNTERS, count))
    insert = f"INSERT INTO {stores.table_of(store, 'counters')} (id, document) VALUES (?, ?)"
    _write(store, insert, [(id, '{"n":0}') for id in counters], count)
    succeed, count_up = _Change(life.pending, life.success), _CountUp(store, Random(1).choices(counters, k=count))

    def batch(write: _Writer, claimed: list[int]) -> None:
        count_up(write, claimed)
        succeed(write, claimed)

    seconds = _drain(store, life.pending, BATCH, batch)
    stores.check_counted(store, count)
    stores.check_all_succeeded(store, count)
    return (count / seconds,)


async def action_updates(store: str, count: int) -> Figures:
    life = (await _make_store(store)).action
    _write(store, *_jobs(life.pending, count), count)
    start, succeed = _Change(life.pending, life.running), _Change(life.running, life.success)

    def batch(write: _Writer, claimed: list[int]) -> None:
        start(write, claimed)
        write.commit()
        write.begin()
        succeed(write, claimed)

    seconds = _drain(store, life.pending, CALLERS, batch)
    stores.check_all_succeeded(store, count)
    return (count / seconds,)


# Waits.


async def thread_hops(store: str, count: int) -> Figures:
    """From the event loop, by way of a queue, to a thread that claims what is due."""
    life = (await _make_store(store)).mutation
    _write(store, *_jobs(life.pending, 1), 1)
    queue: SimpleQueue[float | None] = SimpleQueue()
    waits: list[float] = []
    thread = threading.Thread(target=_claim_when_told, args=(store, life.pending, queue, waits))
    thread.start()
    queue.put(perf_counter())  # to have it all warm
    started = perf_counter()
    for n in range(1, count + 1):
        await asyncio.sleep(started + n / CALLS_PER_SECOND - perf_counter())
        queue.put(perf_counter())
    queue.put(None)
    await asyncio.to_thread(thread.join)
    return percentiles(waits[1:])


def _claim_when_told(store: str, pending: Row, queue: SimpleQueue[float | None], waits: list[float]) -> None:
    with _Writer(store) as write:
        while (told := queue.get()) is not None:
            write.begin()
            assert write.execute(_CLAIM, (pending["lane"], pending["due"], BATCH)).fetchall()
            waits.append(1_000 * (perf_counter() - told))
            write.commit()


async def timers(store: str, count: int) -> Figures:
    """How late the event loop is with nothing but timers to attend to."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    first = loop.time() + 0.2
    for moment in sorted(first + offset for offset in random_offsets(count)):
        await asyncio.sleep(moment - loop.time())
        late.append(1_000 * (loop.time() - moment))
    return percentiles(late)


# The rows that duly writes.


class _Life(NamedTuple):
    """The row of a scheduled function in the states it goes through."""

    pending: Row
    running: Row
    success: Row


class _Lives(NamedTuple):
    mutation: _Life
    action: _Life


async def _make_store(store: str) -> _Lives:
    """Have duly make the tables, and run one mutation and one action to see what their rows become."""
    handlers.seen.clear()
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        jobs = await app.mutation("bench:schedule_noops", {"first": 0, "count": 1, "due": 1_000 * time()})
        jobs.append(await app.mutation("bench:schedule_look", {"store": store}))
    pending = stores.job_rows(store)
    async with open_app(store) as app:
        await until_done(app, jobs)
    mutation, action = map(_Life, pending, handlers.seen, stores.job_rows(store))
    _write(store, "DELETE FROM scheduled_functions WHERE id = ?", [(row["id"],) for row in pending], len(pending))
    return _Lives(mutation, action)


def _ids(count: int) -> range:
    """Ids that take as many bytes as those of duly."""
    return range(1 << 58, (1 << 58) + (count << 10), 1 << 10)


def _jobs(row: Row, count: int) -> tuple[str, list[tuple[Any, ...]]]:
    """What inserts a job, and `count` copies of a row of one."""
    sql = f"INSERT INTO scheduled_functions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    copies = (row | {"id": id, "args": f'{{"n":{n}}}'} for n, id in enumerate(_ids(count)))
    return sql, [tuple(copy.values()) for copy in copies]


class _Change:
    """Makes many jobs what one became between two states, in one statement: the same columns, the same values."""

    def __init__(self, before: Row, after: Row) -> None:
        changed = {column: value for column, value in after.items() if value != before[column]}
        columns = ", ".join(f"{name} = ?" for name in changed)
        self._sql = f"UPDATE scheduled_functions SET {columns} WHERE id IN carray(?)"
        self._values = tuple(changed.values())

    def __call__(self, write: _Writer, jobs: list[int]) -> None:
        write.execute(self._sql, (*self._values, apsw.carray(array("q", jobs))))


class _CountUp:
    """Reads a counter for each job, adds one, and leaves a row."""

    def __init__(self, store: str, chosen: list[int]) -> None:
        counters, events = stores.table_of(store, "counters"), stores.table_of(store, "events")
        self._chosen = iter(chosen)
        self._select = f"SELECT document FROM {counters} WHERE id = ?"
        self._update = f"UPDATE {counters} SET document = ? WHERE id = ?"
        self._insert = f"INSERT INTO {events} (id, document) VALUES (?, ?)"

    def __call__(self, write: _Writer, jobs: list[int]) -> None:
        numbers: dict[int, int] = {}
        events: list[tuple[int, str]] = []
        for job, counter in zip(jobs, self._chosen, strict=False):
            if counter not in numbers:
                numbers[counter] = orjson.loads(write.execute(self._select, (counter,)).get)["n"]
            numbers[counter] += 1
            events.append((job, f'{{"counter":"{counter:032x}","n":{job}}}'))
        write.many(self._update, [(f'{{"n":{n}}}', counter) for counter, n in numbers.items()])
        write.many(self._insert, events)


# SQLite.


def _drain(store: str, pending: Row, size: int, batch: Callable[[_Writer, list[int]], None]) -> float:
    """Seconds to claim and work off all that is due, `size` rows a transaction."""

    def drain(write: _Writer) -> None:
        write.begin()
        while claimed := [row[0] for row in write.execute(_CLAIM, (pending["lane"], pending["due"], size))]:
            batch(write, claimed)
            write.commit()
            write.begin()
        write.commit()

    with _Writer(store) as write:
        return _timed(lambda: drain(write))


def _write(store: str, sql: str, rows: list[tuple[Any, ...]], together: int) -> float:
    """Seconds to run a statement for each of the rows, so many together in a transaction."""

    def run(write: _Writer) -> None:
        for first in range(0, len(rows), together):
            write.begin()
            write.many(sql, rows[first : first + together])
            write.commit()

    with _Writer(store) as write:
        return _timed(lambda: run(write))


def _write_with_pauses(store: str, sql: str, rows: list[tuple[Any, ...]], seconds: float) -> float:
    """Seconds to run a statement for each of the rows in a transaction of its own, without the pauses after each."""
    spent = 0.0
    with _Writer(store) as write:
        gc.collect()
        for row in rows:
            began = perf_counter()
            write.begin()
            write.execute(sql, row)
            write.commit()
            ended = perf_counter()
            spent += ended - began
            while perf_counter() - ended < seconds:  # not asleep: a sleep would be longer
                pass
    return spent


class _Writer:
    """One connection, its transactions begun and committed by hand."""

    def __init__(self, store: str) -> None:
        self._connection = stores.connect(store)
        self.execute = self._connection.execute
        self.many = self._connection.executemany

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.execute("COMMIT")

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = perf_counter()
    work()
    return perf_counter() - started


_CLAIM = "SELECT * FROM scheduled_functions WHERE lane = ? AND due <= ? ORDER BY due, id LIMIT ?"
