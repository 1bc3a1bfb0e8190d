"""Calls of remote clients: which functions they reach, and what they learn of the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from duly.ctx.caller import Caller
from duly.database.database import QueryOutcome
from duly.declare.function import ACTION, MUTATION, QUERY
from duly.declare.registered import RegisteredFunction
from duly.errors import ArgumentValidationError, FunctionNotFoundError, StoreError
from duly.logs import LogLine
from duly.model.client_requests import RequestKey
from duly.run.runner import QueryCall
from duly.server.auth.identity import ClientIdentity
from duly.server.host import Host
from duly.sync import convex_json
from duly.sync.effects import RunMutation
from duly.sync.protocol import Failure
from duly.values.plain import UNSET

ALL_KINDS: Final = (QUERY, MUTATION, ACTION)
_PATH_LENGTH_MAX: Final = 200
"""Of a path that is shown, or compared with those that exist."""


class Outcome(NamedTuple):
    """What has become of a call: a value, or how it failed."""

    value: Any
    failure: Failure | None
    lines: tuple[str, ...]

    def result(self) -> bytes | Failure:
        return convex_json.dumps(self.value) if self.failure is None else self.failure


class ClientCalls:
    """The calls of remote clients of one open app."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def find(self, path: str, kinds: Iterable[str], is_admin: bool) -> RegisteredFunction:
        """Return the function of a path. An internal one does not exist but for the administrator."""
        registry = self._host.runner.registry
        function = registry.get(path)
        if function is None or not (function.public or is_admin):
            raise FunctionNotFoundError(
                f"got the function {path[:_PATH_LENGTH_MAX]!r}, which does not exist or is not public{self._hint(path)}"
            )
        return registry.find(function.name, kinds)

    def _hint(self, path: str) -> str:
        """Return which public function was probably meant: in development, for it takes time."""
        if not self._host.development:
            return ""
        suggestion = self._host.runner.registry.suggestion(path[:_PATH_LENGTH_MAX], public_only=True)
        return f"; {suggestion}" if suggestion else ""

    def find_query(self, path: str, is_admin: bool) -> RegisteredFunction:
        return self.find(path, (QUERY,), is_admin)

    def failure(self, error: BaseException) -> Failure:
        """Return what a client learns of an error."""
        known = self._host.client_error(error)
        return Failure(known.message, UNSET if known.data is UNSET else convex_json.dumps(known.data))

    def lines_of(self, lines: list[LogLine]) -> tuple[str, ...]:
        """Return the log lines of a call as clients print them: only in development, for they may be private."""
        if not self._host.development:
            return ()
        return tuple(f"[{line.level}] {line.text}".encode("utf-8", "replace").decode() for line in lines)

    async def call(self, path: str, args: object, who: ClientIdentity, kinds: Iterable[str]) -> Outcome:
        """Call a function with parsed JSON as its arguments. Raises StoreError if the store does not answer."""
        caller = Caller(who.identity, lines=[], wants_plain=True)
        try:
            function = self.find(path, kinds, who.is_admin)
            value, failure = await self._run(function, arguments_of(args), caller), None
        except StoreError:
            raise
        except Exception as error:
            value, failure = None, self.failure(error)
        return Outcome(value, failure, self.lines_of(caller.lines or []))

    def start_mutation(
        self, run: RunMutation, who: ClientIdentity, on_end: Callable[[Outcome | Exception], None]
    ) -> None:
        """Run a mutation, without a task of its own. Then call `on_end` with its outcome, or with the error that leaves
        it unknown: a StoreError, or one of the server."""
        key = RequestKey(run.session_id, run.mutation.request_id)
        caller = Caller(who.identity, lines=[], wants_plain=True, request=key, request_is_new=run.is_new)
        running: asyncio.Future[Any]
        try:
            function = self.find(run.mutation.path, (MUTATION,), who.is_admin)
            running = self._host.runner.mutation(function, arguments_of(run.mutation.args), caller)
        except Exception as error:
            running = asyncio.get_running_loop().create_future()
            running.set_exception(error)
        running.add_done_callback(lambda ended: on_end(self._outcome_of(ended, caller)))

    def _outcome_of(self, ended: asyncio.Future[Any], caller: Caller) -> Outcome | Exception:
        error = ended.exception()
        if isinstance(error, StoreError):
            return error
        try:
            value, failure = (ended.result(), None) if error is None else (None, self.failure(error))
            return Outcome(value, failure, self.lines_of(caller.lines or []))
        except Exception as odd:
            return odd

    async def queries(self, calls: Sequence[tuple[str, object]], who: ClientIdentity) -> list[Outcome]:
        """Run queries with parsed JSON as their arguments, all on one snapshot. Raises StoreError."""
        begun, outcomes = dict[int, QueryCall](), dict[int, Outcome]()
        for place, (path, args) in enumerate(calls):
            try:
                function = self.find_query(path, who.is_admin)
                caller = Caller(who.identity, lines=[], wants_plain=True)
                begun[place] = (function, function.encode(arguments_of(args)), caller)
            except Exception as error:
                outcomes[place] = Outcome(None, self.failure(error), ())
        reads = await self._host.runner.read_together([*begun.values()]) if begun else []
        for (place, (_, _, caller)), read in zip(begun.items(), reads, strict=True):
            outcomes[place] = self._outcome_of_query(read, caller)
        return [outcomes[place] for place in range(len(calls))]

    async def query_at(self, path: str, args: object, who: ClientIdentity, version: int) -> tuple[Outcome, bool]:
        """Run a query now. Return its outcome, and whether it would have been the same at an earlier version."""
        caller = Caller(who.identity, lines=[], wants_plain=True)
        try:
            function = self.find(path, (QUERY,), who.is_admin)
            read = await self._host.runner.read(function, arguments_of(args), caller)
        except StoreError:
            raise
        except Exception as error:
            return Outcome(None, self.failure(error), ()), True
        watch = self._host.database.watch(read.reads, version)
        is_unchanged = not watch.done()
        watch.cancel()
        return self._outcome_of_query(read, caller), is_unchanged

    def _outcome_of_query(self, read: QueryOutcome[Any], caller: Caller) -> Outcome:
        failure = None if read.error is None else self.failure(read.error)
        return Outcome(read.value, failure, self.lines_of(caller.lines or []))

    async def _run(self, function: RegisteredFunction, args: dict[str, Any], caller: Caller) -> Any:
        runner = self._host.runner
        if function.kind == QUERY:
            return await runner.query(function, args, caller)
        if function.kind == MUTATION:
            return await runner.mutation(function, args, caller)
        return await self._host.executor.called_actions.run(function.name, runner.action(function, args, caller))


def arguments_of(json: object) -> dict[str, Any]:
    """Return the arguments that parsed JSON stands for."""
    value = convex_json.decode(json)
    if not isinstance(value, dict):
        raise ArgumentValidationError(f"got {value!r:.80} as the arguments, expected an object")
    return value  # pyright: ignore[reportUnknownVariableType]
