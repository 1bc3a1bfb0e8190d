"""A handler that runs too long is stopped; nothing else ever is."""

from __future__ import annotations

import asyncio
import dis
import gc
import heapq
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import repeat
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from duly import App, LimitError, Limits, MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from duly.database.driver.trampoline import ask, drive
from duly.database.driver.watchdog import Interruption, Watchdog, WatchedThread, _raise_in
from duly.storage.requests import Get
from duly.storage.rows import JOBS
from duly.testing import Harness
from tests.model.soundness import complaints
from tests.support import handlers_in

SECONDS = 0.15
PATIENT = Limits(
    handler_seconds_max=SECONDS,
    reads_max=10**9,
    documents_read_max=10**9,
    bytes_read_max=10**12,
    documents_written_max=10**9,
    bytes_written_max=10**12,
)
STOPPED = rf"^app:\w+: it ran longer than {SECONDS} s \(handler_seconds_max\)"


# One that lands in a callback of a weak reference, which a handler's line may set off, is printed and comes again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _nothing_but_handlers_runs_in_handlers() -> Iterator[None]:
    """Tools of tests hook into the garbage collector: an Interruption that lands in there is printed and lost."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


# An application, most of which gets stuck.


def loops() -> None:
    while True:
        pass


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("rows", {"n": n})


@query
async def rows(ctx: QueryCtx) -> list[int]:
    return [row["n"] for row in await ctx.db.query("rows").collect()]


@mutation
async def writes_and_loops(ctx: MutationCtx) -> None:
    await ctx.db.insert("rows", {"n": -1})
    loops()


@query
async def reads_and_loops(ctx: QueryCtx) -> None:
    await ctx.db.query("rows").collect()
    loops()


@mutation
async def asks_without_end(ctx: MutationCtx) -> None:
    row = await ctx.db.query("rows").first()
    while row:
        row = await ctx.db.query("rows").first()


@mutation
async def inserts_without_end(ctx: MutationCtx) -> None:
    while True:
        await ctx.db.insert("rows", {"n": -1})


@mutation
async def logs_without_end(ctx: MutationCtx) -> None:
    while True:
        logging.getLogger("tests.stuck").info("again")


@mutation
async def catches_everything(ctx: MutationCtx) -> str:
    for _ in range(3):
        try:
            loops()
        except BaseException:
            await ctx.db.insert("rows", {"n": -1})
    return "fine"


@mutation
async def asks_and_catches_everything(ctx: MutationCtx) -> str:
    row = await ctx.db.query("rows").first()
    for _ in range(3):
        try:
            while row:
                row = await ctx.db.query("rows").first()
        except BaseException:
            await ctx.db.insert("rows", {"n": -1})
    return "fine"


@mutation
async def loops_at_the_end(ctx: MutationCtx) -> None:
    try:
        loops()
    finally:
        loops()


@mutation
async def loops_when_it_is_closed(ctx: MutationCtx) -> None:
    row = await ctx.db.query("rows").first()
    try:
        while row:
            await ctx.db.get(row["_id"])
    finally:
        loops()


@mutation
async def makes_an_error_of_it(ctx: MutationCtx) -> None:
    try:
        loops()
    except BaseException:
        raise ValueError("odd") from None


@mutation
async def loops_in_a_nested_call(ctx: MutationCtx) -> None:
    await ctx.db.insert("rows", {"n": -2})
    try:
        await ctx.run_mutation("app:writes_and_loops")
    except Exception:
        await ctx.db.insert("rows", {"n": -3})


@mutation
async def is_called_back_without_end(ctx: MutationCtx) -> None:
    json.JSONDecoder(parse_int=lambda _: loops()).decode("[1]")


@mutation
async def is_in_a_library_without_end(ctx: MutationCtx) -> None:
    deque(heapq.merge(repeat(1), repeat(2)), maxlen=0)


@mutation
async def sleeps(ctx: MutationCtx) -> None:
    time.sleep(2 * SECONDS)  # noqa: ASYNC251  in C, where nothing can be interrupted
    await ctx.db.insert("rows", {"n": -1})


@mutation
async def is_short(ctx: MutationCtx) -> None:
    time.sleep(SECONDS / 10)  # noqa: ASYNC251


@mutation
async def schedules(ctx: MutationCtx, names: list[str]) -> None:
    for name in names:
        await ctx.scheduler.run_after(0, f"app:{name}", {"n": 1} if name == "put" else None)


APP = {"app": SimpleNamespace(**handlers_in(globals()))}

STUCK = [
    "writes_and_loops",
    "asks_without_end",
    "inserts_without_end",
    "logs_without_end",
    "catches_everything",
    "asks_and_catches_everything",
    "loops_at_the_end",
    "loops_when_it_is_closed",
    "makes_an_error_of_it",
    "loops_in_a_nested_call",
    "is_called_back_without_end",
    "is_in_a_library_without_end",
    "sleeps",
]


@pytest.fixture
def hears() -> Iterator[io.StringIO]:
    """What is logged for tests, in a handler with a lock of its own, as every handler has."""
    text = io.StringIO()
    handler, log = logging.StreamHandler(text), logging.getLogger("tests.stuck")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield text
    log.removeHandler(handler)
    for lock in (handler.lock, logging._lock):  # type: ignore[attr-defined]
        assert lock is not None
        assert lock.acquire(timeout=30), "a thread was interrupted that held a lock of logging"
        lock.release()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", STUCK)
async def test_a_mutation_that_runs_too_long_fails_alone(name: str, hears: io.StringIO) -> None:
    async with Harness(APP, limits=PATIENT) as t:
        await t.mutation("app:put", {"n": 1})
        before, stuck, after = await asyncio.gather(
            t.mutation("app:put", {"n": 2}),
            t.mutation(f"app:{name}"),
            t.mutation("app:put", {"n": 3}),
            return_exceptions=True,
        )

        assert (before, after) == (None, None)
        assert isinstance(stuck, LimitError)
        assert re.match(STOPPED, str(stuck))
        assert await t.query("app:rows") == [1, 2, 3]


@pytest.mark.usefixtures("engine")
async def test_a_query_that_runs_too_long_fails_alone() -> None:
    async with Harness(APP, limits=PATIENT) as t:
        await t.mutation("app:put", {"n": 1})
        stuck, *others = await asyncio.gather(
            t.query("app:reads_and_loops"), *(t.query("app:rows") for _ in range(8)), return_exceptions=True
        )

        assert isinstance(stuck, LimitError)
        assert re.match(STOPPED, str(stuck))
        assert others == [[1]] * 8


@pytest.mark.usefixtures("engine")
async def test_a_scheduled_mutation_that_runs_too_long_is_failed_and_the_next_ones_run() -> None:
    async with Harness(APP, limits=PATIENT) as t:
        await t.mutation("app:schedules", {"names": ["put", "writes_and_loops", "put"]})
        await t.run_until_idle()

        first, stuck, last = [job["state"] for job in await t.jobs()]
        assert (first, last) == ({"kind": "success"}, {"kind": "success"})
        assert stuck["kind"] == "failed"
        assert stuck["error"].startswith(f"LimitError: app:writes_and_loops: it ran longer than {SECONDS} s")
        assert await t.query("app:rows") == [1, 1]


@pytest.mark.usefixtures("engine")
async def test_the_error_names_the_line_where_the_handler_was() -> None:
    async with Harness(APP, limits=PATIENT) as t:
        await t.mutation("app:put", {"n": 1})
        with pytest.raises(LimitError) as looping:
            await t.mutation("app:writes_and_loops")
        with pytest.raises(LimitError) as asking:
            await t.mutation("app:asks_without_end")

    line = loops.__code__.co_firstlineno
    assert str(looping.value) in [
        f"app:writes_and_loops: it ran longer than {SECONDS} s (handler_seconds_max), stopped at"
        f" test_watchdog.py:{line + within}; do a part and schedule the rest"
        for within in (1, 2)
    ]
    line = asks_without_end.handler.__code__.co_firstlineno
    assert str(asking.value) == (
        f"app:asks_without_end: it ran longer than {SECONDS} s (handler_seconds_max), stopped at"
        f" test_watchdog.py:{line + 4}; do a part and schedule the rest"
    )


@pytest.mark.usefixtures("engine")
async def test_a_rehearsal_that_runs_too_long_is_stopped_too() -> None:
    async with Harness(APP, limits=PATIENT, development=True) as t:
        with pytest.raises(LimitError, match=STOPPED):
            await t.mutation("app:writes_and_loops")
        await t.mutation("app:put", {"n": 1})

        assert await t.query("app:rows") == [1]


@pytest.mark.usefixtures("engine")
async def test_short_handlers_are_never_interrupted_however_many_there_are() -> None:
    async with Harness(APP, limits=PATIENT) as t:
        for _ in range(4):
            await asyncio.gather(*(t.mutation("app:is_short") for _ in range(10)))


@pytest.mark.usefixtures("engine")
async def test_what_is_no_handler_has_all_the_time_it_needs() -> None:
    async def prepares(ctx: MutationCtx) -> None:
        time.sleep(3 * SECONDS)  # noqa: ASYNC251
        await ctx.db.insert("rows", {"n": 1})

    async with Harness(APP, limits=PATIENT) as t:
        await t.transaction(prepares)

        assert await t.query("app:rows") == [1]


@pytest.mark.usefixtures("engine")
async def test_an_app_that_is_closed_waits_no_longer_than_a_stuck_handler_may_take() -> None:
    async with Harness(APP, limits=PATIENT) as t:
        stuck = asyncio.ensure_future(t.mutation("app:writes_and_loops"))
        await asyncio.sleep(SECONDS / 10)
    with pytest.raises(LimitError, match=STOPPED):
        await stuck
    assert "duly-watchdog" not in [thread.name for thread in threading.enumerate()]


# Time.


def test_time_is_what_the_watchdog_has_waited_since_it_first_saw_a_run() -> None:
    watched = WatchedThread(threading.get_ident(), 1.0, threading.Event())
    watched.begin("app:put")

    watched.look(99.0)  # what passed before it is not counted
    watched.look(0.5)
    watched.look(0.4)
    assert watched.expired_run != watched.run
    watched.look(0.1)
    assert watched.expired_run == watched.run


def test_each_run_has_its_own_time() -> None:
    watched = WatchedThread(threading.get_ident(), 1.0, threading.Event())
    for _ in range(10):
        watched.begin("app:put")
        watched.look(0.9)
        watched.look(0.9)
        watched.handler = None
        assert watched.look(0.9) is None
        assert watched.expired_run == -1


def test_while_no_handler_runs_nobody_looks() -> None:
    class Counted(WatchedThread):
        looks = 0

        def look(self, passed: float) -> float | None:
            self.looks += 1
            return super().look(passed)

    watchdog = Watchdog(0.02)
    watched = watchdog._watched[threading.get_ident()] = Counted(threading.get_ident(), 0.02, watchdog._wake)
    try:
        time.sleep(0.1)
        assert watched.looks <= 1
        watched.begin("app:put")
        while watched.looks < 10:
            time.sleep(0.001)
        watched.handler = None
        time.sleep(0.1)
        looks = watched.looks
        time.sleep(0.1)
        assert watched.looks <= looks + 1  # one that it had begun
    finally:
        watchdog.close()


STOPPED_PROCESS = """
import asyncio, time
from types import SimpleNamespace
from duly import App, Limits, mutation

