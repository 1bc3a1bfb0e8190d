"""One client's conversation, as a state machine without I/O: it is told what has happened, and says what to do.

Events go in through methods: a message has come, a query has a result, a commit has changed what a query read, a
mutation has ended. What is to be done comes out of `take`: messages to send, functions to run, queries to watch. When
all events of a moment are in, `flush` sends a Transition, if one is due and possible.

A client sees the whole of its queries at one timestamp, `sent`, which a Transition moves forward:

                        received from the client                  sent to the client
    query set, identity    `received` ─────────────────────────────▶ `sent`  in each Transition
    results                a result holds from `since`, until a      all results of a Transition hold at its ts
                           commit at `until` changes what was read

    ts of a Transition:  not before   sent.ts, the client's own mutations, what it saw elsewhere, each `since`
                         before       each `until`, and the commit of a mutation that still runs

If no timestamp fits, the Transition waits: the results that are out of date come in again, with a later `since`.

The rules by which clients live, and where they are kept:

    A  the response of a mutation comes before the Transition that shows its effect       _latest_ts
    B  after each response of a mutation or action there is a Transition, also an empty one   _owes_transition
    C  a Transition shows the effects of all mutations that were answered                 _earliest_ts
    D  all results of a Transition are of one timestamp, which never goes back            _ts_of_transition
    E  mutations run one at a time in their order; each is answered before the next runs  _run_next_mutation
    F  changes of the query set and of the identity are answered by a Transition, which
       has a result for each query that was added and a removal for each that was removed     is_due, _changes
    G  otherwise there is no Transition: Python clients hand each one to the application      is_due
    H  a mutation runs under the identity at the time when it arrived                     _enqueue
    I  what a client sends after a token waits until the token has been checked           is_blocked
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Final

from duly.limits import MUTATIONS_AHEAD_MAX, SOCKET_CALLS_LENGTH_MAX, SOCKET_CALLS_MAX, SOCKET_QUERIES_MAX
from duly.sync.effects import CatchUp, CheckToken, Close, Effect, Result, RunAction, RunMutation, Send, Unwatch, Watch
from duly.sync.protocol import (
    Action,
    ActionResponse,
    Add,
    Authenticate,
    AuthError,
    ClientMessage,
    Connect,
    Failure,
    FatalError,
    Modification,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    ProtocolError,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    Remove,
    StateVersion,
    Transition,
    parse,
)
from duly.sync.query_state import Results, WatchedQuery

INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013
NORMAL: Final = 1000


@dataclass(slots=True)
class _Running:
    started: int
    """All commits up to here were made before the mutation began."""
    length: int
    """Of its message."""


@dataclass(slots=True)
class _Mutations:
    """The queue of one client's mutations."""

    waiting: deque[RunMutation] = field(default_factory=deque[RunMutation])
    running: _Running | None = None
    ahead: int = 0
    """Responses since the last Transition."""


