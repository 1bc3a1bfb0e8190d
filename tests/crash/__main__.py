"""`python -m tests.crash --kills 500 --seed 1`: kills duly at work, checks, counts, and fails if anything is broken."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests import postgres
from tests.crash.campaign import POINTS, Outcome, play, rounds, too_slow, too_tame
from tests.crash.report import KILLS, WORK, add_to_tally, complaints, durations, table, tally_of, totals


def main() -> int:
    options = _options()
    began, outcome = time.monotonic(), Outcome()
    names = (_many_nodes if options.engine == "postgres" else _one_process)(options, outcome)
    counts = totals(outcome, names)
    for line in table(counts, add_to_tally(counts, tally_of(options.engine)), names, options.seed):
        print(line)
    for line in durations(outcome):
        print(line)
    print(f"took {time.monotonic() - began:.0f} s")
    for line in complaints(outcome):
        print(line)
    print(_json(options, counts, outcome))
    return 1 if outcome.violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill duly at work and count.")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite", help="what holds the store")
    parser.add_argument("--kills", type=int, default=500, help="half at random, half at fault points (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the load and the moments (default: 1)")
    parser.add_argument("--points", default="all", help="fault points to die at: all, none or a name (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep what is left of rounds that found nothing, too")
    options = parser.parse_args()
    if options.points not in ("all", "none", *POINTS):
        parser.error(f"--points: got {options.points}, expected all, none or one of {', '.join(POINTS)}")
    return options


def _one_process(options: argparse.Namespace, outcome: Outcome) -> tuple[str, ...]:
    points = {"all": POINTS, "none": ()}.get(options.points, (options.points,))
    for number, steps in enumerate(rounds(options.kills, points, options.seed)):
        seed = f"{options.seed}-{number}"
        outcome.add(_in_folder(lambda folder, steps=steps, seed=seed: play(steps, seed, folder), options.keep))
    outcome.violations += [*too_tame(outcome, points), *too_slow(outcome)]
    return (*KILLS, *(f"at {point}" for point in points), *WORK)


def _many_nodes(options: argparse.Namespace, outcome: Outcome) -> tuple[str, ...]:
    if reason := postgres.unavailable():
        sys.exit(reason)
    from tests.crash.nodes import campaign  # it needs the driver

    if reason := campaign.unavailable():
        sys.exit(reason)
    with postgres.Server(durable=True) as server:
        for steps in campaign.rounds(options.kills, options.seed):
            outcome.add(_in_folder(lambda folder, steps=steps: campaign.play(steps, server, folder), options.keep))
    return (*campaign.COUNTS, *WORK)


def _in_folder(play: Callable[[Path], Outcome], keep: bool) -> Outcome:
    """Play a round in a folder of its own, which is kept if anything was found."""
    folder = Path(tempfile.mkdtemp(prefix="duly-crash-"))
    outcome = play(folder)
    if keep and folder not in outcome.kept:
        outcome.kept.append(folder)
    elif not outcome.violations:
        shutil.rmtree(folder)
    return outcome


def _json(options: argparse.Namespace, counts: Counter[str], outcome: Outcome) -> str:
    """All of it in one line, with what it takes to do the same again."""
    asked = {"engine": options.engine, "kills": options.kills, "seed": options.seed}
    times = {name: [round(time, 1) for time in sorted(times)] for name, times in outcome.times.items()}
    return json.dumps({**asked, "counts": counts, "points": outcome.points, "milliseconds": times})


if __name__ == "__main__":
    sys.exit(main())