@mutation
async def takes_a_while(ctx) -> str:
    print("begun", flush=True)
    for _ in range(5):
        time.sleep(0.01)
    return "done"

async def main():
    app = App({"app": SimpleNamespace(takes_a_while=takes_a_while)}, STORE, limits=Limits(handler_seconds_max=1.0))
    async with app:
        print(await app.mutation("app:takes_a_while"))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_process_that_was_stopped_does_not_find_its_handlers_late(store: str) -> None:
    code = STOPPED_PROCESS.replace("STORE", repr(store))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.2)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.read() == "done\n"


# Where an Interruption can arrive. The thread of these tests drives, and another one interrupts it at points that it
# passes: in handlers, between them, in answers.


class Attacker:
    """Interrupts a thread when it asks for that."""

    def __init__(self, watched: WatchedThread, delay: float = 0.0, earlier: int = 0) -> None:
        self.watched = watched
        self.delay = delay
        self.earlier = earlier
        self.hits: Counter[bool] = Counter()
        self.asked = threading.Semaphore(0)
        self.done = threading.Lock()
        self.done.acquire()
        self.is_over = False

    def __enter__(self) -> Attacker:
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.asked.release()
        self.thread.join()

    def attack(self) -> None:
        """In the thread that drives: be interrupted, if that may be done, before this returns."""
        self.asked.release()
        self.done.acquire()

    def _serve(self) -> None:
        while self.asked.acquire() and not self.is_over:
            if self.delay:
                time.sleep(self.delay)
            self.hits[self.watched.interrupt(self.watched.run - self.earlier)] += 1
            self.done.release()


