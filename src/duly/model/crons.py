"""Crons: kept in step with what is declared, ticked, run one at a time, and told of in a log.

Each cron is a row of `_cron_jobs` and, unless it is paused, a scheduled function that stands for its clock: pending
until the next slot. The executor runs that one like any other, and running it is `tick`: one commit that inserts the
run and moves the clock on. A run is a scheduled function too; the commit that ends it writes the log. So a cron is
exactly as sure, as late and as fair as everything else that is scheduled.

A slot is run, waits in the queue, or is skipped, which the log says:

    slots that have passed     missed="once": the first runs, the others are skipped
                               missed="skip": the last runs if it is less than a minute late, the others are skipped
                               missed="all":  all run, one after the other, as many as the queue holds
    a slot while a run goes on overlap="skip": it is skipped
                               overlap="queue": it waits for its turn, as many as the queue holds
                               overlap="allow": it runs beside
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import Any, Final, NamedTuple, cast

from duly import faults
from duly.database.transaction import Transaction
from duly.errors import InvalidScheduleError
from duly.limits import (
    CRON_LATE_MS,
    CRON_LOG_TEXT_MAX,
    CRON_LOGS_MAX,
    CRON_QUEUE_MAX,
    CRON_SLOTS_MAX,
)
from duly.model import schedule as schedules
from duly.model.job_state import FAILED, NOTHING, PENDING, POSTPONE, SCHEDULE, after
from duly.model.schedule import Interval, Schedule
from duly.storage.engine import CRON_LOGS, CRONS, JOBS, MUTATION, Job, Row, Scan
from duly.values.ids import IdCodec, creation_time
from duly.values.keys import EVERYTHING, Cut
from duly.values.keys import Interval as Keys
from duly.values.value import dumps, loads

CLOCK: Final = "_cron"
"""The name of the scheduled function that is a cron's clock; no function of an application has it."""

CODE: Final = "code"
RUNTIME: Final = "runtime"
MISSED: Final = ("once", "skip", "all")
OVERLAP: Final = ("skip", "queue", "allow")

_AT_ONCE: Final = 1_000

Cron = dict[str, Any]
"""A row of `_cron_jobs`: name, function, args, schedule, source, paused, nextRunTime unless it is paused; the options;
and what it does: `runs` (the numbers of its runs that have not ended), `queue` (slots), `logged` (rows of its log)."""

Act = Callable[[Transaction, int], Awaitable[None]]
"""Something that is done to a cron, which its number names."""


class Spec(NamedTuple):
    """What a cron is declared to be."""

    name: str
    function: str
    lane: str
    args: str
    """JSON of an object."""
    schedule: Schedule
    missed: str = "once"
    overlap: str = "skip"
    jitter: float = 0.0
    """A run starts so many milliseconds after its slot at most, by chance."""
    paused: bool = False

    @property
    def fields(self) -> Cron:
        return {
            "name": self.name,
            "function": self.function,
            "lane": self.lane,
            "args": loads(self.args),
            "schedule": schedules.shown(self.schedule),
            "missed": self.missed,
            "overlap": self.overlap,
            "jitter": self.jitter,
        }


class Account(NamedTuple):
    """What a run leaves to the log of its cron."""

    result: str | None = None
    """What the function returned, as JSON."""
    lines: Sequence[str] = ()
    """What it wrote to `ctx.log`."""
    started: float | None = None
    """When its first line ran, if that was not when it was claimed."""


NO_ACCOUNT: Final = Account()


# Looking.


async def load(transaction: Transaction, id: int) -> Cron | None:
    row = await transaction.get(CRONS, id)
    return loads(row) if isinstance(row, str) else None


async def find(transaction: Transaction, name: str) -> tuple[int, Cron] | None:
    """The cron of a name."""
    rows = await transaction.scan(Scan(CRONS, CRONS.indexes[0], _named(name), False, 1))
    return (rows[0][0], loads(cast("str", rows[0][1]))) if rows else None


async def look_up(transaction: Transaction, ids: IdCodec, id_or_name: str) -> tuple[int, Cron] | None:
    """The cron of an id or of a name."""
    decoded = ids.decode(id_or_name)
    if decoded is not None and decoded[0] == CRONS.number:
        cron = await load(transaction, decoded[1])
        if cron is not None:
            return decoded[1], cron
    return await find(transaction, id_or_name)


async def must_find(transaction: Transaction, ids: IdCodec, id_or_name: str) -> tuple[int, Cron]:
    found = await look_up(transaction, ids, id_or_name)
    if found is None:
        raise InvalidScheduleError(f"got the cron {id_or_name!r:.80}, expected the id or the name of one there is")
    return found


