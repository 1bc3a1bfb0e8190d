"""`make bench-postgres`: duly on PostgreSQL, on one node and on two, and other job systems on the same server."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import floor_postgres as floor
from bench import machine, nodes, pending, product, profiling, report
from bench.peers import run as peers
from bench.peers.catalogue import PEERS
from bench.peers.databases import PostgresDatabases
from bench.report import Measure, Result
from bench.run import PENDING, QUICK, ROUNDS, STORM, WARM_UP, count_of, progress, show_pending, show_storm
from bench.workloads import Stores, Workload, measure
from tests.postgres import PLACE, Server, drop_store, new_store, unavailable

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
"""Of the server, for everybody; all else is as PostgreSQL ships, so that what is committed is on the disk."""
SHOWN = ("server_version", "shared_buffers", "max_wal_size", "fsync", "synchronous_commit", "full_page_writes")
ALL_PEERS = "peers"

CALLS_GOAL, CALLS_AT_ONCE_GOAL = 3_000, 30_000
WORKLOADS = (
    Workload(
        "W1",
        "calls, one after another",
        4_000,
        (Measure("calls/s", CALLS_GOAL),),
        floor.inserts_in_turn,
        product.calls_in_turn,
    ),
    Workload(
        "W1x64",
        "calls, 64 callers",
        25_600,
        (Measure("calls/s", CALLS_AT_ONCE_GOAL),),
        floor.inserts_at_once,
        product.calls_at_once,
    ),
    Workload(
        "J1",
        "scheduling, one a call, one after another",
        4_000,
        (Measure("jobs/s", CALLS_GOAL),),
        None,
        product.jobs_in_turn,
    ),
    Workload(
        "J1x64",
        "scheduling, one a call, 64 callers",
        25_600,
        (Measure("jobs/s", CALLS_AT_ONCE_GOAL),),
        None,
        product.jobs_at_once,
    ),
    Workload(
        "W2",
        "scheduling, 1,000 a mutation",
        50_000,
        (Measure("jobs/s", 80_000),),
        floor.job_inserts,
        product.schedule,
    ),
    Workload(
        "W3",
        "jobs that do nothing",
        50_000,
        (Measure("jobs/s", 50_000),),
        floor.job_ends,
        product.drain_noops,
    ),
    Workload(
        "W3x2",
        "jobs that do nothing, two nodes",
        50_000,
        (Measure("jobs/s", 50_000),),
        None,
        nodes.drain_noops,
    ),
    Workload(
        "W4",
        "jobs that read, patch, insert",
        20_000,
        (Measure("jobs/s", 15_000),),
        floor.job_counts,
        product.drain_counts,
    ),
    Workload(
        "W4x2",
        "jobs that read, patch, insert, two nodes",
        20_000,
        (Measure("jobs/s", 25_000),),
        None,
        nodes.drain_counts,
    ),
    Workload(
        "W5",
        "start after commit",
        400,
        (Measure("ms", 2, "p50"), Measure("ms", 6, "p99")),
        floor.claims,
        product.start_after_commit,
    ),
    Workload(
        "W5x2",
        "start after commit, on another node",
        400,
        (Measure("ms", 3, "p50"), Measure("ms", 10, "p99")),
        floor.notified_claims,
        nodes.start_on_other,
    ),
)

DULY = {
    "peer": "duly",
    "version": version("duly"),
    "settings": "asyncpg, no settings of its own; a node is a process, its functions run in one thread and "
    "commit together on one connection, LISTEN/NOTIFY",
    "guarantee": "mutations exactly once: what a job writes and its end are one commit, serializable across nodes; "
    "actions at most once",
}
"""What its rows have in common in the table of all systems."""
COLUMNS = {key: key for key in peers.COLUMNS} | {"W1": "", "W1x64": "", "J1": "W1", "J1x64": "W1x64"}
"""Where its figures stand there: what others enqueue one by one are jobs, and not documents."""


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    if options.address is None and (reason := unavailable()):
        sys.exit(f"{reason}; or give the address of a server")
    with _server(options.address) as (address, server):
        if options.profile:
            workload = next(workload for workload in WORKLOADS if workload.key == options.profile)
            count = count_of(workload, options)
            print(profiling.profile(workload, schemas_of(address), count, profiling.POSTGRES, server))
        else:
            _measure(options, address)


@contextmanager
def _server(address: str | None) -> Iterator[tuple[str, int | None]]:
    """The address of a server, and its process if it is our own."""
    if address is not None:
        yield address, None
        return
    with Server(durable=True, settings=SETTINGS) as server:
        yield server.address(), server.pid


def schemas_of(address: str) -> Stores:
    """Stores that are schemas of one database."""

    @contextmanager
    def schema() -> Iterator[str]:
        store = new_store(address)
        try:
            yield store
        finally:
            drop_store(store)

    return schema


def _measure(options: argparse.Namespace, address: str) -> None:
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        about = machine.describe(Path(folder)) | asyncio.run(_describe(address))
    print(machine.sentence(about), _sentence(about), sep="\n", end="\n\n")
    stores = schemas_of(address)
    results = list(_results(options, stores))
    if results:
        print(report.table(results))
    more = {
        "pending": show_pending(options, stores) if _is_chosen(PENDING, options) else {},
        "storm": show_storm(options, stores) if STORM in (options.only or ()) else [],
    }
    chosen = [peer for peer in PEERS if _is_chosen(peer.key, options)]
    others = asyncio.run(peers.measure(chosen, PostgresDatabases(address), peers.QUICK, progress, peers.WORKLOADS))
    progress("")
    rows = [*_rows(results), *others]
    if others:
        print("\n" + peers.table(rows))
    if options.json:
        found = {"machine": about, "results": [result.as_json() for result in results], **more, "systems": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


async def _describe(address: str) -> dict[str, str]:
    import asyncpg

    postgres = await asyncpg.connect(address)
    try:
        settings = {name: await postgres.fetchval(f"SHOW {name}") for name in SHOWN}
    finally:
        await postgres.close()
    return {"asyncpg": version("asyncpg"), **settings}


def _sentence(about: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {about[name]}" for name in SHOWN[1:])
    return f"PostgreSQL {about['server_version']}, asyncpg {about['asyncpg']}, {settings}"


def _results(options: argparse.Namespace, stores: Stores) -> Iterator[Result]:
    for workload in WORKLOADS:
        if _is_chosen(workload.key, options):
            progress(f"{workload.key}: {workload.title} …")
            count = count_of(workload, options)
            measure(workload, stores, min(WARM_UP, count // QUICK + 1), rounds=1)
            yield from measure(workload, stores, count, options.rounds or (1 if options.quick else ROUNDS))
    progress("")


def _rows(results: list[Result]) -> Iterator[peers.Row]:
    """The figures of duly for the table of all systems; each run has checked that no job was lost or doubled."""
    for result in results:
        column = COLUMNS.get(" ".join(filter(None, (result.key, result.measure.label))))
        if column:
            row = {"workload": column, "title": peers.TITLES[column], "unit": result.measure.unit}
            kept = {"lost": 0, "doubled": 0} if column.startswith("W4") else {}
            yield {**DULY, **row, "figures": result.product, "median": median(result.product), **kept}


def _is_chosen(key: str, options: argparse.Namespace) -> bool:
    is_peer = any(key == peer.key for peer in PEERS)
    return not options.only or key in options.only or (is_peer and ALL_PEERS in options.only)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    keys = [workload.key for workload in WORKLOADS]
    which = [*keys, PENDING, STORM, ALL_PEERS, *(peer.key for peer in PEERS)]
    parser = argparse.ArgumentParser(prog="bench/postgres.py", description="Measure duly on PostgreSQL, and others.")
    parser.add_argument("address", nargs="?", help="of a server, as a superuser, instead of one of our own")
    parser.add_argument("--only", nargs="+", choices=which, metavar="W", help=f"some of {', '.join(which)}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often each is measured ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: figures are rough")
    parser.add_argument("--count", type=int, metavar="N", help="calls or jobs of a round, instead of the usual number")
    parser.add_argument("--pending", type=int, metavar="N", help=f"functions that are pending ({pending.PENDING:,})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--profile", choices=keys, metavar="W", help="where the time of the committer goes, instead")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
