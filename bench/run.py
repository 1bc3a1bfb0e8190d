"""`make bench`: measures duly and its floor side by side and prints a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine, profiling, report, scale
from bench.report import Result
from bench.workloads import WORKLOADS, Workload, files_in, measure, named

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
QUICK = 10  # times less
WARM_UP = 200
SCALE = "scale"


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
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
    scaled = asyncio.run(_scale(options, folder)) if not options.only or SCALE in options.only else []
    if options.json:
        _save(options.json, about, results, scaled)


async def _scale(options: argparse.Namespace, folder: Path) -> list[scale.Compared]:
    """Print what size costs."""
    share = QUICK if options.quick else 1
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
    return [*sizes, *commits]


def _results(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    chosen = [named(key) for key in options.only if key != SCALE] if options.only else WORKLOADS
    for workload in chosen:
        progress(f"{workload.key}: {workload.title} …")
        count = count_of(workload, options)
        measure(workload, files_in(folder), min(WARM_UP, count // QUICK + 1), rounds=1)
        yield from measure(workload, files_in(folder), count, options.rounds or (1 if options.quick else ROUNDS))
    progress("")


def count_of(workload: Workload, options: argparse.Namespace) -> int:
    return options.count or (workload.count // QUICK if options.quick else workload.count)


def progress(text: str) -> None:
    """Say on a terminal what is going on, in one line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _save(path: Path, about: dict[str, Any], results: list[Result], scaled: list[scale.Compared]) -> None:
    found = {
        "machine": about,
        "results": [result.as_json() for result in results],
        "scale": [{**compared._asdict(), "ratio": compared.ratio} for compared in scaled],
    }
    path.write_text(json.dumps(found, indent=2) + "\n")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    keys = [workload.key for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure duly and what it stands on.")
    which = [*keys, SCALE]
    parser.add_argument("--only", nargs="+", choices=which, metavar="W", help=f"some of {', '.join(which)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often floor and product take turns (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: figures are rough")
    parser.add_argument("--count", type=int, metavar="N", help="calls or jobs of a round, instead of the usual number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--profile", choices=keys, metavar="W", help="where the committer's time goes, instead")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the stores are (build)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
