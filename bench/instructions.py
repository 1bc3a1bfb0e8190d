"""`make bench-instructions`: thousands of instructions (ki) per call or job, of duly and of the bare loop, on SQLite.

Instructions hardly depend on how busy the machine is: two runs differ by a few thousandths, where times differ by a
fifth. So a change that costs a few percent is seen. `bench/instructions.json` holds the last figures; a change that
moves them writes them anew with `--update`, and the review sees by how much.

Each figure is a large run minus a small one, divided by the calls or jobs that it has more, so that what happens once
falls out. Only the measured part counts, as in `bench/run.py`, not
the preparation and not the checks. `bench/counted.py` says how the work of a batch is kept the same as in a normal run;
`bench/callgrind.py` does the counting. The instructions of the kernel are not counted, so neither is the disk.

Another version of Python, or another build of the same, has other figures. The file says which one it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import apsw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import callgrind
from bench.report import lined_up
from bench.workloads import named

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "bench" / "instructions.json"
CHILD = ROOT / "bench" / "counted.py"
SIDES = ("duly", "floor")
WORSE_MAX = 1.03
"""A figure that is more than this times the one in the file is a loss."""


class Sizes(NamedTuple):
    """Calls or jobs of two runs, which differ by whole batches."""

    small: int
    large: int


SIZES = {
    "W1": Sizes(100, 400),
    "W1x64": Sizes(640, 1_920),
    "W2": Sizes(1_000, 3_000),
    "W3": Sizes(512, 2_048),
    "W4": Sizes(2_048, 4_096),  # the first of them read each counter for the first time
    "actions": Sizes(320, 1_280),
}

Figures = dict[str, dict[str, float]]
"""Thousands of instructions per call or job, by workload and side."""


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    if not callgrind.is_installed():
        sys.exit(callgrind.MISSING)
    try:
        now = measure(options.only or SIZES, options.folder.resolve())
    except callgrind.CallgrindError as error:
        sys.exit(str(error))
    saved = json.loads(options.file.read_text()) if options.file.exists() else {}
    before, machine = saved.get("figures", {}), versions()
    is_other = bool(saved) and saved["versions"] != machine
    print(table(before, now))
    if is_other:
        print(f"\nBefore: {_text_of(saved['versions'])}. Now: {_text_of(machine)}. That alone changes figures.")
    if options.update:
        figures = now if is_other else {key: {**before, **now}[key] for key in SIZES if key in {**before, **now}}
        options.file.write_text(json.dumps({"versions": machine, "figures": figures}, indent=2) + "\n")
    elif found := losses(before, now):
        sys.exit("\n" + "\n".join(found))


def measure(keys: Iterable[str], folder: Path, sizes: Mapping[str, Sizes] = SIZES) -> Figures:
    """Run both sides of workloads, as many processes at a time as there are processors."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [key for key in SIZES if key in set(keys)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counting = {key: pool.submit(_count, key, sizes[key], folder) for key in chosen}
        return {key: future.result() for key, future in counting.items()}


def _count(key: str, sizes: Sizes, folder: Path) -> dict[str, float]:
    # Strings hash the same in each run; modules are not compiled anew in each.
    environment = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, str(CHILD), key, *map(str, sizes)]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place:
        small_floor, large_floor, small, large = callgrind.count(command, environment, Path(place))
    more = 1_000 * (sizes.large - sizes.small)
    return {"duly": round((large - small) / more, 2), "floor": round((large_floor - small_floor) / more, 2)}


def versions() -> dict[str, str]:
    return {
        "python": f"{platform.python_version()} ({platform.python_compiler()}, {platform.machine()})",
        "sqlite": apsw.sqlite_lib_version(),
        "valgrind": callgrind.version(),
    }


def _text_of(machine: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in machine.items())


# Comparison.

HEAD = ("", "ki per call or job", "duly before", "now", "ratio", "floor before", "now", "ratio", "duly / floor")


def table(before: Figures, now: Figures) -> str:
    return lined_up([HEAD, *(_row(key, before.get(key, {}), figures) for key, figures in now.items())], left=2)


def _row(key: str, before: Mapping[str, float], now: Mapping[str, float]) -> tuple[str, ...]:
    cells = (cell for side in SIDES for cell in _compared(before.get(side), now[side]))
    return (key, named(key).title, *cells, f"{now['duly'] / now['floor']:.1f}")


def _compared(before: float | None, now: float) -> tuple[str, str, str]:
    return ("–", f"{now:.1f}", "–") if before is None else (f"{before:.1f}", f"{now:.1f}", f"{now / before:.3f}")


def losses(before: Figures, now: Figures) -> list[str]:
    """Say of each figure that is more than 3 % worse by how much it is."""
    return [
        f"{key}, {side}: {ki:.1f} ki, {ki / earlier - 1:.1%} more than the {earlier:.1f} in {FIGURES.name}; mend it, or"
        " write it down with --update and say why"
        for key, figures in now.items()
        for side, ki in figures.items()
        if (earlier := before.get(key, {}).get(side)) is not None and ki > earlier * WORSE_MAX
    ]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/instructions.py", description="Count instructions per job, and compare them with the last figures."
    )
    parser.add_argument("--only", nargs="+", choices=SIZES, metavar="W", help=f"some of {', '.join(SIZES)}")
    parser.add_argument(
        "--update", action="store_true", help="write the figures into the file, and keep no others of another Python"
    )
    parser.add_argument("--file", type=Path, default=FIGURES, help="the last figures (bench/instructions.json)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the stores are (build)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
