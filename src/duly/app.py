"""The application: opens the store, loads the functions, starts the executor, and takes calls."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from types import ModuleType, TracebackType
from typing import Any, Final, Self

from duly.clock import Clock, SystemClock
from duly.ctx.caller import ANONYMOUS, Caller, Identity
from duly.ctx.scheduler import job_number
from duly.database.database import Database
from duly.database.driver.trampoline import ask
from duly.database.transaction import Transaction
from duly.declare.function import ACTION, MUTATION, QUERY, R
from duly.declare.loading import Source
from duly.declare.references import Ref
from duly.declare.registered import RegisteredFunction
from duly.declare.registry import Registry
from duly.errors import AppError, ArgumentValidationError, FunctionNotFoundError, LoadError, StoreError
from duly.limits import DEFAULTS, GRACE_SECONDS, OWNER_WAIT_SECONDS, Limits
from duly.logs import REQUEST, log_of
from duly.model import executor_pause, job_admin, jobs
from duly.model.schema_change import Deploy, apply_schema
from duly.run.failure import ClientError, describe, for_client, is_internal
from duly.run.job_runner import JobRunner
from duly.run.runner import Runner
from duly.storage.open import engine_of
from duly.storage.requests import CountJobs, JobCounts
from duly.subscription import Subscription
from duly.workers.blocked_loop import BlockedLoopDetector
from duly.workers.executor import Executor
from duly.workers.loop import Worker
from duly.workers.open_app import ORPHANED, OpenApp
from duly.workers.store_watch import StoreWatch
from duly.workers.sweeper import Sweeper

Args = dict[str, Any]

_log: Final = log_of("duly.run")


@dataclass(frozen=True)
class Stats:
    """The state of the executors of a store. Times are float milliseconds."""

    due: int
    """Scheduled functions that are due and have not started."""
    oldest_due: float | None
    """When the first of them became due, since 1970; None if nothing waits."""
    running: int
    """Scheduled actions in progress, in all processes that share the store."""
    lag_ms: float
    """How late the oldest one is by now."""
    paused_since: float | None
    """When the executor was paused, since 1970; None if it is not paused."""


DEFAULT_STORE: Final = "sqlite:///.duly/data.db"


class App:
    """Functions and a store, running in this process.

    `source` is a folder of modules, the dotted name of a package, a package, or `{"orders": module}`; `store` is
    `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`. With `executor=False` this process schedules
    functions but runs none. With `development=True`, clients get the text of errors. Each mutation runs twice, and the
    log `duly.run` reports what the two runs write differently. The log `duly.loop` reports what blocks the event loop.
    `limits` are those of `duly.limits`. If another process owns the SQLite file, opening waits until that process has
    closed it, if it is closing, and otherwise `wait_for_owner` seconds; the log `duly.store` names the process.

        app = App("backend", store="sqlite:///app.db")
        async with app:
            order = await app.mutation("orders:create_order", {"items": ["tea"]})

    Entering it loads the modules (LoadError), opens the store (StoreError, StoreInUseError), applies the schema,
    fails the actions that a lost process left running, and starts the executor. Its calls are trusted: they reach
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
        _check_arguments(source, limits, wait_for_owner)
        self._source = source
        self._new_engine = partial(engine_of, store, limits, executor)
        self._new_engine()  # raises here if the address is wrong
        self._executes = executor
        self.development = development
        self._limits = limits
        self._wait_for_owner = wait_for_owner
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._open: OpenApp | None = None
        self._asgi: Any = None
        self._is_entered = False
        """Whether it is being opened, is open, or is being closed."""

    async def __aenter__(self) -> Self:
        if self._is_entered:
            if self._open is not None and self._open.is_orphaned:
                raise StoreError(ORPHANED)
            raise StoreError("got an app that is open already, expected one that is closed: enter it once, share it")
        self._is_entered = True
        try:
            self._open = await self._open_parts()
        finally:
            self._is_entered = self._open is not None
        return self

    async def _open_parts(self) -> OpenApp:
        registry, rng = Registry.load(self._source, self._limits), Random(self._random.getrandbits(64))
        database = await Database.open(
            self._new_engine(), self._clock, self._limits, self._random, self._wait_for_owner
        )
        try:
            await apply_schema(database, self._deploy_of(registry, database, takes_over=self.development))
            runner = Runner(database, registry, self._clock, self.development, rng)
            executor = Executor(database, JobRunner(runner), self._limits.actions_running_max, self._random)
            await executor.recover()
        except BaseException:
            await database.close()
            raise
        workers: list[Worker] = [] if database.is_shared else [StoreWatch(database, self._clock)]
        if self._executes:
            workers += [executor, Sweeper(database, self._clock)]
        return OpenApp(
            database, runner, executor, workers, self._clock, BlockedLoopDetector() if self.development else None
        )

    def _deploy_of(self, registry: Registry, database: Database, takes_over: bool) -> Deploy:
        crons = registry.checked_crons(database, self.development)
        return Deploy(registry.schema, registry.mark, takes_over, crons)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Start nothing more, let the actions that run end, commit what is queued, close the store.

        Actions that still run after `grace_seconds` are interrupted. A scheduled action is recorded as failed. The
        caller of a called action gets a FunctionError. If this call is cancelled, they are interrupted at once.

        If the event loop that opened the app was closed, call this in another one: it frees the store. What ran in the
        closed event loop counts as interrupted.
        """
        if self._open is not None:
            opened = self._detach()
            try:
                await (opened.release() if opened.is_orphaned else opened.close(grace_seconds))
            finally:
                self._is_entered = False

    async def crash(self) -> None:
        """Stop and lose everything that is not durable: for tests of what survives."""
        if self._open is not None:
            opened = self._detach()
            try:
                await (opened.release() if opened.is_orphaned else opened.crash())
            finally:
                self._is_entered = False

    def _detach(self) -> OpenApp:
        """Refuse further calls. Return the parts, to be closed."""
        opened = self._open if self._open is not None and self._open.is_orphaned else self._opened
        opened.begin_closing()
        self._open = None
        return opened

    # Calls.

    async def query(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run a query on the newest snapshot and return its value."""
        result: R = await self.runner.query(self._find(ref, QUERY), args, Caller(identity))
        return result

    async def mutation(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run a mutation; it is durable when this returns. If it raises, nothing of it remains."""
        runner = self._opened.runner
        function = runner.registry.find(ref, (MUTATION,))
        caller = ANONYMOUS if identity is None else Caller(identity)
        result: R = await runner.mutation(function, args, caller)
        return result

    async def action(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> R:
        """Run an action here and now, and return its value. Raises FunctionError if the app closes before it ends."""
        result: R = await self._call_action(self._find(ref, ACTION), args, Caller(identity))
        return result

    def subscribe(self, ref: Ref[R], args: Args | None = None, identity: Identity | None = None) -> Subscription[R]:
        """Return the values of a query, now and whenever they change.

            async for status in app.subscribe("orders:status", {"order_id": order}): ...

        It ends when the app is closed. Values that are replaced before the next iteration are left out. An error of the
        query is raised here; iterating again waits until what the query read has changed.
        """
        self._find(ref, QUERY)  # raises here if it is not a query
        return Subscription(self._opened, ref, args, identity)

    async def run(self, ref: Any, args: Args | None = None) -> Any:
        """Run a function of any kind, as the command line does. Return a plain value, as remote clients get."""
        function, caller = self.runner.registry.find(ref), Caller(wants_plain=True)
        if function.kind == QUERY:
            return await self.runner.query(function, args, caller)
        if function.kind == MUTATION:
            return await self.runner.mutation(function, args, caller)
        return await self._call_action(function, args, caller)

    async def _call_action(self, function: RegisteredFunction, args: Args | None, caller: Caller) -> Any:
        return await self.executor.called_actions.run(function.name, self.runner.action(function, args, caller))

    @property
    def asgi(self) -> Any:
        """The ASGI application that serves this app to remote clients, alone or mounted in another one.

        server = FastAPI(lifespan=…)  # which enters the app
        server.mount("/", app.asgi)

        Pages of any origin may call it, or of those that the environment variable DULY_ALLOW_ORIGINS names.
        """
        if self._asgi is None:
            from duly.server.asgi import application  # only an app that is served needs it

            self._asgi = application(self)
        return self._asgi

    # Administration.

    async def stats(self) -> Stats:
        """Return how far behind the executors of the store are, and what they do."""

        async def unit(transaction: Transaction) -> Stats:
            now = transaction.now
            counts: JobCounts = await ask(CountJobs(now))
            lag_ms = 0.0 if counts.oldest_due is None else max(now - counts.oldest_due, 0.0)
            return Stats(*counts, lag_ms, await executor_pause.paused_since(transaction))

        return await job_admin.read(self.database, unit)

    async def pause(self) -> None:
        """Start no scheduled function, in any process that shares the store, until `resume`. What runs goes on.

        The pause is stored, so it outlasts this process.
        """
        await self.runner.commit(executor_pause.pause)

    async def resume(self) -> None:
        """Start scheduled functions again: first those that became due during the pause, in their order."""
        await self.runner.commit(executor_pause.resume)

    async def retry(self, id: str) -> str:
        """Schedule a failed scheduled function again, with the same arguments, to run now.

        Return the id of the new one; its `retryOf` is the failed one. Raises InvalidScheduleError if it has not failed.
        """
        number = job_number(self.runner, id)
        return self.runner.job_id(await self.runner.commit(partial(jobs.retry, id=number)))

    async def reload(self) -> Registry:
        """Load the modules again and apply their schema and their crons. Meanwhile, calls use the old modules.

        Nothing changes if the new modules do not load (LoadError), if a document does not fit their schema
        (SchemaValidationError), or if a cron of the same name was registered at run time (InvalidScheduleError).
        Functions that run go on with the code they began with.
        """
        opened = self._opened
        async with opened.reloading:
            registry = Registry.load(self._source, self._limits, reload=True)
            before = opened.runner.registry
            try:
                # In the commit itself: what is due must not be run by old code under the new schema.
                deploy = self._deploy_of(registry, opened.database, takes_over=True)
                await apply_schema(opened.database, deploy, on_active=lambda: opened.runner.use(registry))
            finally:
                if opened.database.catalog.schema is not registry.schema:
                    opened.runner.use(before)
                opened.database.commit_log.wake_all()  # the results of subscriptions may depend on the code
            return registry

    def client_error(self, error: BaseException) -> ClientError:
        """Return what a remote client may know of an error. Log all of it in `duly.run`, with the same request id.

        An AppError keeps its data. For any other error, a client gets the text in development. In production it only
        learns that an error has happened. What a client alone is to blame for is a warning.
        """
        request = REQUEST.get()
        request_id = self.new_request_id() if request is None else request.id
        if not isinstance(error, AppError):
            is_ours = is_internal(error)  # then its traceback has no line of the application
            is_refusal = is_ours and isinstance(error, ArgumentValidationError | FunctionNotFoundError)
            level, raised = logging.WARNING if is_refusal else logging.ERROR, None if is_ours else error
            _log.log(level, "[Request ID: %s] %s", request_id, describe(error), exc_info=raised)
        return for_client(error, self.development, request_id)

    def new_request_id(self) -> str:
        """Return an id for what a remote client wants, under which logs and errors have it."""
        return f"{self._random.getrandbits(64):016x}"

    def _find(self, ref: Any, kind: str) -> RegisteredFunction:
        return self.runner.registry.find(ref, (kind,))

    @property
    def is_open(self) -> bool:
        """Whether the app is open: between `async with` and its end."""
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
        self._open.check_loop()
        return self._open


def _check_arguments(source: object, limits: object, wait_for_owner: object) -> None:
    """Raise if no app can be made with these arguments, whatever the folder and the store contain when it is opened."""
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