async def everything(transaction: Transaction) -> list[tuple[int, Cron]]:
    """All crons, in the order of their creation."""
    found: list[tuple[int, Cron]] = []
    left = EVERYTHING
    while rows := await transaction.scan(Scan(CRONS, None, left, False, _AT_ONCE)):
        found += [(id, loads(cast("str", row))) for id, row in rows]
        left = left._replace(lower=Cut((), after=True, id=rows[-1][0]))
    return found


async def history(transaction: Transaction, name: str, count: int) -> list[dict[str, Any]]:
    """The newest rows of the log of a cron, the last one first."""
    return [loads(cast("str", row)) for _, row in await _logs(transaction, name, count, newest_first=True)]


async def _logs(transaction: Transaction, name: str, count: int, newest_first: bool = False) -> list[tuple[int, Row]]:
    return await transaction.scan(Scan(CRON_LOGS, CRON_LOGS.indexes[0], _named(name), newest_first, count))


def _named(name: str) -> Keys:
    return Keys(Cut((name,), after=False), Cut((name,), after=True))


# Coming, changing and going.


async def sync(transaction: Transaction, declared: Collection[Spec]) -> None:
    """Make the crons that come from code those that are declared. What is declared as before keeps its clock."""
    there = {cron["name"]: (id, cron) for id, cron in await everything(transaction)}
    names = {spec.name for spec in declared}
    for name, (id, cron) in there.items():
        if cron["source"] == CODE and name not in names:
            await delete(transaction, id)
    for spec in declared:
        if spec.name not in there:
            first = transaction.now if isinstance(spec.schedule, Interval) else None
            await add(transaction, spec, CODE, first)
        elif there[spec.name][1]["source"] != CODE:
            raise InvalidScheduleError(
                f"crons: got {spec.name!r}, expected another name: a cron was registered under it at run time"
            )
        else:
            await _declare(transaction, *there[spec.name], spec)


async def _declare(transaction: Transaction, id: int, cron: Cron, spec: Spec) -> None:
    """Make a stored cron what it is declared to be. A pause of somebody stays until that is declared anew."""
    await _change(transaction, id, cron, {**cron, **spec.fields, "declaredPaused": spec.paused})
    if spec.paused != cron["declaredPaused"]:
        await (pause if spec.paused else resume)(transaction, id)


async def add(transaction: Transaction, spec: Spec, source: str, first: float | None = None) -> int:
    """A new cron, whose first slot is `first`, or that of its schedule. Returns its id."""
    if await find(transaction, spec.name) is not None:
        raise InvalidScheduleError(f"got the cron {spec.name!r}, expected another name: there is one already")
    id = transaction.new_id()
    does: Cron = {"source": source, "paused": spec.paused, "declaredPaused": spec.paused}
    cron: Cron = {**spec.fields, **does, "runs": [], "queue": [], "logged": 0}
    if not spec.paused:
        cron["nextRunTime"] = _from_now(transaction, cron) if first is None else first
        _start_clock(transaction, id, cron)
    transaction.write(CRONS, id, None, dumps(cron))
    return id


async def change(transaction: Transaction, id: int, fields: Cron) -> None:
    """Change fields of a cron: its schedule, its arguments, its options."""
    cron = await _existing(transaction, id)
    await _change(transaction, id, cron, {**cron, **fields})


async def _change(transaction: Transaction, id: int, cron: Cron, changed: Cron) -> None:
    if changed["schedule"] != cron["schedule"] and "nextRunTime" in cron:
        # From now on: what is due only by the old schedule is no surprise any more.
        changed["nextRunTime"] = _from_now(transaction, changed)
        await _move_clock(transaction, id, changed)
    _save(transaction, id, cron, changed)


async def delete(transaction: Transaction, id: int) -> None:
    """End a cron: what is pending of it will not run, what runs goes on and is not told of; its log goes."""
    cron = await _existing(transaction, id)
    await _stop_clock(transaction, id)
    for run in cron["runs"]:
        job = await transaction.get(JOBS, int(run))
        if isinstance(job, Job) and job.state == PENDING:
            transaction.write(JOBS, job.id, job, None)
    for log, row in await _logs(transaction, cron["name"], CRON_LOGS_MAX):
        transaction.write(CRON_LOGS, log, row, None)
    transaction.write(CRONS, id, dumps(cron), None)


async def pause(transaction: Transaction, id: int) -> None:
    """Run it no more until it is resumed; a run that goes on ends as ever, and what waits in the queue is dropped."""
    cron = await _existing(transaction, id)
    if not cron["paused"]:
        await _stop_clock(transaction, id)
        _save(transaction, id, cron, {**_without(cron, "nextRunTime"), "paused": True, "queue": []})


