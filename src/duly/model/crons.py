"""Crons: they follow their declarations, tick at each slot, run as scheduled functions, and record runs in a log.

A cron is a row of `_cron_jobs`. Unless it is paused, it also has a scheduled function that is its clock: pending until
the next slot. The executor runs the clock like any other function, by calling `tick`: one commit that inserts the run
and moves the clock to the next slot. A run is a scheduled function, too, and the commit that ends it writes the log. So
crons have the guarantees of scheduled functions, and need no leader and no lock of their own.

Each slot runs, waits in the queue of the cron, or is skipped and logged as skipped; `cron_policy.py` decides. A waiting
slot is skipped if the cron is paused, or if a change of the cron allows no queue any more.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from random import Random
from typing import Any, Final, NamedTuple, cast

from duly import faults
from duly.database.transaction import Transaction
from duly.errors import InvalidScheduleError
from duly.limits import CRON_IDENTIFIER_LENGTH_MAX, CRON_RUNS_MAX, OF_ANY_SIZE
from duly.model import cron_log, cron_schedule
from duly.model.cron_log import NO_RECORD, RunRecord
from duly.model.cron_policy import ALLOW, Options, admit, due_slots
from duly.model.cron_schedule import FixedInterval, Schedule
from duly.model.job_state import FAILED, NOTHING, PENDING, POSTPONE, SCHEDULE, after
from duly.storage.requests import Scan
from duly.storage.rows import CRONS, JOBS, MUTATION, Job
from duly.values.ids import IdCodec
from duly.values.index_keys import EVERYTHING, Cut, Interval
from duly.values.json import dumps, loads

CLOCK: Final = "_cron"
"""The name of the scheduled function that is the clock of a cron; no function of an application has this name."""

CODE: Final = "code"
RUNTIME: Final = "runtime"

_AT_ONCE: Final = 1_000
_identifier: Final = re.compile(rf"[ -~]{{1,{CRON_IDENTIFIER_LENGTH_MAX}}}")

Cron = dict[str, Any]
"""A row of `_cron_jobs`: name, function, args (as JSON), schedule, source, paused and the options; nextRunTime unless
it is paused; error if it was paused because its clock could not go on; `queue`, the slots that wait; and the
`_INTERNAL` fields, which `_cron_jobs` does not show."""

_INTERNAL: Final = ("lane", "runs", "logged", "declaredPaused")
"""`lane`: the kind of its function, which is the queue of its runs. `runs`: the ids of its runs that have not ended.
`logged`: the number of rows of its log. `declaredPaused`: the last declared value of `paused`."""

CronOperation = Callable[[Transaction, int, Cron], Awaitable[object]]
"""A change of one cron: pause, resume, trigger, delete."""


class Spec(NamedTuple):
    """The declaration of a cron."""

    name: str
    function: str
    queue: str
    args: str
    """JSON of an object."""
    schedule: Schedule
    options: Options = Options()

    @property
    def fields(self) -> Cron:
        """The fields of its row that the declaration determines."""
        missed, overlap, jitter, _ = self.options
        return {
            "name": self.name,
            "function": self.function,
            "lane": self.queue,
            "args": self.args,
            "schedule": cron_schedule.to_dict(self.schedule),
            "missed": missed,
            "overlap": overlap,
            "jitter": jitter,
        }


# Reading.


def is_name(name: object) -> bool:
    """Return whether a cron may have this name: 1 to 256 printable ASCII characters."""
    return isinstance(name, str) and _identifier.fullmatch(name) is not None


async def load(transaction: Transaction, id: int) -> Cron | None:
    row = await transaction.get(CRONS, id)
    return loads(row) if isinstance(row, str) else None


async def find(transaction: Transaction, name: object) -> tuple[int, Cron] | None:
    """Return the id and the row of the cron with a name."""
    if not is_name(name):
        return None  # a store cannot look for every str
    named = Interval(Cut((name,), after=False), Cut((name,), after=True))
    rows = await transaction.scan(Scan(CRONS, CRONS.indexes[0], named, False, 1))
    return (rows[0][0], loads(cast("str", rows[0][1]))) if rows else None


async def look_up(transaction: Transaction, ids: IdCodec, id_or_name: object) -> tuple[int, Cron] | None:
    """Return the cron with an id or a name."""
    decoded = ids.decode(id_or_name)
    if decoded is not None and decoded[0] == CRONS.number:
        cron = await load(transaction, decoded[1])
        if cron is not None:
            return decoded[1], cron
    return await find(transaction, id_or_name)


async def must_find(transaction: Transaction, ids: IdCodec, id_or_name: object) -> tuple[int, Cron]:
    found = await look_up(transaction, ids, id_or_name)
    if found is None:
        raise InvalidScheduleError(f"got the cron {id_or_name!r:.80}, expected the id or the name of an existing cron")
    return found


async def all_crons(transaction: Transaction) -> list[tuple[int, Cron]]:
    """Return all crons, in the order of creation."""
    found: list[tuple[int, Cron]] = []
    left = EVERYTHING
    while rows := await transaction.scan(Scan(CRONS, None, left, False, _AT_ONCE)):
        found += [(id, loads(cast("str", row))) for id, row in rows]
        left = left._replace(lower=Cut((), after=True, id=rows[-1][0]))
    return found


def document_of(cron: Cron, id: str, creation_time: float) -> dict[str, Any]:
    """Return the row as `_cron_jobs` shows it."""
    shown = {name: value for name, value in cron.items() if name not in _INTERNAL}
    system = {"_id": id, "_creationTime": creation_time}
    return {**system, **shown, "args": loads(cron["args"]), "running": len(cron["runs"])}


# Declaring, changing, deleting.


async def sync(transaction: Transaction, declared: Collection[Spec]) -> None:
    """Make the crons from code equal to their declarations. A cron whose declaration is unchanged keeps its clock."""
    existing = {cron["name"]: (id, cron) for id, cron in await all_crons(transaction)}
    specs = {spec.name: spec for spec in declared}
    for name, (id, cron) in existing.items():
        spec = specs.get(name)
        if cron["source"] != CODE:
            if spec is not None:
                raise InvalidScheduleError(
                    f"crons: got {name!r}, expected another name: a cron was registered under it at run time"
                )
            await change(transaction, id, cron, {})  # its next slot may be too far ahead
        elif spec is None:
            await delete(transaction, id, cron)
        else:
            await _declare(transaction, id, cron, spec)
    for spec in declared:
        if spec.name not in existing:
            first = transaction.now if isinstance(spec.schedule, FixedInterval) else None
            await add(transaction, spec, CODE, first)


async def _declare(transaction: Transaction, id: int, cron: Cron, spec: Spec) -> None:
    """Update a stored cron to its declaration. A pause by an operator stays until the declared pause changes."""
    paused = spec.options.paused
    changed = await change(transaction, id, cron, {**spec.fields, "declaredPaused": paused})
    if paused != cron["declaredPaused"]:
        await (pause if paused else resume)(transaction, id, changed)


async def add(transaction: Transaction, spec: Spec, source: str, first: float | None = None) -> int:
    """Add a cron, whose first slot is `first` or the next one of its schedule. Return its id."""
    if await find(transaction, spec.name) is not None:
        raise InvalidScheduleError(f"got the cron {spec.name!r}, expected another name: there is one already")
    id, paused = transaction.new_id(), spec.options.paused
    does: Cron = {"source": source, "paused": paused, "declaredPaused": paused}
    cron: Cron = {**spec.fields, **does, "runs": [], "queue": [], "logged": 0}
    if not paused:
        cron["nextRunTime"] = _from_now(transaction, cron) if first is None else first
        _start_clock(transaction, id, cron)
    transaction.write(CRONS, id, None, dumps(cron, OF_ANY_SIZE))
    return id


async def change(transaction: Transaction, id: int, cron: Cron, fields: Cron) -> Cron:
    """Change fields of a cron: its schedule, its function, its arguments, its options. Return the new row.

    A new schedule counts from now: due and waiting slots of the old one are dropped. A cron that was paused because its
    clock could not go on is resumed by a new schedule, a new function or new arguments.
    """
    changed = {**cron, **fields}
    is_new = changed["schedule"] != cron["schedule"]
    if "error" in cron and any(changed[name] != cron[name] for name in ("schedule", "function", "args")):
        return await resume(transaction, id, changed, before=cron)
    if is_new or not options_of(changed).queues:
        await _drop_queue(transaction, changed)
    if "nextRunTime" in cron:
        changed["nextRunTime"] = (_from_now if is_new else _clamped)(transaction, changed)
        if any(changed[name] != cron[name] for name in ("nextRunTime", "jitter")):
            await _move_clock(transaction, id, changed)
    _save(transaction, id, cron, changed)
    return changed


async def _drop_queue(transaction: Transaction, cron: Cron) -> None:
    """Drop the slots that wait, and log them as skipped."""
    dropped, cron["queue"] = cron["queue"], []
    cron["logged"] = await cron_log.log_skipped(transaction, cron, min(dropped, default=0.0), len(dropped))


async def delete(transaction: Transaction, id: int, cron: Cron) -> None:
    """Delete a cron, its log and its pending runs. A run in progress goes on, and is not logged."""
    await _stop_clock(transaction, id)
    for run in cron["runs"]:
        job = await transaction.get(JOBS, int(run))
        if isinstance(job, Job) and job.state == PENDING:
            transaction.write(JOBS, job.id, job, None)
    await cron_log.delete_log(transaction, cron)
    transaction.write(CRONS, id, dumps(cron, OF_ANY_SIZE), None)


async def pause(transaction: Transaction, id: int, cron: Cron, error: str | None = None) -> None:
    """Pause a cron: a run in progress goes on, slots that wait are dropped.

    `error` is the reason why its clock cannot go on. If it is given, a change of the cron resumes the cron, too.
    """
    changed = {name: value for name, value in cron.items() if name not in ("nextRunTime", "error")} | {"paused": True}
    await _stop_clock(transaction, id)
    await _drop_queue(transaction, changed)
    if error is not None:
        changed["error"] = error
        changed["logged"] = await cron_log.log_failure(transaction, changed, cron["nextRunTime"], error)
    _save(transaction, id, cron, changed)


async def resume(transaction: Transaction, id: int, cron: Cron, before: Cron | None = None) -> Cron:
    """Resume a cron from now on: slots that passed during the pause do not run."""
    if not cron["paused"]:
        return cron
    resumed = {name: value for name, value in cron.items() if name != "error"}
    resumed |= {"paused": False, "nextRunTime": _from_now(transaction, cron)}
    _start_clock(transaction, id, resumed)
    _save(transaction, id, before or cron, resumed)
    return resumed


async def trigger(transaction: Transaction, id: int, cron: Cron) -> None:
    """Run a cron now, in addition to its slots. InvalidScheduleError during a run, unless overlap="allow"."""
    if cron["runs"] and cron["overlap"] != ALLOW:
        raise InvalidScheduleError(f"got the cron {cron['name']!r}, expected one without a run in progress")
    if len(cron["runs"]) >= CRON_RUNS_MAX:
        raise InvalidScheduleError(
            f"got the cron {cron['name']!r} with {len(cron['runs'])} runs in progress, expected fewer than"
            f" {CRON_RUNS_MAX} (CRON_RUNS_MAX)"
        )
    changed = {**cron, "runs": [*cron["runs"], _start_run(transaction, id, cron, transaction.now)]}
    _save(transaction, id, cron, changed)


# The clock.


async def clamp_all(transaction: Transaction) -> None:
    """Move slots and runs that are too far ahead back to their place, after the machine's clock was set back."""
    for id, cron in await all_crons(transaction):
        changed = await change(transaction, id, cron, {})
        if "nextRunTime" in changed:
            clock = await transaction.get(JOBS, id)
            assert isinstance(clock, Job)
            if (clock.due or 0.0) > changed["nextRunTime"] + changed["jitter"]:  # the store has refused it before
                await _move_clock(transaction, id, changed)
        for run in changed["runs"]:
            job = await transaction.get(JOBS, int(run))
            if isinstance(job, Job) and job.state == PENDING and (job.due or 0.0) > transaction.now:
                transaction.write(JOBS, job.id, job, job._replace(due=transaction.now))


