"""What a million functions cost that are pending and far from due: the same work beside none and beside all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench import stores as rows
from bench.product import HOUR_MS, Figures, drain_counts, drain_noops, open_app, start_after_commit
from bench.scale import Compared
from bench.workloads import Run, Stores, run_on

PENDING = 1_000_000
GOAL = 1.15

WORK: tuple[tuple[tuple[str, ...], Run, int], ...] = (
    (("job that does nothing",), drain_noops, 20_000),
    (("job that reads, patches, inserts",), drain_counts, 10_000),
    (("start after commit, p50", "start after commit, p99"), start_after_commit, 150),
)


def compare(stores: Stores, pending: int, rounds: int, share: int, say: Callable[[str], None]) -> list[Compared]:
    """Each piece of work on an empty and on a full store, in turn, all rounds on the same two; in µs."""
    found: dict[str, Compared] = {}
    with stores() as empty, stores() as full:
        say(f"pending: {pending:,} jobs …")
        asyncio.run(_fill(empty, 0))
        asyncio.run(_fill(full, pending))
        for at in range(rounds + 1):
            say(f"pending: round {at} of {rounds} …")
            for titles, work, count in WORK:
                pairs = zip(*(_micros(work, store, max(count // share, 2)) for store in (empty, full)), strict=True)
                for title, (small, large) in zip(titles, pairs, strict=True):
                    compared = found.setdefault(title, Compared(title, [], [], GOAL))
                    if at > 0:  # the first round warms up
                        compared.small.append(small)
                        compared.large.append(large)
        assert rows.read(full, "SELECT count(*) FROM jobs") == [(pending,)]
    return list(found.values())


async def _fill(store: str, pending: int) -> None:
    """Copies of a job that duly has written, due one after the other from a far day on."""
    async with open_app(store, executor=False) as app:
        await app.mutation("bench:make_tables")
        await app.mutation("bench:schedule_for_later", {"first": 0, "count": 1, "delay": HOUR_MS})
    async with rows.connection(store) as postgres:
        [(last,)] = await postgres.fetch("SELECT id FROM jobs")
        await postgres.execute(_COPY, last, pending, float(rows.FAR_MS), timeout=300)
        await postgres.execute("DELETE FROM jobs WHERE id = $1", last)
        await postgres.execute("VACUUM ANALYZE jobs", timeout=300)


def _micros(work: Run, store: str, count: int) -> Figures:
    figures = run_on(work, store, count)
    counters, events = rows.table_of(store, "counters"), rows.table_of(store, "events")
    rows.read(store, f"TRUNCATE completed_jobs, {counters}, {events}")
    return tuple(1_000 * figure for figure in figures) if work is start_after_commit else (1e6 / figures[0],)


_COPY = """
INSERT INTO jobs (id, name, args, scheduled_time, due, state, lane, parent)
SELECT id - (n << 10), name, args, $3 + n, $3 + n, state, lane, parent
FROM jobs, generate_series(1, $2::bigint) AS n WHERE id = $1
"""
