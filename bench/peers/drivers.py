"""Processes of a driver: started with a verb, they answer in lines of JSON, and are killed when they have."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS_MAX = 45
LINE_MAX = 1 << 20


class Failed(Exception):
    """Why a figure was not measured."""


class Driver:
    def __init__(self, process: asyncio.subprocess.Process, verb: str, log: Path) -> None:
        self._process, self._verb, self._log = process, verb, log

    async def answer(self, key: str) -> Any:
        """The value of that key in the next line that has it."""
        try:
            return await asyncio.wait_for(self._answer(key), SECONDS_MAX)
        except TimeoutError:
            raise Failed(f"{self._verb}: got no answer in {SECONDS_MAX} s{self._last_words()}") from None

    async def _answer(self, key: str) -> Any:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{") and key in (message := json.loads(line)):
                return message[key]
        raise Failed(f"{self._verb}: ended{self._last_words()}")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def check(self) -> None:
        if self._process.returncode is not None:
            raise Failed(f"{self._verb}: ended{self._last_words()}")

    async def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)  # Process.kill() would reap one that has just ended
        await self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""


@asynccontextmanager
async def started(command: Sequence[str], folder: Path, verb: str, *arguments: object) -> AsyncIterator[Driver]:
    log = folder / "errors.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*command, verb, *map(str, arguments)),
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_MAX,
        )
    driver = Driver(process, verb, log)
    try:
        yield driver
    finally:
        await driver.kill()
