"""The process that is killed: opens the app on a clock that goes fast, and lets its crons run."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final, NamedTuple

from duly import App, StoreError
from duly.clock import SystemClock
from duly.limits import Limits
from tests import leaks
from tests.crash.worker import arm
from tests.crons import load

RATE: Final = 10.0
"""How much faster time goes for the crons, whose slots are a second apart."""
LOST_SECONDS: Final = 1.5
"""How long a node may be silent. Far shorter than it should be, so that many are lost."""
LIFE_SECONDS: Final = 300.0  # so that it does not outlive a lost parent for long
REST, END = "rest", "end"

_processes: Any = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.crons.node"])


class FastClock(SystemClock):
    """The same for all processes that are given the same start."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self._start = start

    def now(self) -> float:
        return (self._start + (time.time() - self._start) * RATE) * 1000

    def follow(self, server_ms: float, at: float) -> None:
        """No server goes as fast."""


class Order(NamedTuple):
    """What a process is told to do."""

    store: str
    started: float
    """When the clock of all processes began to go fast."""
    log: Path
    fault: str = ""
    """A fault point to die at, and the passing."""


class Node:
    """A running process."""

    def __init__(self, order: Order) -> None:
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_be, args=(order, theirs))
        with leaks.kept():  # that of the processes' server, which the first of them starts
            forkserver.ensure_running()
        self._process.start()
        theirs.close()

    def opens_within(self, seconds: float) -> bool:
        """Whether it says in time that it has opened the store."""
        try:
            return self._pipe.poll(seconds) and self._pipe.recv() == "open"
        except (EOFError, ConnectionError):
            return False

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> bool:
        """Whether it was alive until now."""
        alive = self._process.exitcode is None
        self._process.kill()
        self._process.join()
        self._pipe.close()
        return alive and self._process.exitcode == -signal.SIGKILL

    def dies_within(self, seconds: float) -> bool:
        """Whether it is killed by itself, so to speak."""
        self._process.join(seconds)
        return self._process.exitcode == -signal.SIGKILL

    def rests(self) -> list[dict[str, Any]]:
        """Have it pause all crons and wait for what runs. Returns what they were before."""
        self._pipe.send(REST)
        return self._pipe.recv()

    def ends(self) -> int | None:
        """Have it end in order. Returns its exit code."""
        self._pipe.send(END)
        self._process.join(20.0)
        return self._process.exitcode


def _be(order: Order, pipe: Any) -> None:
    logging.basicConfig(filename=order.log, format="%(asctime)s %(process)d %(name)s %(message)s", force=True)
    logging.getLogger("duly.run").disabled = True  # most of what it says failed on purpose
    if order.fault:
        arm(order.fault)
    try:
        asyncio.run(_live(order, pipe))
    except BaseException:
        logging.exception("this node is dead")
        sys.exit(1)


async def _live(order: Order, pipe: Any) -> None:
    messages = asyncio.Queue[str]()
    asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: messages.put_nowait(pipe.recv()))
    app = await _open(order)
    pipe.send("open")
    try:
        async with asyncio.timeout(LIFE_SECONDS):
            while await messages.get() == REST:
                before = await app.mutation("load:rest")
                while await app.query("load:running"):
                    await asyncio.sleep(0.01)
                pipe.send(before)
    finally:
        await app.close()


async def _open(order: Order) -> App:
    """As whoever runs services does: start what has failed to start again."""
    while True:
        app = App(
            {"load": load, "crons": load.declared},
            order.store,
            limits=Limits(node_lost_seconds=LOST_SECONDS),
            clock=FastClock(order.started),
        )
        try:
            return await app.__aenter__()
        except StoreError as error:
            logging.warning("not opened: %s", error)
            await asyncio.sleep(0.1)
