"""The process that is killed: it calls the app without pause and changes its schema, or lets it come to rest."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from duly import AlreadyCompletedError, App, AppError, StoreError
from tests.crash import load
from tests.crash.load import Diary

CLIENTS: Final = 4
NUMBERS_OF_ONE_RUN: Final = 1_000_000
LIFE_SECONDS: Final = 60.0  # so that it does not outlive a lost parent for long
DRAIN_SECONDS: Final = 15.0

_KINDS: Final = {"mark": 6, "nest": 2, "fail": 2, "act": 3, "act_in_thread": 1, "act_and_fail": 1}
"""How often a client schedules each function, relative to the others."""


class Order(NamedTuple):
    """What a process is told to do."""

    folder: str
    run: int
    """Its number among the processes that have opened this store."""
    seed: str
    drains: bool
    """Whether it calls nothing and ends when everything scheduled has."""

    @property
    def store(self) -> Path:
        return Path(self.folder, "data.db")

    @property
    def diary(self) -> Path:
        return Path(self.folder, f"diary-{self.run}")


def work(order: Order, pipe: int) -> None:
    """Be that process. `pipe` is told when the first scheduled function has completed."""
    asyncio.run(_live(_drain(order) if order.drains else _load(order, pipe)))


async def _live(life: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(LIFE_SECONDS):
        await life


async def _load(order: Order, pipe: int) -> None:
    born, diary = time.time() * 1000, load.keep_diary(order.diary)
    chance = Random(f"{order.seed} {order.run}")
    numbers = itertools.count(order.run * NUMBERS_OF_ONE_RUN + 1)
    modules = _modules()
    async with _app(order, modules) as app:
        clients = [Client(app, diary, Random(chance.random()), numbers) for _ in range(CLIENTS)]
        deploying = _deploy(app, modules, Random(chance.random()))
        await asyncio.gather(_tell_first(app, born, pipe), deploying, *(client.run() for client in clients))


async def _drain(order: Order) -> None:
    load.keep_diary(order.diary)
    async with _app(order, _modules()) as app:
        # Without an error at the end: that something is stuck is for the checker to say.
        for _ in range(int(DRAIN_SECONDS / 0.02)):
            if await app.query("load:finished"):
                break
            await asyncio.sleep(0.02)


def _modules() -> dict[str, Any]:
    return {"load": load, "schema": load.schema}


def _app(order: Order, modules: dict[str, Any]) -> App:
    return App(modules, store=f"sqlite:///{order.store}")


async def _deploy(app: App, modules: dict[str, Any], chance: Random) -> None:
    """Change the schema to and fro, while everybody calls."""
    for schema in itertools.cycle((load.other_schema, load.schema)):
        await asyncio.sleep(chance.uniform(0, 0.04))
        modules["schema"] = schema
        await app.reload()


async def _tell_first(app: App, born: float, pipe: int) -> None:
    """Tell when this process has first completed a scheduled function, as a subscriber learns of it."""
    async for created in app.subscribe("load:newest_marker"):
        if created >= born:
            os.write(pipe, f"{time.monotonic()}\n".encode())
            return


class Client:
    """Calls the app, and writes to the diary what it is about to ask and what it has been told."""

    pause_seconds = 0.004
    """From one call to the next, at most."""
    action_seconds: tuple[tuple[float, float], ...] = ((0.001, 0.03),)
    """From how long to how long an action takes."""

    def __init__(self, app: App, diary: Diary, chance: Random, numbers: Iterator[int]) -> None:
        self._app = app
        self._diary = diary
        self._chance = chance
        self._numbers = numbers

    async def run(self) -> None:
        while True:
            await self.place()
            await asyncio.sleep(self._chance.uniform(0, self.pause_seconds))

    async def place(self) -> None:
        number, plans = next(self._numbers), [self._plan() for _ in range(self._chance.randint(0, 3))]
        refuse = self._chance.random() < 0.1
        self._diary.write("try", number)
        try:
            ids = await self._app.mutation("load:place", {"number": number, "plans": plans, "refuse": refuse})
        except AppError:
            self._diary.write("refused", number)
        except StoreError as error:
            self._diary.write(self.outlast(error), number)
        else:
            self._diary.write("acknowledged", number)
            if ids and self._chance.random() < 0.3:
                position = self._chance.randrange(len(ids))
                await self._cancel(ids[position], plans[position]["args"]["number"])

    async def _cancel(self, id: str, number: int) -> None:
        await asyncio.sleep(self._chance.uniform(0, 0.015))
        self._diary.write("cancel", number)
        try:
            await self._app.mutation("load:cancel", {"id": id})
        except AlreadyCompletedError:
            self._diary.write("late", number)
        except StoreError as error:
            self.outlast(error)
        else:
            self._diary.write("canceled", number)

    def outlast(self, error: StoreError) -> str:
        """What the diary says of a call that the store has failed; where it must not fail, the process ends."""
        raise error

    def _plan(self) -> dict[str, Any]:
        [name] = self._chance.choices(list(_KINDS), list(_KINDS.values()))
        args: dict[str, Any] = {"number": next(self._numbers)}
        if name not in ("fail", "act_and_fail"):
            args["children"] = [next(self._numbers) for _ in range(self._chance.choice((0, 0, 1, 2)))]
        if name.startswith("act"):
            args["pause"] = self._chance.uniform(*self._chance.choice(self.action_seconds))
        if name in ("act", "act_in_thread"):
            args["follow"] = next(self._numbers)
        return {"name": name, "args": args, "delay": self._chance.choice((0.0, self._chance.uniform(0, 40)))}


def main() -> None:
    """The same in an interpreter of its own, where `DULY_FAULT` is heard."""
    folder, run, seed, pipe = sys.argv[1:]
    work(Order(folder, int(run), seed, drains=False), int(pipe))


if __name__ == "__main__":
    main()
