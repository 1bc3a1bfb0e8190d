"""The process whose instructions are counted: a workload, `bench/counted.py W4 512 2048` in the folder of its stores.

The floor and then duly run as many calls or jobs as each number says, on a store each. It prints which parts to count.

Under callgrind everything takes fifty times longer, so what depends on time would differ from a normal run, and from
run to run. Here it does not depend on time:

- The clock that limits a batch stands still, and each batch takes as many due functions as the floor's: BATCH, from the
  first one on. This is about what a normal batch of W4 runs in BATCH_SECONDS_ALONE_MAX.
- Python switches threads after fifty times as long, so that calls gather in batches as they normally do.
- A handler may run for an hour, and so long is it until the store and the clock are looked at again, normally a second.
- The floor of W1 makes no pauses, for they are not work.

Everything else is as it always is, garbage collection included. The clock of the workloads marks the parts: they read
it where what they measure begins and, last of all, where it ends.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SLOWER = 50
"""How many times slower code runs under callgrind, roughly."""
HOUR_SECONDS = 3_600.0

_tick = itertools.count(1.0, 1e-9).__next__  # each reading later than the one before, but no time passes


def main(key: str, counts: list[int]) -> None:
    time.perf_counter = _tick  # before duly is imported, which keeps it
    from bench import callgrind, floor, product, workloads

    marks = 0

    def clock() -> float:
        nonlocal marks
        callgrind.mark()
        marks += 1
        return _tick()

    product.perf_counter = floor.perf_counter = clock
    product.LIMITS = replace(product.LIMITS, handler_seconds_max=HOUR_SECONDS)
    _set_everywhere("TIMER_CHECK_SECONDS", HOUR_SECONDS)
    _set_everywhere("STORE_CHECK_MS", HOUR_SECONDS * 1_000)
    _set_everywhere("DUE_BATCH_MAX", floor.BATCH)
    _set_everywhere("_SIZE_MIN", floor.BATCH)
    sys.setswitchinterval(sys.getswitchinterval() * SLOWER)

    workload = workloads.named(key)
    bare = floor.inserts_without_pauses if key == "W1" else workload.floor
    assert bare is not None
    for work in (bare, workload.product):
        for count in counts:
            asyncio.run(work(f"sqlite:///{work.__module__}-{count}.db", count))
            print(marks)


def _set_everywhere(name: str, value: object) -> None:
    """Give a limit of duly another value in every module that has it."""
    modules = [module for path, module in sys.modules.items() if path.startswith("duly.") and hasattr(module, name)]
    assert modules, f"duly has no limit {name} any more"
    for module in modules:
        setattr(module, name, value)


if __name__ == "__main__":
    main(sys.argv[1], list(map(int, sys.argv[2:])))
