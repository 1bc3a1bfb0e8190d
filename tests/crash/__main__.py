"""`python -m tests.crash --kills 500 --seed 1`: kills duly at work, checks, counts, and fails if anything is broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from duly.faults import POINTS
from tests.crash.campaign import Outcome, Step, play, point_round, random_rounds, too_tame
from tests.crash.report import add_to_tally, complaints, table, totals


def main() -> int:
    options = _options()
    began, outcome = time.monotonic(), Outcome()
    for number, steps in enumerate(_rounds(options.kills, options.points, options.seed)):
        outcome.add(_play(steps, f"{options.seed}-{number}", options.keep))
    outcome.violations += too_tame(outcome)
    counts = totals(outcome)
    for line in table(counts, add_to_tally(counts), outcome.recoveries, options.seed):
        print(line)
    if outcome.points:
        print(f"fault points died at: {len(outcome.points)} of {len(POINTS)}")
    print(f"took {time.monotonic() - began:.0f} s")
    for line in complaints(outcome):
        print(line)
    return 1 if outcome.violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill duly at work and count.")
    parser.add_argument("--kills", type=int, default=500, help="kills at random moments (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the load and the moments (default: 1)")
    parser.add_argument("--points", default="all", help="fault points to die at: all, none or a name (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep the stores, also of rounds that found nothing")
    options = parser.parse_args()
    if options.points not in ("all", "none", *POINTS):
        parser.error(f"--points: got {options.points}, expected all, none or one of {', '.join(POINTS)}")
    return options


def _rounds(kills: int, points: str, seed: int) -> Iterator[list[Step]]:
    yield from random_rounds(kills, seed)
    chosen = {"all": POINTS, "none": ()}.get(points, (points,))
    yield from (point_round(point, seed) for point in chosen)


def _play(steps: list[Step], seed: str, keep: bool) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="duly-crash-"))
    outcome = play(steps, seed, folder)
    if keep:
        outcome.kept.append(folder)
    elif not outcome.violations:
        shutil.rmtree(folder)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
