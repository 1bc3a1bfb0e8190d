"""What a store holds: documents as JSON, jobs as rows with columns, and the tables of the system."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from duly.values.schema.tables import Index, Table

SUCCESS: Final = "success"
"""The state of a job that has succeeded, the only state by which storage ends jobs itself."""
MUTATION: Final = "mutation"
ACTION: Final = "action"

JOBS: Final = Table(
    "_scheduled_functions",
    1,
    (
        Index("by_state_scheduled_time", 1, ("state.kind", "scheduledTime")),
        Index("by_name_scheduled_time", 2, ("name", "scheduledTime")),
    ),
)
EXECUTOR: Final = Table("_executor", 2)
"""The settings that the executors of all processes follow. They are documents, unlike jobs."""
CRONS: Final = Table("_cron_jobs", 3, (Index("by_name", 4, ("name",)),))
CRON_LOGS: Final = Table("_cron_job_logs", 4, (Index("by_name", 5, ("name",)),))
REQUESTS: Final = Table("_client_requests", 5, (Index("by_request", 6, ("session", "request")),))
"""The mutations that remote clients have sent, each recorded by its own commit."""
SERVER: Final = Table("_server", 6)
"""What the servers of all processes must agree on, such as the origin of their timestamps."""
SYSTEM_TABLES: Final = {table.name: table for table in (JOBS, EXECUTOR, CRONS, CRON_LOGS, REQUESTS, SERVER)}
USER_NUMBER_MIN: Final = 100
"""The first number of a user's table or index; smaller numbers are reserved for the system."""


class Job(NamedTuple):
    """A row of `_scheduled_functions`. Times are float milliseconds since 1970."""

    id: int
    name: str
    """The function, as `folder/module:function`."""
    args: str
    """Its arguments: one object, as JSON."""
    scheduled_time: float
    """The time it was scheduled for."""
    due: float | None
    """When it is to run; None once it has started or completed."""
    state: str
    queue: str
    """MUTATION or ACTION, as the function was when it was scheduled. Stores call this column `lane`."""
    parent: int | None = None
    """The scheduled function that scheduled this one."""
    epoch: int | None = None
    """The epoch of the process that runs it, while it is in progress."""
    error: str | None = None
    completed_time: float | None = None
    attempts: int = 0
    """While it is pending: how often it was due and the store refused its commit."""
    retry_of: int | None = None
    """The failed function that this one is a manual retry of."""
    cron: int | None = None
    """The cron whose clock or run this is. Such rows are not listed, and are deleted when they end."""


make_job: Final[Callable[[Iterable[Any]], Job]] = partial(tuple.__new__, Job)  # pyright: ignore[reportUnknownMemberType]
"""Make a job from all its columns, in half the time of `Job(…)`: each read and each end of a job makes one."""


def succeeded_row(job: Job, completed_time: float) -> Job:
    """Return the row of a job after it has succeeded. `Engine.commit` writes the same for the ids in `succeeded`."""
    id, name, args, scheduled_time, _, _, queue, parent, *_, retry_of, cron = job
    return make_job(
        (id, name, args, scheduled_time, None, SUCCESS, queue, parent, None, None, completed_time, 0, retry_of, cron)
    )


JOB_FIELDS: Final = tuple("lane" if field == "queue" else field for field in Job._fields)
"""The columns of a job, by the names that stores have for them, in the order of `Job`."""

Row = str | Job
"""A document as JSON, or a row of a system table."""


class Write(NamedTuple):
    """What one transaction does to one row. `new` is None if the row is deleted, `old` if it is inserted.

    The keys are those of the table's indexes, in the order of the indexes. Jobs have no keys: the engine sorts them
    by column.
    """

    old: Row | None
    new: Row | None
    old_keys: tuple[bytes, ...] = ()
    new_keys: tuple[bytes, ...] = ()


make_write: Final[Callable[[Iterable[Any]], Write]] = partial(tuple.__new__, Write)  # pyright: ignore[reportUnknownMemberType]
"""Make a write from all its fields, in half the time of `Write(…)`: each row that is written has one."""
