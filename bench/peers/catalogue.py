"""The other systems: how each is run here, with which of its documented settings, and what it promises."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    key: str
    """Names its driver, its requirements, its folder and its databases."""
    name: str
    noops: int
    """About as many empty jobs as it runs in a few seconds; how many are measured depends on a trial."""
    counts: int
    """The same of jobs that write."""
    unfinished: str
    """SQL: whether jobs are left."""
    settings: str
    guarantee: str
    python: tuple[int, int] | None = (3, 11)
    """The oldest Python it runs on; none for what runs on Node."""


PEERS = (
    Peer(
        "procrastinate",
        "Procrastinate",
        2_500,
        2_000,
        "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
        "psycopg 3 (binary), concurrency 10, a connection for each job that runs at once, LISTEN/NOTIFY",
        "at least once: what a job writes and its end are separate commits; "
        "after a crash it stays `doing` until the application's own task retries it",
    ),
    Peer(
        "pgqueuer",
        "PgQueuer",
        30_000,
        6_000,
        "SELECT EXISTS (SELECT FROM pgqueuer)",
        "asyncpg, uvloop, durable tables, its autovacuum settings, one connection for the queue and a pool of 20, "
        "batch_size 500, max_concurrent_tasks 1,000, LISTEN/NOTIFY",
        "at least once: what jobs write and their ends, up to 500 together, are separate commits",
    ),
    Peer(
        "oban",
        "Oban (Python)",
        8_000,
        3_000,
        "SELECT EXISTS (SELECT FROM oban_jobs WHERE state NOT IN ('completed', 'discarded', 'cancelled'))",
        "psycopg 3 (binary), uvloop, one queue of limit 200, a pool of 20, LISTEN/NOTIFY",
        "at least once: what jobs write and their ends, many together, are separate commits",
        (3, 12),
    ),
    Peer(
        "dbos",
        "DBOS (Python)",
        3_000,
        400,
        "SELECT EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))",
        "worker_concurrency 100, pools of 20, the queue polled every 0.02 s instead of every second "
        "(it does not notify), jobs in bulk by its SQL function",
        "a workflow at least once, what its datasource transaction writes exactly once: "
        "the checkpoint of the step is in the same commit (READ COMMITTED, row locked)",
    ),
    Peer(
        "graphile",
        "Graphile Worker",
        80_000,
        12_000,
        "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)",
        "24 jobs at once, pool of 26, localQueue 500, completeJobBatchDelay 0; latency without the local queue; "
        "LISTEN/NOTIFY",
        "at least once: what jobs write and their ends, many together, are separate commits; "
        "jobs of a crashed worker wait 4 hours",
        None,
    ),
)