def _from_now(transaction: Transaction, cron: Cron) -> float:
    """Return the first slot after now."""
    return cron_schedule.next_after(cron_schedule.parse(cron["schedule"]), transaction.now, transaction.now)


def _clamped(transaction: Transaction, cron: Cron) -> float:
    """Return the next slot, or an earlier one if it is too far ahead."""
    slot: float = cron["nextRunTime"]
    try:
        return cron_schedule.clamp(cron_schedule.parse(cron["schedule"]), slot, transaction.now)
    except InvalidScheduleError:  # its zone is gone or it never matches again: the next tick reports it
        return slot


def _start_clock(transaction: Transaction, id: int, cron: Cron) -> None:
    # The clock has the id of its cron, so each of them leads to the other.
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
    slot: float = cron["nextRunTime"]
    jitter: float = cron["jitter"]
    return slot + jitter * Random(transaction.new_seed()).random()


async def tick(transaction: Transaction, clock: Job) -> None:
    """Run, queue or skip the slots that are due, and move the clock to the next one: in one commit."""
    if await transaction.get(JOBS, clock.id) != clock:
        return  # another node moved it after the claim, or the cron was paused
    cron = await load(transaction, clock.id)
    assert cron is not None  # a cron is deleted together with its clock
    now, schedule = transaction.now, cron_schedule.parse(cron["schedule"])
    slots = due_slots(schedule, cron["nextRunTime"], now)
    started, queued = admit(options_of(cron), slots, now, len(cron["runs"]), len(cron["queue"]))
    runs = [_start_run(transaction, clock.id, cron, slot) for slot in started]
    changed = {
        **cron,
        "nextRunTime": slots.next,
        "runs": [*cron["runs"], *runs],
        "queue": [*cron["queue"], *queued],
    }
    left = [slot for slot in slots.first if slot not in (*started, *queued)]
    skipped = slots.total - len(started) - len(queued)
    changed["logged"] = await cron_log.log_skipped(transaction, cron, min(left, default=slots.last), skipped)
    faults.at("cron.ticked")
    await _move_clock(transaction, clock.id, changed)
    _save(transaction, clock.id, cron, changed)


