"""What a session knows of the queries that its client watches."""

from __future__ import annotations

from dataclasses import dataclass, field

from duly.sync.effects import Result
from duly.sync.protocol import Add


@dataclass(slots=True)
class WatchedQuery:
    add: Add
    result: Result | None = None
    sent: object = None
    """The digest that the client has; None if it has nothing."""


@dataclass(slots=True)
class Results:
    """What is known of the results of all queries together, so that a flush looks at those that changed only."""

    missing: set[int] = field(default_factory=set[int])
    """The queries that have none."""
    changed: dict[int, None] = field(default_factory=dict[int, None])
    """The queries of which the client has another one."""
    until: dict[int, int] = field(default_factory=dict[int, int])
    """Where a commit has changed what a query had read: when it did."""
    since: int = 0
    """All that there are, and were, hold from here on."""

    def forget(self, query_id: int) -> None:
        self.missing.discard(query_id)
        self.changed.pop(query_id, None)
        self.until.pop(query_id, None)
