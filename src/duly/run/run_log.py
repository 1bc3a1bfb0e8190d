"""The log of runs, `duly.run`: one record for each run of a function."""

from __future__ import annotations

import logging
from contextvars import Context, copy_context
from functools import partial
from typing import Final

from duly.clock import monotonic
from duly.database.batch import Batch
from duly.limits import OF_ANY_SIZE
from duly.logs import log_of
from duly.run.failure import describe
from duly.storage.rows import JOBS, Job
from duly.values.ids import IdCodec
from duly.values.json import NotAValueError, dumps
from duly.values.text import show

LOG: Final = log_of("duly.run")
"""One record for each run, with its Run as `record.run`: at ERROR for a scheduled function that failed, else at INFO.

A run that was interrupted, or that could not start, has a record, too; of 0 ms where its duration is unknown."""


is_logged: Final = LOG.logger.isEnabledFor  # each job asks, and the adapter would only ask in its turn
"""Whether runs are logged that end at this level."""


class Run:
    """One run of a function, as a record of the log has it."""

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
        """The id in `_scheduled_functions`; None for a call, and for the run of a cron."""
        self.is_scheduled = is_scheduled
        self.milliseconds = milliseconds
        self.error = error
        self.args = args
        """As JSON."""

    def __str__(self) -> str:
        outcome = "ok" if self.error is None else describe(self.error)
        return f"{self.kind} {self.function} {self.milliseconds:.1f} ms {outcome}"

    def log(self, level: int, context: Context) -> None:
        """Write the record in the context of the run: filters and handlers may read context variables of the caller."""
        raised = self.error if level >= logging.ERROR else None  # otherwise the caller gets the exception
        context.run(LOG.log, level, "%s", self, exc_info=raised, extra={"run": self})


class RunLog:
    """Writes the records of the runs of one store."""

    def __init__(self, ids: IdCodec) -> None:
        self._ids = ids

    def record(
        self,
        name: str,
        kind: str,
        started: float,
        error: Exception | None = None,
        job: Job | None = None,
        batch: Batch | None = None,
        args: object = None,
    ) -> None:
        """Log a run, of `job` if it was scheduled; if it ran in a batch, once the batch is durable."""
        # An error of a call is raised to its caller; an error of a scheduled function has only the log.
        level = logging.ERROR if error is not None and job is not None else logging.INFO
        if is_logged(level):
            id = None if job is None or job.cron is not None else self._ids.encode(JOBS.number, job.id)
            text = _json(args) if job is None else job.args
            run = Run(name, kind, id, job is not None, (monotonic() - started) * 1000, error, text)
            log = partial(run.log, level, copy_context())
            if batch is None:
                log()
            else:
                batch.on_durable.append(log)


def _json(args: object) -> str:
    """Return the arguments of a call as JSON; as Python shows them if they are not values."""
    try:
        return args if isinstance(args, str) else dumps(args or {}, OF_ANY_SIZE)
    except NotAValueError:
        return show(args)
