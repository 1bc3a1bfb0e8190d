"""A process that runs the commands of pages: it has imported duly once, and forks itself for each of them.

A command is still a process of its own, in its own folder, and ends as any other does. What is saved is the time to start
Python and to import duly, which is most of what such a command takes.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).parent.parent
SECONDS_MAX: Final = 60
_IMPORTS: Final = ("duly.cli", "duly.testing")


class Shell:
    """The other end of that process."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests = requests
        self._answers = answers

    def run(self, command: list[str], folder: Path) -> tuple[int, str, str]:
        """Run a command in a folder. Return its exit code, and what it has written to its two outputs."""
        out, err = folder / ".out", folder / ".err"
        print(json.dumps([command, str(folder), str(out), str(err)]), file=self._requests, flush=True)
        code = int(self._answers.readline())
        return code, out.read_text(), err.read_text()


@contextmanager
def opened() -> Iterator[Shell]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", __spec__.name], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield Shell(process.stdin, process.stdout)  # the end of its input ends it


def _main() -> None:
    for name in _IMPORTS:
        importlib.import_module(name)
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        command, folder, out, err = json.loads(line)
        child = os.fork()
        if child == 0:
            for file in (requests, answers):
                os.close(file.fileno())
            _become(folder, out, err)
            _run(command)
            return  # and end as any program does
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _become(folder: str, out: str, err: str) -> None:
    signal.alarm(SECONDS_MAX)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # The commands of the environment of these tests come first, also where that is not activated.
    places = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    os.environ.update(PATH=places, HOME=folder, COLUMNS="120", TZ="UTC")
    time.tzset()


def _run(command: list[str]) -> Any:
    if command[0] == "python":
        sys.argv = command[1:]
        sys.path[0] = os.path.dirname(os.path.abspath(command[1]))
        return runpy.run_path(command[1], run_name="__main__")
    if command[0] == "duly":
        sys.argv = command
        sys.path[0] = os.path.dirname(sys.executable)
        return importlib.import_module("duly.cli").main()
    return os.execvp(command[0], command)


if __name__ == "__main__":
    _main()
