"""Counts the instructions of one part of a Python process with callgrind.

The process marks where the part begins and where it ends: `mark` calls a C function that nothing else here calls, and
whenever that function is entered, callgrind writes a file with what all threads have executed since the mark before.
The kernel's instructions are not counted, so neither is a wait.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MISSING = (
    "valgrind is missing, which counts the instructions: install it with the system's package manager,"
    " such as `apt install valgrind` or `dnf install valgrind`, on Linux"
)

_MARK = "getloadavg"
_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


class CallgrindError(Exception):
    """A run that could not be counted."""


def is_installed() -> bool:
    return shutil.which("valgrind") is not None


def version() -> str:
    return subprocess.run(["valgrind", "--version"], capture_output=True, check=True, text=True).stdout.strip()


def mark() -> None:
    """End a part, and begin the next one: the first part ends at the first mark, and has number 1."""
    os.getloadavg()


def count(command: Sequence[str], environment: Mapping[str, str], place: Path) -> list[int]:
    """Run a command in a folder, and return the instructions of each part whose number it prints."""
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        options = (f"--callgrind-out-file={folder}/out", f"--dump-before={_MARK}", "--quiet")
        ran = subprocess.run(
            ["valgrind", "--tool=callgrind", *options, *command],
            cwd=place,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            raise CallgrindError(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return [total(Path(folder), int(part)) for part in ran.stdout.split()]


def total(folder: Path, part: int) -> int:
    """Return the instructions of a part."""
    path = folder / f"out.{part}"
    found = _TOTAL.search(path.read_text()) if path.exists() else None
    if found is None:
        raise CallgrindError(f"got no totals of part {part}: callgrind saw no call of {_MARK}")
    return int(found[1])
