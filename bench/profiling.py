"""Where the time goes: by part of a commit, on the wall and of the processor, and by function of the committer."""

from __future__ import annotations

import cProfile
import io
import pstats
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time, thread_time
from typing import Any, NamedTuple

from bench.machine import cpu_seconds
from bench.workloads import Stores, Workload, run
from duly.database.commit_log import CommitLog
from duly.database.committer import Committer
from duly.model import jobs
from duly.storage.postgres import commit_client, replica
from duly.storage.postgres import engine as postgres
from duly.storage.sqlite.engine import SqliteEngine

FUNCTIONS_SHOWN = 45

Parts = tuple[tuple[str, Any, str], ...]
"""Parts that a batch passes a few times only, so that measuring them costs little."""

_ALWAYS: Parts = (
    ("claim", jobs, "claim"),
    ("run handlers, with claim", Committer, "_run"),
    ("batch, all of it", Committer, "_process"),
    ("event loop: log", CommitLog, "append"),
    ("event loop: deliver, with log", Committer, "_deliver"),
)
SQLITE: Parts = (
    ("begin", SqliteEngine, "begin"),
    ("write rows and commit", SqliteEngine, "commit"),
    *_ALWAYS,
)
POSTGRES: Parts = (
    ("begin", postgres.PostgresEngine, "begin"),
    ("read from a snapshot", postgres.PostgresEngine, "read"),
    ("read what others wrote", replica.Replica, "catch_up"),
    ("encode reads", postgres, "encode_reads"),
    ("encode writes", postgres, "encode_changes"),
    ("commit: the call, or waiting for it", commit_client.CommitClient, "_outcome"),
    ("commit: sending, the next goes on", commit_client.CommitClient, "send"),
    *_ALWAYS,
)


class Spent(NamedTuple):
    wall: float
    cpu: float


def profile(workload: Workload, stores: Stores, count: int, parts: Parts, server: int | None = None) -> str:
    """Two runs: one with a clock around each part, one under cProfile. `server` is the process of a database."""
    run(workload.product, stores, min(count, 2_000))
    return f"{_by_part(workload, stores, count, parts, server)}\n\n{_by_function(workload, stores, count)}"


def _by_part(workload: Workload, stores: Stores, count: int, parts: Parts, server: int | None) -> str:
    times: dict[str, list[Spent]] = {}
    with _clocks(parts, times, server):
        run(workload.product, stores, count)
    lines = [f"{'part':36}{'times':>8}{'wall s':>10}{'cpu s':>10}{'wall µs/job':>14}{'cpu µs/job':>14}"]
    for part, spent in times.items():
        wall, cpu = (sum(column) for column in zip(*spent, strict=True)) if spent else (0.0, 0.0)
        per_job = f"{wall / count * 1e6:14.2f}{cpu / count * 1e6:14.2f}"
        lines.append(f"{part:36}{len(spent):8}{wall:10.3f}{cpu:10.3f}{per_job}")
    return "\n".join(lines)


@contextmanager
def _clocks(parts: Parts, times: dict[str, list[Spent]], server: int | None) -> Iterator[None]:
    originals = [getattr(owner, name) for _, owner, name in parts]
    serve = Committer._serve

    def serve_anew(committer: Committer) -> None:
        for spent in times.values():
            spent.clear()  # an app before this one only prepared its store
        began, of_server = Spent(perf_counter(), process_time()), cpu_seconds(server)
        serve(committer)
        ended = Spent(perf_counter() - began.wall, process_time() - began.cpu)
        times["this process, open to close"] = [ended]
        times["the server, all its processes"] = [Spent(ended.wall, cpu_seconds(server) - of_server)]

    try:
        Committer._serve = serve_anew
        for (part, owner, name), original in zip(parts, originals, strict=True):
            setattr(owner, name, _clocked(original, times.setdefault(part, [])))
        yield
    finally:
        Committer._serve = serve
        for (_, owner, name), original in zip(parts, originals, strict=True):
            setattr(owner, name, original)


def _clocked(function: Callable[..., Any], spent: list[Spent]) -> Callable[..., Any]:
    def clocked(*args: Any, **kwargs: Any) -> Any:
        started = Spent(perf_counter(), thread_time())
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(Spent(perf_counter() - started.wall, thread_time() - started.cpu))

    return clocked


def _by_function(workload: Workload, stores: Stores, count: int) -> str:
    """The functions of the committer's threads, by the time spent in each alone."""
    profiles: list[cProfile.Profile] = []
    serve = Committer._serve

    def profiled(committer: Committer) -> None:
        profiles.append(cProfile.Profile())
        profiles[-1].runcall(serve, committer)

    try:
        Committer._serve = profiled
        run(workload.product, stores, count)
    finally:
        Committer._serve = serve
    text = io.StringIO()
    pstats.Stats(profiles[-1], stream=text).strip_dirs().sort_stats("tottime").print_stats(FUNCTIONS_SHOWN)
    return text.getvalue().strip()
