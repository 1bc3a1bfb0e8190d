"""The harness for tests of an application: a real store in a temporary folder, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from duly.app import App
from duly.clock import ManualClock, to_datetime, to_milliseconds
from duly.ctx.caller import Identity
from duly.ctx.context import MutationCtx
from duly.ctx.schedule_time import Delay, Moment, delay_ms, moment_ms
from duly.declare.function import R
from duly.declare.loading import Source
from duly.declare.references import Ref
from duly.errors import DulyError, StoreError
from duly.limits import CLOCK_AHEAD_MS_MAX, DEFAULTS, HARNESS_ROUNDS_MAX, Limits
from duly.storage.postgres.address import has_schema, is_postgres, parse, with_schema
from duly.subscription import Subscription
from duly.values.ids import END_MS, EPOCH_MS
from duly.workers.loop import first_done
from duly.workers.sweeper import Sweeper

DEFAULT_START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_ROUNDING_MS: Final = 0.0005  # how far `now` may be before the clock: half the resolution of a datetime


class Harness:
    """An app whose time stands still until the test moves it; scheduled functions run only then.

    It takes the arguments of `App`. The store, the transactions, the executor and its recovery are real; only the clock
    is not, and `ctx.random` gives the same numbers in every run of the test. With `store="postgresql://…"` it creates a
    new schema `duly_test_<random>` there, and drops it at the end; it touches nothing else.

        async with Harness("backend", start=datetime(2030, 1, 1, tzinfo=UTC)) as t:
            await t.mutation("orders:create_order", {"items": ["tea"]})
            await t.advance(timedelta(days=30))
            assert (await t.jobs())[0]["state"] == {"kind": "success"}
    """

    def __init__(
        self,
        source: Source,
        *,
        start: datetime = DEFAULT_START,
        store: str | None = None,
        development: bool = False,
        limits: Limits = DEFAULTS,
    ) -> None:
        if not EPOCH_MS <= to_milliseconds(start) <= END_MS:
            raise ValueError(f"got the start {start.isoformat()}, expected one from 2020 to 2089, which ids can tell")
        self._clock = ManualClock(to_milliseconds(start))
        self._source = source
        self._store, self._clean_up = _test_store(store)
        self._development = development
        self._limits = limits
        self._random = Random(0)  # the same numbers in each run of a test
        self._time_lock = asyncio.Lock()
        """Held while time is moved or due functions run: two such calls at once would wait for each other."""
        try:
            self.app = self._new_app()
        except BaseException:
            if store is None:
                self._clean_up()
            raise

    def _new_app(self) -> App:
        return App(
            self._source,
            self._store,
            executor=False,
            development=self._development,
            limits=self._limits,
            clock=self._clock,
            random=self._random,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.app.__aenter__()
        except BaseException:
            with suppress(StoreError):  # the error of opening is raised, not one of cleaning up
                self._clean_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.app.close(grace_seconds=0)
        finally:
            self._clean_up()

    # Calls.

    async def query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query and return its value, as `App.query` does."""
        return await self.app.query(ref, args)

    async def mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation and return its value, as `App.mutation` does. What it schedules waits for `advance`."""
        return await self.app.mutation(ref, args)

    async def action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run an action here and now and return its value, as `App.action` does."""
        return await self.app.action(ref, args)

    def subscribe(self, ref: Ref[R], args: dict[str, Any] | None = None) -> Subscription[R]:
        """Return the values of a query, now and whenever they change, as `App.subscribe` does."""
        return self.app.subscribe(ref, args)

    def with_identity(self, identity: Identity) -> _IdentityCalls:
        """Return the same calls under an identity: `await t.with_identity({"subject": "ada"}).query("orders:mine")`."""
        return _IdentityCalls(self, identity)

    async def transaction(self, unit: Callable[[MutationCtx], Awaitable[R]]) -> R:
        """Run `unit(ctx)` as a mutation, to prepare data or to look at it.

        await t.transaction(lambda ctx: ctx.db.insert("users", {"name": "Ada"}))
        """
        return await self.app.runner.transaction(unit)

    async def jobs(self) -> list[dict[str, Any]]:
        """Return the rows of `_scheduled_functions`, in the order of scheduling."""
        return await self.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").collect())

    async def failures(self) -> list[dict[str, Any]]:
        """Return what has failed: `assert await t.failures() == []`.

        First the failed rows of `_scheduled_functions`, where `state` is `{"kind": "failed", "error": …}`; then the
        failed runs of crons, which have no row there, from `_cron_job_logs`: `name` is the name of the cron, and
        `status` has the form of `state`. Both have `scheduledTime`. The log keeps the newest 100 runs of each cron.
        """

        async def runs(ctx: MutationCtx) -> list[dict[str, Any]]:
            return await ctx.db.system.query("_cron_job_logs").collect()

        failed = [job for job in await self.jobs() if job["state"]["kind"] == "failed"]
        return failed + [run for run in await self.transaction(runs) if run["status"]["kind"] == "failed"]

    # Time.

    @property
    def now(self) -> datetime:
        """The time of the harness, in UTC."""
        return to_datetime(self._clock.now())

    async def advance(self, delta: Delay) -> None:
        """Move the clock by a timedelta or by milliseconds, and run what becomes due on the way, in order.

        The clock stops at each due time until all functions have ended, including actions and what they scheduled for
        that time. Several such calls at once run one after the other. Raises ValueError beyond 2089, the end of ids.
        """
        delay = delay_ms(delta)
        async with self._time_lock:
            await self._advance_to(self._clock.now() + delay)

    async def advance_to(self, moment: Moment) -> None:
        """Like `advance`, to an aware datetime or to milliseconds since 1970. A time in the past raises ValueError."""
        target = moment_ms(moment)
        async with self._time_lock:
            if target < self._clock.now() - _ROUNDING_MS:
                raise ValueError(f"got {_text_of(target)}, expected a time from {self.now} on: a clock goes forward")
            await self._advance_to(target)

    async def run_until_idle(self, max_functions: int = 1_000) -> None:
        """Run what is due now, and what that schedules for now, without moving the clock.

        Raises DulyError if more than `max_functions` run, for example functions that schedule themselves without end.
        """
        async with self._time_lock:
            await self.app.executor.check_clock()
            await self._run_until_idle(max_functions)

    async def _advance_to(self, target: float) -> None:
        target = max(target, self._clock.now())
        if target > END_MS:
            raise ValueError(f"got {_text_of(target)}, expected a time up to {to_datetime(END_MS)}, which ids can tell")
        await self.app.executor.check_clock()
        while True:
            due, near = await self._run_until_idle(None), self._clock.now() + CLOCK_AHEAD_MS_MAX
            if due is not None and due <= min(target, near):
                self._clock.set(due)
            elif target > near:  # a store refuses a clock that is set further ahead at once
                self._clock.set(near)
            else:
                break
        self._clock.set(target)
        await Sweeper(self.app.database, self._clock).sweep()

    async def _run_until_idle(self, ran_max: int | None) -> float | None:
        """Run until nothing is due and nothing runs. Return when the next function is due."""
        executor, ran, rounds = self.app.executor, 0, 0
        while True:
            result = await executor.run_batch()
            ran += result.ran
            rounds += 1
            if ran_max is not None and ran > ran_max:
                raise _never_idle(f"more than {ran_max:,} functions", "max_functions")
            if rounds > HARNESS_ROUNDS_MAX:
                raise _never_idle(f"more than {HARNESS_ROUNDS_MAX:,} batches of functions", "HARNESS_ROUNDS_MAX")
            if result.next_due is not None and result.next_due <= self._clock.now():
                continue
            if not executor.running:
                return result.next_due
            await first_done((asyncio.get_running_loop().create_future(), *executor.wakers()), self._clock)

    # Faults.

    async def crash(self) -> None:
        """Simulate a crash: drop everything without closing, then open the store again."""
        await self.app.crash()
        self.app = self._new_app()
        await self.app.__aenter__()


