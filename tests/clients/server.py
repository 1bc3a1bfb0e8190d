"""A server in a process of its own, as users start it, which can be killed and started again on the same port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

BACKEND = Path(__file__).parent / "backend"
_ADDRESS = re.compile(r"Clients connect to (http://\S+)")


class Server:
    """`duly serve` or `duly dev` on the backend of these tests."""

    def __init__(
        self,
        folder: Path,
        command: str = "dev",
        backend: Path = BACKEND,
        store: str | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.store = store or f"sqlite:///{folder}/data.db"
        self._folder, self._command, self._backend, self._options = folder, command, backend, options
        self.port = 0
        self.address = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        command = [sys.executable, "-u", "-m", "duly", self._command, str(self._backend), "--store", self.store]
        # Killed servers lose nothing that they print, and the pipe of one that goes on is read by nobody: so a file.
        log = self._folder / "server.log"
        with log.open("a") as output:
            at = log.stat().st_size
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._options],
                stdout=output,
                stderr=output,
                cwd=self._folder,
                text=True,
            )
        while (found := _ADDRESS.search(log.read_bytes()[at:].decode())) is None:
            assert self._process.poll() is None, log.read_text()
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        self.address = found[1]
        self.port = int(self.address.rpartition(":")[2])
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it in order. Return its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(30)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
