"""A service under gunicorn that restarts its worker while an action runs."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("gunicorn", reason="gunicorn is not installed")


class Served:
    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self._path = path

    def get(self, name: str) -> tuple[int, str]:
        """The process that answered, and what."""
        with closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(60)  # as a client has: what a worker leaves unanswered is asked again
            connection.sock.connect(str(self._path))
            connection.request("GET", f"/{name}")
            pid, _, value = connection.getresponse().read().decode().partition(" ")
        return int(pid), value

    def wait_until_it_serves(self) -> None:
        while True:
            assert self.process.poll() is None, "it has ended"
            try:
                self.get("notes")
            except OSError:
                time.sleep(0.05)
            else:
                return


@contextmanager
def served(store: str, tmp_path: Path) -> Iterator[Served]:
    environment = {**os.environ, "DULY_TEST_STORE": store, "DULY_TEST_SOCKET": str(tmp_path / "socket")}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:tests.storage.served", "tests.storage.served"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            yield Served(process, tmp_path / "socket")
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_worker_that_is_replaced_while_an_action_runs_hands_the_store_over(store: str, tmp_path: Path) -> None:
    with served(store, tmp_path) as service:
        service.wait_until_it_serves()
        first, _ = service.get("start_slow")
        service.process.send_signal(signal.SIGHUP)
        second, notes = first, ""
        while second == first or notes != "['slow']":
            assert service.process.poll() is None, (tmp_path / "log").read_text()
            try:
                second, notes = service.get("notes")
            except (OSError, http.client.HTTPException):  # the old worker has left, the new one is not ready
                time.sleep(0.05)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log, log
