"""A cron as it should be: it says what becomes of each slot, and objects where something else becomes of it."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from duly.model.cron_schedule import FixedInterval, Schedule, following

LATE_MS: Final = 60_000.0
WAITING_MAX: Final = 100
GOING_MAX: Final = 100

Log = dict[str, Any]


class Options(NamedTuple):
    missed: str = "once"
    overlap: str = "skip"
    jitter: float = 0.0


class Skip(NamedTuple):
    first: float
    count: int


class Twin:
    """What is known of a cron without looking at it: its schedule, what was done to it, and what it was seen to do.

    With jitter nobody knows when it ticks. Then it is only seen that each slot has one run or one skip.
    """

    def __init__(
        self, name: str, schedule: Schedule, options: Options, acts: bool, first: float | None, now: float
    ) -> None:
        self.name = name
        self.acts = acts
        self.schedule = schedule
        self.options = options
        self.paused = False
        self.next_slot = _after(schedule, now, now) if first is None else first
        self.running: list[float] = []
        self.waiting: deque[float] = deque()
        self.skips: deque[Skip] = deque()
        """Those that the log is to tell of next."""
        self.last_row: Log | None = None
        """The newest row of its log: one that tells of skips is added to until another one comes."""
        self.ran: set[float] = set()
        self.errors: Counter[str] = Counter()
        """Of its runs that failed."""
        self.succeeded: Counter[float] = Counter()
        """When runs have ended well."""
        self.slots = 0
        self.runs = 0
        self.skipped = 0
        self.queued = 0
        self.uncertain: set[float] = set()
        """Slots that have come by a clock with jitter, and of which nothing has been told yet."""

    # What is done to it.

    def edit(self, schedule: Schedule, now: float) -> None:
        if schedule != self.schedule:
            self.schedule = schedule
            self._drop()
            self._forget()
            if not self.paused:
                self.next_slot = _after(schedule, now, now)

    def pause(self) -> None:
        self.paused = True
        self._drop()
        self._forget()

    def resume(self, now: float) -> None:
        if self.paused:
            self.paused = False
            self.next_slot = _after(self.schedule, now, now)

    def _drop(self) -> None:
        """What waits is skipped."""
        if self.waiting:
            self.skips.append(Skip(self.waiting[0], len(self.waiting)))
            self.waiting.clear()

    def _forget(self) -> None:
        """Slots that are late at random do not come any more."""
        self.slots -= len(self.uncertain)
        self.uncertain.clear()

    # What time does to it.

    def tick(self, now: float) -> None:
        """The executor has come by."""
        if self.paused or self.next_slot > now:
            return
        slots = list(_slots(self.schedule, self.next_slot, now))
        self.next_slot = _after(self.schedule, slots[-1], slots[-1])
        if self.options.jitter:
            self.slots += len(slots)
            self.uncertain.update(slots)
            return
        self.slots += len(slots)
        runs, waits = self._admitted(slots, now)
        self.running += runs
        self.waiting += waits
        self.queued += len(waits)
        skipped = [slot for slot in slots if slot not in {*runs, *waits}]
        if skipped:
            self.skips.append(Skip(skipped[0], len(skipped)))

    def _admitted(self, slots: list[float], now: float) -> tuple[list[float], list[float]]:
        """What is to run now, and what is to wait."""
        missed, overlap, _ = self.options
        if missed == "all":
            wanted = slots
        elif missed == "once":
            wanted = slots[:1]
        else:
            wanted = [slots[-1]] if now - slots[-1] <= LATE_MS else []
        if overlap == "allow":
            return wanted[: GOING_MAX - len(self.running)], []
        runs = wanted[: 0 if self.running else 1]
        is_backlog = missed == "all" and (len(slots) > 1 or now - slots[0] > LATE_MS)
        waits = wanted[len(runs) :] if overlap == "queue" or is_backlog else []
        return runs, waits[: WAITING_MAX - len(self.waiting)]

    # What it is seen to do.

    def check_log(self, log: Log, now: float) -> Iterator[str]:
        """A row of its log, that is new at this time; or the last one, which may have been added to."""
        slot, status, last = log["scheduledTime"], log["status"], self.last_row
        self.last_row = log
        if status["kind"] == "skipped":
            if last is None or last["status"]["kind"] != "skipped":
                last = {"scheduledTime": math.inf, "status": {"count": 0}}
            elif last["_id"] != log["_id"]:
                yield f"logged skips in {log}, expected them in the row before, {last}"
                return
            added = status["count"] - last["status"]["count"]
            self.skipped += added
            yield from self._skip(slot, last["scheduledTime"], added)
            return
        self.runs += 1
        self.succeeded[log["completedTime"]] += status["kind"] == "success"
        if status["kind"] == "failed":
            self.errors[status["error"]] += 1
        if log["completedTime"] != now:
            yield f"ended at {log['completedTime']}, expected {now}"
        if slot in self.ran:
            yield f"ran the slot {slot} twice"
        self.ran.add(slot)
        if self.options.jitter:
            yield from self._take(slot)
        elif slot not in self.running:
            yield f"ran the slot {slot}, expected one of {self.running}"
        else:
            self.running.remove(slot)
            if self.waiting and not self.running:
                self.running.append(self.waiting.popleft())

    def _skip(self, first: float, before: float, count: int) -> Iterator[str]:
        """So many more were skipped, by a row whose first slot was another one before."""
        if self.options.jitter:
            for slot in sorted(slot for slot in self.uncertain if slot >= first)[:count]:
                yield from self._take(slot)
            return
        logged, expected = 0, before
        while self.skips and logged < count:
            logged += self.skips[0].count
            expected = min(expected, self.skips.popleft().first)
        if (logged, expected) != (count, first):
            yield f"skipped {count} slots more from {first} on, expected {logged} from {expected} on"

    def _take(self, slot: float) -> Iterator[str]:
        if slot in self.uncertain:
            self.uncertain.remove(slot)
        else:
            yield f"logged the slot {slot}, which is not due or was logged before"

    def at_rest(self, now: float, going: int) -> Iterator[str]:
        """What is left, once all that is due has run, and so many runs go on."""
        if len(self.running) != going:
            yield f"{going} runs go on, expected those of the slots {self.running}"
        if self.skips:
            yield f"did not log {list(self.skips)}"
        late = [slot for slot in self.uncertain if slot + self.options.jitter < now]
        if late:
            yield f"has neither run nor skipped {late}, which came {self.options.jitter} ms ago or more"


def _slots(schedule: Schedule, first: float, now: float) -> Iterator[float]:
    slot = first
    while slot <= now:
        yield slot
        slot = _after(schedule, slot, slot)


def _after(schedule: Schedule, slot: float, now: float) -> float:
    return slot + schedule.ms if isinstance(schedule, FixedInterval) else following(schedule, max(slot, now))
