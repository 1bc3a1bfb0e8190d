"""The other systems: how each is run here, with which of its documented settings, and what it promises."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    key: str
    """Names its driver and its databases."""
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
    of: str = ""
    """The key of the system whose other settings these are, if it is no system of its own."""

    @property
    def environment(self) -> str:
        """Names its requirements and its folder."""
        return self.of or self.key


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

_HUEY_SETTINGS = (
    "SqliteHuey in WAL mode, 64 MB of cache, no results kept; consumer of 4 threads that looks every 0.01 s instead "
    "of every 0.1 s and later (it is not told), fsync="
)
_HUEY_GUARANTEE = (
    "at most once: a task is deleted before it runs; what a killed consumer had begun is lost, "
    "as its documentation says"
)

SQLITE_PEERS = (
    Peer(
        "huey",
        "Huey",
        5_000,
        2_000,
        "SELECT EXISTS (SELECT 1 FROM task)",
        f"{_HUEY_SETTINGS}True: each step survives a power cut, as with duly",
        _HUEY_GUARANTEE,
    ),
    Peer(
        "huey_unsynced",
        "Huey, fsync=False",
        10_000,
        4_000,
        "SELECT EXISTS (SELECT 1 FROM task)",
        f"{_HUEY_SETTINGS}False: a power cut may lose tasks or damage the file; what jobs write is flushed",
        _HUEY_GUARANTEE,
        of="huey",
    ),
    Peer(
        "apscheduler",
        "APScheduler",
        1_500,
        1_000,
        "SELECT EXISTS (SELECT 1 FROM apscheduler_jobs)",
        "SQLAlchemyJobStore on SQLite in WAL mode, synchronous=FULL, 10 threads, misfire_grace_time None; scheduler "
        "and callers in one process, for two must not share a job store",
        "neither: a job is handed to a thread, then deleted, then run to its end; a kill loses those that are deleted "
        "and wait for a thread, and runs again one that was not deleted yet",
    ),
)
