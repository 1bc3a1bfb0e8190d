"""`make flaky RUNS=10`: run all tests so many times, beside a busy loop on each core; whatever fails, fails by chance."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BUSY: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True:
    pass
"""


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """They end when their input does: also when this process is killed."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def run(command: list[str], output: Path) -> tuple[int, list[str]]:
    """The exit code, and what pytest says of each failure."""
    with output.open("w") as file:
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    return code, re.findall(r"^(?:FAILED|ERROR) (.*)$", output.read_text(errors="replace"), re.MULTILINE)


def main(runs: int, loops: int, command: list[str]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="duly-flaky-"))
    failed = 0
    with busy(loops):
        for number in range(1, runs + 1):
            began, output = time.monotonic(), folder / f"run-{number}"
            code, failures = run(command, output)
            failed += code != 0
            print(f"run {number:3}  {'failed' if code else 'passed'}  {time.monotonic() - began:5.0f} s", flush=True)
            for failure in failures:
                print(f"         {failure}", flush=True)
            if code:
                print(f"         see {output}", flush=True)
            else:
                output.unlink()
    if not failed:
        folder.rmdir()
    print(f"{failed} of {runs} runs failed" + ("" if failed else "; no test failed by chance"))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.flaky", description="Look for tests that fail by chance.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="busy loops (default: one for each core)")
    parser.add_argument("command", nargs="*", default=["make", "test"], help="what is run (default: make test)")
    options = parser.parse_args()
    sys.exit(main(options.runs, options.busy, options.command))
