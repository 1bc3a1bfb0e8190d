"""A subscription: the values of a query of an open app, now and whenever they change."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Generic, Self, cast

from duly.ctx.caller import Caller, Identity
from duly.database.commit_log import Watch
from duly.database.database import QueryOutcome
from duly.database.read_set import ReadSet
from duly.declare.function import QUERY, R
from duly.declare.references import Ref
from duly.errors import DulyError, StoreError
from duly.workers.open_app import OpenApp


class Subscription(Generic[R]):
    """An endless iteration over the values of a query. Made by `App.subscribe`."""

    def __init__(self, opened: OpenApp, ref: Ref[R], args: dict[str, Any] | None, identity: Identity | None) -> None:
        self._opened = opened
        self._ref = ref
        self._args = args
        self._caller = Caller.live(identity)
        self._last_text: str | None = None
        """The JSON of the last value that was returned."""
        self._watch: Watch | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while True:
            if self._watch is not None:
                await asyncio.wait((self._watch,))  # unlike `await`, this does not cancel the watch with its caller
            if not self._opened.is_open:
                raise StopAsyncIteration
            outcome, text = await self._read()
            if outcome.error is not None:
                self._last_text = None
                raise outcome.error
            if text != self._last_text:
                self._last_text = text
                return cast("R", outcome.value)

    async def _read(self) -> tuple[QueryOutcome[Any], str | None]:
        """Run the query, and watch what it has read. Return its outcome, and its value as JSON."""
        self._opened.check_loop()
        database, runner = self._opened.database, self._opened.runner
        reads, version, text = ReadSet(), database.commit_log.version, None
        try:
            function = runner.registry.find(self._ref, (QUERY,))  # each time: the application may have been reloaded
            outcome = await runner.read(function, self._args, self._caller)
            reads, version = outcome.reads, outcome.version
            text = None if outcome.error is not None else function.text_of(outcome.value)
        except StoreError:
            self._watch = None  # the next iteration tries the store again at once
            raise
        except DulyError as error:  # the query did not begin, and only other code can change that
            outcome = QueryOutcome[Any](None, error, reads, version)
        self._watch = database.watch(reads, version)
        if not self._opened.is_open:
            self._watch.cancel()  # the app was closed during the read, so nothing would wake this
        return outcome, text

    def __del__(self) -> None:
        if self._watch is not None:
            with suppress(RuntimeError):  # the event loop was closed before
                self._watch.cancel()
