"""Starts a worker process, by fork or in an interpreter of its own, and kills it."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.crash.worker import Order, work

ROOT: Final = Path(__file__).parents[2]


class Child:
    """A running worker process, in a process group of its own."""

    def __init__(self, pid: int, pipe: int, born: float) -> None:
        self.pid = pid
        self._pipe = pipe
        self._born = born
        self._status: int | None = None
        with suppress(OSError):  # it has done so itself, or has ended
            os.setpgid(pid, pid)

    def first_completed(self, seconds: float) -> float | None:
        """Seconds from its start to the first scheduled function it completed; None if it told of none in time."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return None
        line = os.read(self._pipe, 100)
        return float(line) - self._born if line else None

    def kill(self) -> bool:
        """SIGKILL its group. False if it had ended by itself."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._end(status)
                return False
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in time. Only a process that ended closes its end of the pipe."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._pipe], [], [], left)[0] and not os.read(self._pipe, 100):
                return True
        return False

    def wait(self) -> int:
        """Its exit code once it has ended; negative is the signal it died of."""
        if self._status is None:
            self._end(os.waitpid(self.pid, 0)[1])
        assert self._status is not None
        return self._status

    def _end(self, status: int) -> None:
        self._status = os.waitstatus_to_exitcode(status)
        os.close(self._pipe)


def fork(order: Order) -> Child:
    """A copy of this process, which has imported everything and has no thread, loop or open store."""
    reading, writing = os.pipe()
    born = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be(order, writing)
    os.close(writing)
    return Child(pid, reading, born)


def _be(order: Order, pipe: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        work(order, pipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # not sys.exit: nothing of the parent's may run twice


def spawn(order: Order, fault: str) -> Child:
    """A new interpreter in which a fault is armed."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    born = time.monotonic()
    command = [sys.executable, "-m", "tests.crash.worker", order.folder, str(order.run), order.seed, str(writing)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "DULY_FAULT": fault, "PYTHONPATH": path}
    pid = os.posix_spawn(sys.executable, command, environment, setpgroup=0)
    os.close(writing)
    return Child(pid, reading, born)