READ = Get(JOBS, 1)
SILENT = SimpleNamespace(answer=lambda _: None)


class Drives:
    """Drives handlers that are attacked, and answers them; whatever arrives outside of a handler is a stray."""

    def __init__(self, attacker: Attacker, seed: int) -> None:
        self.attacker = attacker
        self.random = Random(seed)
        self.strays: list[BaseException] = []
        self.attacked = False

    def perhaps(self) -> None:
        if self.random.random() < 0.1:
            self.attacked = True
            self.attacker.attack()

    def answer(self, request: object) -> int:
        self.outside()
        return 1

    def outside(self) -> None:
        try:
            if self.random.random() < 0.1:
                self.attacker.attack()
            for _ in range(10):
                str(self)
        except Interruption as stray:
            self.strays.append(stray)

    async def returns(self) -> str:
        for _ in range(3):
            self.perhaps()
            await ask(READ)
        self.perhaps()
        return "fine"

    async def fails(self) -> None:
        self.perhaps()
        await ask(READ)
        self.perhaps()
        raise ValueError("odd")

    async def catches_everything(self) -> str:
        for _ in range(3):
            try:
                self.perhaps()
                await ask(READ)
            except BaseException:
                with suppress(BaseException):
                    self.perhaps()
        return "fine"

    async def cleans_up(self) -> str:
        try:
            self.perhaps()
            await ask(READ)
        finally:
            self.perhaps()
        return "fine"

    async def awaits_what_it_must_not(self) -> str:
        try:
            self.perhaps()
            await asyncio.sleep(0)
        finally:
            self.perhaps()
        return "never"

    def drive(self, handler: Callable[[], Any]) -> str:
        self.attacked = False
        try:
            outcome = drive(handler(), self, self.attacker.watched, handler.__name__)
        except Exception as error:
            outcome = type(error).__name__
        attacked = self.attacked or self.attacker.watched.expired_run == self.attacker.watched.run
        self.outside()
        return f"{outcome} after an attack" if attacked else outcome


