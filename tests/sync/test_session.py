"""What a client may rely on, whatever happens in which order: checked against a model of the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from duly.limits import SOCKET_CALLS_MAX
from duly.sync.effects import CatchUp, CheckToken, Close, Result, RunAction, RunMutation, Send, Unwatch, Watch
from duly.sync.protocol import (
    ActionResponse,
    Add,
    AuthError,
    Failure,
    FatalError,
    MutationResponse,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    StateVersion,
    Transition,
)
from duly.sync.session import Session

SESSION = str(UUID(int=7))
KEYS = 4


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def connect(**fields: Any) -> str:
    return message("Connect", sessionId=SESSION, connectionCount=0, lastCloseReason=None, clientTs=0, **fields)


def modify(base: int, *modifications: dict[str, Any]) -> str:
    return message("ModifyQuerySet", baseVersion=base, newVersion=base + 1, modifications=modifications)


def add(query_id: int, path: str = "app:one") -> dict[str, Any]:
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [{}]}


def mutation(request_id: int) -> str:
    return message("Mutation", requestId=request_id, udfPath="app:write", args=[{}])


def connected() -> Session:
    session = Session()
    session.receive(connect())
    assert session.take() == [CatchUp(0)]
    session.caught_up()
    return session


def value(text: str, since: int, journal: str | None = None) -> Result:
    return Result(text.encode(), since, text, journal=journal)


def sent(session: Session) -> list[Any]:
    return [effect.message for effect in session.take() if isinstance(effect, Send)]


# The rules, one by one.


def test_an_added_query_is_run_and_answered_by_a_transition() -> None:
    session = connected()

    session.receive(modify(0, add(0)))
    session.flush(5)
    assert session.take() == [Watch(Add(0, "app:one", {}), None)]
    session.query_ran(0, value("1", since=5))
    session.flush(5)

    assert sent(session) == [Transition(StateVersion(), StateVersion(1, 0, 5), (QueryUpdated(0, b"1"),))]


def test_a_changed_query_set_is_answered_even_if_it_stays_empty() -> None:
    session = connected()
    session.receive(modify(0))
    session.flush(5)
    assert sent(session) == [Transition(StateVersion(), StateVersion(1, 0, 5))]


def test_a_query_that_is_removed_before_it_was_answered_is_only_removed() -> None:
    session = connected()
    session.receive(modify(0, add(0)))
    session.receive(modify(1, {"type": "Remove", "queryId": 0}))
    session.flush(5)
    assert sent(session) == [Transition(StateVersion(), StateVersion(2, 0, 5), (QueryRemoved(0),))]


def test_the_response_of_a_mutation_comes_before_the_transition_that_shows_it() -> None:
    session = connected()
    session.receive(modify(0, add(0)))
    session.query_ran(0, value("1", since=5))
    session.flush(5)
    session.receive(mutation(0))
    session.take()

    session.query_stale(0, at=6)
    session.query_ran(0, value("2", since=6))
    session.flush(6)
    assert sent(session) == []
    session.mutation_ended(MutationResponse(0, b"null", 6))
    session.flush(6)

    shown = Transition(StateVersion(1, 0, 5), StateVersion(1, 0, 6), (QueryUpdated(0, b"2"),))
    assert sent(session) == [MutationResponse(0, b"null", 6), shown]


def test_a_failed_mutation_is_followed_by_an_empty_transition() -> None:
    session = connected()
    session.receive(mutation(0))
    session.mutation_ended(MutationResponse(0, Failure("no"), None))
    session.flush(5)
    assert sent(session) == [MutationResponse(0, Failure("no"), None), Transition(StateVersion(), StateVersion(ts=5))]


def test_an_action_is_followed_by_an_empty_transition() -> None:
    session = connected()
    session.receive(message("Action", requestId=3, udfPath="app:act", args=[{}]))
    session.action_ended(ActionResponse(3, b"1"))
    session.flush(5)
    assert sent(session) == [ActionResponse(3, b"1"), Transition(StateVersion(), StateVersion(ts=5))]


def test_mutations_run_one_at_a_time() -> None:
    session = connected()
    session.receive(mutation(0))
    session.receive(mutation(1))
    assert [effect.mutation.request_id for effect in session.take() if isinstance(effect, RunMutation)] == [0]

    session.mutation_ended(MutationResponse(0, b"null", 6))

    response, run = session.take()
    assert response == Send(MutationResponse(0, b"null", 6))
    assert isinstance(run, RunMutation) and run.mutation.request_id == 1


def test_what_follows_a_token_waits_until_it_is_checked() -> None:
    session = connected()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="token"))
    session.receive(modify(0, add(0)))
    [check] = session.take()
    assert isinstance(check, CheckToken) and check.message.value == "token"

    session.accepted("ada")

    assert session.take() == [Watch(Add(0, "app:one", {}), "ada")]
    assert session.received == StateVersion(1, 1)


def test_what_waits_for_a_token_has_a_limit() -> None:
    session = connected()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="token"))
    session.take()
    for request_id in range(SOCKET_CALLS_MAX):
        session.receive(mutation(request_id))
    assert session.take() == []
    session.receive(mutation(SOCKET_CALLS_MAX))
    assert session.take() == [Close(1013, "TooManyConcurrentRequests")]


def test_a_token_that_has_expired_ends_the_connection() -> None:
    session = connected()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="token"))
    session.accepted("ada")
    session.flush(5)
    session.take()
    session.refused("the token has expired", expired=True)
    assert session.take() == [Send(AuthError("the token has expired", 1, False)), Close(1000, "AuthError")]


def test_a_refused_token_ends_the_connection() -> None:
    session = connected()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="token"))
    session.take()
    session.refused("wrong audience")
    assert session.take() == [Send(AuthError("wrong audience", 0, True)), Close(1000, "AuthError")]


def test_nothing_happens_before_the_server_knows_what_the_client_has_seen() -> None:
    session = Session()
    session.receive(connect(maxObservedTimestamp="CQAAAAAAAAA="))
    session.receive(modify(0))
    session.flush(8)
    assert session.take() == [CatchUp(9)]

    session.caught_up()
    session.flush(8)
    assert session.take() == []
    session.flush(9)
    assert sent(session) == [Transition(StateVersion(), StateVersion(1, 0, 9))]


def test_a_query_runs_again_with_the_journal_of_its_last_run() -> None:
    session = connected()
    session.receive(modify(0, add(0)))
    session.query_ran(0, value("1", 5, journal="[10]"))
    session.take()

    session.receive(message("Authenticate", baseVersion=0, tokenType="None"))

    assert session.take() == [Unwatch(0), Watch(Add(0, "app:one", {}, "[10]"), None)]


def test_a_client_that_is_at_fault_is_told_so_and_closed() -> None:
    faults = ["{", "[]", message("Hello"), mutation(0), connect() + "x"]
    for fault in faults:
        session = Session()
        session.receive(fault)
        error, close = session.take()
        assert isinstance(error, Send) and isinstance(error.message, FatalError)
        assert close == Close(1000, "FatalError")
        session.receive(connect())
        assert session.take() == []


def test_a_query_set_that_does_not_follow_the_last_one_is_refused() -> None:
    session = connected()
    session.receive(modify(3))
    error, _ = session.take()
    assert error == Send(FatalError("ModifyQuerySet: got the versions 3 to 4, expected 0 to 1"))


# All of them at once, in any order. The client below was written from the rules, not from the session.


class World:
    """A database of a few numbers, whose queries read some of them, and one client that is connected to it."""

    def __init__(self) -> None:
        self.session = connected()
        self.history: list[dict[int, int]] = [dict.fromkeys(range(KEYS), 0)]  # by timestamp
        self.client = Client(self)
        self.watched: dict[int, Any] = {}  # query -> identity
        self.runs: dict[int, int | None] = {}  # query -> the timestamp that its run reads at; None: not begun
        self.stale: list[tuple[int, int]] = []  # not yet reported
        self.valid_since: dict[int, int] = {}
        self.running: list[RunMutation] = []
        self.committed: int | None = None
        self.own_commits: dict[int, int] = {}  # request -> timestamp
        self.actions: list[int] = []
        self.checking: CheckToken | None = None
        self.order: list[int] = []  # of the mutations that were begun

    @property
    def ts(self) -> int:
        return len(self.history) - 1

    def value(self, query: int, identity: Any, ts: int) -> str:
        """A query reads two keys: 5 reads 1 and 2."""
        return json.dumps([identity, *(self.history[ts][key] for key in reads_of(query))])

    def commit(self, key: int) -> int:
        self.history.append({**self.history[-1], key: self.history[-1][key] + 1})
        for query, since in self.valid_since.items():
            if key in reads_of(query) and since < self.ts:
                self.stale.append((query, self.ts))
                self.runs.setdefault(query, None)
        self.valid_since = {q: s for q, s in self.valid_since.items() if key not in reads_of(q)}
        return self.ts

    # The steps. Each of them does what is possible; a step that is not does nothing.

    def client_adds(self, n: int) -> None:
        self.client.add(n)
        self.work()

    def client_removes(self, n: int) -> None:
        self.client.remove(n)
        self.work()

    def client_mutates(self, n: int) -> None:
        self.client.mutate(n)
        self.work()

    def client_acts(self, n: int) -> None:
        self.client.act()
        self.work()

    def client_logs_in(self, n: int) -> None:
        self.client.log_in(n)
        self.work()

    def somebody_commits(self, n: int) -> None:
        self.commit(n % KEYS)

    def query_begins(self, n: int) -> None:
        waiting = [query for query, at in self.runs.items() if at is None]
        if waiting:
            self.runs[waiting[n % len(waiting)]] = self.ts

    def query_ends(self, n: int) -> None:
        begun = [query for query, at in self.runs.items() if at is not None]
        if not begun:
            return
        query = begun[n % len(begun)]
        at = self.runs.pop(query)
        assert at is not None
        self.report_stale()
        self.session.query_ran(query, value(self.value(query, self.watched[query], at), since=at))
        changed = [ts for ts in range(at + 1, self.ts + 1) if self.changed(query, ts)]
        if changed:
            self.session.query_stale(query, changed[0])
            self.runs[query] = None
        else:
            self.valid_since[query] = at
        self.flush()

    def changed(self, query: int, ts: int) -> bool:
        return any(self.history[ts][key] != self.history[ts - 1][key] for key in reads_of(query))

    def mutation_commits(self, n: int) -> None:
        if self.running and self.committed is None:
            request = self.running[0].mutation.request_id
            self.committed = self.own_commits[request] = self.commit(request % KEYS)

    def mutation_ends(self, n: int) -> None:
        """It has failed if it has not committed."""
        if self.running:
            ended, ts, self.committed = self.running.pop(), self.committed, None
            self.report_stale()
            result = b"null" if ts is not None else Failure("no")
            self.session.mutation_ended(MutationResponse(ended.mutation.request_id, result, ts))
            self.flush()

    def action_ends(self, n: int) -> None:
        if self.actions:
            self.session.action_ended(ActionResponse(self.actions.pop(n % len(self.actions)), b"1"))
            self.flush()

    def token_is_checked(self, n: int) -> None:
        if self.checking is not None:
            checked, self.checking = self.checking, None
            self.session.accepted(checked.message.value)
            self.flush()

    # What the session is told, and what it says.

    def report_stale(self) -> None:
        for query, at in self.stale:
            self.session.query_stale(query, at)
        self.stale.clear()

    def flush(self) -> None:
        self.work()  # a query that is not watched any more has nothing to report
        self.report_stale()
        self.session.flush(self.ts)
        self.work()

    def work(self) -> None:
        for effect in self.session.take():
            if isinstance(effect, Send):
                self.client.receive(effect.message)
            elif isinstance(effect, Watch):
                self.watched[effect.query.query_id] = effect.identity
                self.runs[effect.query.query_id] = None
            elif isinstance(effect, Unwatch):
                query = effect.query_id
                self.stale = [(q, at) for q, at in self.stale if q != query]
                for of_queries in (self.watched, self.runs, self.valid_since):
                    of_queries.pop(query, None)
            elif isinstance(effect, RunMutation):
                assert not self.running, "mutations run one at a time"
                assert effect.mutation.request_id not in self.client.answered
                self.running.append(effect)
                self.order.append(effect.mutation.request_id)
                self.client.check_identity(effect)
            elif isinstance(effect, RunAction):
                self.actions.append(effect.action.request_id)
            elif isinstance(effect, CheckToken):
                self.checking = effect
            else:
                raise AssertionError(effect)

    def come_to_rest(self) -> None:
        for _ in range(500):
            before = len(self.client.messages)
            for step in (
                self.token_is_checked,
                self.query_begins,
                self.query_ends,
                self.mutation_commits,
                self.mutation_ends,
                self.action_ends,
            ):
                step(0)
            self.flush()
            busy = self.runs or self.running or self.actions or self.checking
            if not busy and len(self.client.messages) == before:
                return
        raise AssertionError("the session does not come to rest")


def reads_of(query: int) -> tuple[int, int]:
    return query % KEYS, (query + 1) % KEYS


class Client:
    """What a client knows and believes, and what it complains about."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.messages: list[Any] = []
        self.version = StateVersion()
        self.sets: list[set[int]] = [set()]  # by the version of the query set
        self.identities: list[Any] = [None]  # by the version of the identity
        self.values: dict[int, str] = {}
        self.next_query = self.next_request = 0
        self.unanswered: list[int] = []
        self.identity_of: dict[int, Any] = {}
        self.answered: dict[int, int | None] = {}
        self.acting: set[int] = set()
        self.owed = False

    def add(self, n: int) -> None:
        self.sets.append(self.sets[-1] | {self.next_query})
        self.world.session.receive(modify(len(self.sets) - 2, add(self.next_query)))
        self.next_query += 1

    def remove(self, n: int) -> None:
        if self.sets[-1]:
            gone = sorted(self.sets[-1])[n % len(self.sets[-1])]
            self.sets.append(self.sets[-1] - {gone})
            self.world.session.receive(modify(len(self.sets) - 2, {"type": "Remove", "queryId": gone}))

    def mutate(self, n: int) -> None:
        self.unanswered.append(self.next_request)
        self.identity_of[self.next_request] = self.identities[-1]
        self.world.session.receive(mutation(self.next_request))
        self.next_request += 1

    def act(self) -> None:
        self.acting.add(self.next_request)
        self.world.session.receive(message("Action", requestId=self.next_request, udfPath="app:act", args=[{}]))
        self.next_request += 1

    def log_in(self, n: int) -> None:
        base, name = len(self.identities) - 1, f"user {n}"
        self.identities.append(name)
        self.world.session.receive(message("Authenticate", baseVersion=base, tokenType="User", value=name))

    def check_identity(self, run: RunMutation) -> None:
        assert run.identity == self.identity_of[run.mutation.request_id]

    def receive(self, got: Any) -> None:
        self.messages.append(got)
        if isinstance(got, MutationResponse):
            assert got.request_id == self.unanswered.pop(0), "mutations are answered in their order"
            self.answered[got.request_id] = got.ts
            self.owed = True
        elif isinstance(got, ActionResponse):
            self.acting.remove(got.request_id)
            self.owed = True
        else:
            assert isinstance(got, Transition)
            self.move(got)

    def move(self, to: Transition) -> None:
        assert to.start == self.version
        assert to.end.ts >= to.start.ts and to.end.ts <= self.world.ts
        moved = (to.end.query_set, to.end.identity) != (to.start.query_set, to.start.identity)
        assert self.owed or moved or to.modifications, "nobody needs this Transition"
        self.version, self.owed = to.end, False
        for change in to.modifications:
            assert not isinstance(change, QueryFailed)
            if isinstance(change, QueryRemoved):
                self.values.pop(change.query_id, None)
            else:
                assert isinstance(change, QueryUpdated)
                assert self.values.get(change.query_id) != change.value.decode(), "it has that value already"
                self.values[change.query_id] = change.value.decode()
        identity = self.identities[to.end.identity]
        wanted = self.sets[to.end.query_set]
        assert self.values == {query: self.world.value(query, identity, to.end.ts) for query in wanted}
        for request, ts in self.world.own_commits.items():
            assert request in self.answered or ts > to.end.ts, "it shows a mutation that is not answered"
        assert all(ts <= to.end.ts for ts in self.answered.values() if ts is not None), "it hides an answered one"


STEPS: list[Callable[[World, int], None]] = [
    World.client_adds,
    World.client_adds,
    World.client_removes,
    World.client_mutates,
    World.client_mutates,
    World.client_acts,
    World.client_logs_in,
    World.somebody_commits,
    World.somebody_commits,
    World.query_begins,
    World.query_begins,
    World.query_ends,
    World.query_ends,
    World.mutation_commits,
    World.mutation_commits,
    World.mutation_ends,
    World.action_ends,
    World.token_is_checked,
    lambda world, _: world.flush(),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), min_size=30, max_size=120))
def test_a_client_sees_one_consistent_state_after_another(
    steps: list[tuple[Callable[[World, int], None], int]],
) -> None:
    world = World()

    for step, n in steps:
        step(world, n)
    world.come_to_rest()

    client = world.client
    assert (client.unanswered, client.acting, client.owed) == ([], set(), False)
    assert world.order == sorted(world.order)
    assert (client.version.query_set, client.version.identity) == (len(client.sets) - 1, len(client.identities) - 1)
    newest = {query: world.value(query, client.identities[-1], world.ts) for query in client.sets[-1]}
    assert client.values == newest
