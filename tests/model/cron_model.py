"""A second opinion on when a cron runs next: every minute of a zone's clock is looked at, none is calculated.

It shares nothing with duly.model.cron_schedule nor with the library behind it: the expression is read by `Cron`, and the
clock by `Clock`, from zoneinfo's tables alone. `Times` lists the slots of both, day by day.

`python -m tests.model.cron_model --slots 2000000 --seed 1` compares it with `following`: runs of next times from random
starts in 20 years and around every change of the clock, for every pair of 40 zones and 200 expressions.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from random import Random, SystemRandom
from typing import NamedTuple
from zoneinfo import ZoneInfo

from duly.model.cron_schedule import Calendar, calendar, following

DAY = 86_400
FIRST = int(datetime(2011, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(2031, 1, 1, tzinfo=UTC).timestamp())
HORIZON = int(datetime(2045, 1, 1, tzinfo=UTC).timestamp())
"""Starts lie between FIRST and LAST; slots are looked for until HORIZON, as some come every 28 years."""
EPOCH = date(1970, 1, 1).toordinal()
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

ZONES = (
    "UTC",
    "Africa/Cairo",  # summer time given up in 2014 and back in 2023, at midnight
    "Africa/Casablanca",  # back during Ramadan
    "Africa/Juba",
    "Africa/El_Aaiun",
    "America/Adak",
    "America/Asuncion",  # ahead at midnight
    "America/Caracas",  # by half an hour, once
    "America/Havana",  # ahead at midnight
    "America/Mexico_City",
    "America/Miquelon",
    "America/New_York",
    "America/Nuuk",  # ahead on Saturday evening, and a gap of an hour for good
    "America/Santiago",  # at midnight
    "America/Sao_Paulo",  # at midnight, until 2019
    "America/Scoresbysund",  # changed its offset and its summer time on one day
    "America/St_Johns",  # -03:30; at 00:01 until 2011
    "Antarctica/Casey",  # by three hours, again and again
    "Antarctica/Macquarie",
    "Antarctica/Troll",  # by two hours
    "Asia/Amman",  # at midnight
    "Asia/Beirut",  # at midnight
    "Asia/Damascus",
    "Asia/Gaza",  # back during Ramadan, at odd hours
    "Asia/Hebron",
    "Asia/Jerusalem",
    "Asia/Kathmandu",  # +05:45
    "Asia/Kolkata",
    "Asia/Pyongyang",  # by half an hour, twice
    "Asia/Tehran",  # at midnight, +03:30, until 2022
    "Atlantic/Azores",  # back at 01:00 to midnight
    "Australia/Adelaide",
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Europe/Dublin",  # its winter time is the exception
    "Europe/Istanbul",
    "Europe/Volgograd",
    "Pacific/Apia",  # without 2011-12-30
    "Pacific/Chatham",  # +12:45, at 02:45
    "Pacific/Norfolk",
)

# Minutes and hours are given: those at which clocks change. With a star, they go by elapsed time.
GIVEN = """
0 0 * * *; 1 0 * * *; 30 0 * * *; 59 23 * * *; 0 1 * * *; 30 1 * * *; 45 1 * * *; 15 1,2,3 * * *; 0 2 * * *;
15 2 * * *; 30 2 * * *; 45 2 * * *; 59 2 * * *; 0 3 * * *; 30 3 * * *; 0 4 * * *; 0,30 0,1,2,3 * * *; 0-59 2 * * *;
0-59 0-23 * * *; 5-55/10 0-23 * * *; 0-59/15 1-4 * * *; 15,45 2 * * *; 0 2,3 * * *; 10/20 23-2 * * *;
50-10/5 22-2 * * *; 58-2 23-0 * * *; 0 0-23/2 * * *; 0 12 * * *; 30 0 30 12 *; 0 9 30 12 *; 0-59 12 30 12 *;
0 0 31 12 *; 1 12/4 29-31 12 *; 30 2 * 3 SUN; 30 2 * 3 0L; 30 2 25-31 3 */7; 30 1 * 11 SUN#1; 30 2 * 10 7L;
0 0 * 10 0#3; 0 0 * 9 0#1
"""
ELAPSED = """
* * * * *; */5 * * * *; */7 * * * *; */15 2 * * *; * 2 * * *; */30 0 * * *; */30 23 * * *; * 0 * * *; 0 * * * *;
30 * * * *; 45 * * * *; 59 * * * *; 0 */2 * * *; 30 */3 * * *; 15 */5 * * *; 0,30 * * * *; */20 1-3 * * *;
*/59 1,2 * * *; 5 *,3 * * *; *,5 3 * * *; 3-57/6 * * * *; */30 2 * * SUN; 0 */1 * * SAT-SUN; */30 2 27 10 *;
*/10 1 * 11 SUN#1; */15 0-3 25-31 3,10 */7; */30 * 30 12 *; * 0 29-31 12 *; 0 * L * *
"""
DAYS = """
0 0 L * *; 0 0 LW * *; 0 12 1,15,L * *; 30 8 * * 5L; 0 9 * * MON#1; 0 9 * * 2#5; 0 9 * * 0L,3#2; 0 0 13 * FRI;
0 0 1-7 * MON; 0 0 */2 * 1-5; 0 0 1 * */2; 0 0 */10 */2 */3; 0 0 1,LW 2 6L; 0 0 31 * *; 0 0 29 2 *; 0 0 */28 2 1;
0 0 30,31 4,6,9,12 *; 0 0 * * 7; 0 0 * * 5-7; 0 0 * * 7-2; 0 0 * * FRI-MON; 0 0 * * 6-2/2; 0 0 * NOV-FEB *; 0 0 28-3 * *;
0 0 28-3/2 1-12/5 *; 0 0 * * 1/2; 5/20 3/7 10/9 2/3 *; 0 0 29 2 1#5; @yearly; @annually; @monthly; @weekly; @daily;
@midnight; @hourly
"""
SECONDS = """
0 0 0 * * *; 15 30 2 * * *; */20 30 2 * * *; 0,59 59 1,2,23 * * *; 0 * * * * *; */10 * * * * *; 7 7 */2 * * *;
*/15 */30 2 * * SUN; 5-55/25 0-59/7 0-23 * * *; 58-1 59 23 L * *; * * * * * *; 59 59 * * * 7
"""
BY_HAND = [text.strip() for text in ";".join((GIVEN, ELAPSED, DAYS, SECONDS)).split(";")]


@lru_cache(400)
def read(text: str) -> Cron:
    """An expression, once for all zones."""
    return Cron(text)


class Cron:
    """An expression, read."""

    def __init__(self, text: str) -> None:
        fields = ALIASES.get(text, text).upper().split()
        seconds, minutes, hours, self.monthdays, months, self.weekdays = ["0"] * (len(fields) == 5) + fields
        self.by_elapsed_time = minutes[0] == "*" or hours[0] == "*"
        self.both_days = self.monthdays[0] == "*" or self.weekdays[0] == "*"
        self.seconds = sorted(numbers(seconds, 0, 59))
        self.minutes = sorted(
            60 * hour + minute for hour in numbers(hours, 0, 23) for minute in numbers(minutes, 0, 59)
        )
        self.months = numbers(months, 1, 12, MONTHS)

    @cached_property
    def days(self) -> set[int]:
        """Those that it matches, counted from 1970 on."""
        return {day for kind, days in days_by_kind().items() if self._has(kind) for day in days}

    @cached_property
    def days_of_utc(self) -> list[int]:
        """Those in which one of its days may lie somewhere on Earth."""
        return sorted({day + apart for day in self.days for apart in (-1, 0, 1)})

    def _has(self, day: Day) -> bool:
        if day.month not in self.months:
            return False
        monthday = any(is_monthday(part, day) for part in self.monthdays.split(","))
        weekday = any(is_weekday(part, day) for part in self.weekdays.split(","))
        return (monthday and weekday) if self.both_days else (monthday or weekday)


class Day(NamedTuple):
    """What an expression looks at: Sunday is 0; `left` are the days that the month has after it."""

    month: int
    day: int
    left: int
    weekday: int


@lru_cache
def days_by_kind() -> dict[Day, list[int]]:
    """From two days before FIRST until one after HORIZON, counted from 1970 on."""
    found: dict[Day, list[int]] = {}
    for day in range(FIRST // DAY - 2, HORIZON // DAY + 2):
        it = date.fromordinal(EPOCH + day)
        kind = Day(it.month, it.day, monthrange(it.year, it.month)[1] - it.day, it.isoweekday() % 7)
        found.setdefault(kind, []).append(day)
    return found


@lru_cache(10_000)
def numbers(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
    def number(word: str) -> int:
        return names.index(word) + low if word in names else int(word)

    found = set[int]()
    for part in text.split(","):
        term, slash, step = part.partition("/")
        first, dash, last = term.partition("-")
        if term == "*":
            values = list(range(low, high + 1))
        elif dash and number(first) <= number(last):
            values = list(range(number(first), number(last) + 1))
        elif dash:
            values = [*range(number(first), high + 1), *range(low, number(last) + 1)]
        else:
            values = list(range(number(first), (high if slash else number(first)) + 1))
        found.update(values[:: int(step or 1)])
    return found


def is_monthday(part: str, day: Day) -> bool:
    if part == "L":
        return day.left == 0
    if part == "LW":
        return (1 <= day.weekday <= 5 and day.left == 0) or (day.weekday == 5 and day.left <= 2)
    return day.day in numbers(part, 1, 31)


def is_weekday(part: str, day: Day) -> bool:
    if part.endswith("L"):
        return day.weekday == int(part[:-1]) % 7 and day.left < 7
    term, numbered, count = part.partition("#")
    return day.weekday in weekdays(term) and (not numbered or (day.day + 6) // 7 == int(count))


@lru_cache(10_000)
def weekdays(part: str) -> set[int]:
    wraps = "-" in part and part[0] != "0"  # a week that goes on after Saturday has one Sunday, not 7 and 0
    high = 6 if wraps and "7" not in part else 7
    return {number % 7 for number in numbers(part, 0, high, WEEKDAYS)}


class Minute(NamedTuple):
    at: int
    is_gap: bool = False


class Clock:
    """What the clocks of a zone show."""

    def __init__(self, name: str) -> None:
        self.zone = ZoneInfo(name)
        self.changes = list(self._changes())
        self._odd, self._shown, self._minutes = (
            set[int](),
            dict[int, list[tuple[int, int]]](),
            dict[int, list[Minute]](),
        )
        for at, ahead in self.changes:
            self._odd.update(range((at - abs(ahead)) // DAY, (at + abs(ahead)) // DAY + 1))

    def _changes(self) -> Iterator[tuple[int, int]]:
        """When it changes, and by how much."""
        after = self.offset(FIRST - 2 * DAY)
        for day in range(FIRST - 2 * DAY, HORIZON + 2 * DAY, DAY):
            low, high = day, day + DAY
            before, after = after, self.offset(high)
            while before != after and high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.offset(middle) == before else (low, middle)
            if before != after:
                yield high, after - before

    def offset(self, at: int) -> int:
        return int(datetime.fromtimestamp(at, self.zone).utcoffset().total_seconds())  # type: ignore[union-attr]

    def is_odd(self, day: int) -> bool:
        """Whether the clock changes on this day of UTC, or so near to it that it matters."""
        return day in self._odd

    def shown(self, day: int) -> list[tuple[int, int]]:
        """The day and the minute of the day which it shows, for each minute of a day of UTC."""
        if day not in self._shown:
            self._shown[day] = self._look_at(day)
        return self._shown[day]

    def minutes(self, day: int) -> list[Minute]:
        """When it first shows each minute of a local day; of a minute that it leaves out, the first one after that."""
        if day not in self._minutes:
            self._minutes[day] = self._wait_for(day)
        return self._minutes[day]

    def _look_at(self, day: int) -> list[tuple[int, int]]:
        shown = [minute + self.offset(minute) for minute in range(day * DAY, day * DAY + DAY, 60)]
        return [(local // DAY, local % DAY // 60) for local in shown]

    def _wait_for(self, day: int) -> list[Minute]:
        found = list[Minute]()
        for minute in reversed(range(1440)):
            wall = datetime.fromordinal(EPOCH + day) + timedelta(minutes=minute)
            at = int(wall.replace(tzinfo=self.zone).timestamp())
            if datetime.fromtimestamp(at, self.zone).replace(tzinfo=None) == wall:
                found.append(Minute(at))
            else:
                found.append(Minute((found[-1] if found else self.minutes(day + 1)[0]).at, is_gap=True))
        return found[::-1]


class Times:
    """The slots of an expression by a clock."""

    def __init__(self, cron: Cron, clock: Clock) -> None:
        self.cron, self.clock = cron, clock
        self._days = dict[int, list[Minute]]()

    def after(self, start: float) -> Iterator[int]:
        """In seconds since 1970, all that come after the start, until HORIZON."""
        last = start
        for day in itertools.islice(self.cron.days_of_utc, bisect_left(self.cron.days_of_utc, start // DAY), None):
            if day >= HORIZON // DAY:
                return
            minutes = self._minutes(day)
            for at, is_gap in itertools.islice(minutes, bisect_right(minutes, (start - 60, True)), None):
                for second in [0] if is_gap else self.cron.seconds:
                    if at + second > last:
                        last = at + second
                        yield last

    def _minutes(self, day: int) -> list[Minute]:
        """Those of a day of UTC, in order."""
        if day not in self._days:
            find = (
                self._even
                if not self.clock.is_odd(day)
                else self._elapsed
                if self.cron.by_elapsed_time
                else self._given
            )
            # What comes right after a gap comes before the slots of that very minute.
            self._days[day] = sorted(
                {minute for minute in find(day) if minute.at // DAY == day}, key=lambda it: (it.at, not it.is_gap)
            )
        return self._days[day]

    def _even(self, day: int) -> Iterator[Minute]:
        """All kinds are the same where the clock does not change."""
        offset = self.clock.offset(day * DAY)
        for local in sorted({day - 1, day, day + 1} & self.cron.days):
            for minute in self.cron.minutes:
                yield Minute(local * DAY + 60 * minute - offset)

    def _elapsed(self, day: int) -> Iterator[Minute]:
        wanted = set(self.cron.minutes)
        for number, (local, minute) in enumerate(self.clock.shown(day)):
            if minute in wanted and local in self.cron.days:
                yield Minute(day * DAY + 60 * number)

    def _given(self, day: int) -> Iterator[Minute]:
        for local in sorted({day - 1, day, day + 1} & self.cron.days):
            shown = self.clock.minutes(local)
            for minute in self.cron.minutes:
                yield shown[minute]


ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * SUN",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def expressions(random: Random, count: int = 200) -> list[str]:
    """Those by hand, and as many at random as are missing."""
    found = dict.fromkeys(BY_HAND)
    while len(found) < count:
        if read(text := expression(random)).days:  # not the last weekday of the month, on a Sunday
            found[text] = None
    return list(found)[:count]


def expression(random: Random) -> str:
    def field(low: int, high: int, *special: str, star: float) -> str:
        if random.random() < star:
            return random.choice(("*", "*", f"*/{random.randint(2, 7 if high == 6 else 12)}"))
        return ",".join(sorted({term(low, high, special) for _ in range(random.choice((1, 1, 1, 2, 3)))}))

    def term(low: int, high: int, special: tuple[str, ...]) -> str:
        first, last = random.randint(low, high), random.randint(low, high)
        step = random.randint(1, 7 if high == 6 else 9)  # longer ones are refused: 7 is the highest number of a day
        forms = (f"{first}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"{first}/{step}", *special)
        return random.choice(forms)

    nth = f"{random.randint(0, 7)}#{random.randint(1, 4)}"
    fields = [
        field(0, 59, star=0.3),
        field(0, random.choice((3, 23)), star=0.3),
        field(1, 28, "L", "LW", star=0.6),
        field(1, 12, "NOV-MAR", "OCT", star=0.7),
        field(0, 6, "7", "MON-FRI", "SAT-SUN", f"{random.randint(0, 7)}L", nth, star=0.6),
    ]
    return " ".join([field(0, 59, star=0.2), *fields] if random.random() < 0.1 else fields)


class Difference(NamedTuple):
    zone: str
    cron: str
    start: float
    got: float | None
    expected: float | None

    def __str__(self) -> str:
        moments = (self.start, self.got, self.expected)
        start, got, expected = ("none" if at is None else f"{datetime.fromtimestamp(at, UTC)}"[:-6] for at in moments)
        return f"{self.zone}, {self.cron!r}, after {start} UTC: got {got}, expected {expected}"


Asked = Callable[[Calendar, float], float]


class Comparison:
    """Runs of next times in a zone, and what differs from the model."""

    def __init__(self, zone: str, random: Random, changes: int | None = None, asked: Asked = following) -> None:
        self.clock = Clock(zone)
        self.changes = [change for change in self.clock.changes if FIRST <= change[0] < LAST]
        if changes is not None:
            self.changes = random.sample(self.changes, min(changes, len(self.changes)))
        self.zone, self.random, self.asked = zone, random, asked
        self.slots = 0
        self.seconds = 0.0
        self.differences: list[Difference] = []

    def compare(self, cron: str, slots: int) -> None:
        """At least so many slots: around every change of the clock, or so many of them, and from random starts."""
        schedule, times, end = calendar(cron, self.zone), Times(read(cron), self.clock), self.slots + slots
        for change in self.changes:
            self._run(schedule, times, self._near(*change), 4)
        while self.slots < end:
            self._run(schedule, times, self.random.uniform(FIRST, LAST), min(8, end - self.slots))

    def _near(self, at: int, ahead: int) -> float:
        near, length, random = float(at), abs(ahead), self.random
        starts = (near, near - 1, near - 0.001, near - 60, near + length, near - length)
        return random.choice(
            (
                random.choice(starts),
                near + random.randrange(-3600, 3600),
                near + random.uniform(-2 * length, 2 * length),
                near + random.uniform(-26 * 3600, 0),
            )
        )

    def _run(self, schedule: Calendar, times: Times, start: float, count: int) -> None:
        start = float(int(start * 1000)) / 1000  # in milliseconds, as clocks go
        slots = times.after(start)
        for expected in itertools.islice(itertools.chain(slots, itertools.repeat(None)), count):
            began = time.perf_counter()
            try:
                got = self.asked(schedule, start * 1000) / 1000
            except Exception as error:
                error.add_note(f"{self.zone}, {schedule.cron!r}, after {start}")
                raise
            self.seconds += time.perf_counter() - began
            self.slots += 1
            if expected is None and got >= HORIZON:
                return
            if got != expected:
                self.differences.append(Difference(self.zone, schedule.cron, start, got, expected))
                return
            start = float(expected)


def compare_all(zone: str, crons: list[str], slots: int, seed: str, changes: int | None = None) -> Comparison:
    comparison = Comparison(zone, Random(seed), changes)
    for cron in crons:
        comparison.compare(cron, slots)
    return comparison


def compared(zone: str, crons: list[str], slots: int, seed: str) -> tuple[str, int, float, list[Difference]]:
    """In a process of its own."""
    comparison = compare_all(zone, crons, slots, seed)
    return zone, comparison.slots, comparison.seconds, comparison.differences


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.model.cron_model", description="Compare next times of crons."
    )
    parser.add_argument("--slots", type=int, default=2_000_000, help="how many at least (default: 2,000,000)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    began, slots, asking, differences = time.monotonic(), 0, 0.0, list[Difference]()
    crons = expressions(Random(options.seed))
    each = -(-options.slots // (len(ZONES) * len(crons)))
    print(f"next times of crons: {len(ZONES)} zones, {len(crons)} expressions, seed {options.seed}", flush=True)
    with ProcessPoolExecutor(options.processes) as pool:
        parts = [pool.submit(compared, zone, crons, each, f"{options.seed} {zone}") for zone in ZONES]
        for part in as_completed(parts):
            zone, count, seconds, different = part.result()
            slots, asking, differences = slots + count, asking + seconds, differences + different
            passed = time.monotonic() - began
            print(f"{slots:>11,} slots {passed:>6,.0f} s {len(differences):>5} differences  {zone}", flush=True)
    for difference in differences[:20]:
        print(difference)
    print(
        f"{len(ZONES)} zones, {len(crons)} expressions, {slots:,} slots, {len(differences)} differences,"
        f" {time.monotonic() - began:.0f} s; a next time took {asking / slots * 1e6:.0f} µs"
    )
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