def test_an_interruption_arrives_in_handlers_only() -> None:
    with Attacker(WatchedThread(threading.get_ident(), 1.0, threading.Event())) as attacker:
        drives = Drives(attacker, seed=1)
        outcomes = {
            handler.__name__: {drives.drive(handler) for _ in range(1_000)}
            for handler in (
                drives.returns,
                drives.fails,
                drives.catches_everything,
                drives.cleans_up,
                drives.awaits_what_it_must_not,
            )
        }

    stopped = "LimitError after an attack"
    assert drives.strays == []
    assert outcomes == {
        "returns": {"fine", stopped},
        "fails": {"ValueError", stopped},
        "catches_everything": {"fine", stopped},
        "cleans_up": {"fine", stopped},
        "awaits_what_it_must_not": {"FunctionError", stopped},
    }
    assert attacker.hits[True] > 500
    assert attacker.hits[False] > 500


def test_strays_would_be_noticed() -> None:
    class Anywhere(WatchedThread):
        def _raise_in_run(self, run: int, *where: object) -> bool:
            _raise_in(self._thread, Interruption)
            return True

    with Attacker(Anywhere(threading.get_ident(), 1.0, threading.Event())) as attacker:
        drives = Drives(attacker, seed=1)
        for _ in range(100):
            drives.drive(drives.returns)

    assert drives.strays != []


