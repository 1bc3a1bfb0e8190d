"""Where the time of the committer's thread goes: by part of a commit, and by function."""

from __future__ import annotations

import cProfile
import io
import pstats
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.workloads import Workload, run
from duly.database.committer import Committer
from duly.database.log import Log
from duly.model import jobs
from duly.storage.sqlite import SqliteEngine

FUNCTIONS_SHOWN = 45

PARTS = (
    ("begin", SqliteEngine, "begin"),
    ("claim", jobs, "claim"),
    ("write rows and commit", SqliteEngine, "commit"),
    ("event loop: log", Log, "append"),
    ("event loop: deliver, with log", Committer, "_deliver"),
    ("batch, all of it", Committer, "_commit_batch"),
)
"""Parts that a batch passes a few times only, so that measuring them costs nothing."""


def profile(workload: Workload, folder: Path, count: int) -> str:
    """Two runs: one with a clock around each part, one under cProfile."""
    run(workload.product, folder, min(count, 2_000))
    return f"{_by_part(workload, folder, count)}\n\n{_by_function(workload, folder, count)}"


def _by_part(workload: Workload, folder: Path, count: int) -> str:
    times: dict[str, list[float]] = {}
    with _clocks(times):
        run(workload.product, folder, count)
    lines = [f"{'part':36}{'times':>8}{'seconds':>10}{'µs per job':>12}"]
    for part, spent in times.items():
        total = sum(spent)
        lines.append(f"{part:36}{len(spent):8}{total:10.3f}{total / count * 1e6:12.2f}")
    return "\n".join(lines)


@contextmanager
def _clocks(times: dict[str, list[float]]) -> Iterator[None]:
    originals = [getattr(owner, name) for _, owner, name in PARTS]
    serve = Committer._serve

    def serve_anew(committer: Committer) -> None:
        for spent in times.values():
            spent.clear()  # an app before this one only prepared its store
        serve(committer)

    try:
        Committer._serve = serve_anew
        for (part, owner, name), original in zip(PARTS, originals, strict=True):
            setattr(owner, name, _clocked(original, times.setdefault(part, [])))
        yield
    finally:
        Committer._serve = serve
        for (_, owner, name), original in zip(PARTS, originals, strict=True):
            setattr(owner, name, original)


def _clocked(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def clocked(*args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(perf_counter() - started)

    return clocked


def _by_function(workload: Workload, folder: Path, count: int) -> str:
    """The functions of the committer's threads, by the time spent in each alone."""
    profiles: list[cProfile.Profile] = []
    serve = Committer._serve

    def profiled(committer: Committer) -> None:
        profiles.append(cProfile.Profile())
        profiles[-1].runcall(serve, committer)

    try:
        Committer._serve = profiled
        run(workload.product, folder, count)
    finally:
        Committer._serve = serve
    text = io.StringIO()
    pstats.Stats(profiles[-1], stream=text).strip_dirs().sort_stats("tottime").print_stats(FUNCTIONS_SHOWN)
    return text.getvalue().strip()