async def pause_broken(transaction: Transaction, clock: Job, error: str) -> None:
    """Pause a cron whose clock cannot go on, such as one whose schedule never matches again, and log the error."""
    cron = await load(transaction, clock.id)
    if cron is None:
        transaction.write(JOBS, clock.id, clock, None)
    else:
        await pause(transaction, clock.id, cron, error.encode("utf-8", "replace").decode())


def options_of(cron: Cron) -> Options:
    return Options(cron["missed"], cron["overlap"], cron["jitter"], cron["paused"])


# Runs.


def _start_run(transaction: Transaction, id: int, cron: Cron, slot: float) -> str:
    run, state = transaction.new_id(), after(NOTHING, SCHEDULE)
    job = Job(run, cron["function"], cron["args"], slot, transaction.now, state, cron["lane"], cron=id)
    transaction.write(JOBS, run, None, job)
    return str(run)


async def end_run(
    transaction: Transaction, job: Job, state: str, error: str | None, record: RunRecord = NO_RECORD
) -> None:
    """End a run in a state: delete its row, log it, and start the next slot that waits."""
    transaction.write(JOBS, job.id, job, None)
    assert job.cron is not None
    cron = await load(transaction, job.cron)
    if cron is None:  # it was deleted meanwhile
        return
    changed = {**cron, "runs": [run for run in cron["runs"] if run != str(job.id)]}
    if cron["queue"] and not changed["runs"]:
        changed["runs"] = [_start_run(transaction, job.cron, cron, cron["queue"][0])]
        changed["queue"] = cron["queue"][1:]
    status: dict[str, Any] = {"kind": "failed", "error": error} if state == FAILED else {"kind": "success"}
    changed["logged"] = await cron_log.log_run(transaction, cron, job, status, record)
    _save(transaction, job.cron, cron, changed)


def _save(transaction: Transaction, id: int, before: Cron, after: Cron) -> None:
    old, new = dumps(before, OF_ANY_SIZE), dumps(after, OF_ANY_SIZE)  # compared as text: to Python 1 and True are equal
    if new != old:
        transaction.write(CRONS, id, old, new)
