"""`make soak`: play many random programs of a scheduler's life, on every core, until one finds a difference.

First it makes sure that differences are found: each of the defects that are known is put into duly in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from random import SystemRandom

from tests.scheduler.test_defects import DEFECTS, is_found
from tests.scheduler.test_state_machine import play

PART = 50
"""Programs that a process plays before it says so."""
PARTS_OF_A_PROCESS = 40
"""Then another one goes on: Hypothesis remembers much. (Python 3.11 hangs where an executor is to replace them.)"""


def look_for_defects() -> None:
    missed = [defect.__name__ for defect in DEFECTS if not is_found(defect)]
    if missed:
        sys.exit(f"not found: {', '.join(missed)}")
    print(f"{len(DEFECTS)} defects, put in on purpose: all found", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Play random lives of the scheduler.")
    parser.add_argument("--count", type=int, default=50_000, help="programs")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000), help="of the first program")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    look_for_defects()
    began, done, steps = time.monotonic(), 0, 0
    print(f"{args.count:,} programs, seed {args.seed}, {args.processes} processes", flush=True)
    parts = [
        (1_000_000 * args.seed + 1_000 * turn, min(PART, args.count - start))
        for turn, start in enumerate(range(0, args.count, PART))
    ]
    at_once = args.processes * PARTS_OF_A_PROCESS
    for start in range(0, len(parts), at_once):
        with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
            playing = {pool.submit(play, *part): part for part in parts[start : start + at_once]}
            try:
                for finished in as_completed(playing):
                    steps += finished.result()
                    done += playing[finished][1]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"\nseed {args.seed}: a difference, or an error, after some {done:,} programs:", flush=True)
                raise
        print(f"{done:>9,} programs {steps:>12,} steps {time.monotonic() - began:>7,.0f} s  no difference", flush=True)
    print(f"{args.count:,} programs of {steps / max(args.count, 1):.1f} steps each: no difference")


if __name__ == "__main__":
    sys.exit(main())
