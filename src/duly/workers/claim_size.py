"""How many due functions the executor claims at once, and how it finds a function that the store refuses.

Sizing. The first claim takes `_SIZE_MIN` functions. After each batch the next claim takes a quarter more than has run,
plus `_SIZE_MIN`, up to `DUE_BATCH_MAX`. So claims grow fast while functions are quick. Slow functions keep claims
small, because few of them fill the time of a batch: a claim reads hardly more rows and arguments than a batch can run.

Follow-ups. On a shared store a commit takes a round trip, so one claim serves several batches: the batch that claims,
and `DUE_BATCHES_MORE` follow-ups that run the rest of its claim while earlier ones are being committed. The claim is
sized for all of them. There are follow-ups only after a claim that one batch could not finish: a single due function
waits for one batch only.

Refusal. The store refuses a batch as a whole, for example because of a full disk or a text that it cannot hold, and
does not say which function is the cause. So the next claim takes half as many functions as that batch has run,
mutations and actions together, until a batch of a single function is refused. That function is postponed, and the
others go on.

A lost store gives no answer. No function is the cause of that, but the answer to a large claim may take too long. So
the next claim is half as large.
"""

from __future__ import annotations

from typing import Final

from duly.limits import DUE_BATCH_MAX, DUE_BATCHES_MORE

_SIZE_MIN: Final = 16
"""The size of the first claim: the arguments of many functions might fill the memory, or take too long to read."""


class ClaimSize:
    """The size of the next claim. Changed in the event loop only, between batches; the committer's thread reads it."""

    def __init__(self) -> None:
        self.limit = _SIZE_MIN
        """How many mutations the next batch claims for itself and its follow-ups."""
        self.is_refused = False
        """Whether the store has refused the last batch: then `limit` counts mutations and actions together."""
        self._follow_ups = 0

    def take_follow_ups(self) -> int:
        """Return how many follow-ups the next batch has. The one after it has none unless `adapt` says so."""
        follow_ups, self._follow_ups = self._follow_ups, 0
        return follow_ups

    def adapt(self, ran: int, batches: int, with_follow_ups: bool) -> None:
        """Set the size of the next claim, after this many batches have run this many functions."""
        self.is_refused = False
        self._follow_ups = DUE_BATCHES_MORE if with_follow_ups else 0
        each = ran // batches
        self.limit = min(each + each // 4 + _SIZE_MIN, DUE_BATCH_MAX) * (1 + self._follow_ups)

    def on_store_lost(self) -> None:
        """Halve the next claim."""
        self.limit = max(self.limit // 2, 1)

    def on_refused(self, attempted: int) -> None:
        """Let the next batch run half as many functions as the refused one."""
        self.is_refused, self.limit = True, max(attempted // 2, 1)
