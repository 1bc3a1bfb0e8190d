"""What becomes of the slots of a cron that have come: they run, wait in its queue, or are skipped. Pure.

    slots that have passed     missed="once": the first runs, the others are skipped
                               missed="skip": the last runs if it is less than a minute late, the others are skipped
                               missed="all":  all run, one after the other, as many as the queue holds
    a slot while a run goes on overlap="skip": it is skipped
                               overlap="queue": it waits for its turn, as many as the queue holds
                               overlap="allow": it runs beside, as many as may be on at once

With missed="all" and overlap="allow" nothing waits: what has passed starts at once, as many as may be on at once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from duly.limits import CRON_LATE_MS, CRON_QUEUE_MAX, CRON_RUNS_MAX
from duly.model import cron_schedule
from duly.model.cron_schedule import Schedule

ONCE, SKIP, ALL, QUEUE, ALLOW = "once", "skip", "all", "queue", "allow"
MISSED: Final = (ONCE, SKIP, ALL)
OVERLAP: Final = (SKIP, QUEUE, ALLOW)

_LOOKED_AT: Final = 2 + max(CRON_QUEUE_MAX, CRON_RUNS_MAX)  # one runs, as many wait, and the first that is skipped


class Options(NamedTuple):
    """What a cron is told beside its schedule."""

    missed: str = ONCE
    overlap: str = SKIP
    jitter: float = 0.0
    """A run starts so many milliseconds after its slot at most, by chance."""
    paused: bool = False

    @property
    def queues(self) -> bool:
        """Whether there are slots that wait."""
        return self.overlap == QUEUE or (self.overlap == SKIP and self.missed == ALL)


class DueSlots(NamedTuple):
    """Slots that have come."""

    first: list[float]
    """The first ones; more could neither run nor wait."""
    last: float
    total: int
    """How many there are."""
    next: float
    """The one after them, which has not come."""


def due_slots(schedule: Schedule, first: float, now: float) -> DueSlots:
    """The slots from the first one to now."""
    slots, slot = [first], cron_schedule.next_after(schedule, first, first)
    while slot <= now and len(slots) < _LOOKED_AT:
        slots.append(slot)
        slot = cron_schedule.next_after(schedule, slot, slot)
    if slot > now:
        return DueSlots(slots, slots[-1], len(slots), slot)
    next = cron_schedule.next_after(schedule, slot, now)
    return DueSlots(slots, cron_schedule.last(schedule, slot, now), cron_schedule.count(schedule, first, now), next)


def admit(options: Options, slots: DueSlots, now: float, running: int, waiting: int) -> tuple[list[float], list[float]]:
    """Which slots run now, and which wait."""
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
