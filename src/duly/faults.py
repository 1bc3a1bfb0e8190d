"""Named fault points: no-ops, unless a test arms one to kill the process or to raise.

A point is armed in this process with `arm`, or from outside with the environment variable
`DULY_FAULT="commit.flushed:3"`: the third time that point is passed, the process gets SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "batch.begun",  # the write transaction is open, no handler ran
    "batch.ran",  # the handlers of the batch returned, nothing is written
    "commit.flushed",  # the writes are in the open transaction
    "commit.durable",  # committed, no caller has its answer
    "commit.answered",  # callers have their answers, watchers are woken
    "job.claimed",  # a due function was found pending, its handler has not run
    "job.ran",  # its handler returned, its end is not recorded
    "action.marked",  # `inProgress` is durable, no line of the action ran
    "action.ran",  # the action returned, its end is not recorded
    "action.recorded",  # its end is durable
    "recovery.begun",  # the store is open, no interrupted action is recorded
    "job.refused",  # the store has refused a due function, it is not postponed yet
    "jobs.swept",  # expired rows are deleted in the open transaction
    "requests.swept",  # the same for old requests of clients
    "executor.paused",  # the pause is in the open transaction
    "cron.ticked",  # the run of a cron is inserted, its clock has not moved
    "schema.index_created",  # a new index is in the open transaction, empty
    "schema.step",  # a step of a schema change is durable
    "schema.ready",  # the new schema is in the open transaction, with its tables, indexes and crons
    "schema.applied",  # it is durable, the app has no answer
)

armed: Final[dict[str, Callable[[], None]]] = {}
"""What is armed, by its point. Where each job passes a point, it looks here first, which takes no call."""


def at(point: str) -> None:
    """Pass a fault point."""
    if armed and point in armed:
        armed[point]()


def arm(point: str, action: Callable[[], None], passing: int = 1) -> None:
    """Call `action` at each passage of `point`, from the `passing`-th one on."""
    if point not in POINTS:
        raise ValueError(f"{point!r} is not a fault point; there are {', '.join(POINTS)}")
    left = passing

    def count() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            action()

    armed[point] = count


def disarm() -> None:
    """Make every point a no-op again."""
    armed.clear()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm_from_environment(setting: str) -> None:
    point, _, passing = setting.partition(":")
    arm(point, _kill, int(passing or 1))


if "DULY_FAULT" in os.environ:
    _arm_from_environment(os.environ["DULY_FAULT"])
