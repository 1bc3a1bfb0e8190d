"""Starts a worker process by a fork, and kills it."""

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
        self.told: dict[str, float] = {}
        """What it has told so far, and how many seconds after its start."""
        with suppress(OSError):  # it has done so itself, or has ended
            os.setpgid(pid, pid)

    def tells(self, what: str, seconds: float) -> bool:
        """Whether it tells that in time."""
        deadline = time.monotonic() + seconds
        while what not in self.told and self._listen(deadline):
            pass
        return what in self.told

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in time. Only a process that ended closes its end of the pipe."""
        deadline = time.monotonic() + seconds
        while self._listen(deadline):
            pass
        return time.monotonic() < deadline

    def _listen(self, deadline: float) -> bool:
        """Hear what it tells next. False if it told nothing in time, or never will."""
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._pipe], [], [], left)[0]:
            return False
        text = os.read(self._pipe, 1000).decode()
        for what, when in (line.split() for line in text.splitlines()):
            self.told[what] = float(when) - self._born
        return bool(text)

    def kill(self) -> bool:
        """SIGKILL its group. False if it had ended by itself."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._end(status)
                return False
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Its exit code once it has ended; negative is the signal it died of."""
        if self._status is None:
            self._end(os.waitpid(self.pid, 0)[1])
        assert self._status is not None
        return self._status

    def _end(self, status: int) -> None:
        self._status = os.waitstatus_to_exitcode(status)
        self.ends_within(0.1)  # and what it has told before
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