async def resume(transaction: Transaction, id: int) -> None:
    """Run it again, counted from now: slots that have passed meanwhile are not made up for."""
    cron = await _existing(transaction, id)
    if cron["paused"]:
        resumed = {**cron, "paused": False, "nextRunTime": _from_now(transaction, cron)}
        _start_clock(transaction, id, resumed)
        _save(transaction, id, cron, resumed)


async def trigger(transaction: Transaction, id: int) -> None:
    """Run it now, beside its schedule. InvalidScheduleError while a run goes on, unless it allows that."""
    cron = await _existing(transaction, id)
    if cron["runs"] and cron["overlap"] != "allow":
        raise InvalidScheduleError(f"got the cron {cron['name']!r}, expected one of which no run goes on")
    changed = {**cron, "runs": [*cron["runs"], _start_run(transaction, id, cron, transaction.now)]}
    _save(transaction, id, cron, changed)


# The clock.


def _from_now(transaction: Transaction, cron: Cron) -> float:
    """The first slot of a schedule that counts from now."""
    return schedules.next_after(schedules.parse(cron["schedule"]), transaction.now, transaction.now)


def _start_clock(transaction: Transaction, id: int, cron: Cron) -> None:
    # It has the id of the cron: that is how one finds the other.
    due = max(_with_jitter(transaction, cron), transaction.now)
    clock = Job(id, CLOCK, "{}", cron["nextRunTime"], due, after(NOTHING, SCHEDULE), MUTATION, cron=id)
    transaction.write(JOBS, id, None, clock)


async def _move_clock(transaction: Transaction, id: int, cron: Cron) -> None:
    clock = await transaction.get(JOBS, id)
    assert isinstance(clock, Job)
    due = _with_jitter(transaction, cron)
    transaction.write(JOBS, id, clock, clock._replace(due=due, state=after(clock.state, POSTPONE), attempts=0))


async def _stop_clock(transaction: Transaction, id: int) -> None:
    clock = await transaction.get(JOBS, id)
    if clock is not None:
        transaction.write(JOBS, id, clock, None)


def _with_jitter(transaction: Transaction, cron: Cron) -> float:
    return cron["nextRunTime"] + cron["jitter"] * Random(transaction.new_seed()).random()


async def tick(transaction: Transaction, clock: Job) -> None:
    """Run, queue or skip the slots that have come, and move the clock to the next one: in one commit."""
    cron = await _existing(transaction, clock.id)
    now, schedule = transaction.now, schedules.parse(cron["schedule"])
    slots, count, next_slot = _slots(schedule, cron["nextRunTime"], now)
    started, queued = _admitted(cron, slots, now)
    runs = [_start_run(transaction, clock.id, cron, slot) for slot in started]
    changed = {
        **cron,
        "nextRunTime": next_slot,
        "runs": [*cron["runs"], *runs],
        "queue": [*cron["queue"], *queued],
    }
    skipped = count - len(started) - len(queued)
    if skipped:
        first = next((slot for slot in slots if slot not in (*started, *queued)), slots[-1])
        await _log(transaction, changed, first, None, {"kind": "skipped", "count": skipped})
    faults.at("cron.ticked")
    await _move_clock(transaction, clock.id, changed)
    _save(transaction, clock.id, cron, changed)


async def give_up(transaction: Transaction, clock: Job, error: str) -> None:
    """Pause a cron whose clock cannot go on, as that of an expression that never matches again; its log says so."""
    cron = await load(transaction, clock.id)
    if cron is None:
        transaction.write(JOBS, clock.id, clock, None)
        return
    changed: Cron = {**_without(cron, "nextRunTime"), "paused": True, "queue": []}
    await _log(transaction, changed, cron["nextRunTime"], None, {"kind": "failed", "error": error})
    transaction.write(JOBS, clock.id, clock, None)
    _save(transaction, clock.id, cron, changed)


def _slots(schedule: Schedule, first: float, now: float) -> tuple[list[float], int, float]:
    """The slots from the first one to now, of a great many only some; how many there are; and the next one."""
    if isinstance(schedule, Interval):
        next_slot = schedules.next_after(schedule, first, now)
        count = round((next_slot - first) / schedule.ms)
        slots = [first + n * schedule.ms for n in range(min(count, CRON_SLOTS_MAX))]
        return slots if count == len(slots) else [*slots, next_slot - schedule.ms], count, next_slot
    slots, slot = [first], schedules.following(schedule, first)
    while slot <= now and len(slots) < CRON_SLOTS_MAX:
        slots.append(slot)
        slot = schedules.following(schedule, slot)
    if slot <= now:  # many more: of those, only what may be in time
        slot = max(slot, schedules.following(schedule, now - CRON_LATE_MS - 1))
    while slot <= now:
        slots.append(slot)
        slot = schedules.following(schedule, slot)
    return slots, len(slots), slot


