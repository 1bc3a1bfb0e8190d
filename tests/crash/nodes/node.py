"""The process of a node: opens the app again and again until it can, calls it without pause, and does as it is told."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import logging
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from duly import App, StoreError
from duly.limits import Limits
from tests.crash import load
from tests.crash.load import Diary
from tests.crash.worker import NUMBERS_OF_ONE_RUN, Client, arm

CLIENTS: Final = 3
REOPEN_SECONDS: Final = 0.2
LOST_SECONDS: Final = 3.0
"""How long a node may be silent. Far shorter than it should be, so that many are lost."""

OPEN, RESTING = "open", "resting"
"""What a node tells: that it works; that its clients have been answered and ask for nothing more."""
REST, END = "rest", "end"
"""What a node is told, beside the name of a fault point and the passing at which to die there."""


class NodeOrder(NamedTuple):
    """What a process is told to do."""

    folder: str
    run: int
    """Its number among the processes that have opened this store."""
    seed: str
    store: str
    counter: str
    shared_by: int
    fault: str = ""
    """A fault point to die at from the start, and the passing."""


def be(order: NodeOrder, pipe: Connection) -> None:
    """Be that process, until it is told to end or the other end of the pipe is gone."""
    file = Path(order.folder, f"log-{order.run}")
    logging.basicConfig(filename=file, format="%(asctime)s %(name)s %(message)s", force=True)
    faulthandler.register(signal.SIGUSR1, file.open("a"))
    if order.fault:
        arm(order.fault)
    try:
        asyncio.run(_live(order, pipe))
    except BaseException:
        logging.exception("this node is dead")
        sys.exit(1)


async def _live(order: NodeOrder, pipe: Connection) -> None:
    diary = load.keep_diary(Path(order.folder, f"diary-{order.run}"))
    load.Counters.own, load.Counters.shared_by = order.counter, order.shared_by
    app = await _open(order, diary)
    pipe.send(OPEN)
    orders = Orders(pipe)
    chance = Random(f"{order.seed} {order.run}")
    numbers = itertools.count(order.run * NUMBERS_OF_ONE_RUN + 1)
    clients = [PatientClient(app, diary, Random(chance.random()), numbers, orders.rest) for _ in range(CLIENTS)]
    noting = asyncio.create_task(_note_epochs(app, diary))
    try:
        await asyncio.gather(*(client.run() for client in clients))
        pipe.send(RESTING)
        await orders.end.wait()
    finally:
        noting.cancel()
        await app.close()


async def _open(order: NodeOrder, diary: Diary) -> App:
    """As whoever runs services does: start what has failed to start again."""
    while True:
        app = App({"load": load, "schema": load.schema}, order.store, limits=Limits(node_lost_seconds=LOST_SECONDS))
        try:
            return await app.__aenter__()
        except StoreError as error:
            logging.warning("not opened: %s", error)
            diary.write("unopened", 0)
            await asyncio.sleep(REOPEN_SECONDS)


async def _note_epochs(app: App, diary: Diary) -> None:
    epoch = 0
    while True:
        if app.database.epoch != epoch:
            epoch = app.database.epoch
            diary.write("epoch", epoch)
        await asyncio.sleep(0.05)


class Orders:
    """What comes through the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.rest = asyncio.Event()
        self.end = asyncio.Event()
        self._pipe = pipe
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._hear)

    def _hear(self) -> None:
        try:
            order = self._pipe.recv()
        except EOFError:
            os._exit(3)  # whoever ran this is gone
        if order == REST:
            self.rest.set()
        elif order == END:
            self.end.set()
        else:
            arm(order)


class PatientClient(Client):
    """A client that outlasts a store that is gone for a while, and stops when it is told to."""

    pause_seconds = 0.03
    action_seconds = ((0.001, 0.03),) * 9 + ((0.5, 3.0),)

    def __init__(self, app: App, diary: Diary, chance: Random, numbers: Iterator[int], resting: asyncio.Event) -> None:
        super().__init__(app, diary, chance, numbers)
        self._resting = resting
        self._chance = chance

    async def run(self) -> None:
        while not self._resting.is_set():
            await self.place()
            await asyncio.sleep(self._chance.uniform(0, self.pause_seconds))

    def outlast(self, error: StoreError) -> str:
        logging.warning("a call has failed: %s", error)
        # Any other says that nothing of the call is stored, and is taken at its word.
        return "unknown" if "is not known" in str(error) else "failed"
