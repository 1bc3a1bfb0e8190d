"""What goes into and comes out of a session: results of queries, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from duly.sync.protocol import Action, Add, Authenticate, Failure, Mutation, ServerMessage


@dataclass(frozen=True, slots=True)
class Result:
    """What a query has returned, and since when that is so."""

    value: bytes | Failure
    since: int
    digest: object
    """Two results with equal digests look the same to a client."""
    lines: tuple[str, ...] = ()
    journal: str | None = None


# What is to be done.


@dataclass(frozen=True, slots=True)
class Send:
    message: ServerMessage


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Do not go on before this server knows all commits up to a timestamp; then call `caught_up`."""

    ts: int


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Check a token; then call `accepted` or `refused`."""

    message: Authenticate


@dataclass(frozen=True, slots=True)
class Watch:
    """Run a query now and whenever what it read has changed, until `Unwatch`. Then call `query_ran`, `query_stale`."""

    query: Add
    identity: Any


@dataclass(frozen=True, slots=True)
class Unwatch:
    query_id: int


@dataclass(frozen=True, slots=True)
class RunMutation:
    """Run a mutation, once even if the client sends it on several connections; then call `mutation_ended`."""

    session_id: str
    mutation: Mutation
    identity: Any
    is_new: bool = False
    """Whether it cannot have been sent on an earlier connection."""


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run an action; then call `action_ended`."""

    action: Action
    identity: Any


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection. Nothing follows."""

    code: int
    reason: str


Effect = Send | CatchUp | CheckToken | Watch | Unwatch | RunMutation | RunAction | Close
