"""An application: its functions, its store, and the executor that runs what is due."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from types import ModuleType, TracebackType
from typing import Any, Final, Generic, Self, cast

from duly.clock import Clock, SystemClock
from duly.ctx.caller import Caller, Identity
from duly.ctx.scheduler import job_number
from duly.database.commit_log import Watch
from duly.database.database import Database, QueryOutcome
from duly.database.driver.trampoline import ask
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction
from duly.declare.function import ACTION, MUTATION, QUERY, R
from duly.declare.loading import Source
from duly.declare.references import Ref
from duly.declare.registered import RegisteredFunction
from duly.declare.registry import Registry
from duly.errors import AppError, DulyError, LoadError, StoreError
from duly.limits import DEFAULTS, GRACE_SECONDS, OWNER_WAIT_SECONDS, Limits
from duly.logs import log_of
from duly.model import executor_pause, job_admin, jobs
from duly.model.schema_change import apply_schema
from duly.run.failure import ClientError, describe, for_client
from duly.run.job_runner import JobRunner
from duly.run.runner import Runner
from duly.storage.open import engine_of
from duly.storage.requests import CountJobs, JobCounts
from duly.workers import loop
from duly.workers.blocked_loop import BlockedLoopDetector
from duly.workers.executor import Executor
from duly.workers.open_app import OpenApp
from duly.workers.store_watch import StoreWatch
from duly.workers.sweeper import Sweeper

Args = dict[str, Any]

_log: Final = log_of("duly.run")


@dataclass(frozen=True)
class Stats:
    """What the executors of a store do. Times are float milliseconds."""

    due: int
    """Scheduled functions whose time has come and that have not started."""
    oldest_due: float | None
    """When the first of them became due, since 1970; None when nothing waits."""
    running: int
    """Scheduled actions in progress, in all processes that share the store."""
    lag_ms: float
    """How late the oldest is by now."""
    paused_since: float | None
    """Since when nothing is started, because somebody paused the executor; None when it is not paused."""


DEFAULT_STORE: Final = "sqlite:///.duly/data.db"


class App:
    """Functions and a store, running in this process.

    `source` is a folder of modules, the dotted name of a package, a package, or `{"orders": module}`; `store` is
    `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`. With `executor=False` this process schedules
    functions but runs none. With `development=True` clients learn the text of errors, and each mutation runs twice:
    what its two runs do not write alike is reported in the log `duly.run`, and who holds up the event loop in
    `duly.loop`. `limits` are those of `duly.limits`. A process that owns the SQLite file is waited for until it has
    closed it, if it is closing, and `wait_for_owner` seconds if not; the log `duly.store` says for whom.

        app = App("backend", store="sqlite:///app.db")
        async with app:
            order = await app.mutation("orders:create_order", {"items": ["tea"]})

    Entering it loads the modules (LoadError), opens the store (StoreError, StoreInUseError), applies the schema,
    fails the actions that a lost process left running, and starts executing. Its calls are trusted: they reach
    internal functions and raise the handlers' own exceptions.
    """

    def __init__(
        self,
        source: Source,
        store: str = DEFAULT_STORE,
        *,
        executor: bool = True,
        development: bool = False,
        limits: Limits = DEFAULTS,
        wait_for_owner: float = OWNER_WAIT_SECONDS,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        _check(source, limits, wait_for_owner)
        self._source = source
        self._new_engine = partial(engine_of, store, limits, executor)
        self._new_engine()  # what is wrong with the address is told here
        self._executes = executor
        self.development = development
        self._limits = limits
        self._wait_for_owner = wait_for_owner
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._open: OpenApp | None = None
        self._is_held = False
        """Whether it is being opened, open or being closed."""

    async def __aenter__(self) -> Self:
        if self._is_held:
            if self._open is not None and self._open.is_orphaned:
                raise StoreError(_ORPHANED)
            raise StoreError("got an app that is open already, expected one that is closed: enter it once, share it")
        self._is_held = True
        try:
            self._open = await self._opening()
        finally:
            self._is_held = self._open is not None
        return self

    async def _opening(self) -> OpenApp:
        registry, chance = Registry.load(self._source, self._limits), Random(self._random.getrandbits(64))
        database = await Database.open(
            self._new_engine(), self._clock, self._limits, self._random, self._wait_for_owner
        )
        try:
            mark, crons = registry.mark, registry.checked_crons(database, self.development)
            await apply_schema(database, registry.schema, mark=mark, takes_over=self.development, declared=crons)
            runner = Runner(database, registry, self._clock, self.development, chance)
            executor = Executor(database, JobRunner(runner), self._limits.actions_running_max, self._random)
            await executor.recover()
        except BaseException:
            await database.close()
            raise
        workers: list[loop.Worker] = [] if database.is_shared else [StoreWatch(database, self._clock)]
        if self._executes:
            workers += [executor, Sweeper(database, self._clock)]
        return OpenApp(
            database, runner, executor, workers, self._clock, BlockedLoopDetector() if self.development else None
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Start nothing more, let the actions that run end, commit what is queued, close the store.

        Actions that still run after `grace_seconds` are interrupted; that is recorded of those that were scheduled, and
        raised where others were called. If this is cancelled, they are at once.

        Where the event loop that opened the app is closed, another one may free the store by this: what ran there
        counts as interrupted.
        """
        if self._open is not None:
            opened = self._taken()
            try:
                await (opened.release() if opened.is_orphaned else opened.close(grace_seconds))
            finally:
                self._is_held = False

    async def crash(self) -> None:
        """Lose everything that is not durable and stop, for tests of what survives."""
        if self._open is not None:
            opened = self._taken()
            try:
                await (opened.release() if opened.is_orphaned else opened.crash())
            finally:
                self._is_held = False

    def _taken(self) -> OpenApp:
        """What is open, for whoever closes it."""
        opened = self._open if self._open is not None and self._open.is_orphaned else self._opened
        opened.database.refuse_in_handlers()
        self._open = None
        return opened

    # Calls.

    async def query(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run a query on the newest snapshot and return its value."""
        result: R = await self.runner.query(self._find(ref, QUERY), args, Caller(identity))
        return result

    async def mutation(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run a mutation; it is durable when this returns. If it raises, nothing of it remains."""
        result: R = await self.runner.mutation(self._find(ref, MUTATION), args, Caller(identity))
        return result

    async def action(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run an action here and now, and return its value. FunctionError if the app is closed meanwhile."""
        result: R = await self._act(self._find(ref, ACTION), args, Caller(identity))
        return result

    def subscribe(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> Subscription[R]:
        """The values of a query, now and whenever they change.

            async for status in app.subscribe("orders:status", {"order_id": order}): ...

        It ends when the app is closed. Values that come and go while nobody waits are left out. What the query
        raises is raised here; iterating again waits until that may have changed.
        """
        self._find(ref, QUERY)  # what is no query is told here
        return Subscription(self, ref, args, identity)

    async def run(self, ref: Any, args: Args | None = None) -> Any:
        """Run a function of any kind, as the command line does: its result is a plain value, as remote clients get."""
        function, caller = self.runner.registry.find(ref), Caller(wants_plain=True)
        if function.kind == QUERY:
            return await self.runner.query(function, args, caller)
        if function.kind == MUTATION:
            return await self.runner.mutation(function, args, caller)
        return await self._act(function, args, caller)

    async def _act(self, function: RegisteredFunction, args: Args | None, caller: Caller) -> Any:
        return await self.executor.called_actions.run(function.name, self.runner.action(function, args, caller))

    # Operating.

    async def stats(self) -> Stats:
        """How far behind the executors of the store are, and what they do."""

        async def unit(transaction: Transaction) -> Stats:
            now = transaction.now
            tallied: JobCounts = await ask(CountJobs(now))
            lag_ms = 0.0 if tallied.oldest_due is None else max(now - tallied.oldest_due, 0.0)
            return Stats(*tallied, lag_ms, await executor_pause.paused_since(transaction))

        return await job_admin.read(self.database, unit)

    async def pause(self) -> None:
        """Have no process that shares the store start a scheduled function, until `resume`; what runs goes on.

        It outlasts the end of this process.
        """
        await self.runner.commit(executor_pause.pause)

    async def resume(self) -> None:
        """Have what has become due meanwhile start, in its order, and whatever becomes due from now on."""
        await self.runner.commit(executor_pause.resume)

    async def retry(self, id: str) -> str:
        """Schedule the function and the arguments of a scheduled function that has failed anew, to run now.

        Returns the id of the new one, whose `retryOf` is the failed one. InvalidScheduleError if it has not failed.
        """
        number = job_number(self.runner, id)
        return self.runner.job_id(await self.runner.commit(partial(jobs.retry, id=number)))

    async def reload(self) -> Registry:
        """Load the modules anew and apply their schema and their crons, while calls go on by the old ones.

        All stays as it is if the new modules do not load (LoadError), if a document does not fit their schema
        (SchemaValidationError), or if a cron was registered at run time under the name of one of theirs
        (InvalidScheduleError). What runs goes on with the code it began with.
        """
        opened = self._opened
        async with opened.reloading:
            registry = Registry.load(self._source, self._limits, reload=True)
            before = opened.runner.registry
            try:
                # In one go, for what is due in between must not be run by old code under the new schema.
                await apply_schema(
                    opened.database,
                    registry.schema,
                    lambda: opened.runner.use(registry),
                    registry.mark,
                    declared=registry.checked_crons(opened.database, self.development),
                )
            finally:
                if opened.database.catalog.schema is not registry.schema:
                    opened.runner.use(before)
                opened.database.commit_log.wake_all()  # what is subscribed to may have changed with the code
            return registry

    def client_error(self, error: BaseException) -> ClientError:
        """What a remote client learns of an error; the log `duly.run` has all of it, under the same request id.

        An AppError keeps its data; of any other error a client learns its text in development, and in production
        nothing but that there was one.
        """
        request_id = f"{self._random.getrandbits(64):016x}"
        if not isinstance(error, AppError):
            _log.error("[Request ID: %s] %s", request_id, describe(error), exc_info=error)
        return for_client(error, self.development, request_id)

    def _find(self, ref: Any, kind: str) -> RegisteredFunction:
        return self.runner.registry.find(ref, (kind,))

    @property
    def is_open(self) -> bool:
        return self._open is not None

    @property
    def runner(self) -> Runner:
        return self._opened.runner

    @property
    def executor(self) -> Executor:
        return self._opened.executor

    @property
    def database(self) -> Database:
        return self._opened.database

    @property
    def _opened(self) -> OpenApp:
        if self._open is None:
            raise StoreError("got a call of an app that is not open, expected it inside `async with app:`")
        running = _running_loop()
        if running is self._open.loop:
            return self._open
        if self._open.is_orphaned:
            raise StoreError(_ORPHANED)
        if running is not None:
            raise StoreError(
                "got a call from another event loop than the one that opened the app, expected it from that one; from"
                " another thread, use asyncio.run_coroutine_threadsafe(app.query(…), loop)"
            )
        return self._open


class Subscription(Generic[R]):
    """An endless iteration over the values of a query. Made by `App.subscribe`."""

    def __init__(self, app: App, ref: Ref[R], args: Args | None, identity: Identity | None) -> None:
        self._app = app
        self._ref = ref
        self._args = args
        self._caller = Caller.live(identity)
        self._seen: str | None = None
        self._watch: Watch | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while True:
            if self._watch is not None:
                await asyncio.wait((self._watch,))  # a caller that gives up waiting must not cancel it
            if not self._app.is_open:
                raise StopAsyncIteration
            outcome, seen = await self._read()
            if outcome.error is not None:
                self._seen = None
                raise outcome.error
            if seen != self._seen:
                self._seen = seen
                return cast("R", outcome.value)

    async def _read(self) -> tuple[QueryOutcome[Any], str | None]:
        """The value now, and its text."""
        # By name, each time: the application may have been loaded anew.
        database, runner = self._app.database, self._app.runner
        reads, version, text = ReadSet(), database.commit_log.version, None
        try:
            function = runner.registry.find(self._ref, (QUERY,))
            outcome = await runner.read(function, self._args, self._caller)
            reads, version = outcome.reads, outcome.version
            text = None if outcome.error is not None else function.text_of(outcome.value)
        except StoreError:
            self._watch = None  # who asks again wants to know whether the store is back
            raise
        except DulyError as error:  # it did not even begin, and only other code can change that
            outcome = QueryOutcome[Any](None, error, reads, version)
        self._watch = database.watch(reads, version)
        if not self._app.is_open:
            self._watch.cancel()  # it was closed meanwhile: nobody will wake this
        return outcome, text

    def __del__(self) -> None:
        if self._watch is not None:
            with suppress(RuntimeError):  # the event loop was closed before
                self._watch.cancel()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _check(source: object, limits: object, wait_for_owner: object) -> None:
    """Raise where these are nothing that an app can be made of, whatever there is at the time when it is opened."""
    if not isinstance(source, str | os.PathLike | ModuleType | Mapping):
        raise LoadError(
            f"got {source!r:.80} ({type(source).__name__}), expected a folder, a package or a mapping of modules"
        )
    if isinstance(source, str) and source.partition(".")[0] in sys.stdlib_module_names and not os.path.isdir(source):
        raise LoadError(f"got {source!r}, which is a part of Python, expected a folder or a package of your own")
    if not isinstance(limits, Limits):
        raise TypeError(f"got the limits {limits!r:.80} ({type(limits).__name__}), expected duly.Limits(…)")
    if isinstance(wait_for_owner, bool) or not isinstance(wait_for_owner, int | float) or not wait_for_owner >= 0:
        raise ValueError(f"got wait_for_owner={wait_for_owner!r:.80}, expected seconds from 0 on, such as 5.0")


_ORPHANED: Final = (
    "got a call of an app whose event loop is closed, expected one that was closed before its loop: `await app.close()`"
    " or `await app.crash()` in this one frees the store"
)
