"""What the scheduler does, said plainly: jobs are a dict in the order of scheduling, and time is a number.

A program of the state machine is made of scripts: what a mutation or an action does, as data. The model plays a script
here, the application plays the same one in duly, and afterwards both must tell the same story.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

# Scripts. All of one may be played as a mutation or as an action, for a deploy may make either of the other.


@dataclass(frozen=True)
class Script:
    """What a function does: its acts one after the other, then it returns, or raises."""

    acts: Sequence[Act] = ()
    fails: bool = False
    """Whether it raises a Boom at its end."""
    strict: bool = False
    """Whether it lets an error of an act pass; else it catches it and goes on."""


@dataclass(frozen=True)
class Schedule:
    name: str
    when: After | At
    script: Script | None
    """None: what the function that schedules does itself. Such a chain has an end: see `goes_on`."""
    fits: bool = True
    """Whether the arguments are those that the function takes."""


@dataclass(frozen=True)
class After:
    """`run_after`, in milliseconds."""

    delay: float


@dataclass(frozen=True)
class At:
    """`run_at`, in milliseconds from now."""

    offset: float


@dataclass(frozen=True)
class Cancel:
    target: Target


@dataclass(frozen=True)
class Look:
    """Read the state of a job."""

    target: Target


@dataclass(frozen=True)
class Sub:
    """`run_mutation`: in a mutation a sub-transaction, in an action a transaction."""

    script: Script


@dataclass(frozen=True)
class Breathe:
    """An action lets others go first, and goes on by itself. A mutation never waits."""


@dataclass(frozen=True)
class Hang:
    """An action waits until it is told to go on."""


Act = Schedule | Cancel | Look | Sub | Breathe | Hang
Target = int | str
"""A job: 0 is the last one for which an id was ever given, 1 the one before; or one of these."""
OWN: Final = "own"
"""The job that the function is, or is a part of; for functions that are of none the last one ever."""
NONSENSE: Final = "nonsense"
"""Not an id."""
FOREIGN: Final = "foreign"
"""An id of another table."""

MUTATION: Final = "mutation"
ACTION: Final = "action"
QUERY: Final = "query"
GONE: Final = "gone"
STRICT: Final = "strict "
"""Before a kind: a function of that kind that takes other arguments."""

CRASH: Final = "crash"
"""How a process ends: at once."""
CLOSE: Final = "close"
"""In order, but without waiting for actions."""
GRACE: Final = "grace"
"""In order, after all actions have ended; nothing else starts meanwhile."""

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

RETENTION_MS: Final = 7 * 24 * 3600 * 1000
FIVE_YEARS_MS: Final = 5 * 366 * 24 * 3600 * 1000
GENERATIONS_MAX: Final = 3


def goes_on(key: str) -> bool:
    """Whether a function that schedules itself does it once more."""
    return key.count(".") < GENERATIONS_MAX


class Failure(Exception):
    """A function, or a call of `ctx`, raises an error of this name."""

    @property
    def name(self) -> str:
        return self.args[0]


class Job(NamedTuple):
    """A row of `_scheduled_functions`, and what nobody sees of it."""

    key: str
    """Who has scheduled it, a dot, and by which of its acts: the same in the model and in the application. Of a client's
    call it is a number."""
    name: str
    args: dict[str, Any]
    scheduled_time: float
    state: str
    error: str | None
    completed_time: float | None
    queue: str
    """Mutations and actions wait in two queues, so that actions that wait for each other block no mutation."""
    due: float
    retry_of: str | None = None
    """The failed one that it is to make up for."""


class Transaction:
    """What counts for one mutation with all that it calls."""

    def __init__(self) -> None:
        self.scheduled = 0
        self.overdue = math.inf
        """When the first is due of what it has scheduled for a time that had passed."""


class Model:
    """The jobs of one application, and what its functions did."""

    def __init__(self, now: float, functions: dict[str, str], actions_max: int, schedules_max: int) -> None:
        self.now = now
        self.functions = functions
        """The kind of each function that jobs may name."""
        self._overdue = math.inf
        """When the first is due of what was scheduled for a time that had passed since what is due was read."""
        self.jobs: dict[str, Job] = {}
        self.log: list[tuple[str, float]] = []
        """The effects: each function that ran, and when, in order."""
        self.answers: dict[str, list[str]] = {}
        """What each act of each function came to."""
        self.scripts: dict[str, Script] = {}
        self.targets: dict[tuple[str, int], str] = {}
        """Which job an act of a function was about."""
        self.bodies: dict[str, Generator[Breathe | Hang]] = {}
        """The actions that run, canceled or not."""
        self.ready: list[str] = []
        self.hanging: list[str] = []
        self.paused = False
        self._ever: list[str] = []
        self._actions_max = actions_max
        self._schedules_max = schedules_max

    # Scheduling.

    def _schedule(self, key: str, act: Schedule, script: Script, parent: str | None, usage: Transaction) -> str:
        """Time, then function, then limit: which of several errors is raised is not specified."""
        if isinstance(act.when, After):
            if not 0 <= act.when.delay < math.inf:
                raise Failure("InvalidScheduleError")
            when = self.now + act.when.delay
        else:
            when = self.now + act.when.offset
            if not -math.inf < when < math.inf:
                raise Failure("InvalidScheduleError")
        kind = self.functions[act.name]
        if kind == GONE:
            raise Failure("FunctionNotFoundError")
        if kind == QUERY or abs(when - self.now) > FIVE_YEARS_MS:
            raise Failure("InvalidScheduleError")
        usage.scheduled += 1
        if usage.scheduled > self._schedules_max:
            raise Failure("LimitError")
        args = {"key": key} if act.fits else {"key": key, "more": True}
        job = Job(key, act.name, args, when, PENDING, None, None, kind.removeprefix(STRICT), when)
        if parent is not None and parent in self.jobs and self.jobs[parent].state == CANCELED:
            job = job._replace(state=CANCELED, completed_time=self.now)
        elif when < self.now:
            usage.overdue = min(usage.overdue, when)
        self.jobs[key] = job
        self._ever.append(key)
        self.scripts[key] = script
        return "scheduled"

    def _cancel(self, target: str, own: str | None) -> str:
        if target in (NONSENSE, FOREIGN):
            raise Failure("InvalidIdError")
        job = self.jobs.get(target)
        if target == own and job is not None and job.state == PENDING:
            raise Failure("InvalidScheduleError")  # a mutation cannot cancel itself; the action that called it, it can
        if job is None or job.state in (SUCCESS, FAILED):
            raise Failure("AlreadyCompletedError")
        if job.state != CANCELED:
            self._complete(job, CANCELED)
        return "canceled"

    def _look(self, target: str) -> str:
        if target in (NONSENSE, FOREIGN):
            raise Failure("InvalidIdError")
        return self.jobs[target].state if target in self.jobs else "nothing"

    def _complete(self, job: Job, state: str, error: str | None = None) -> None:
        self.jobs[job.key] = job._replace(state=state, error=error, completed_time=self.now)

    # Functions.

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """All of it happens, or nothing."""
        kept, usage = (dict(self.jobs), list(self.log)), Transaction()
        try:
            yield usage
            self._overdue = min(self._overdue, usage.overdue)
        except Failure:
            self.jobs, self.log = kept
            raise

    def mutate(self, key: str, script: Script, own: str | None, usage: Transaction) -> None:
        """Play a script as a mutation; `own` is the job that it is, or is a part of."""
        self.answers[key] = []
        self.log.append((key, self.now))
        for position in range(len(script.acts)):
            self._play(key, position, script, own, own, usage)
        if script.fails:
            raise Failure("Boom")

    def act(self, key: str, script: Script, own: str | None) -> Generator[Breathe | Hang]:
        """Play a script as an action: each act is a transaction of its own."""
        self.answers[key] = []
        self.log.append((key, self.now))
        for position, act in enumerate(script.acts):
            if isinstance(act, Breathe | Hang):
                yield act
            else:
                self._play(key, position, script, own, None, Transaction())
        if script.fails:
            raise Failure("Boom")

    def _play(
        self, key: str, position: int, script: Script, job: str | None, own: str | None, usage: Transaction
    ) -> None:
        """One act of a function of `job`. `own` is what it may not cancel, which an action may."""
        act, below = script.acts[position], f"{key}.{position}"
        try:
            if isinstance(act, Schedule):
                if act.script is not None or goes_on(key):
                    self._tell(key, self._schedule(below, act, act.script or script, job, usage))
            elif isinstance(act, Cancel):
                self._tell(key, self._cancel(self._find(key, position, act.target, job), own))
            elif isinstance(act, Look):
                self._tell(key, self._look(self._find(key, position, act.target, job)))
            elif isinstance(act, Sub):
                self._sub(below, act, job, usage)
                self._tell(key, "done")
        except Failure as failure:
            self._tell(key, failure.name)
            if script.strict:
                raise

    def _sub(self, key: str, act: Sub, job: str | None, usage: Transaction) -> None:
        self.scripts[key] = act.script
        scheduled, overdue = usage.scheduled, usage.overdue
        try:
            with self._transaction():
                self.mutate(key, act.script, job, usage)
        except Failure:
            usage.scheduled, usage.overdue = scheduled, overdue  # what is undone does not count
            raise

    def _tell(self, key: str, outcome: str) -> None:
        self.answers[key].append(outcome)

    def _find(self, key: str, position: int, target: Target, job: str | None) -> str:
        if target in (NONSENSE, FOREIGN):
            found = str(target)
        elif target == OWN and job is not None:
            found = job
        else:
            ever = self.ever()
            found = ever[target % len(ever) if isinstance(target, int) else 0]
        self.targets[key, position] = found
        return found

    # What clients do.

    def call(self, key: str, script: Script, kind: str) -> str:
        """A client calls a mutation or an action. Returns what it is told."""
        self.scripts[key] = script
        try:
            if kind == MUTATION:
                with self._transaction() as usage:
                    self.mutate(key, script, None, usage)
            else:
                for _ in self.act(key, script, None):
                    pass  # for a client's own action nobody waits
        except Failure as failure:
            return failure.name
        return "done"

    def retry(self, key: str, target: str) -> str:
        """Somebody has a failed job run again: it is another one, of the same function with the same arguments."""
        self.targets[key, 0] = target
        if target in (NONSENSE, FOREIGN):
            return "InvalidIdError"
        failed = self.jobs.get(target)
        if failed is None or failed.state != FAILED:
            return "InvalidScheduleError"
        self.jobs[key] = failed._replace(
            key=key,
            scheduled_time=self.now,
            state=PENDING,
            error=None,
            completed_time=None,
            due=self.now,
            retry_of=target,
        )
        self._ever.append(key)
        self.scripts[key] = self.scripts[target]
        return "done"

    def failed(self) -> list[str]:
        return [job.key for job in self.jobs.values() if job.state == FAILED]

    def ever(self) -> list[str]:
        """All jobs that ever had an id, those of transactions that were undone too; the last one first."""
        return self._ever[::-1] or [NONSENSE]

    # What becomes due.

    def advance(self, milliseconds: float) -> None:
        """Time passes. It stops wherever something becomes due, until all that runs has run."""
        target = self.now + milliseconds
        while True:
            self.settle()
            due = [job.due for job in self.jobs.values() if job.state == PENDING and job.due > self.now]
            if self.paused or not due or min(due) > target:
                break
            self.now = min(due)
        self.now = target
        self._expire()

    def _expire(self) -> None:
        """The rows of those that completed long ago vanish. A harness looks for them when time has passed."""
        for job in list(self.jobs.values()):
            if job.completed_time is not None and job.completed_time + RETENTION_MS <= self.now:
                del self.jobs[job.key]

    def settle(self) -> None:
        """Run what is due, and what that schedules for now, until only actions are left that wait to be told."""
        while True:
            if self.round():
                continue
            if not self.ready:
                return
            self.turn(self.ready.pop(0))

    def round(self) -> bool:
        """Run what is due now. What that schedules is for the next round. Returns whether there was anything to do."""
        due = self.due()
        self.begin(self.run(due))
        return bool(due)

    def due(self) -> list[str]:
        """What may run now: mutations first, then as many actions as may start, each in the order of being due, then
        of being scheduled.
        """
        self._overdue = math.inf
        if self.paused:
            return []
        return self._due(MUTATION) + self._due(ACTION)[: self._actions_max - len(self.bodies)]

    def run(self, due: list[str]) -> list[str]:
        """Run what is still pending, one after the other. Returns the actions that have been started.

        What is due later than something that has been scheduled meanwhile, for a time that had passed, runs after that.
        """
        return [key for key in due if self._is_next(self.jobs[key]) and self._run(key)]

    def _is_next(self, job: Job) -> bool:
        return job.state == PENDING and job.due <= self._overdue

    def begin(self, started: list[str]) -> None:
        """Actions that have been started wait for their turn, unless their arguments do not fit."""
        for key in started:
            if self.jobs[key].state == CANCELED:
                continue  # before its first line
            try:
                self._check_arguments(self.jobs[key])
            except Failure as failure:
                self._end(key, failure.name)
            else:
                self.bodies[key] = self.act(key, self.scripts[key], key)
                self.ready.append(key)

    def _due(self, queue: str) -> list[str]:
        due = [job for job in self.jobs.values() if job.state == PENDING and job.queue == queue and job.due <= self.now]
        return [job.key for job in sorted(due, key=lambda job: job.due)]

    def _run(self, key: str) -> bool:
        """Run a job as what its function is now. Returns whether it is an action that has been started."""
        job = self.jobs[key]
        kind = self.functions[job.name]
        if kind in (GONE, QUERY):
            self._complete(job, FAILED, "FunctionNotFoundError")
        elif kind.removeprefix(STRICT) == MUTATION:
            self._run_mutation(job)
        elif job.queue == MUTATION:
            self.jobs[key] = job._replace(queue=ACTION)  # it has become an action, and waits where actions do
        else:
            self.jobs[key] = job._replace(state=IN_PROGRESS)
            return True
        return False

    def _run_mutation(self, job: Job) -> None:
        """Its effects and its end are one: nobody ever sees it in progress."""
        try:
            with self._transaction() as usage:
                self._check_arguments(job)
                self.mutate(job.key, self.scripts[job.key], job.key, usage)
        except Failure as failure:
            self._complete(job, FAILED, failure.name)
        else:
            self._complete(job, SUCCESS)

    def _check_arguments(self, job: Job) -> None:
        if self.functions[job.name].startswith(STRICT) or "more" in job.args:
            raise Failure("ArgumentValidationError")

    # Actions.

    def turn(self, key: str) -> None:
        """An action goes on until it waits or ends."""
        try:
            waits = next(self.bodies[key])
        except (StopIteration, Failure) as end:
            del self.bodies[key]
            self._end(key, end.name if isinstance(end, Failure) else None)
        else:
            (self.hanging if isinstance(waits, Hang) else self.ready).append(key)

    def _end(self, key: str, error: str | None) -> None:
        job = self.jobs.get(key)
        if job is not None and job.state == IN_PROGRESS:  # else it was canceled, and its result is dropped
            self._complete(job, SUCCESS if error is None else FAILED, error)

    # What happens to the process.

    def lose(self, how: str, milliseconds: float) -> None:
        """The process ends, and another one opens the store after a while. Actions that still run are interrupted and
        never run again: by the process itself, or by the other one if it could not say so.
        """
        if how == GRACE:
            while waiting := [*self.ready, *self.hanging]:
                (self.ready if self.ready else self.hanging).pop(0)
                self.turn(waiting[0])
        if how != CRASH:
            self._interrupt()
        self.now += milliseconds
        self._interrupt()

    def _interrupt(self) -> None:
        for job in self.jobs.values():
            if job.state == IN_PROGRESS:
                self._complete(job, FAILED, "interrupted")
        self.bodies.clear()
        self.ready.clear()
        self.hanging.clear()
