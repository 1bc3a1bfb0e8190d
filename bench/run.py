"""`make bench`: measures duly beside its floor and beside other systems on SQLite, and prints tables."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import killed, machine, pending, profiling, report, scale, storm
from bench.peers import run as peers
from bench.peers.catalogue import SQLITE_PEERS
from bench.peers.databases import SqliteDatabases
from bench.report import Result
from bench.workloads import WORKLOADS, Stores, Workload, files_in, measure, named

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
QUICK = 10  # times less
WARM_UP = 200
SCALE, PENDING, STORM, KILLED, ALL_PEERS = "scale", "pending", "storm", "killed", "peers"

PEERS_SCALE = peers.Scale(seconds=1.5, rounds=3, latencies=150)

DULY = {
    "peer": "duly",
    "version": version("duly"),
    "settings": "none: SQLite in WAL mode, synchronous=FULL; functions run in one thread and commit together",
    "guarantee": "mutations exactly once: what a job writes and its end are one commit; actions at most once",
}
"""What its rows have in common in the table of all systems."""


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    place = options.folder.resolve()  # processes of their own stand elsewhere
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        if options.profile:
            workload = named(options.profile)
            print(profiling.profile(workload, files_in(Path(folder)), count_of(workload, options), profiling.SQLITE))
        else:
            _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    about = machine.describe(folder)
    print(machine.sentence(about), end="\n\n")
    results = list(_results(options, folder))
    if results:
        print(report.table(results))
    found: dict[str, Any] = {"results": [result.as_json() for result in results]}
    found["systems"] = _systems(options, folder, results)
    found["scale"] = asyncio.run(_scale(options, folder)) if _is_chosen(SCALE, options) else []
    found["pending"] = show_pending(options, files_in(folder)) if _is_chosen(PENDING, options) else {}
    found["storm"] = show_storm(options, files_in(folder)) if _is_chosen(STORM, options) else []
    if options.json:
        options.json.write_text(json.dumps({"machine": about, **found}, indent=2) + "\n")


def _systems(options: argparse.Namespace, folder: Path, results: list[Result]) -> list[peers.Row]:
    """Print duly beside other systems on SQLite, if any of them is measured."""
    rows = [{**DULY, **row} for row in duly_rows(results)]
    if _is_chosen(KILLED, options):
        rows.append({**DULY, **_killed(options, folder)})
    chosen = [peer for peer in SQLITE_PEERS if _is_chosen(peer.key, options)]
    scope = peers.QUICK if options.quick or options.count else PEERS_SCALE
    with tempfile.TemporaryDirectory(dir=folder) as place:
        measured = peers.measure(chosen, SqliteDatabases(Path(place)), scope, progress, peers.SQLITE_WORKLOADS)
        others = asyncio.run(measured)
    progress("")
    if others or _is_chosen(KILLED, options):
        print("\n" + peers.table([*rows, *others], peers.SQLITE_COLUMNS))
    return [*rows, *others]


def duly_rows(results: list[Result]) -> Iterator[peers.Row]:
    """The figures of duly for the table of all systems; each run has checked that no job was lost or doubled."""
    for result in results:
        column = " ".join(filter(None, (result.key, result.measure.label)))
        if column in peers.SQLITE_COLUMNS:
            kept = {"lost": 0, "doubled": 0} if column == "W4" else {}
            row = {"workload": column, "title": peers.TITLES[column], "unit": result.measure.unit}
            yield {**row, "figures": result.product, "median": median(result.product), **kept}


def _killed(options: argparse.Namespace, folder: Path) -> peers.Row:
    progress(f"{KILLED}: {killed.JOBS:,} jobs …")
    with files_in(folder)() as store:
        lost, doubled = asyncio.run(killed.run(store, options.count or killed.JOBS // share_of(options)))
    return {"workload": "killed", "title": peers.TITLES["killed"], "unit": "jobs", "lost": lost, "doubled": doubled}


def show_pending(options: argparse.Namespace, stores: Stores) -> dict[str, Any]:
    """Print what pending functions cost."""
    share = share_of(options)
    count, rounds = options.pending or options.count or pending.PENDING // share, options.rounds or pending.ROUNDS
    compared, taken = pending.measure(stores, count, rounds, share, progress)
    progress("")
    print("\n" + scale.table(compared, "none pending", f"{count:,} pending"))
    print("\n" + pending.table(taken, count))
    return {"work": [each.as_json() for each in compared], "process": [each._asdict() for each in taken]}


def show_storm(options: argparse.Namespace, stores: Stores) -> list[dict[str, Any]]:
    """Print how long calls take while many functions are due."""
    jobs, rounds = options.count or storm.JOBS // share_of(options), options.rounds or storm.ROUNDS
    storms = storm.measure(stores, jobs, rounds, progress)
    progress("")
    print("\n" + storm.table(storms, jobs))
    return [each._asdict() for each in storms]


async def _scale(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Print what size costs."""
    share = share_of(options)
    large, rounds = options.count or scale.LARGE // share, options.rounds or scale.ROUNDS
    progress(f"{SCALE}: {large:,} documents …")
    sizes = await scale.compare_sizes(folder, min(scale.SMALL, large), large, rounds)
    subscriptions = scale.SUBSCRIPTIONS // share
    progress(f"{SCALE}: {subscriptions:,} subscriptions …")
    commits, woken = await scale.compare_subscriptions(folder, subscriptions, rounds)
    progress("")
    print("\n" + scale.table(sizes, f"{min(scale.SMALL, large):,}", f"{large:,} documents"))
    print("\n" + scale.table(commits, "alone", f"beside {subscriptions:,} subscriptions"))
    print(f"\nA commit that one of {subscriptions:,} subscriptions reads wakes {woken}.")
    return [compared.as_json() for compared in (*sizes, *commits)]


def _results(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    chosen = [workload for workload in WORKLOADS if _is_chosen(workload.key, options)]
    for workload in chosen:
        progress(f"{workload.key}: {workload.title} …")
        count = count_of(workload, options)
        measure(workload, files_in(folder), min(WARM_UP, count // QUICK + 1), rounds=1)
        yield from measure(workload, files_in(folder), count, options.rounds or (1 if options.quick else ROUNDS))
    progress("")


def _is_chosen(key: str, options: argparse.Namespace) -> bool:
    is_peer = any(key == peer.key for peer in SQLITE_PEERS)
    return not options.only or key in options.only or (is_peer and ALL_PEERS in options.only)


def share_of(options: argparse.Namespace) -> int:
    return QUICK if options.quick else 1


def count_of(workload: Workload, options: argparse.Namespace) -> int:
    return options.count or (workload.count // QUICK if options.quick else workload.count)


def progress(text: str) -> None:
    """Say on a terminal what is going on, in one line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    keys = [workload.key for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure duly and what it stands on.")
    which = [*keys, KILLED, ALL_PEERS, *(peer.key for peer in SQLITE_PEERS), SCALE, PENDING, STORM]
    parser.add_argument("--only", nargs="+", choices=which, metavar="W", help=f"some of {', '.join(which)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often floor and product take turns (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: figures are rough")
    parser.add_argument("--count", type=int, metavar="N", help="calls or jobs of a round, instead of the usual number")
    parser.add_argument("--pending", type=int, metavar="N", help=f"functions that are pending ({pending.PENDING:,})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--profile", choices=keys, metavar="W", help="where the committer's time goes, instead")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the stores are (build)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
