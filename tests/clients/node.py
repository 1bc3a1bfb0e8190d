"""Scripts for Node with the official JavaScript client."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
NODE = shutil.which("node")


def why_not() -> str:
    """Why the JavaScript clients cannot be run here; empty if they can."""
    if NODE is None:
        return "there is no `node` on this machine, so the official JavaScript clients were not tried"
    if not (FOLDER / "node_modules" / "convex").is_dir():
        return "the official JavaScript clients are not installed: `npm ci` in tests/clients, or `make setup`"
    return ""


needs_node = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Script:
    """A script that runs, prints a line of JSON for each thing that happens, and is told what to do by lines."""

    def __init__(self, address: str, source: str, prelude: str = "prelude.mjs", more: tuple[str, ...] = ()) -> None:
        assert NODE is not None
        text = (FOLDER / prelude).read_text() + source
        self._process = subprocess.Popen(
            [NODE, "--input-type=module", "-", address, *more],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.close()

    def next(self) -> Any:
        """The next thing that it prints."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return json.loads(line[2:])
            print("node:", line, end="")
        raise AssertionError(f"the script ended with {self._process.wait()}")

    def rest(self) -> list[Any]:
        """All that it still prints; it must end well."""
        assert self._process.stdout is not None
        found: list[Any] = []
        for line in self._process.stdout:
            if line.startswith("> "):
                found.append(json.loads(line[2:]))
            else:
                print("node:", line, end="")
        assert self._process.wait(10) == 0
        return found

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # so that one with a browser closes it
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def run(address: str, source: str) -> list[Any]:
    """Run a script to its end, and return what it has printed."""
    with Script(address, source) as script:
        return script.rest()