@types.coroutine
def leaves_by_return(attacker: Attacker) -> Iterator[Any]:
    # Between two rounds of a `for` Python does not look whether something was raised from outside: it is still under
    # way when the handler has ended. The attacker waits until the thread is in `acquire`.
    attacker.asked.release()
    for _ in iter(attacker.done.acquire, None):
        return "fine"
    yield


@types.coroutine
def leaves_by_asking(attacker: Attacker) -> Iterator[Any]:
    attacker.asked.release()
    for _ in iter(attacker.done.acquire, None):
        yield READ


@types.coroutine
def leaves_by_an_error(attacker: Attacker) -> Iterator[Any]:
    error = ValueError("odd")
    attacker.asked.release()
    for _ in iter(attacker.done.acquire, None):
        raise error
    yield


@pytest.mark.parametrize("handler", [leaves_by_return, leaves_by_asking, leaves_by_an_error])
def test_an_interruption_that_is_under_way_when_the_handler_leaves_is_taken_back(handler: Callable[..., Any]) -> None:
    with Attacker(WatchedThread(threading.get_ident(), 1.0, threading.Event()), delay=0.002) as attacker:
        drives = Drives(attacker, seed=1)
        for _ in range(50):
            with pytest.raises(LimitError):
                drive(handler(attacker), drives, attacker.watched, "app:leaves")
            for _ in range(100):
                str(drives)

    assert drives.strays == []
    assert attacker.hits[True] > 25


def test_an_interruption_of_an_earlier_run_leaves_the_next_one_alone() -> None:
    async def handler() -> str:
        attacker.attack()
        return "fine"

    with Attacker(WatchedThread(threading.get_ident(), 1.0, threading.Event()), earlier=1) as attacker:
        outcomes = [drive(handler(), SILENT, attacker.watched, "app:handler") for _ in range(50)]

    assert outcomes == ["fine"] * 50
    assert attacker.hits == {False: 50}


def test_a_thread_that_went_on_into_a_lock_since_it_was_seen_is_left_alone() -> None:
    gone = threading.Lock()
    gone.acquire()

    class Slow(WatchedThread):
        def _may_interrupt(self, file: str) -> bool:
            gone.release()
            time.sleep(0.05)
            return super()._may_interrupt(file)

    async def handler() -> None:
        attacker.asked.release()
        gone.acquire()
        arrived.append("code of the application")
        threading.Event().wait(0.2)  # Python code in threading, with a lock
        arrived.append("the end")
        attacker.done.acquire()

    arrived: list[str] = []
    with Attacker(Slow(threading.get_ident(), 1.0, threading.Event())) as attacker, pytest.raises(LimitError):
        drive(handler(), SILENT, attacker.watched, "app:handler")

    assert arrived == ["code of the application", "the end"]
    assert attacker.hits == {False: 1}


def test_python_lets_no_other_thread_run_between_the_look_at_a_frame_and_the_interruption() -> None:
    code = list(dis.get_instructions(WatchedThread._raise_in_run))
    [look] = [number for number, step in enumerate(code) if step.opname == "FOR_ITER"]
    [act] = [number for number, step in enumerate(code) if "_raise_in" in step.argrepr]
    [call, *_] = [number for number, step in enumerate(code) if number > act and step.opname.startswith("CALL")]

    steps = [step.opname for step in code[look:call]]
    assert not [name for name in steps if name.startswith(("CALL", "RESUME", "JUMP_BACKWARD", "SEND", "YIELD"))]


COLLECTED_MEANWHILE = """
import gc, sys, threading
from duly.database.driver.watchdog import WatchedThread

def lets_others_go_on(*_):
    for _ in range(3_000):
        pass

gc.callbacks.append(lets_others_go_on)
gc.set_threshold(3)  # what frames are looked at with is now and then the third object
sys.setswitchinterval(1e-6)
watched = WatchedThread(threading.main_thread().ident, 1.0, threading.Event())
watched.begin("app:handler")
attacker = threading.Thread(target=lambda: [watched.interrupt(watched.run) for _ in range(3_000)])
attacker.start()
while attacker.is_alive():
    threading.Thread(target=lambda: [None for _ in range(100)]).start()
gc.callbacks.clear()
print("the end")
"""


