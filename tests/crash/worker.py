"""The process that is killed: it calls the app without pause and changes its schema, or lets it come to rest."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from duly import AlreadyCompletedError, App, AppError, InvalidScheduleError, LimitError, StoreError, faults
from duly.database.transaction import Transaction
from duly.declare.function import MUTATION
from duly.limits import RETENTION_MS
from duly.model.job_state import SUCCESS
from duly.storage.rows import JOBS, Job
from tests.crash import load
from tests.crash.load import Diary, Plan, Target

CLIENTS: Final = 4
NUMBERS_OF_ONE_RUN: Final = 1_000_000
LIFE_SECONDS: Final = 180.0  # so that it does not outlive a lost parent for long
DRAIN_SECONDS: Final = 60.0

FULL: Final = "the disk is full on purpose"
REFUSED_FROM: Final = 20
"""From which commit on the store refuses all, in a process that is to die over that."""
EXPIRED: Final = "expired"
"""The name of functions that completed long ago, which leave no other trace."""
_EXPIRED_AT_ONCE: Final = 1_200

OPEN, COMPLETED = "open", "completed"
"""What it tells: that it has recovered; that it has completed a scheduled function."""

_KINDS: Final = {"mark": 6, "nest": 2, "fail": 2, "tick": 1, "act": 4, "act_in_thread": 1, "act_and_fail": 1}
"""How often a client schedules each function, relative to the others."""
_CHAIN_MAX: Final = 3
"""Functions of which each schedules the next, beside those that schedule themselves."""
_TICKS: Final = (2, 12)
_TARGETS: Final = 30


class Order(NamedTuple):
    """What a process is told to do."""

    folder: str
    run: int
    """Its number among the processes that have opened this store."""
    seed: str
    drains: bool = False
    """Whether it calls nothing and ends when everything scheduled has."""
    fault: str = ""
    """A fault point to die at, and the passing."""

    @property
    def store(self) -> Path:
        return Path(self.folder, "data.db")

    @property
    def diary(self) -> Path:
        return Path(self.folder, f"diary-{self.run}")

    def dies_at(self, point: str) -> bool:
        return self.fault.partition(":")[0] == point


def work(order: Order, pipe: int) -> None:
    """Be that process, and tell the pipe how far it has come."""
    logging.getLogger("duly.run").disabled = True  # most of what it says failed on purpose
    if order.fault:
        arm(order.fault)
    if order.dies_at("job.refused"):
        faults.arm("commit.flushed", _refuse, REFUSED_FROM)
        logging.disable()  # all that it would say is that the disk is full
    asyncio.run(_live(_drain(order) if order.drains else _load(order, pipe)))


def _refuse() -> None:
    raise OSError(FULL)


def arm(fault: str) -> None:
    """Die at a fault point."""
    point, _, passing = fault.partition(":")
    faults.arm(point, lambda: os.kill(os.getpid(), signal.SIGKILL), int(passing))


async def _live(life: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(LIFE_SECONDS):
        await life


async def _load(order: Order, pipe: int) -> None:
    born, diary = _born(order)
    chance = Random(f"{order.seed} {order.run}")
    numbers = itertools.count(order.run * NUMBERS_OF_ONE_RUN + 1)
    modules = _modules()
    if order.dies_at("jobs.swept"):
        await _leave_expired(order)
    async with _app(order, modules) as app:
        _tell(pipe, OPEN)
        clients = [Client(app, diary, Random(chance.random()), numbers) for _ in range(CLIENTS)]
        others = [
            _deploy(app, modules, Random(chance.random())),
            _pause(app, Random(chance.random())),
            _retry(app, diary, clients, Random(chance.random())),
        ]
        await asyncio.gather(_tell_first(app, born, pipe), *others, *(client.run() for client in clients))


async def _drain(order: Order) -> None:
    _born(order)
    async with _app(order, _modules()) as app:
        await app.resume()  # the one before may have died while it was paused
        # Without an error at the end: that something is stuck is for the checker to say.
        for _ in range(int(DRAIN_SECONDS / 0.02)):
            if await app.query("load:finished"):
                break
            await asyncio.sleep(0.02)


def _born(order: Order) -> tuple[float, Diary]:
    born, diary = time.time() * 1000, load.keep_diary(order.diary)
    diary.write("born", int(born))
    return born, diary


def _modules() -> dict[str, Any]:
    return {"load": load, "schema": load.schema}


def _app(order: Order, modules: dict[str, Any]) -> App:
    return App(modules, store=f"sqlite:///{order.store}")


async def _deploy(app: App, modules: dict[str, Any], chance: Random) -> None:
    """Change the schema to and fro, while everybody calls."""
    for schema in itertools.cycle((load.other_schema, load.schema)):
        await asyncio.sleep(chance.uniform(0, 0.04))
        modules["schema"] = schema
        with _outlasting():
            await app.reload()


async def _pause(app: App, chance: Random) -> None:
    """Pause the executor now and then; the process before may have died while it was paused."""
    while True:
        with _outlasting():
            await app.resume()
            await asyncio.sleep(chance.uniform(0, 0.06))
            await app.pause()
            await asyncio.sleep(chance.uniform(0, 0.003))


async def _retry(app: App, diary: Diary, clients: list[Client], chance: Random) -> None:
    """Have functions that have failed run again, each once."""
    while True:
        await asyncio.sleep(chance.uniform(0, 0.03))
        client = chance.choice(clients)
        if client.failing:
            target = client.failing.popleft()
            diary.write("retry", target["number"])
            with _outlasting():
                try:
                    await app.retry(target["id"])
                except InvalidScheduleError:
                    client.failing.append(target)  # it has not run yet, or is canceled
                else:
                    diary.write("retried", target["number"])


async def _leave_expired(order: Order) -> None:
    """Leave rows that completed long ago, for the sweeper."""

    async def unit(transaction: Transaction) -> None:
        long_ago = transaction.now - 2 * RETENTION_MS
        for _ in range(_EXPIRED_AT_ONCE):
            id = transaction.new_id()
            job = Job(id, f"load:{EXPIRED}", '{"number":0}', long_ago, None, SUCCESS, MUTATION, None)
            transaction.write(JOBS, id, None, job._replace(completed_time=long_ago))

    async with App(_modules(), f"sqlite:///{order.store}", executor=False) as app:
        await app.runner.commit(unit)


@contextmanager
def _outlasting() -> Iterator[None]:
    """Go on where the store has refused something on purpose."""
    try:
        yield
    except StoreError as error:
        if FULL not in str(error):
            raise


async def _tell_first(app: App, born: float, pipe: int) -> None:
    """Tell when this process has first completed a scheduled function, as a subscriber learns of it."""
    async for created in app.subscribe("load:newest_marker"):
        if created >= born:
            _tell(pipe, COMPLETED)
            return


def _tell(pipe: int, what: str) -> None:
    os.write(pipe, f"{what} {time.monotonic()}\n".encode())


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
        self._targets: deque[Target] = deque(maxlen=_TARGETS)
        """What it has scheduled of late."""
        self.failing: deque[Target] = deque(maxlen=_TARGETS)
        """Of that, what fails on purpose."""

    async def run(self) -> None:
        while True:
            await self.place()
            await asyncio.sleep(self._chance.uniform(0, self.pause_seconds))

    async def place(self) -> None:
        """Schedule something, and perhaps cancel something."""
        number, plans = next(self._numbers), [self._plan(_CHAIN_MAX) for _ in range(self._chance.randint(0, 3))]
        plans += [self._rival(position, plans) for position in range(len(plans)) if self._happens(0.06)]
        withdrawn = [position for position in range(len(plans)) if self._happens(0.03)]
        args = {"number": number, "plans": plans, "withdrawn": withdrawn, "refuse": self._happens(0.1)}
        self._diary.write("try", number)
        try:
            ids = await self._app.mutation("load:place", args)
        except AppError:
            self._diary.write("refused", number)
        except StoreError as error:
            self._diary.write(self.outlast(error), number)
        else:
            self._diary.write("acknowledged", number)
            placed: list[Target] = [
                {"id": id, "number": plan["args"]["number"]} for id, plan in zip(ids, plans, strict=True)
            ]
            self._targets.extend(placed)
            self.failing.extend(target for target, plan in zip(placed, plans, strict=True) if plan["name"] == "fail")
            await self._cancel_one(placed)

    async def _cancel_one(self, placed: list[Target]) -> None:
        """Cancel something that was just placed, soon or at once; or else what is about to run, or what runs."""
        target: Target | None = None
        if placed and self._happens(0.25):
            target = self._chance.choice(placed)
            await asyncio.sleep(self._chance.choice((0.0, self._chance.uniform(0, 0.015))))
        elif self._happens(0.1):
            target = await self._first_of(self._chance.choice(("pending", "inProgress")))
        if target is not None:
            await self._cancel(target)

    async def _first_of(self, state: str) -> Target | None:
        try:
            return await self._app.query("load:first_of", {"state": state})
        except StoreError as error:
            self.outlast(error)
        except LimitError:  # the query has waited too long for a store that is silent
            pass
        return None

    async def _cancel(self, target: Target) -> None:
        refuse = self._happens(0.2)
        if not refuse:  # what fails afterwards has asked for nothing
            self._diary.write("cancel", target["number"])
        try:
            await self._app.mutation("load:cancel", {"id": target["id"], "refuse": refuse})
        except AlreadyCompletedError:
            self._diary.write("late", target["number"])
        except AppError:
            self._diary.write("undone", target["number"])
        except StoreError as error:
            self.outlast(error)
        else:
            self._diary.write("canceled", target["number"])

    def outlast(self, error: StoreError) -> str:
        """What the diary says of a call that the store has failed; where it must not fail, the process ends."""
        if FULL not in str(error):
            raise error
        return "failed"

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share

    def _plan(self, length: int) -> Plan:
        """A function that is the first of a chain of at most so many."""
        chance = self._chance
        [name] = chance.choices(list(_KINDS), list(_KINDS.values()))
        args: dict[str, Any] = {"number": next(self._numbers)}
        if name == "tick":
            args["last"] = max(next(self._numbers) for _ in range(chance.randint(*_TICKS)))
            args["pause"] = chance.uniform(0, 20)
        elif name != "fail":
            most = chance.choice((0, 0, 1, 2)) if length > 1 else 0
            args["children"] = [self._plan(length - 1) for _ in range(most)]
        if name.startswith("act"):
            args["pause"] = chance.uniform(*chance.choice(self.action_seconds))
            args["follow"] = self._plan(length - 1) if length > 1 and self._happens(0.3) else self._marker()
        if name == "act" and self._happens(0.15):
            args["gives_up"] = True
        elif name not in ("tick", "act_in_thread") and self._targets and self._happens(0.2):
            args["target"] = chance.choice(self._targets)
        return {"name": name, "args": args, "delay": chance.choice((0.0, chance.uniform(0, 40)))}

    def _rival(self, position: int, plans: list[Plan]) -> Plan:
        delay = plans[position]["delay"]
        plans[position]["delay"] = delay + self._chance.uniform(0, 0.5)  # so that mostly both are claimed together
        return {**self._marker(), "delay": delay, "rival": position}

    def _marker(self) -> Plan:
        return {"name": "mark", "args": {"number": next(self._numbers), "children": []}, "delay": 0.0}
