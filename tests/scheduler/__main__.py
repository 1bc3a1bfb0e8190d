"""`make soak`: play many random programs of a scheduler's life, on every core, until one finds a difference.

First it makes sure that differences are found: each of the defects that are known is put into duly in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from random import SystemRandom

from tests.scheduler.test_defects import DEFECTS, is_found
from tests.scheduler.test_state_machine import play

PART = 250


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
    first, began, done, steps = args.seed * 1_000_000, time.monotonic(), 0, 0
    print(f"{args.count:,} programs, seed {args.seed}, {args.processes} processes", flush=True)
    with ProcessPoolExecutor(args.processes, max_tasks_per_child=8) as pool:  # Hypothesis remembers much
        numbers = [min(PART, args.count - start) for start in range(0, args.count, PART)]
        parts = [pool.submit(play, first + 1_000 * turn, number) for turn, number in enumerate(numbers)]
        try:
            for turn, finished in enumerate(as_completed(parts), 1):
                steps += finished.result()
                done = args.count * turn // len(parts)
                seconds = time.monotonic() - began
                print(f"{done:>9,} programs {steps:>12,} steps {seconds:>7,.0f} s  no difference", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            print(f"\nseed {args.seed}: a difference, or an error, after some {done:,} programs:", flush=True)
            raise
    print(f"{args.count:,} programs of {steps / max(args.count, 1):.1f} steps each: no difference")


if __name__ == "__main__":
    sys.exit(main())
