"""`python -m tests.crons.year --seed 1 --days 365 --crons 300`: crons of all kinds for a year, beside their twins."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Final

from duly import ActionCtx, MutationCtx, QueryCtx, cron_jobs, crons, internal_action, internal_mutation, mutation, query
from duly.limits import Limits
from duly.model.cron_schedule import FixedInterval, Schedule, calendar, to_dict
from duly.testing import Harness
from tests.crons.twin import Log, Options, Twin

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = 1_000.0, 60_000.0, 3_600_000.0, 86_400_000.0
EVENTS: Final = {
    "crashes": 4,
    "outages": 2,
    "pauses": 4,
    "resumes": 5,
    "edits": 4,
    "added": 2,
    "deleted": 2,
    "deploys": 2,
    "clock jumps": 2,
    "executor pauses": 1,
}
"""What happens, and how often, relative to the others."""
_ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

# The application. It runs in the process of the life that it tells of what it does.

lives: Final[list[Life]] = []


@internal_mutation
async def note(ctx: MutationCtx, cron: str, fails: float) -> None:
    await ctx.db.insert("notes", {"cron": cron, "at": ctx.now})
    if ctx.random.random() < fails:
        raise ValueError("on purpose")


@internal_action
async def act(ctx: ActionCtx, cron: str, ms: float, fails: float) -> None:
    async with lives[-1].going_on(cron, ms):
        await ctx.run_mutation(note, {"cron": cron, "fails": fails})


@mutation
async def register(
    ctx: MutationCtx, schedule: dict[str, Any], function: str, args: dict[str, Any], name: str, options: dict[str, Any]
) -> None:
    await crons.register(ctx, schedule, f"year:{function}", args, name, **options)


@mutation
async def change(ctx: MutationCtx, name: str, how: str, schedule: dict[str, Any] | None = None) -> None:
    if how == "edit":
        await crons.update(ctx, name, schedule)
    else:
        await {"pause": crons.pause, "resume": crons.resume, "delete": crons.delete}[how](ctx, name)


@query
async def logs(ctx: QueryCtx, since: float, again: list[str]) -> list[Log | None]:
    """The rows that are new, after some that may have changed."""
    found = ctx.db.system.query("_cron_job_logs").with_index("by_creation_time", lambda q: q.gt("_creationTime", since))
    return [*[await ctx.db.system.get(id) for id in again], *await found.collect()]


_APP: Final = SimpleNamespace(note=note, act=act, register=register, change=change, logs=logs)


class Life:
    """A harness, the twins of its crons, and what happens to both."""

    def __init__(self, seed: int, crons: int, seconds: bool, store: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._rng = Random(seed)
        self._seconds = seconds
        self._twins: dict[str, Twin] = {}
        self._gone: list[tuple[Twin, int]] = []
        """Those that were deleted, and how many of their runs went on."""
        self._declared: dict[str, tuple[Schedule, Options, dict[str, Any]]] = {}
        self._going: list[tuple[float, str]] = []
        """When the actions that go on will end, and whose they are."""
        self._told = 0.0
        self._paused = False
        self._numbers = iter(range(10**9))
        for _ in range(crons // 2):
            name, *rest = self._drawn()
            self._declared[name] = (*rest,)
        self._source: dict[str, Any] = {"year": _APP, "crons": self._crons()}
        self._t = Harness(self._source, start=START, store=store, limits=Limits(actions_running_max=1_000))
        self._clock: Any = self._t._clock  # pyright: ignore[reportPrivateUsage]
        self._first = crons - crons // 2

    @property
    def now(self) -> float:
        return self._clock.now()

    async def live(self, days: float, events: int) -> None:
        """So long, with so many things that happen."""
        lives.append(self)
        end = self.now + days * DAY
        async with self._t:
            self._deployed()
            for _ in range(self._first):
                await self._added()
            moments = sorted(self.now + SECOND * self._rng.randrange(int(days * 86_400)) for _ in range(events))
            for moment in moments:
                await self._until(moment)
                [event] = self._rng.choices(list(EVENTS), list(EVENTS.values()))
                await getattr(self, "_" + event.replace(" ", "_"))()
                await self._settle()
            await self._until(end)
            await self._end()
        lives.remove(self)

    # What happens.

    async def _crashes(self) -> None:
        self.counts["crashes"] += 1
        await self._lose_the_process(0.0)

    async def _outages(self) -> None:
        self.counts["outages"] += 1
        await self._lose_the_process(self._a_while())

    async def _lose_the_process(self, ms: float) -> None:
        await self._t.app.crash()
        self._going.clear()
        self._clock.set(self.now + ms)
        self._t.app = self._t._new_app()  # pyright: ignore[reportPrivateUsage]
        await self._t.app.__aenter__()
        await self._listen()  # to what was interrupted

    async def _clock_jumps(self) -> None:
        if self._going:  # it is not known which comes first after a jump: the end of one, or the next slot
            await self._crashes()
        self.counts["clock jumps"] += 1
        self._clock.set(self.now + self._a_while())

    async def _pauses(self) -> None:
        await self._change("pause")

    async def _resumes(self) -> None:
        await self._change("resume")

    async def _edits(self) -> None:
        await self._change("edit", self._schedule())

    async def _deleted(self) -> None:
        await self._change("delete")

    async def _change(self, how: str, schedule: Schedule | None = None) -> None:
        """Do it to a cron, of those registered at run time where what is declared would win at the next deploy."""
        twins = [
            twin
            for twin in self._twins.values()
            if (twin.name not in self._declared or how in ("pause", "resume")) and (how != "resume" or twin.paused)
        ]
        if not twins:
            return
        twin = self._rng.choice(twins)
        args = {} if schedule is None else {"schedule": to_dict(schedule)}
        await self._t.mutation("year:change", {"name": twin.name, "how": how, **args})
        self.counts[how] += 1
        if how == "pause":
            twin.pause()
        elif how == "resume":
            twin.resume(self.now)
        elif how == "delete":
            self._forget(twin)
        elif schedule is not None:
            twin.edit(schedule, self.now)

    def _forget(self, twin: Twin) -> None:
        self._gone.append((self._twins.pop(twin.name), len(twin.running)))
        twin.running.clear()

    async def _added(self) -> None:
        name, schedule, options, run = self._drawn()
        given = {key: value for key, value in options._asdict().items() if value != Options._field_defaults[key]}
        args = {"schedule": to_dict(schedule), **run, "name": name, "options": given}
        await self._t.mutation("year:register", args)
        self._twins[name] = Twin(name, schedule, options, run["function"] == "act", None, self.now)
        self.counts["crons"] += 1

    async def _deploys(self) -> None:
        """Declare one more, one less, and one with another schedule."""
        name, *rest = self._drawn()
        changed, removed = self._rng.sample(sorted(self._declared), 2)
        del self._declared[removed]
        _, options, run = self._declared[changed]
        self._declared[changed] = (self._schedule(), options, run)
        self._declared[name] = (*rest,)
        self._source["crons"] = self._crons()
        await self._t.app.reload()
        self.counts["deploys"] += 1
        self.counts["edit"] += 1
        self._forget(self._twins[removed])
        self._twins[changed].edit(self._declared[changed][0], self.now)
        self._deployed()

    def _deployed(self) -> None:
        for name, (schedule, options, run) in self._declared.items():
            if name not in self._twins:
                first = self.now if isinstance(schedule, FixedInterval) else None
                self._twins[name] = Twin(name, schedule, options, run["function"] == "act", first, self.now)
                self.counts["crons"] += 1

    async def _executor_pauses(self) -> None:
        await self._t.app.pause()
        self._paused = True
        self.counts["executor pauses"] += 1
        await self._until(self.now + self._a_while())
        await self._t.app.resume()
        self._paused = False

    # Chances.

    def _a_while(self) -> float:
        """Mostly short, now and then so long that slots pass beyond all bounds."""
        least, most = (2, 7_200) if self._seconds else (60, 4 * 86_400)
        return SECOND * int(least * (most / least) ** self._rng.random())

    def _drawn(self) -> tuple[str, Schedule, Options, dict[str, Any]]:
        rng, name = self._rng, f"cron {next(self._numbers)}"
        acts, jitter = rng.random() < 0.3, rng.random() < 0.03
        missed = rng.choice(("once", "once", "skip", "all"))
        if acts:
            ms = SECOND * rng.randint(1, 20) if self._seconds else HOUR / 2 * rng.randint(0, 12)
            args = {"cron": name, "ms": ms, "fails": rng.choice((0.0, 0.1))}
            options = Options(missed, rng.choice(("skip", "skip", "queue", "allow")))
            return name, self._schedule(), options, {"function": "act", "args": args}
        options = Options(missed, rng.choice(("skip", "queue", "allow")) if not jitter else "skip")
        if jitter:
            options = options._replace(missed="once", jitter=rng.choice((500.0, 30_000.0)))
        args = {"cron": name, "fails": rng.choice((0.0, 0.0, 0.1))}
        return name, self._schedule(), options, {"function": "note", "args": args}

    def _schedule(self) -> Schedule:
        rng = self._rng
        minute, hour, zone = rng.choice((0, 0, 0, 30)), rng.choice((0, 2, 6, 9, 18)), rng.choice(_ZONES)
        if self._seconds:
            step = rng.choice((5, 10, 15, 20, 30))
            every = FixedInterval(SECOND * rng.randint(1, 60))
            return rng.choice((every, every, calendar(f"*/{step} * * * * *", zone), calendar("* * * * *", zone)))
        kind = rng.choices(("interval", "hourly", "daily", "weekly", "monthly", "cron"), (30, 5, 35, 10, 6, 14))[0]
        if kind == "interval":
            return FixedInterval(HOUR * rng.choice((rng.randint(2, 12), rng.randint(13, 250))))
        days = {"hourly": "* * * *", "daily": f"{hour} * * *", "weekly": f"{hour} * * {rng.randrange(7)}"}
        others = ("*/15 9-10 * * MON", "0 2 L * *", "30 2 * * *", "15 1 * * SUN#2", "5 4 29-31 * *", "0 */6 * * *")
        if kind == "monthly":
            return calendar(f"{minute} {hour} {rng.randint(1, 31)} * *", zone)
        return calendar(f"{minute} {days[kind]}" if kind in days else rng.choice(others), zone)

    def _crons(self) -> Any:
        """What `crons.py` holds."""
        declared = cron_jobs()
        for name, (schedule, options, run) in self._declared.items():
            args, given = (f"year:{run['function']}", run["args"]), options._asdict()
            if isinstance(schedule, FixedInterval):
                declared.interval(name, timedelta(milliseconds=schedule.ms), *args, **given)
            else:
                _declare_calendar(declared, name, schedule.cron.split(), schedule.tz, args, given)
        return declared

    # Time.

    async def _until(self, moment: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        while True:
            due = await self._settle()
            stop = min([moment, *(end for end, _ in self._going), *(() if due is None else (due,))])
            if stop >= moment:
                break
            self._clock.set(stop)
        self._clock.set(max(moment, self.now))

    async def _settle(self) -> float | None:
        """Run until nothing is due and nothing but actions that last goes on. Returns when something is due."""
        if not self._paused:
            now = self.now
            for twin in self._twins.values():
                if twin.next_slot <= now:
                    twin.tick(now)
        crashes = self._rng.random() < 0.0005 and not self._going
        executor, running = self._t.app.executor, -1
        while True:
            result = await executor.run_batch()
            has_changed = result.ran or executor.running != running
            if has_changed:
                running = executor.running
                await self._listen()  # each time: a hundred runs of a cron push out what was logged before
            if executor.running > self._going_on:
                await asyncio.sleep(0.001)  # until it lasts, or has ended
                running = -1
            elif not has_changed and (result.next_due is None or result.next_due > self.now):
                break
            if result.ran and crashes and not self._going:
                crashes = False
                await self._crashes()
                executor = self._t.app.executor
        self._check_rest()
        return result.next_due

    @property
    def _going_on(self) -> int:
        return sum(end > self.now for end, _ in self._going)

    def _check_rest(self) -> None:
        if not self._paused:
            going = Counter(name for _, name in self._going)
            for twin in self._twins.values():
                if twin.running or twin.skips or twin.uncertain or going[twin.name]:
                    self._object(twin, twin.at_rest(self.now, going[twin.name]))

    async def _listen(self, is_last: bool = False) -> None:
        """Hear what the log tells, before it is one of the newest 100 no more."""
        again = [
            twin.last_row["_id"]
            for twin in self._twins.values()
            if twin.last_row is not None and (twin.skips or twin.options.jitter or is_last)
        ]
        for log in await self._t.query("year:logs", {"since": self._told, "again": again}):
            if log is None:  # others have pushed it out since
                continue
            self._told = max(self._told, log["_creationTime"])
            twin = self._twins.get(log["name"])
            if twin is None:
                self.violations.append(f"{log} is of a cron that is gone")
            elif log != twin.last_row:
                self._object(twin, twin.check_log(log, self.now))

    @asynccontextmanager
    async def going_on(self, name: str, ms: float) -> AsyncIterator[None]:
        """A run of an action goes on for so long: it ends half a second after a slot, not to vie with the next."""
        twin = self._twins.get(name)
        if twin is not None and twin.options.overlap != "allow" and any(other == name for _, other in self._going):
            self.violations.append(f"{name}: two runs at once, at {self.now}")
        going = (self.now // SECOND * SECOND + ms + SECOND / 2, name)
        self._going.append(going)
        await self._clock.sleep_until(going[0])
        self._going.remove(going)
        yield

    # The end.

    async def _end(self) -> None:
        await self._listen(is_last=True)
        notes = await self._t.transaction(lambda ctx: ctx.db.query("notes").collect())
        noted = Counter((note["cron"], note["at"]) for note in notes)
        for twin in self._twins.values():
            logged = {(twin.name, at): count for at, count in twin.succeeded.items() if count}
            left = {key: count for key, count in noted.items() if key[0] == twin.name}
            if logged != left:
                only_logged, only_left = sorted(logged.items() - left.items()), sorted(left.items() - logged.items())
                self.violations.append(
                    f"{twin.name}: has not left its traces when its log tells that it has run:"
                    f" {only_logged} are only logged of, {only_left} only left; it failed with {twin.errors}"
                )
        by_name = Counter(note["cron"] for note in notes)
        for twin, going in self._gone:
            runs = sum(twin.succeeded.values())
            if not runs <= by_name[twin.name] <= runs + going:
                self.violations.append(f"{twin.name}: {by_name[twin.name]} traces of {runs} runs")
        for twin in (*self._twins.values(), *(twin for twin, _ in self._gone)):
            self.counts["slots"] += twin.slots
            self.counts["runs"] += twin.runs
            self.counts["skipped and logged"] += twin.skipped
            self.counts["queued"] += twin.queued

    def _object(self, twin: Twin, complaints: Iterator[str]) -> None:
        of = f"{twin.name} ({twin.schedule}, {twin.options})"
        self.violations += [f"{of} at {self.now}: {complaint}" for complaint in complaints]


def _declare_calendar(
    declared: Any, name: str, fields: list[str], tz: str, args: tuple[Any, ...], given: dict[str, Any]
) -> None:
    """By the method of its kind, where there is one."""
    minute, hour, day, month, weekday = fields[-5:]
    if len(fields) == 6 or not minute.isdigit() or month != "*":
        declared.cron(name, " ".join(fields), *args, tz=tz, **given)
    elif (hour, day, weekday) == ("*", "*", "*"):
        declared.hourly(name, {"minute_utc": int(minute)}, *args, tz=tz, **given)
    elif not hour.isdigit():
        declared.cron(name, " ".join(fields), *args, tz=tz, **given)
    else:
        at = {"hour_utc": int(hour), "minute_utc": int(minute)}
        if (day, weekday) == ("*", "*"):
            declared.daily(name, at, *args, tz=tz, **given)
        elif day == "*" and weekday.isdigit():
            declared.weekly(name, {"day_of_week": _DAYS[int(weekday)], **at}, *args, tz=tz, **given)
        elif day.isdigit() and weekday == "*":
            declared.monthly(name, {"day": int(day), **at}, *args, tz=tz, **given)
        else:
            declared.cron(name, " ".join(fields), *args, tz=tz, **given)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crons.year", description="Live with crons for a year.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--crons", type=int, default=300)
    parser.add_argument("--seconds", action="store_true", help="crons that run every few seconds")
    parser.add_argument("--events", type=int, default=600, help="crashes, pauses, edits, … (default: 600)")
    options = parser.parse_args()
    logging.getLogger("duly").setLevel(logging.CRITICAL)  # what fails does so on purpose
    life, began = Life(options.seed, options.crons, options.seconds), time.perf_counter()
    asyncio.run(life.live(options.days, options.events))
    seconds = time.perf_counter() - began
    for name, count in life.counts.items():
        print(f"{name:<30}{count:>12,}")
    print(f"{'slots/s':<30}{life.counts['slots'] / seconds:>12,.0f}")
    print(f"{'violations':<30}{len(life.violations):>12,}")
    print(f"took {seconds:.0f} s")
    for violation in life.violations[:20]:
        print(violation)
    return 1 if life.violations else 0


if __name__ == "__main__":
    sys.exit(main())
