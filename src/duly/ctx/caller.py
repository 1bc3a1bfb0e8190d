"""For whom a call runs: its identity, and the scheduled function or subscription that it is a part of."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from duly.ctx.db.cursor import Journal
from duly.errors import DulyError, LimitError
from duly.limits import CALL_DEPTH_MAX
from duly.logs import LogLine
from duly.model.client_requests import RequestKey

Identity = dict[str, Any]
"""The identity of the caller: `tokenIdentifier`, `subject`, `issuer`, and other claims of the identity provider."""


@dataclass(slots=True)
class IdentityUse:
    """Whether a call, or one within it, has looked at the identity of its caller."""

    seen: bool = False


@dataclass
class Caller:
    """For whom a function runs, and the work that it is a part of."""

    identity: Identity | None = None
    job: int | None = None
    """The scheduled function that the call is, or is a part of."""
    depth: int = 0
    """The number of nested calls of functions by functions."""
    lines: list[LogLine] | None = None
    """Where the lines of `ctx.log` are kept, beside the log itself; None keeps none."""
    wants_plain: bool = False
    """Whether the result leaves the process, so that it must be of plain values instead of instances."""
    journal: Journal | None = None
    """Where the pages of a live query ended; None for a query that runs once."""
    identity_use: IdentityUse | None = None
    """Where it is noted that the identity was looked at; None if nobody wants to know."""
    request: RequestKey | None = None
    """The request of a remote client, if the call is a mutation that must not run twice."""
    request_is_new: bool = False
    """Whether the client cannot have sent this request before, so that there is no answer to look for."""
    refusal: DulyError | None = None
    """Why the token of an HTTP request was refused: raised to a function that wants to know the identity."""

    def known_identity(self) -> Identity | None:
        """Return a copy of the identity, for a function may change it. Raises the refusal of a token."""
        if self.identity_use is not None:
            self.identity_use.seen = True
        if self.refusal is not None:
            raise self.refusal
        return deepcopy(self.identity)

    @property
    def has_used_identity(self) -> bool:
        return self.identity_use is not None and self.identity_use.seen

    def inner(self, name: str) -> Caller:
        """Return the caller of a function that the function `name` calls."""
        depth = self.depth + 1
        if depth > CALL_DEPTH_MAX:
            raise LimitError(
                f"{name}: got {depth} calls of functions by functions, each within the one before, expected at most"
                f" {CALL_DEPTH_MAX} (CALL_DEPTH_MAX)"
            )
        return Caller(
            self.identity,
            self.job,
            depth,
            self.lines,
            journal=self.journal,
            identity_use=self.identity_use,
            refusal=self.refusal,
        )

    @staticmethod
    def live(identity: Identity | None) -> Caller:
        """Return the caller of a subscription, whose query runs again and again."""
        return Caller(identity, journal=Journal())


_new: Final[Callable[[type[Caller]], Caller]] = Caller.__new__
ANONYMOUS: Final = Caller()


def caller_of_job(job: int) -> Caller:
    """Return the caller of a scheduled function. The other fields have their defaults, as attributes of the class:
    each job gets one of these, and `Caller(…)` would take most of its time to repeat them.
    """
    caller = _new(Caller)
    caller.job, caller.wants_plain = job, True
    return caller