def _admitted(cron: Cron, slots: list[float], now: float) -> tuple[list[float], list[float]]:
    """Which slots run now, and which wait."""
    in_time = now - CRON_LATE_MS - cron["jitter"]
    late = len(slots) > 1 or slots[0] < in_time
    if cron["missed"] == "all":
        wanted = slots
    elif cron["missed"] == "skip":
        wanted = [slot for slot in slots[-1:] if slot >= in_time]
    else:
        wanted = slots[:1]
    if cron["overlap"] == "allow":
        return wanted[:CRON_QUEUE_MAX], []
    busy = bool(cron["runs"])
    started, left = ([], wanted) if busy else (wanted[:1], wanted[1:])
    waits = cron["overlap"] == "queue" or (cron["missed"] == "all" and late)
    return started, left[: CRON_QUEUE_MAX - len(cron["queue"])] if waits else []


# Runs.


def _start_run(transaction: Transaction, id: int, cron: Cron, slot: float) -> str:
    run, state = transaction.new_id(), after(NOTHING, SCHEDULE)
    job = Job(run, cron["function"], dumps(cron["args"]), slot, transaction.now, state, cron["lane"], cron=id)
    transaction.write(JOBS, run, None, job)
    return str(run)


async def end(transaction: Transaction, job: Job, state: str, error: str | None, account: Account = NO_ACCOUNT) -> None:
    """A run has ended, in this state: its row goes, the log tells of it, and the next one that waits starts."""
    transaction.write(JOBS, job.id, job, None)
    assert job.cron is not None
    cron = await load(transaction, job.cron)
    if cron is None:  # deleted meanwhile
        return
    changed = {**cron, "runs": [run for run in cron["runs"] if run != str(job.id)]}
    if cron["queue"] and not changed["runs"]:
        changed["runs"] = [_start_run(transaction, job.cron, cron, cron["queue"][0])]
        changed["queue"] = cron["queue"][1:]
    status: dict[str, Any] = {"kind": "failed", "error": error} if state == FAILED else {"kind": "success"}
    await _log(transaction, changed, job.scheduled_time, account.started or creation_time(job.id), status, account)
    _save(transaction, job.cron, cron, changed)


async def _log(
    transaction: Transaction,
    cron: Cron,
    slot: float,
    started: float | None,
    status: dict[str, Any],
    account: Account = NO_ACCOUNT,
) -> None:
    """One more row of the log of a cron, whose oldest row goes if there are too many."""
    now = transaction.now
    times = {"scheduledTime": slot, "startedTime": started or now, "completedTime": now}
    row: dict[str, Any] = {"name": cron["name"], **times, "status": status}
    if account.result is not None and account.result != "null":
        row["result"] = _shortened(account.result)
    if account.lines:
        row["logLines"] = _first_lines(account.lines)
    transaction.write(CRON_LOGS, transaction.new_id(), None, dumps(row))
    cron["logged"] += 1
    if cron["logged"] > CRON_LOGS_MAX:
        cron["logged"] -= 1
        [(oldest, text)] = await _logs(transaction, cron["name"], 1)
        transaction.write(CRON_LOGS, oldest, text, None)


def _shortened(text: str) -> str:
    return text if len(text) <= CRON_LOG_TEXT_MAX else f"{text[:CRON_LOG_TEXT_MAX]}… ({len(text):,} characters)"


def _first_lines(lines: Sequence[str]) -> list[str]:
    """The first ones, as many as are kept whole; the last line says how many are left out."""
    kept: list[str] = []
    for written in lines:
        line = written.encode("utf-8", "replace").decode()  # it may hold what is no text
        if sum(map(len, kept)) + len(line) > CRON_LOG_TEXT_MAX:
            return [*kept, f"… and {len(lines) - len(kept):,} more lines"]
        kept.append(line)
    return kept


# Rows.


async def _existing(transaction: Transaction, id: int) -> Cron:
    cron = await load(transaction, id)
    if cron is None:
        raise InvalidScheduleError("got a cron that does not exist (any more), expected one that is registered")
    return cron


def _save(transaction: Transaction, id: int, before: Cron, after: Cron) -> None:
    old, new = dumps(before), dumps(after)  # as text, for to Python 1 and True are the same
    if new != old:
        transaction.write(CRONS, id, old, new)


def _without(cron: Cron, field: str) -> Cron:
    return {name: value for name, value in cron.items() if name != field}