class Session:
    """The conversation over one connection. A client that reconnects begins another one, from nothing."""

    def __init__(self) -> None:
        self.received = StateVersion()
        self.sent = StateVersion()
        self.session_id: str | None = None
        self.identity: Any = None
        self.is_closed = False
        self._is_first_connection = False
        """Whether the client was never connected before, and so has sent no mutation before."""
        self._newest = 0
        """All that is known of the queries is known up to here."""
        self._earliest_ts = 0
        self._owes_transition = False
        self._queries: dict[int, WatchedQuery] = {}
        self._results = Results()
        self._removed: dict[int, None] = {}
        self._mutations = _Mutations()
        self._actions = 0
        """Actions that run."""
        self._calls_length = 0
        """Of the messages of all calls that have not ended, together."""
        self.is_blocked = False
        """Whether the effect CatchUp or CheckToken has not been answered."""
        self._held: deque[ClientMessage] = deque()
        self._effects: list[Effect] = []

    def take(self) -> list[Effect]:
        """Return what is to be done, in this order, since the last call."""
        effects, self._effects = self._effects, []
        return effects

    # What the client sends.

    def receive(self, text: str | bytes) -> None:
        """Take a message of the client."""
        if self.is_closed:
            return
        try:
            message = parse(text)
        except ProtocolError as error:
            self._fatal(str(error))
            return
        if self.is_blocked and len(self._held) >= SOCKET_CALLS_MAX:
            self.close(TRY_AGAIN_LATER, "TooManyConcurrentRequests")
        elif self.is_blocked:
            self._held.append(message)  # rule I
        else:
            self._handle(message)

    def _handle(self, message: ClientMessage) -> None:
        if isinstance(message, Connect):
            self._connect(message)
        elif self.session_id is None:
            self._fatal(f"got {type(message).__name__} as the first message, expected Connect")
        elif isinstance(message, ModifyQuerySet):
            self._modify(message)
        elif isinstance(message, Mutation):
            self._enqueue(RunMutation(self.session_id, message, self.identity, self._is_first_connection))
        elif isinstance(message, Action):
            self._begin_action(message)
        elif isinstance(message, Authenticate):
            self._authenticate(message)

    def _connect(self, message: Connect) -> None:
        if self.session_id is not None:
            self._fatal("got a second Connect, expected one for each connection")
            return
        self.session_id, self._earliest_ts = message.session_id, message.max_observed_ts
        self._is_first_connection = message.connection_count == 0
        self.is_blocked = True
        self._effects.append(CatchUp(message.max_observed_ts))

    @property
    def may_receive(self) -> bool:
        """Whether to read the next message. If not, it would only be kept in memory, until something else has ended."""
        return self.is_closed or not (self.is_blocked or self._calls_length >= SOCKET_CALLS_LENGTH_MAX)

    def caught_up(self) -> None:
        """This server knows all that the client has ever seen."""
        self._unblock()

    def _unblock(self) -> None:
        self.is_blocked = False
        while self._held and not self.is_blocked and not self.is_closed:
            self._handle(self._held.popleft())

    # Queries.

    def _modify(self, message: ModifyQuerySet) -> None:
        if message.base_version != self.received.query_set or message.new_version <= message.base_version:
            self._fatal(
                f"ModifyQuerySet: got the versions {message.base_version} to {message.new_version}, expected"
                f" {self.received.query_set} to {self.received.query_set + 1}"
            )
            return
        self.received = replace(self.received, query_set=message.new_version)
        for each in message.modifications:
            if isinstance(each, Remove):
                self._remove(each)
            elif not self._add(each):
                return

    def _add(self, add: Add) -> bool:
        if add.query_id in self._queries:
            self._fatal(f"Add: got the query {add.query_id}, which was added before, expected another number")
            return False
        if len(self._queries) >= SOCKET_QUERIES_MAX:
            self.close(INTERNAL_ERROR, f"more than {SOCKET_QUERIES_MAX} queries (SOCKET_QUERIES_MAX)")
            return False
        self._removed.pop(add.query_id, None)
        self._queries[add.query_id] = WatchedQuery(add)
        self._results.missing.add(add.query_id)
        self._effects.append(Watch(add, self.identity))
        return True

    def _remove(self, remove: Remove) -> None:
        self._removed[remove.query_id] = None
        if self._queries.pop(remove.query_id, None) is not None:
            self._results.forget(remove.query_id)
            self._effects.append(Unwatch(remove.query_id))

    def query_ran(self, query_id: int, result: Result) -> None:
        """A query has a result that holds from now on."""
        query, results = self._queries.get(query_id), self._results
        if query is None:
            return
        query.result = result
        if result.journal != query.add.journal:
            # The page of a query that runs again, here or on the next connection, ends where it ended before.
            query.add = replace(query.add, journal=result.journal)
        results.forget(query_id)
        results.since = max(results.since, result.since)
        if result.digest != query.sent:
            results.changed[query_id] = None

    def query_stale(self, query_id: int, at: int) -> None:
        """A commit at `at` has changed what the query had read. Another result follows."""
        if query_id in self._queries:
            self._results.until[query_id] = min(self._results.until.get(query_id, at), at)

    # Mutations and actions.

    def _enqueue(self, mutation: RunMutation) -> None:
        if self._may_call(mutation.mutation):
            self._mutations.waiting.append(mutation)  # rule H: with the identity that it arrived under
            self._run_next_mutation()

    def _begin_action(self, action: Action) -> None:
        if self._may_call(action):
            self._actions += 1
            self._effects.append(RunAction(action, self.identity))

    def _may_call(self, call: Mutation | Action) -> bool:
        """Return whether there is room for one more call. If not, end the connection: the client tries again later."""
        if len(self._mutations.waiting) + self._actions < SOCKET_CALLS_MAX:
            self._calls_length += call.length
            return True
        self.close(TRY_AGAIN_LATER, "TooManyConcurrentRequests")
        return False

    def _run_next_mutation(self) -> None:
        """Rule E. A client whose Transitions lag behind waits, too, or it would never get one (rule A)."""
        mutations = self._mutations
        if mutations.running is None and mutations.waiting and mutations.ahead < MUTATIONS_AHEAD_MAX:
            run = mutations.waiting.popleft()
            mutations.running = _Running(self._newest, run.mutation.length)
            self._effects.append(run)

    def mutation_ended(self, response: MutationResponse) -> None:
        """The mutation that runs has ended. All commits up to that of the mutation are known to this server."""
        if self.is_closed:
            return
        self._respond(response)
        self._earliest_ts = max(self._earliest_ts, response.ts or 0)  # rule C
        if self._mutations.running is not None:
            self._calls_length -= self._mutations.running.length
        self._mutations.running = None
        self._mutations.ahead += 1
        self._run_next_mutation()

    def action_ended(self, response: ActionResponse, length: int = 0) -> None:
        if not self.is_closed:
            self._actions -= 1
            self._calls_length -= length
            self._respond(response)

    def _respond(self, response: MutationResponse | ActionResponse) -> None:
        self._effects.append(Send(response))
        self._owes_transition = True  # rule B

    # Identity.

    def _authenticate(self, message: Authenticate) -> None:
        if message.base_version != self.received.identity:
            self.close(INTERNAL_ERROR, "InternalServerError")
        elif message.token_type == "None":
            self._become(None)
        else:
            self.is_blocked = True
            self._effects.append(CheckToken(message))

    def accepted(self, identity: Any) -> None:
        """The token is good, and this is whose it is."""
        if not self.is_closed:
            self._become(identity)
            self._unblock()

    def _become(self, identity: Any) -> None:
        """Change the identity: every query is another one from now on."""
        self.identity = identity
        self.received = replace(self.received, identity=self.received.identity + 1)
        for query_id, query in self._queries.items():
            query.result = None
            self._results.forget(query_id)
            self._results.missing.add(query_id)
            self._effects += (Unwatch(query_id), Watch(query.add, identity))

    def refused(self, error: str, expired: bool = False) -> None:
        """The token is not good, or not any more: the client may fetch another one and reconnect."""
        if not self.is_closed:
            self._effects.append(Send(AuthError(error, self.sent.identity, update_attempted=not expired)))
            self.close(NORMAL, "AuthError")

    # The end.

    def _fatal(self, error: str) -> None:
        self._effects.append(Send(FatalError(error)))
        self.close(NORMAL, "FatalError")

    def close(self, code: int, reason: str) -> None:
        """End the conversation. What runs goes on, and its result is dropped."""
        if not self.is_closed:
            self.is_closed = True
            self._effects += (Unwatch(query_id) for query_id in self._queries)
            self._queries.clear()
            self._effects.append(Close(code, reason))

    # Transitions.

    def flush(self, newest: int) -> bool:
        """Send a Transition if one is due and possible.

        Every commit up to `newest` that changed what a query had read has been reported by `query_stale` before.
        Return whether it is due, and all results are there, but hold at no common timestamp.
        """
        self._newest = max(self._newest, newest)
        if self.is_closed or not self.is_due or self._results.missing:
            return False
        ts = self._ts_of_transition()
        if ts is None:
            return self._mutations.running is None  # else it waits for its answer, which will come
        end = StateVersion(self.received.query_set, self.received.identity, ts)
        self._effects.append(Send(Transition(self.sent, end, tuple(self._changes()))))
        self.sent, self._owes_transition = end, False
        self._mutations.ahead = 0
        self._run_next_mutation()
        return False

    @property
    def is_due(self) -> bool:
        """Whether the client is to get a Transition, once it is possible."""
        return (
            self._owes_transition
            or bool(self._results.changed)
            or self.received.query_set != self.sent.query_set
            or self.received.identity != self.sent.identity
        )

    def _ts_of_transition(self) -> int | None:
        """Return a timestamp at which all results hold (rule D), the newest one; None if there is none yet."""
        first = max(self.sent.ts, self._earliest_ts, self._results.since)
        last = self._latest_ts()
        if self._results.until:
            last = min(last, min(self._results.until.values()) - 1)
        return last if first <= last else None

    def _latest_ts(self) -> int:
        """Rule A: a mutation that runs may have been committed already, and its response must be first."""
        running = self._mutations.running
        return self._newest if running is None else min(self._newest, running.started)

    def _changes(self) -> list[Modification]:
        changes: list[Modification] = [QueryRemoved(query_id) for query_id in self._removed]
        self._removed.clear()
        for query_id in self._results.changed:
            query = self._queries[query_id]
            assert query.result is not None
            query.sent = query.result.digest
            changes.append(_change(query_id, query.result))
        self._results.changed.clear()
        return changes


def _change(query_id: int, result: Result) -> Modification:
    if isinstance(result.value, Failure):
        return QueryFailed(query_id, result.value, result.lines, result.journal)
    return QueryUpdated(query_id, result.value, result.lines, result.journal)
