"""What every driver written in Python does alike: it is told what to do in its arguments and answers in lines of JSON.

    setup ADDRESS                    makes the tables                              {"version"}
    calls ADDRESS SECONDS CALLERS    enqueues jobs one by one, by so many callers  {"rate"}: jobs a second
    bulk ADDRESS SECONDS             enqueues 1,000 jobs a call                    {"rate"}
    fill ADDRESS TASK JOBS           leaves jobs for workers                       {"filled"}
    work ADDRESS                     says it is ready, waits for a line, works     {"ready"}, {"began"}: the moment
    latency ADDRESS JOBS             enqueues 50 jobs a second and runs them       {"latencies"}: milliseconds

Moments are those of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from time import monotonic
from typing import Any

AT_ONCE = 1_000
CALLS_PER_SECOND = 50
COUNTERS = 1_000
WARM_UP = 20

# What a job that counts does, in one transaction; job n has its own counter among those that run beside it.
READ = "SELECT n FROM counters WHERE id = {} FOR UPDATE"
UPDATE = "UPDATE counters SET n = {} WHERE id = {}"
INSERT = "INSERT INTO events (job, counter) VALUES ({}, {})"

starts: dict[int, float] = {}
"""When each run of the task `note` began."""


class Peer(ABC):
    """A job system with three tasks: `noop`, `count` and `note`, each of which takes the number of the job."""

    package: str

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    async def setup(self) -> None:
        """Make the tables."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, to enqueue and to work."""

    @abstractmethod
    async def enqueue(self, task: str, n: int) -> None: ...

    @abstractmethod
    async def enqueue_many(self, task: str, numbers: Sequence[int]) -> None: ...

    async def start(self) -> None:
        """Whatever takes time before a worker can work."""
        return

    @abstractmethod
    async def work(self) -> None:
        """Say `began`, and run jobs for ever."""

    async def work_beside(self) -> None:
        """Run jobs while this process enqueues: in another one, where workers are not threads or tasks of it."""
        await self.work()


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def began() -> None:
    say(began=monotonic())


def note(n: int) -> None:
    starts[n] = monotonic()


async def setup(peer: Peer) -> None:
    await peer.setup()
    say(version=version(peer.package))


async def calls(peer: Peer, seconds: str, callers: str) -> None:
    await peer.open()
    for n in range(WARM_UP):
        await peer.enqueue("noop", n)
    since = monotonic()
    until = since + float(seconds)

    async def call() -> int:
        made = 0
        while monotonic() < until:
            await peer.enqueue("noop", made)
            made += 1
        return made

    jobs = sum(await asyncio.gather(*(call() for _ in range(int(callers)))))
    say(rate=jobs / (monotonic() - since))


async def bulk(peer: Peer, seconds: str) -> None:
    await peer.open()
    await peer.enqueue_many("noop", range(WARM_UP))
    since, jobs = monotonic(), 0
    while monotonic() < since + float(seconds):
        await peer.enqueue_many("noop", range(jobs, jobs + AT_ONCE))
        jobs += AT_ONCE
    say(rate=jobs / (monotonic() - since))


async def fill(peer: Peer, task: str, jobs: str) -> None:
    await peer.open()
    for first in range(0, int(jobs), AT_ONCE):
        await peer.enqueue_many(task, range(first, min(first + AT_ONCE, int(jobs))))
    say(filled=True)


async def work(peer: Peer) -> None:
    await peer.open()
    await peer.start()
    say(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    await peer.work()


def _leave_with_parent() -> None:
    """Whoever measures may be killed, and then nobody ends what works for ever."""
    sys.stdin.read()
    os._exit(1)


async def latency(peer: Peer, jobs: str) -> None:
    await peer.open()
    await peer.start()
    worker = asyncio.create_task(peer.work_beside())
    await peer.enqueue("note", -1)
    await _started(worker, -1)
    called, returned, since = list[float](), list[float](), monotonic()
    for n in range(int(jobs)):
        await asyncio.sleep(since + n / CALLS_PER_SECOND - monotonic())
        called.append(monotonic())
        await peer.enqueue("note", n)
        returned.append(monotonic())
    for n in range(int(jobs)):
        await _started(worker, n)
    say(latencies={"": _until_starts(returned), " of call": _until_starts(called)})


def _until_starts(moments: list[float]) -> list[float]:
    return [1_000 * (starts[n] - moment) for n, moment in enumerate(moments)]


async def _started(worker: asyncio.Task[None], n: int) -> None:
    while n not in starts:
        if worker.done():
            worker.result()
            raise RuntimeError("the worker ended")
        await asyncio.sleep(0.01)


VERBS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    verb.__name__: verb for verb in (setup, calls, bulk, fill, work, latency)
}


def main(peer: type[Peer], run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run) -> None:
    verb, address, *arguments = sys.argv[1:]
    run(_leave_after(VERBS[verb](peer(address), *arguments)))


async def _leave_after(verb: Coroutine[Any, Any, None]) -> None:
    """Whoever has answered need not tidy up: its database is dropped."""
    await verb
    os._exit(0)
