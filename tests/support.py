"""What tests of several subjects have in common: applications, commands, waiting."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from click.testing import CliRunner

from duly.cli import main


def app_of(*functions: Any, **named: Any) -> dict[str, Any]:
    """An application of one module, `app`, of functions under the names of their handlers or other ones."""
    return {"app": SimpleNamespace(**{function.handler.__name__: function for function in functions}, **named)}


def handlers_in(module: Mapping[str, object]) -> dict[str, Any]:
    """The functions of duly among the names of a module."""
    return {name: value for name, value in module.items() if hasattr(value, "handler")}


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another task, thread or process does."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


class Done(NamedTuple):
    """What has become of a command."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


def duly(folder: Path, *args: str, input: str | None = None) -> Done:
    """Run a command in a folder, in this process: starting another takes fifty times as long."""
    with within(folder):
        result = CliRunner().invoke(main, args, input=input, catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


def duly_process(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, which `duly dev` needs: it takes over signals and the log."""
    command = [sys.executable, "-m", "duly", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Have a folder as the current one for a while."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