def _never_idle(got: str, limit: str) -> DulyError:
    return DulyError(
        f"got {got} that ran at one time ({limit}), expected them to come to rest; does a function schedule itself"
        " with no delay?"
    )


def _text_of(time_ms: float) -> str:
    """Return a time for a message; it may be beyond the range of datetime."""
    return str(to_datetime(time_ms)) if abs(time_ms) < 1e14 else f"{time_ms:,.0f} ms since 1970"


def _test_store(store: str | None) -> tuple[str, Callable[[], None]]:
    """Return the address of the store, and a function that removes it if it was made for the test."""
    if store is None:
        return temporary_store()
    if not isinstance(store, str) or not is_postgres(store) or has_schema(store):  # pyright: ignore[reportUnnecessaryIsInstance]
        return store, lambda: None
    address = with_schema(store, f"duly_test_{secrets.token_hex(8)}")
    return address, partial(drop_store, address)


def drop_store(store: str) -> None:
    """Remove a store in PostgreSQL, with all its data."""
    from duly.storage.postgres import migrations  # asyncpg may be missing

    with ThreadPoolExecutor(1) as thread:  # an event loop runs in this thread
        thread.submit(migrations.drop, parse(store)).result()


def temporary_store() -> tuple[str, Callable[[], None]]:
    """Return the address of an empty store, and a function that removes it."""
    folder = tempfile.mkdtemp(prefix="duly-")
    return f"sqlite:///{folder}/data.db", partial(shutil.rmtree, folder, ignore_errors=True)


class _IdentityCalls:
    """The calls of a harness under an identity."""

    def __init__(self, harness: Harness, identity: Identity) -> None:
        self._harness = harness
        self._identity = identity

    async def query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        return await self._harness.app.query(ref, args, self._identity)

    async def mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        return await self._harness.app.mutation(ref, args, self._identity)

    async def action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        return await self._harness.app.action(ref, args, self._identity)

    def subscribe(self, ref: Ref[R], args: dict[str, Any] | None = None) -> Subscription[R]:
        return self._harness.app.subscribe(ref, args, self._identity)


__all__ = ["Harness"]
