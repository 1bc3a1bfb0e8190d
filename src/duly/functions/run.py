"""One run of a function, as the log of runs tells it."""

from __future__ import annotations

import logging
from contextvars import Context
from typing import Final

from duly.functions.failure import describe
from duly.limits import OF_ANY_SIZE
from duly.logs import log_of
from duly.values.checks import show
from duly.values.value import NotAValueError, dumps

LOG: Final = log_of("duly.run")
"""One line for each run, with `run` (a Run) in the record: at level INFO, a scheduled one that has failed at ERROR.

What was interrupted, or could not even begin, has a line as well: of 0 ms, where nobody knows how long it took."""


class Run:
    """One run of a function, as the log of runs tells it."""

    __slots__ = ("args", "error", "function", "is_scheduled", "job", "kind", "milliseconds")

    def __init__(
        self,
        function: str,
        kind: str,
        job: str | None,
        is_scheduled: bool,
        milliseconds: float,
        error: Exception | None,
        args: str,
    ) -> None:
        self.function = function
        self.kind = kind
        self.job = job
        self.is_scheduled = is_scheduled  # those of crons too, which have no job that anybody sees
        self.milliseconds = milliseconds
        self.error = error
        self.args = args
        """In JSON."""

    def __str__(self) -> str:
        outcome = "ok" if self.error is None else describe(self.error)
        return f"{self.kind} {self.function} {self.milliseconds:.1f} ms {outcome}"

    def tell(self, level: int, context: Context) -> None:
        """Tell the log, whose filters and handlers may look at what the caller has put into its context."""
        raised = self.error if level >= logging.ERROR else None  # else the caller has it
        context.run(LOG.log, level, "%s", self, exc_info=raised, extra={"run": self})


def shown(args: object) -> str:
    """The arguments of a call in JSON; those that are not values as Python shows them."""
    try:
        return args if isinstance(args, str) else dumps(args or {}, OF_ANY_SIZE)
    except NotAValueError:
        return show(args)
