"""A claim in PostgreSQL begins where the last one ended, and finds every job that a claim from the start finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import pytest

from tests import postgres

pytest.importorskip("asyncpg")

from duly.app import engine_of
from duly.storage.postgres.engine import PostgresEngine
from duly.storage.postgres.snapshot import CURSOR_START, UNPARTITIONED, ClaimCursor, Partition, PostgresSnapshot
from duly.storage.requests import Claim, Claimed
from duly.storage.rows import ACTION, JOBS, MUTATION, Job, Write
from tests.nodes.serializable import connect
from tests.storage.postgres.notes import changes, job

pytestmark = [pytest.mark.server, pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))]


@pytest.fixture
def store(store_of: Callable[[str], str]) -> str:
    return store_of("postgres")


@pytest.fixture
def nodes(store: str) -> Iterator[tuple[PostgresEngine, PostgresEngine]]:
    """Two that both run all functions, until they are told otherwise."""
    opened = [engine_of(store) for _ in range(2)]
    one, other = opened
    assert isinstance(one, PostgresEngine)
    assert isinstance(other, PostgresEngine)
    for engine in (one, other):
        engine.open()
        engine.membership.partition = UNPARTITIONED
    try:
        yield one, other
    finally:
        one.close()
        other.close()


def put(engine: PostgresEngine, *jobs: Job) -> None:
    engine.begin()
    engine.commit(changes((JOBS, {one.id: Write(None, one) for one in jobs})))


def move(engine: PostgresEngine, old: Job, new: Job) -> None:
    engine.begin()
    engine.commit(changes((JOBS, {old.id: Write(old, new)})))


def end(engine: PostgresEngine, *jobs: Job, state: str = "success") -> None:
    ended = {one.id: Write(one, one._replace(due=None, state=state, completed_time=99.0)) for one in jobs}
    engine.begin()
    engine.commit(changes((JOBS, ended)))


def claim(engine: PostgresEngine, now: float, most: int = 10) -> list[int]:
    claimed = engine.begin().answer(Claim(now, most, most))
    engine.rollback()
    return [one.id for one in (*claimed.mutations, *claimed.actions)]


def pages(engine: PostgresEngine, since: ClaimCursor) -> int:
    """How many pages a claim looks at that begins there."""
    connection = engine._idle_connection  # pyright: ignore[reportPrivateUsage]
    lines: list[str] = []

    def explained(sql: str, *values: Any) -> list[Any]:
        lines.extend(line for (line,) in connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {sql}", *values))
        return connection.fetch(sql, *values)

    PostgresSnapshot(explained, engine.address.schema, engine.position).claim(Claim(5_000.0, 10, 10), since)
    hits = next(line for line in lines if "Buffers: shared hit=" in line)
    return int(hits.partition("hit=")[2].split()[0])


def gone(engine: PostgresEngine, state: str, due: float) -> None:
    """Put functions that are due about then, and have them completed in this state."""
    for turn in range(10):
        jobs = [job(1 + 500 * turn + number, due + turn) for number in range(500)]
        put(engine, *jobs)
        end(engine, *jobs, state=state)


RUN = partial(gone, state="success", due=1.0)


@pytest.mark.parametrize(
    ("waiting", "completed"),
    [([], RUN), ([job(9_000, 0.5)._replace(queue=ACTION)], RUN), ([], partial(gone, state="canceled", due=9_000.0))],
    ids=["have run", "have run while an action waits", "were canceled before they were due"],
)
def test_beside_an_old_transaction_a_claim_does_not_pass_again_those_that(
    store: str,
    nodes: tuple[PostgresEngine, PostgresEngine],
    waiting: list[Job],
    completed: Callable[[PostgresEngine], None],
) -> None:
    engine, _ = nodes
    put(engine, job(9_001, 9_900.0), *waiting)

    async def beside() -> None:
        connection, schema = await connect(store)
        await connection.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM {schema}.jobs")
        await asyncio.to_thread(completed, engine)
        await asyncio.to_thread(claim, engine, 5_000.0)
        known = engine._replica.claim_cursor  # pyright: ignore[reportPrivateUsage]
        found = [await asyncio.to_thread(pages, engine, since) for since in (CURSOR_START, known)]
        await connection.close()
        assert found[0] > found[1] + 5_000 / 100  # an entry of 5,000 each, at most 100 on a page

    asyncio.run(beside())


def test_what_is_scheduled_for_a_time_that_was_passed_is_found(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, other = nodes
    assert claim(engine, 100.0) == []
    put(other, job(1, 50.0))
    assert claim(engine, 100.0) == [1]
    put(engine, job(2, 40.0))
    assert claim(engine, 100.0) == [2, 1]


def test_what_is_moved_to_a_time_that_was_passed_is_found(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, other = nodes
    put(engine, job(1, 200.0))
    assert claim(engine, 100.0) == []
    move(other, job(1, 200.0), job(1, 60.0))
    assert claim(engine, 100.0) == [1]


def test_what_was_claimed_and_not_run_is_claimed_again(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, _ = nodes
    jobs = [job(id, 10.0 * id) for id in (1, 2, 3)]
    put(engine, *jobs)
    assert claim(engine, 100.0) == [1, 2, 3]
    end(engine, jobs[1])
    assert claim(engine, 100.0, 1) == [1]
    assert claim(engine, 100.0) == [1, 3]


def test_a_claim_of_one_queue_hides_nothing_of_the_other(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, _ = nodes
    put(engine, job(1, 10.0)._replace(queue=ACTION), job(2, 50.0))
    assert engine.begin().answer(Claim(100.0, 10, 0)).mutations == [job(2, 50.0)]
    assert claim(engine, 100.0) == [2, 1]


def test_another_partition_is_claimed_from_the_start(nodes: tuple[PostgresEngine, PostgresEngine]) -> None:
    engine, _ = nodes
    put(engine, *(job(id << 10, 10.0) for id in range(1, 9)))
    engine.membership.partition = Partition(0, 2)
    even = claim(engine, 100.0)
    engine.membership.partition = Partition(1, 2)
    odd = claim(engine, 100.0)
    assert sorted(even + odd) == [id << 10 for id in range(1, 9)]
    assert even
    assert odd


def test_a_node_that_lags_behind_the_log_claims_from_the_start(
    nodes: tuple[PostgresEngine, PostgresEngine], store: str
) -> None:
    engine, other = nodes
    assert claim(engine, 100.0) == []
    put(other, job(1, 50.0))

    async def prune() -> None:
        connection, schema = await connect(store)
        await connection.execute(f"DELETE FROM {schema}.log WHERE version < (SELECT max(version) FROM {schema}.log)")
        await connection.close()

    put(other, job(2, 500.0))
    asyncio.run(prune())
    assert claim(engine, 100.0) == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_claim_finds_what_one_from_the_start_finds(nodes: tuple[PostgresEngine, PostgresEngine], seed: int) -> None:
    """Two nodes schedule, move and end functions in any order of times, and claim by clocks that jump."""
    chance = Random(seed)
    pending: dict[int, Job] = {}
    found = 0
    for step in range(1, 120):
        engine = chance.choice(nodes)
        act = chance.choice(("put", "put", "move", "end", "part", "claim", "claim", "claim"))
        if act == "put":
            lane = chance.choice((MUTATION, ACTION))
            pending[step << 10] = job(step << 10, chance.uniform(0, 9_000))._replace(queue=lane)
            put(engine, pending[step << 10])
        elif act == "move" and pending:
            old = chance.choice(list(pending.values()))
            pending[old.id] = old._replace(due=chance.uniform(0, 9_000))
            move(engine, old, pending[old.id])
        elif act == "end" and pending:
            end(engine, pending.pop(chance.choice(list(pending))))
        elif act == "part":
            engine.membership.partition = chance.choice((UNPARTITIONED, Partition(0, 2), Partition(1, 2)))
        elif act == "claim":
            request = Claim(chance.uniform(0, 9_000), chance.randint(1, 9), chance.randint(0, 9))
            claimed: Claimed = engine.begin().answer(request)
            engine.rollback()
            with engine.snapshot() as view:
                assert claimed == view.answer(request)
            found += len(claimed.mutations) + len(claimed.actions)
    assert found > 50
