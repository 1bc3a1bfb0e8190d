"""The results of queries that sessions watch: each query is run once for all of them, and again when it must be.

A commit wakes the queries that had read what it changed. All that are woken in one moment run on one snapshot, so that
their results hold at the same timestamp and a session can show them together. A session whose results hold at no common
timestamp, because each commit wakes others of its queries, has all of them run on one snapshot.

Whether a query looks at the identity of its caller is known only after it has run. Until then, users do not share it.
One that has not looked is shared by all; if it looks one day, all but the one it ran for get entries of their own.

    watch ──▶ due ──▶ running ──▶ current ──(a commit)──▶ due ──▶ …        until nobody watches it
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import orjson

from duly.ctx.caller import Caller, Identity, IdentityUse
from duly.ctx.db.cursor import Journal
from duly.database.database import QueryOutcome
from duly.database.read_set import ReadSet
from duly.declare.registered import RegisteredFunction
from duly.errors import StoreError
from duly.limits import STORE_PAUSE_SECONDS
from duly.logs import REQUEST, LogLine, log_of
from duly.run.failure import describe
from duly.run.runner import QueryCall, Runner
from duly.sync import convex_json
from duly.sync.effects import Result
from duly.sync.protocol import Failure
from duly.sync.timestamps import Timestamps

_log: Final = log_of("duly.server")


class QueryKey(NamedTuple):
    """What makes two subscriptions the same. For a query that looks at no identity, `identity` does not count."""

    path: str
    args: bytes
    """JSON with sorted names. It is decoded when the query runs: arguments that are no values fail the query."""
    identity: str | None
    """The identity as JSON; None if anonymous."""
    journal: str | None
    is_admin: bool = False


class Watcher(Protocol):
    """Who watches queries: a connection."""

    def query_ran(self, query_id: int, result: Result) -> None: ...

    def query_stale(self, query_id: int, at: int) -> None: ...

    def wake(self) -> None:
        """All that has happened in this moment was reported."""
        ...

    def give_up(self) -> None:
        """A query can have no result, because of an error of the server."""
        ...


class Calls(Protocol):
    """What the results need of the server: functions by their paths, and errors as clients may know them."""

    def find_query(self, path: str, is_admin: bool) -> RegisteredFunction: ...

    def failure(self, error: BaseException) -> Failure: ...

    def lines_of(self, lines: list[LogLine]) -> tuple[str, ...]: ...


@dataclass(eq=False, slots=True)
class _Entry:
    """One query, with all who watch it."""

    key: QueryKey
    identity: Identity | None
    journal: str | None
    watchers: dict[tuple[Watcher, int], tuple[QueryKey, Identity | None]] = field(
        default_factory=dict[tuple[Watcher, int], tuple[QueryKey, "Identity | None"]]
    )
    """Who watches it, and what each of them asked for."""
    is_for_all: bool = False
    """Whether the query looked at no identity, so that users share it."""
    result: Result | None = None
    """The last result; out of date unless `watch` is pending."""
    watch: asyncio.Future[None] | None = None
    version: int = -1
    """The version that the last result was read at."""
    is_due: bool = False
    rounds: int = 0
    """How many rounds run it now: more than one only if a session needs all of its queries together."""

    @property
    def is_current(self) -> bool:
        """Whether no commit has changed what it read."""
        return self.watch is not None and not self.watch.done()


def _without_identity(key: QueryKey) -> QueryKey:
    return key._replace(identity=None)


class SharedResults:
    """Runs what is watched. Used in the event loop of the app."""

    def __init__(self, runner: Runner, timestamps: Timestamps, calls: Calls) -> None:
        self._runner = runner
        self._database = runner.database
        self._timestamps = timestamps
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self._entries: dict[QueryKey, _Entry] = {}
        self._for_all: dict[QueryKey, _Entry] = {}  # by their keys without identities
        self._watched: dict[Watcher, dict[int, _Entry]] = {}
        self._due: dict[_Entry, None] = {}
        self._rounds: set[asyncio.Task[None]] = set()
        self._settled = self._database.commit_log.version
        """All that commits up to this version have changed was reported."""
        self._settling = self._settled
        self.runs = 0
        """How many queries were run so far."""

    def __len__(self) -> int:
        """Return how many different queries are watched."""
        return len({entry for entries in self._watched.values() for entry in entries.values()})

    def watch(self, watcher: Watcher, query_id: int, key: QueryKey, identity: Identity | None) -> None:
        """Report the results of a query to a watcher from now on."""
        entry = self._for_all.get(_without_identity(key)) or self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key, identity, key.journal)
        self._join(entry, watcher, query_id, (key, identity))
        if entry.result is not None and entry.is_current:
            watcher.query_ran(query_id, entry.result)
            watcher.wake()
        else:
            self._make_due(entry)

    def _join(self, entry: _Entry, watcher: Watcher, query_id: int, wanted: tuple[QueryKey, Identity | None]) -> None:
        entry.watchers[watcher, query_id] = wanted
        self._watched.setdefault(watcher, {})[query_id] = entry

    def unwatch(self, watcher: Watcher, query_id: int) -> None:
        """Report nothing more of it. A query that nobody watches is forgotten."""
        entries = self._watched.get(watcher, {})
        entry = entries.pop(query_id, None)
        if not entries:
            self._watched.pop(watcher, None)
        if entry is None:
            return
        del entry.watchers[watcher, query_id]
        if not entry.watchers:
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        self._forget(entry)
        self._due.pop(entry, None)
        if entry.watch is not None:
            entry.watch.cancel()

    def settle(self) -> int:
        """Return the version that is known now: what it has changed is reported before anything that is called soon."""
        version = self._database.commit_log.version
        if version > self._settling:
            self._settling = version
            self._loop.call_soon(self._set_settled, version)
        return version

    def _set_settled(self, version: int) -> None:
        self._settled = version

    def _forget(self, entry: _Entry) -> None:
        """Let the next watcher of the same query have an entry of its own."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        if entry.is_for_all:
            entry.is_for_all = False
            del self._for_all[_without_identity(entry.key)]

    # Users share what looks at no identity.

    def _share(self, entry: _Entry) -> None:
        """Let all have one entry of a query that has looked at no identity."""
        key = _without_identity(entry.key)
        shared = self._for_all.get(key)
        if shared is None:
            entry.is_for_all = True
            self._for_all[key] = entry
        elif shared is not entry and shared.is_current and shared.result is not None:
            for (watcher, query_id), wanted in entry.watchers.items():
                self._join(shared, watcher, query_id, wanted)
                watcher.query_ran(query_id, shared.result)
                watcher.wake()
            entry.watchers.clear()
            self._end(entry)

    def _part(self, entry: _Entry) -> None:
        """Give users an entry each of a query that looks at the identity now. What they have holds no longer."""
        if entry.is_for_all:
            entry.is_for_all = False
            del self._for_all[_without_identity(entry.key)]
        until = self._timestamps.of(entry.version + 1)
        others = {place: wanted for place, wanted in entry.watchers.items() if wanted[0] != entry.key}
        for (watcher, query_id), (key, identity) in others.items():
            del entry.watchers[watcher, query_id]
            watcher.query_stale(query_id, until)
            self.watch(watcher, query_id, key, identity)
        if others and not entry.watchers:
            self._end(entry)

    # Rounds: what is due at one moment runs on one snapshot.

    def run_together(self, watcher: Watcher) -> None:
        """Run all queries of a watcher on one snapshot, whether they are due or not."""
        self._start_round([*dict.fromkeys(self._watched.get(watcher, {}).values())])

    def _make_due(self, entry: _Entry) -> None:
        entry.is_due = True
        if entry.rounds or entry in self._due:
            return  # it runs again when it has ended, if it must
        if not self._due:
            self._loop.call_soon(self._begin_round)
        self._due[entry] = None

    def _begin_round(self) -> None:
        entries, self._due = [*self._due], {}
        self._start_round(entries)

    def _start_round(self, entries: list[_Entry]) -> None:
        for entry in entries:
            entry.is_due = False
            entry.rounds += 1
        if entries:
            task = self._loop.create_task(self._round(entries))
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)

    async def _round(self, entries: list[_Entry]) -> None:
        REQUEST.set(None)  # it works for all who watch, not only for who has caused it
        try:
            await self._run(entries)
        except StoreError as error:
            if not self._database.is_open:
                return  # the app is being closed, and with it all connections
            _log.warning("queries that clients watch cannot be read, and are tried again: %s", error)
            await asyncio.sleep(STORE_PAUSE_SECONDS)
            for entry in entries:
                entry.is_due = True
        except Exception as error:
            self._contain(entries, error)
        finally:
            for entry in entries:
                entry.rounds -= 1
                if entry.is_due and entry.watchers and not entry.rounds:
                    self._make_due(entry)

    def _contain(self, entries: list[_Entry], error: Exception) -> None:
        """Disconnect those who watch a query that the server fails to run: they may come back, and to another server.

        In a round of several it is not known which one it was, so each runs again alone.
        """
        if len(entries) > 1:
            for entry in entries:
                self._start_round([entry])
            return
        [entry] = entries
        _log.error(
            "clients that watch %s are disconnected after an error of the server", entry.key.path, exc_info=error
        )
        for watcher in {watcher for watcher, _ in entry.watchers}:
            watcher.give_up()

    async def _run(self, entries: list[_Entry]) -> None:
        begun, failed = self._begin(entries)
        version, outcomes = self._database.commit_log.version, list[QueryOutcome[Any]]()
        if begun:
            self.runs += len(begun)
            outcomes = await self._runner.read_together([call for _, call in begun])
            version = outcomes[0].version
            await self._timestamps.know(version)
        for (entry, (_, _, caller)), outcome in zip(begun, outcomes, strict=True):
            if caller.has_used_identity:
                self._part(entry)
            is_new = self._report(entry, self._result_of(caller, outcome), outcome.reads, version)
            if is_new and not caller.has_used_identity and entry.journal is None:
                self._share(entry)
        for entry, why in failed:
            outcome = QueryOutcome[Any](None, why, ReadSet(), version)
            self._report(entry, self._result_of(Caller(), outcome), outcome.reads, version)
        self._wake_all(entries)

    def _begin(self, entries: list[_Entry]) -> tuple[list[tuple[_Entry, QueryCall]], list[tuple[_Entry, Exception]]]:
        """Return the calls to run, and the queries that cannot begin, which only other code can change."""
        begun, failed = list[tuple[_Entry, QueryCall]](), list[tuple[_Entry, Exception]]()
        for entry in entries:
            try:
                journal, use = Journal(entry.journal), IdentityUse()
                caller = Caller(entry.identity, lines=[], wants_plain=True, journal=journal, identity_use=use)
                function = self._calls.find_query(entry.key.path, entry.key.is_admin)
                text = function.encode(convex_json.decode(orjson.loads(entry.key.args)))
                begun.append((entry, (function, text, caller)))
            except StoreError:
                raise
            except Exception as error:
                failed.append((entry, error))
        return begun, failed

    def _result_of(self, caller: Caller, outcome: QueryOutcome[Any]) -> Result:
        value: bytes | Failure
        digest: object
        if outcome.error is not None:
            value = self._calls.failure(outcome.error)
            digest = (describe(outcome.error), value.data)  # without the id of the request, which the message has
        else:
            value = digest = convex_json.dumps(outcome.value)
        lines = self._calls.lines_of(caller.lines or [])
        journal = None if caller.journal is None else caller.journal.text
        return Result(value, self._timestamps.of(outcome.version), (digest, lines), lines, journal)

    def _report(self, entry: _Entry, result: Result, reads: ReadSet, version: int) -> bool:
        """Report a result, unless nobody waits for it or a later round has ended earlier. Return whether it was."""
        if not entry.watchers or version < entry.version:
            return False
        if entry.watch is not None:
            entry.watch.cancel()
        entry.result, entry.journal, entry.version = result, result.journal, version
        if result.journal is not None:
            # Pages grow and shrink while they are watched: who comes later begins with a fresh one.
            self._forget(entry)
        entry.watch = self._database.watch(reads, version)
        for watcher, query_id in entry.watchers:
            watcher.query_ran(query_id, result)
        if entry.watch.done():
            self._on_stale(entry, version + 1)
        else:
            entry.watch.add_done_callback(lambda done: None if done.cancelled() else self._on_woken(entry, done))
        return True

    def _on_woken(self, entry: _Entry, watch: asyncio.Future[None]) -> None:
        if entry.watch is watch:
            # Which commit it was is not known: one after those that were settled before.
            self._on_stale(entry, max(self._settled, entry.version) + 1)

    def _on_stale(self, entry: _Entry, version: int) -> None:
        at = self._timestamps.of(version)
        for watcher, query_id in entry.watchers:
            watcher.query_stale(query_id, at)
        self._make_due(entry)

    def _wake_all(self, entries: Sequence[_Entry]) -> None:
        for watcher in {watcher for entry in entries for watcher, _ in entry.watchers}:
            watcher.wake()