@pytest.mark.slow
def test_a_collection_of_garbage_while_frames_are_looked_at_stops_nobody() -> None:
    for _ in range(3):  # on Python 3.11.8 and older, two of three would wait for ever
        program = [sys.executable, "-c", COLLECTED_MEANWHILE]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)

        assert ended.stdout == "the end\n", ended.stderr


# A storm over a whole application: its threads are interrupted at random moments, as fast as it goes.


def wander(steps: int) -> None:
    for _ in range(steps):
        pass


@mutation
async def count(ctx: MutationCtx, key: str, token: str, steps: int) -> None:
    counter = await ctx.db.query("counters").with_index("by_key", lambda q: q.eq("key", key)).unique()
    wander(steps)
    if counter is None:
        await ctx.db.insert("counters", {"key": key, "value": 1})
    else:
        await ctx.db.patch(counter["_id"], {"value": counter["value"] + 1})
    logging.getLogger("tests.stuck").info("counted %s", token)
    wander(steps)
    await ctx.db.insert("tokens", {"key": key, "token": token})


@mutation
async def replace_in_pool(ctx: MutationCtx, key: str, token: str, steps: int) -> None:
    oldest = await ctx.db.query("pool").first()
    wander(steps)
    await ctx.db.insert("pool", {"token": token})
    await ctx.db.insert("pool", {"token": token})
    if oldest is not None:
        await ctx.db.delete(oldest["_id"])
    await ctx.run_mutation("app:count", {"key": key, "token": token, "steps": steps})


@mutation
async def count_later(ctx: MutationCtx, key: str, token: str, steps: int) -> None:
    await ctx.run_mutation("app:count", {"key": key, "token": token, "steps": steps})
    wander(steps)
    await ctx.scheduler.run_after(0, "app:count", {"key": key, "token": f"{token} later", "steps": steps})


@mutation
async def count_and_undo(ctx: MutationCtx, key: str, token: str, steps: int) -> None:
    try:
        await ctx.run_mutation("app:count_and_fail", {"key": key, "token": f"{token} undone", "steps": steps})
    except ValueError:
        wander(steps)
    await ctx.run_mutation("app:count", {"key": key, "token": token, "steps": steps})


@mutation
async def count_and_fail(ctx: MutationCtx, key: str, token: str, steps: int) -> None:
    await ctx.run_mutation("app:count", {"key": key, "token": token, "steps": steps})
    raise ValueError("odd")


@query
async def difference(ctx: QueryCtx, steps: int) -> int:
    counters = await ctx.db.query("counters").collect()
    wander(steps)
    return sum(counter["value"] for counter in counters) - len(await ctx.db.query("tokens").collect())


@query
async def pending(ctx: QueryCtx) -> int:
    jobs = await ctx.db.system.query("_scheduled_functions").collect()
    return sum(job["state"]["kind"] not in ("success", "failed") for job in jobs)


STORM = {
    "app": SimpleNamespace(**handlers_in(globals())),
    "schema": define_schema(
        {"counters": define_table({"key": v.string(), "value": v.int64()}).index("by_key", ["key"])}
    ),
}
KINDS = ["count", "replace_in_pool", "count_later", "count_and_undo"]
STORM_SECONDS = (2.0, 30.0)
STORM_OUTCOMES = 15  # of each kind, before it is over; where others want the processor that takes longer
STORM_HITS = 20  # as well
STORM_LATER = 5  # scheduled functions of each outcome, as well
STORM_SHARE = 0.5  # of all runs that it stops at most: on a slow machine each would be hit, and nothing got through


