"""The reasons why a batch is not stored although its calls did nothing wrong. The committer runs it again."""

from __future__ import annotations

from duly.errors import StoreLostError


class Conflict(Exception):
    """Another node has written what a batch has read.

    Nothing of the batch is stored. Run it again as an exclusive batch, which has no conflicts.
    """


class NotExclusive(Conflict):
    """A batch needs an operation that only an exclusive batch has. Run it again as one."""


class SpeculationFailed(Exception):
    """A batch assumed wrongly that the commit in flight would succeed and that nothing else would change.

    Nothing of the batch is stored. Run it again, after the batch before it.
    """


class CommitInDoubt(StoreLostError):
    """The answer to a commit was lost, and the store cannot be reached yet to find out the outcome.

    `SharedEngine.resolve_commit` tries to find it out again.
    """
