"""What a context needs from the code that runs functions: two small protocols, which `run/` implements.

A context starts other functions and commits transactions, and `run/` makes contexts. These protocols state what `ctx/`
needs from `run/`, so that only `run/` imports `ctx/`, and not the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Protocol, TypeVar

from duly.clock import Clock
from duly.ctx.caller import Caller
from duly.database.database import Database
from duly.database.transaction import Transaction
from duly.declare.references import Ref
from duly.declare.registered import RegisteredFunction
from duly.declare.registry import Registry
from duly.limits import Limits
from duly.values.ids import IdCodec

T = TypeVar("T")


class Invoker(Protocol):
    """Runs the functions of a registry against a database. `duly.run.runner.Runner` implements it."""

    registry: Registry
    database: Database
    ids: IdCodec
    clock: Clock
    rng: Random
    limits: Limits
    development: bool

    # Each call is a transaction of its own.

    async def query(self, function: RegisteredFunction, args: Any, caller: Caller = ...) -> Any: ...

    def mutation(self, function: RegisteredFunction, args: Any, caller: Caller = ...) -> asyncio.Future[Any]: ...

    async def action(self, function: RegisteredFunction, args: Any, caller: Caller = ...) -> Any: ...

    def commit(self, unit: Callable[[Transaction], Coroutine[Any, Any, T]]) -> asyncio.Future[T]: ...

    # Each call is a part of a transaction.

    async def query_within(self, transaction: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any: ...

    async def mutation_within(self, parent: Transaction, ref: Ref[Any], args: Any, caller: Caller) -> Any: ...

    def job_id(self, number: int) -> str: ...

    def warn_now_and_then(self, key: tuple[str, str], text: str, *args: object) -> None: ...


class EventLoop(Protocol):
    """The app's event loop, as the thread of a `def` action reaches it. `duly.run.threads.Threads` implements it."""

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and wait for its result."""
        ...

    def check(self) -> None:
        """Raise if waiting for the event loop in this thread would never end."""
        ...
