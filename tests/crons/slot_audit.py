"""The rules: each slot has one run, or one log of having been skipped; and what has run has left one trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from duly.model.jobs import INTERRUPTED
from tests.crons.load import ACTIONS, BESIDE, ON_PURPOSE

STEP_MS: Final = 1_000.0
"""From slot to slot, of every cron."""
_TOLERANCE_MS: Final = 500.0  # of what two nodes say of the same moment: a twentieth of a second, on a fast clock

Log = dict[str, Any]


class SlotAudit:
    """What became of all slots, by the logs; each is read before it is one of the newest 100 no more."""

    def __init__(self) -> None:
        self._rows: dict[int, Log] = {}
        self.counts: Counter[str] = Counter()

    def add(self, rows: list[tuple[int, Log]]) -> None:
        self._rows.update(rows)

    def check(self, before: list[dict[str, Any]], notes: Counter[str]) -> list[str]:
        """What is wrong, once all is at rest. `before` is what the crons were when they were paused."""
        logs: defaultdict[str, list[Log]] = defaultdict(list)
        for row in self._rows.values():
            logs[row["name"]].append(row)
        wrong = [f"{name} is no cron" for name in logs.keys() - {cron["name"] for cron in before}]
        for cron in before:
            rows = logs[cron["name"]]
            for complaints in (
                self._slots(cron, rows),
                _traces(cron["name"], rows, notes[cron["name"]]),
                _one_at_a_time(rows) if cron["name"] in ACTIONS and cron["name"] != BESIDE else (),
            ):
                wrong += [f"{cron['name']}: {complaint}" for complaint in complaints]
        return wrong

    def _slots(self, cron: dict[str, Any], rows: list[Log]) -> Iterator[str]:
        if not rows:
            yield "never ran"
            return
        first = min(row["scheduledTime"] for row in rows)
        logged: Counter[int] = Counter()
        skips: list[tuple[int, int]] = []
        for row in rows:
            number, rest = divmod(row["scheduledTime"] - first + 0.5, STEP_MS)
            if rest > 1:
                yield f"{row} is of no slot"
            if row["status"]["kind"] == "skipped":
                skips.append((int(number), row["status"]["count"]))
            else:
                logged[int(number)] += 1
        slots = round((cron["nextRunTime"] - first) / STEP_MS)
        # A row tells of its first slot and of so many later ones, of which no other row tells. Those that waited when the
        # cron was paused are among them.
        for number, count in sorted(skips, reverse=True):
            following = [slot for slot in range(number, slots) if slot not in logged][:count]
            if number not in following:
                following.append(number)
            logged.update([*following, *range(slots, slots + count - len(following))])
        doubled, lost = [slot for slot, times in logged.items() if times > 1], set(range(slots)) - logged.keys()
        if doubled:
            yield f"{len(doubled)} slots of {slots} twice: {sorted(doubled)[:10]}"
        if lost:
            yield f"{len(lost)} slots of {slots} missed: {sorted(lost)[:10]}"
        if alien := logged.keys() - set(range(slots)):
            yield f"{len(alien)} slots that have not come: {sorted(alien)[:10]}"
        self._count(rows, slots)

    def _count(self, rows: list[Log], slots: int) -> None:
        skipped = [row["status"]["count"] for row in rows if row["status"]["kind"] == "skipped"]
        self.counts["slots"] += slots
        self.counts["runs"] += len(rows) - len(skipped)
        self.counts["skipped and logged"] += sum(skipped)
        self.counts["interrupted"] += sum(row["status"].get("error") == INTERRUPTED for row in rows)


def _traces(name: str, rows: list[Log], notes: int) -> Iterator[str]:
    ended = [row["status"] for row in rows if row["status"]["kind"] != "skipped"]
    succeeded = sum(status["kind"] == "success" for status in ended)
    interrupted = sum(status.get("error") == INTERRUPTED for status in ended)
    if not succeeded <= notes <= succeeded + (interrupted if name in ACTIONS else 0):
        yield f"{notes} traces of {succeeded} runs that have succeeded, and of {interrupted} that were interrupted"
    errors = {status["error"] for status in ended if "error" in status} - ({INTERRUPTED} if name in ACTIONS else set())
    yield from (error for error in errors if name != "fails" or not error.startswith(ON_PURPOSE))


def _one_at_a_time(rows: list[Log]) -> Iterator[str]:
    runs = sorted((row["startedTime"], row["completedTime"]) for row in rows if row["status"]["kind"] != "skipped")
    for (_, ended), (started, _) in pairwise(runs):
        if started < ended - _TOLERANCE_MS:
            yield f"two at once: one began {ended - started:.0f} ms before another had ended"
