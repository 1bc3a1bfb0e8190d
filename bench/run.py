"""`make bench`: measures duly and its floor side by side and prints a table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine, profiling, report
from bench.report import Result
from bench.workloads import WORKLOADS, Workload, measure, named

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
QUICK = 10  # times less
WARM_UP = 200


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        if options.profile:
            workload = named(options.profile)
            print(profiling.profile(workload, Path(folder), _count(workload, options)))
        else:
            _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    about = machine.describe(folder)
    print(machine.sentence(about), end="\n\n")
    results = list(_results(options, folder))
    print(report.table(results))
    if options.json:
        _save(options.json, about, results)


def _results(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    chosen = [named(key) for key in options.only] if options.only else WORKLOADS
    for workload in chosen:
        _progress(f"{workload.key}: {workload.title} …")
        count = _count(workload, options)
        measure(workload, folder, min(WARM_UP, count // QUICK + 1), rounds=1)
        yield from measure(workload, folder, count, options.rounds or (1 if options.quick else ROUNDS))
    _progress("")


def _count(workload: Workload, options: argparse.Namespace) -> int:
    return options.count or (workload.count // QUICK if options.quick else workload.count)


def _progress(text: str) -> None:
    """Say on a terminal what is going on, in one line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _save(path: Path, about: dict[str, Any], results: list[Result]) -> None:
    found = {"machine": about, "results": [result.as_json() for result in results]}
    path.write_text(json.dumps(found, indent=2) + "\n")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    keys = [workload.key for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure duly and what it stands on.")
    parser.add_argument("--only", nargs="+", choices=keys, metavar="W", help=f"some of {', '.join(keys)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often floor and product take turns (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: figures are rough")
    parser.add_argument("--count", type=int, metavar="N", help="calls or jobs of a round, instead of the usual number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--profile", choices=keys, metavar="W", help="where the committer's time goes, instead")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the stores are (build)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
