"""SyncActionCtx: the context of a `def` action, which runs in a thread and blocks instead of awaiting."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from duly.ctx.caller import Caller, Identity
from duly.ctx.context import NO_DATABASE, ActionCtx
from duly.ctx.invoker import EventLoop
from duly.ctx.schedule_time import Delay, Moment
from duly.ctx.scheduler import ActionScheduler
from duly.declare.function import R
from duly.declare.references import Ref
from duly.errors import FunctionError
from duly.hints import argument_hint, name_hint, scheduler_name_hints
from duly.values.schema.annotations import Id


@scheduler_name_hints
class SyncScheduler:
    """`ctx.scheduler` of a `def` action: the calls block."""

    def __init__(self, scheduler: ActionScheduler, loop: EventLoop) -> None:
        self._scheduler = scheduler
        self._loop = loop

    @argument_hint(FunctionError)
    def run_after(self, delay: Delay, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action after a delay: milliseconds, or a timedelta. Returns its id."""
        self._loop.check()
        return self._loop.call(self._scheduler.run_after(delay, ref, args))

    @argument_hint(FunctionError)
    def run_at(self, when: Moment, ref: Ref[Any], args: dict[str, Any] | None = None) -> Id[Any]:
        """Run a mutation or an action at a time: milliseconds since 1970, or an aware datetime."""
        self._loop.check()
        return self._loop.call(self._scheduler.run_at(when, ref, args))

    def cancel(self, id: str, *, missing_ok: bool = False) -> bool:
        """Cancel a scheduled function, as in a mutation, or the running action itself. Returns whether it did."""
        self._loop.check()
        return self._loop.call(self._scheduler.cancel(id, missing_ok=missing_ok))


class SyncAuth:
    """`ctx.auth` of a `def` action."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_user_identity(self) -> Identity | None:
        """Return the identity of the caller; None if anonymous. Scheduled functions run anonymously.

        In an HTTP action it raises an error if the token of the request is not valid.
        """
        return self._caller.known_identity()


@name_hint(NO_DATABASE, "db")
class SyncActionCtx:
    """The context of a `def` action, which runs in a thread: its calls block until they are done."""

    def __init__(self, ctx: ActionCtx, loop: EventLoop) -> None:
        self._ctx = ctx
        self._loop = loop
        self.auth = SyncAuth(ctx._caller)  # pyright: ignore[reportPrivateUsage]
        """The identity of the caller: `ctx.auth.get_user_identity()`."""
        self.scheduler = SyncScheduler(ctx.scheduler, loop)
        """Schedules functions; each call is committed at once and stays when the action fails."""
        self.random = ctx.random
        """A source of randomness that belongs to this call."""
        self.log = ctx.log
        """A logger whose lines belong to this call."""
        self.scheduled_function_id = ctx.scheduled_function_id
        """The id of the scheduled function that this call is, or is a part of; None if there is none."""

    def wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the app's event loop and return its result.

        Raises FunctionError if it is called in that event loop itself, which would block for ever, or in a query or
        mutation. Raises StoreError after the app was closed.
        """
        return self._loop.call(coroutine)

    @property
    def now(self) -> float:
        """The time, in milliseconds since 1970."""
        return self._ctx.now

    @argument_hint(FunctionError)
    def run_query(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a query on a snapshot of its own."""
        self._loop.check()
        return self.wait(self._ctx.run_query(ref, args))

    @argument_hint(FunctionError)
    def run_mutation(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run a mutation; it is committed when this returns."""
        self._loop.check()
        return self.wait(self._ctx.run_mutation(ref, args))

    @argument_hint(FunctionError)
    def run_action(self, ref: Ref[R], args: dict[str, Any] | None = None) -> R:
        """Run another action and wait for it."""
        self._loop.check()
        return self.wait(self._ctx.run_action(ref, args))