class Storm:
    """Interrupts all threads of an app at random, until it is over."""

    def __init__(self, app: App) -> None:
        self.watched = app.database._environment.watchdog._watched
        self.random = Random(3)
        self.hits: Counter[bool] = Counter()
        self.stopped: set[tuple[int, int]] = set()
        self.is_over = False
        self.thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while not self.is_over:
            all_watched = list(self.watched.values())
            runs = sum(watched.run for watched in all_watched)
            for watched in all_watched if len(self.stopped) < STORM_SHARE * runs else ():
                if self.random.random() < (0.5 if watched.is_open else 0.01):
                    run = watched.run
                    self.stopped.add((id(watched), run))
                    self.hits[watched.interrupt(run)] += 1
            time.sleep(self.random.random() * 0.0002)


async def calls(app: App, caller: int, kept: set[str], outcomes: Counter[str], storm: Storm) -> None:
    random, number = Random(caller), 0
    while not storm.is_over:
        number += 1
        kind, token, steps = random.choice(KINDS), f"{caller}/{number}", random.randrange(3000)
        args = {"key": f"k{random.randrange(5)}", "token": token, "steps": steps}
        try:
            await app.mutation(f"app:{kind}", args)
            kept.add(token)
            outcomes[kind] += 1
            if random.random() < 0.2:
                assert await app.query("app:difference", {"steps": steps}) == 0
        except LimitError as error:
            outcomes["stopped" if "handler_seconds_max" in str(error) else str(error)] += 1


async def pass_over(app: App, storm: Storm, outcomes: Counter[str]) -> None:
    """Wait until the storm has done enough, at least for a while and not for ever, and end it."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < STORM_SECONDS[1]:
        await asyncio.sleep(0.1)
        # By the test's own transaction, for there is no handler that could be stopped.
        jobs = await app.runner.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").collect())
        later = Counter(job["state"]["kind"] for job in jobs)
        enough = min(outcomes[kind] for kind in (*KINDS, "stopped")) > STORM_OUTCOMES
        enough = enough and storm.hits[True] > STORM_HITS and min(later["success"], later["failed"]) > STORM_LATER
        if enough and seconds > STORM_SECONDS[0]:
            break
    storm.is_over = True


@pytest.fixture
def switches_often() -> Iterator[None]:
    """Threads of Python take turns much more often than they do by themselves."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.slow
@pytest.mark.usefixtures("switches_often")
async def test_after_a_storm_of_interruptions_exactly_what_was_acknowledged_is_there(
    store: str, hears: io.StringIO
) -> None:
    kept: set[str] = set()
    outcomes: Counter[str] = Counter()
    async with App(STORM, store) as app:
        storm = Storm(app)
        storm.thread.start()
        callers = [calls(app, caller, kept, outcomes, storm) for caller in range(12)]
        await asyncio.gather(pass_over(app, storm, outcomes), *callers)
        await asyncio.to_thread(storm.thread.join)
        async for left in app.subscribe("app:pending"):
            if left == 0:
                break

        counters, tokens, pool, jobs = [
            await app.runner.transaction(lambda ctx, of=of: of(ctx).collect())
            for of in (
                lambda ctx: ctx.db.query("counters"),
                lambda ctx: ctx.db.query("tokens"),
                lambda ctx: ctx.db.query("pool"),
                lambda ctx: ctx.db.system.query("_scheduled_functions"),
            )
        ]
        assert await app.query("app:difference", {"steps": 0}) == 0

    states = {job["args"][0]["token"]: job["state"] for job in jobs}
    later = {token for token, state in states.items() if state["kind"] == "success"}
    assert sorted(row["token"] for row in tokens) == sorted(kept | later)
    assert {row["key"]: row["value"] for row in counters} == Counter(row["key"] for row in tokens)
    assert len(pool) == outcomes["replace_in_pool"] + 1
    assert len(jobs) == outcomes["count_later"]
    assert all("handler_seconds_max" in state["error"] for token, state in states.items() if token not in later)
    assert complaints(store) == []
    assert outcomes.keys() == {*KINDS, "stopped"}
    # It was a storm, and it was not all there was.
    assert storm.hits[True] > STORM_HITS
    assert min(outcomes["stopped"], len(kept)) > STORM_OUTCOMES
    assert min(len(later), len(states) - len(later)) > STORM_LATER
    assert hears.getvalue().count("counted") >= len(tokens)
