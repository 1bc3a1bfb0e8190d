"""The policy of a cron: it decides which due slots run, which wait in its queue, and which are skipped. Pure.

    several slots are due      missed="once": the first runs, the others are skipped
                               missed="skip": the last runs if it is less than a minute late, the others are skipped
                               missed="all":  all run, one after the other, up to CRON_QUEUE_MAX
    a slot during a run        overlap="skip": it is skipped
                               overlap="queue": it waits, up to CRON_QUEUE_MAX
                               overlap="allow": it runs at the same time, up to CRON_RUNS_MAX

With missed="all" and overlap="allow" nothing waits: all due slots start at once, up to CRON_RUNS_MAX.

A new policy is a new value of `missed` or `overlap`: it is named here, decided in `admit`, and stored by its text.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from duly.limits import CRON_LATE_MS, CRON_QUEUE_MAX, CRON_RUNS_MAX
from duly.model import cron_schedule
from duly.model.cron_schedule import Schedule

ONCE, SKIP, ALL, QUEUE, ALLOW = "once", "skip", "all", "queue", "allow"
MISSED: Final = (ONCE, SKIP, ALL)
OVERLAP: Final = (SKIP, QUEUE, ALLOW)

_LISTED_MAX: Final = 2 + max(CRON_QUEUE_MAX, CRON_RUNS_MAX)  # one that runs, those that wait, the first one skipped


class Options(NamedTuple):
    """The options of a cron."""

    missed: str = ONCE
    overlap: str = SKIP
    jitter: float = 0.0
    """A run starts a random time after its slot, at most this many milliseconds."""
    paused: bool = False

    @property
    def queues(self) -> bool:
        """Whether slots may wait in the queue."""
        return self.overlap == QUEUE or (self.overlap == SKIP and self.missed == ALL)


class DueSlots(NamedTuple):
    """The slots of a cron that are due."""

    first: list[float]
    """The first ones: no more than could run or wait."""
    last: float
    total: int
    """The number of all of them."""
    next: float
    """The first slot that is not due."""


def due_slots(schedule: Schedule, first: float, now: float) -> DueSlots:
    """Return the slots from `first` to `now`."""
    slots, slot = [first], cron_schedule.next_after(schedule, first, first)
    while slot <= now and len(slots) < _LISTED_MAX:
        slots.append(slot)
        slot = cron_schedule.next_after(schedule, slot, slot)
    if slot > now:
        return DueSlots(slots, slots[-1], len(slots), slot)
    next = cron_schedule.next_after(schedule, slot, now)
    return DueSlots(slots, cron_schedule.last(schedule, slot, now), cron_schedule.count(schedule, first, now), next)


def admit(options: Options, slots: DueSlots, now: float, running: int, waiting: int) -> tuple[list[float], list[float]]:
    """Decide which slots run now and which wait; the others are skipped."""
    in_time = now - CRON_LATE_MS - options.jitter
    if options.missed == ALL:
        wanted = slots.first
    elif options.missed == SKIP:
        wanted = [slots.last] if slots.last >= in_time else []
    else:
        wanted = slots.first[:1]
    if options.overlap == ALLOW:
        return wanted[: max(CRON_RUNS_MAX - running, 0)], []
    started = wanted[: 0 if running else 1]
    late = slots.total > 1 or slots.first[0] < in_time
    waits = options.overlap == QUEUE or (options.missed == ALL and late)
    return started, wanted[len(started) :][: max(CRON_QUEUE_MAX - waiting, 0)] if waits else []
