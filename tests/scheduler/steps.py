"""The steps of a program: each is made in duly and in the model, and afterwards both must have the same state."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Protocol

import pytest

from duly import ActionCtx, MutationCtx, QueryCtx, action, mutation, query, v
from duly.limits import DUE_BATCH_MAX, Limits
from duly.testing import Harness
from duly.workers.executor import Executor
from tests.scheduler.model import (
    ACTION,
    CRASH,
    FIVE_YEARS_MS,
    FOREIGN,
    GONE,
    GRACE,
    MUTATION,
    NONSENSE,
    OWN,
    QUERY,
    STRICT,
    After,
    Breathe,
    Cancel,
    Hang,
    Look,
    Model,
    Schedule,
    Script,
    Sub,
    goes_on,
)

ACTION_AT_FIRST: Final = "app:b"
FUNCTIONS: Final = {"app:a": MUTATION, ACTION_AT_FIRST: ACTION, "app:c": MUTATION}
"""What may be scheduled, and the kind that each is at first."""
SECONDS_MAX: Final = 20
"""Real seconds that a step may take; a step that takes longer never ends."""

IN_MEMORY: Final = Path("/dev/shm")
"""Where files are flushed at no cost."""


class Boom(Exception):
    """What a script raises at its end."""


class Difference(AssertionError):
    """Duly and the model do not agree."""


class Step(Protocol):
    def expect(self, game: Game) -> object:
        """Make the step in the model. Returns what it comes to."""
        ...

    async def happen(self, game: Game) -> object:
        """Make it in duly."""
        ...


class Stage(Harness):
    """A harness whose scheduled actions take turns, as the model's do: one goes on while all others wait."""

    def __init__(self, source: Mapping[str, Any], limits: Limits) -> None:
        super().__init__(source, limits=limits)
        self.ready: list[str] = []
        self.hanging: list[str] = []
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._moved: asyncio.Future[None] | None = None

    async def wait(self, key: str, hangs: bool = False) -> None:
        """Called by an action: wait for its turn, or to be told."""
        turn = self._turns[key] = asyncio.get_running_loop().create_future()
        (self.hanging if hangs else self.ready).append(key)
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)
        await turn

    async def turn(self, key: str) -> None:
        """Let an action go on until it waits or has ended."""
        await self._turn(key, self.app.executor)

    async def _turn(self, key: str, executor: Executor) -> None:
        running, turn = executor.running, self._turns.pop(key)
        if not turn.done():  # else it was interrupted
            turn.set_result(None)
            await self._until(lambda: key in self._turns or executor.running < running)

    async def round(self) -> bool:
        """Run what is due, once. Returns whether there may be more."""
        result = await self.app.executor.run_batch()
        running = self.app.executor.running
        await self._until(lambda: self.app.executor.running <= len(self._turns))
        self.next_due = result.next_due
        due_now = result.next_due is not None and result.next_due <= self.now_ms
        return due_now or self.app.executor.running < running

    async def _run_until_idle(self, ran_max: int | None) -> float | None:
        while True:
            if await self.round():
                continue
            if not self.ready:
                return self.next_due
            await self.turn(self.ready.pop(0))

    async def _until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            self._moved = asyncio.get_running_loop().create_future()
            running = [task for task in asyncio.all_tasks() if task.get_name().startswith("duly action")]
            await asyncio.wait((self._moved, *running), return_when=asyncio.FIRST_COMPLETED)

    @property
    def now_ms(self) -> float:
        return self._clock.now()

    async def lose(self, how: str, milliseconds: float) -> None:
        if how == GRACE:
            executor, closing = self.app.executor, asyncio.create_task(self.app.close(grace_seconds=SECONDS_MAX))
            await asyncio.sleep(0)
            while self.ready or self.hanging:
                await self._turn((self.ready or self.hanging).pop(0), executor)
            await closing
        else:
            await (self.app.crash() if how == CRASH else self.app.close(grace_seconds=0))
        self._turns.clear()
        self.ready.clear()
        self.hanging.clear()
        self._clock.set(self.now_ms + milliseconds)
        self.app = self._new_app()
        await self.app.__aenter__()


class Game:
    """A program that is being played: duly, its model, and where both keep what they did."""

    def __init__(self, program: Program) -> None:
        limits = Limits(actions_running_max=program.actions_max, scheduled_functions_max=program.schedules_max)
        self.functions = dict(FUNCTIONS)
        self.modules: dict[str, Any] = {"app": self._module(0)}
        self.stage = Stage(self.modules, limits)
        self.model = Model(self.stage.now_ms, self.functions, program.actions_max, program.schedules_max)
        self.answers: dict[str, list[str]] = {}
        self.ids: dict[str, Any] = {NONSENSE: "nonsense"}
        self.keys: dict[Any, str] = {}
        """The job of each id: a function that is run again has the arguments of the one that failed."""
        self.calls = 0
        self.deploys = 0

    # The application.

    def deploy(self, functions: Mapping[str, str]) -> None:
        self.functions.update(functions)
        self.deploys += 1
        self.modules["app"] = self._module(self.deploys)

    def _module(self, version: int) -> SimpleNamespace:
        """The application. Some functions are always there, and one says which version it is of."""

        @mutation
        async def call(ctx: MutationCtx, key: str) -> None:
            await self._mutate(ctx, key)

        @action
        async def act(ctx: ActionCtx, key: str) -> None:
            await self._act(ctx, key)

        @mutation
        async def scheduled_mutation(ctx: MutationCtx, key: str) -> None:
            await self._mutate(ctx, self.keys[ctx.scheduled_function_id])

        @action
        async def scheduled_action(ctx: ActionCtx, key: str) -> None:
            await self.stage.wait(self.keys[ctx.scheduled_function_id])
            await self._act(ctx, self.keys[ctx.scheduled_function_id])

        @mutation
        async def note(ctx: MutationCtx, key: str) -> None:
            await ctx.db.insert("log", {"key": key, "now": ctx.now})

        @query
        async def look(ctx: QueryCtx, id: str) -> str:
            return await state_of(ctx, id)

        @mutation(args={"other": v.string()})
        async def strict_mutation(ctx: MutationCtx, other: str) -> None:
            raise AssertionError

        @action(args={"other": v.string()})
        async def strict_action(ctx: ActionCtx, other: str) -> None:
            raise AssertionError

        kinds = {
            MUTATION: scheduled_mutation,
            ACTION: scheduled_action,
            QUERY: look,
            STRICT + MUTATION: strict_mutation,
            STRICT + ACTION: strict_action,
        }
        jobs = {name.removeprefix("app:"): kinds[kind] for name, kind in self.functions.items() if kind != GONE}
        return SimpleNamespace(**jobs, **{f"version_{version}": look}, call=call, act=act, note=note, look=look)

    async def _mutate(self, ctx: MutationCtx, key: str) -> None:
        self.answers[key] = []
        await ctx.db.insert("log", {"key": key, "now": ctx.now})
        script = self.model.scripts[key]
        for position in range(len(script.acts)):
            await self._play(ctx, key, position, script)
        if script.fails:
            raise Boom

    async def _act(self, ctx: ActionCtx, key: str) -> None:
        self.answers.setdefault(key, [])  # not anew: one that ran twice would show
        await ctx.run_mutation("app:note", {"key": key})
        script = self.model.scripts[key]
        for position, act in enumerate(script.acts):
            if not isinstance(act, Breathe | Hang):
                await self._play(ctx, key, position, script)
            elif ctx.scheduled_function_id is not None:
                await self.stage.wait(key, hangs=isinstance(act, Hang))
        if script.fails:
            raise Boom

    async def _play(self, ctx: Any, key: str, position: int, script: Script) -> None:
        act, below = script.acts[position], f"{key}.{position}"
        answers = self.answers[key]
        try:
            if isinstance(act, Schedule):
                if act.script is not None or goes_on(key):
                    self.know(below, await schedule(ctx, act, below))
                    answers.append("scheduled")
            elif isinstance(act, Cancel):
                await ctx.scheduler.cancel(self._id(ctx, key, position, act))
                answers.append("canceled")
            elif isinstance(act, Look):
                id = self._id(ctx, key, position, act)
                is_action = isinstance(ctx, ActionCtx)
                answers.append(await (ctx.run_query("app:look", {"id": id}) if is_action else state_of(ctx, id)))
            elif isinstance(act, Sub):
                await ctx.run_mutation("app:call", {"key": below})
                answers.append("done")
        except Exception as error:
            answers.append(type(error).__name__)
            if script.strict:
                raise

    def know(self, key: str, id: str) -> None:
        self.ids[key], self.keys[id] = id, key

    def _id(self, ctx: Any, key: str, position: int, act: Cancel | Look) -> Any:
        if act.target == OWN and ctx.scheduled_function_id is not None:
            return ctx.scheduled_function_id
        return self.ids[self.model.targets[key, position]]

    # A program.

    async def play(self, steps: Iterable[Step]) -> None:
        async with self.stage:
            self.ids[FOREIGN] = await self.stage.transaction(lambda ctx: ctx.db.insert("other", {}))
            for step in steps:
                expected = step.expect(self)
                async with asyncio.timeout(SECONDS_MAX):
                    got = await step.happen(self)
                self._agree(step, "what it comes to", got, expected)
                await self._compare(step)

    async def _compare(self, step: Step) -> None:
        model, stage = self.model, self.stage

        async def all_of_it(ctx: MutationCtx) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            return await ctx.db.system.query("_scheduled_functions").collect(), await ctx.db.query("log").collect()

        rows, log = await stage.transaction(all_of_it)
        self._agree(step, "the time", stage.now_ms, model.now)
        self._agree(
            step, "the jobs", [self._shown(row) for row in rows], [expected_row(self, key) for key in model.jobs]
        )
        self._agree(step, "the log", [(entry["key"], entry["now"]) for entry in log], model.log)
        self._agree(step, "what the acts came to", self.answers, model.answers)
        self._agree(step, "the actions that wait", stage.ready, model.ready)
        self._agree(step, "the actions that hang", stage.hanging, model.hanging)
        self._agree(step, "how many actions run", stage.app.executor.running, len(model.bodies))

    def _shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row without the time of its creation, and of an error only what it is about."""
        shown = {name: value for name, value in row.items() if name != "_creationTime"}
        if row["state"]["kind"] == "failed":
            shown["state"] = {"kind": "failed", "error": about(row["state"]["error"])}
        return shown

    def _agree(self, step: Step, what: str, got: object, expected: object) -> None:
        if got != expected:
            raise Difference(f"{what}, after {step}\n  got      {got}\n  expected {expected}")


async def schedule(ctx: MutationCtx | ActionCtx, act: Schedule, key: str) -> str:
    args = {"key": key} if act.fits else {"key": key, "more": True}
    if isinstance(act.when, After):
        return await ctx.scheduler.run_after(act.when.delay, act.name, args)
    return await ctx.scheduler.run_at(ctx.now + act.when.offset, act.name, args)


async def state_of(ctx: QueryCtx, id: str) -> str:
    row = await ctx.db.system.get(id)
    return "nothing" if row is None else row["state"]["kind"]


def about(error: str) -> str:
    """The name of the exception that an error tells of."""
    return error.partition("\n")[0].partition(":")[0].rpartition(".")[2]


def expected_row(game: Game, key: str) -> dict[str, Any]:
    job = game.model.jobs[key]
    state = {"kind": job.state} if job.error is None else {"kind": job.state, "error": job.error}
    row: dict[str, Any] = {
        "_id": game.ids.get(key),
        "name": job.name,
        "args": [job.args],
        "scheduledTime": job.scheduled_time,
        "state": state,
    }
    if job.completed_time is not None:
        row["completedTime"] = job.completed_time
    if job.retry_of is not None:
        row["retryOf"] = game.ids[job.retry_of]
    return row


# What clients do.


@dataclass(frozen=True)
class Call:
    """Clients call functions at once, so that mutations may share a commit; of an action there is only one."""

    kind: str
    scripts: Sequence[Script]

    def expect(self, game: Game) -> object:
        keys = [str(game.calls + number) for number in range(len(self.scripts))]
        return [game.model.call(key, script, self.kind) for key, script in zip(keys, self.scripts, strict=True)]

    async def happen(self, game: Game) -> object:
        return await asyncio.gather(*self.begin(game))

    def begin(self, game: Game) -> list[asyncio.Task[str]]:
        function = game.stage.mutation if self.kind == MUTATION else game.stage.action
        name = "app:call" if self.kind == MUTATION else "app:act"

        async def outcome(key: str) -> str:
            try:
                await function(name, {"key": key})
            except Exception as error:
                return type(error).__name__
            return "done"

        keys = [str(game.calls + number) for number in range(len(self.scripts))]
        game.calls += len(keys)
        return [asyncio.create_task(outcome(key)) for key in keys]


@dataclass(frozen=True)
class Race:
    """A client calls a mutation while what is due is run, in the same commit: before all of that, or behind it."""

    script: Script
    first: bool

    def expect(self, game: Game) -> object:
        model, call = game.model, Call(MUTATION, [self.script])
        due = model.due()  # what is due is read before either
        if self.first:
            outcome = call.expect(game)
            model.begin(model.run(due))
        else:
            started = model.run(due)
            outcome = call.expect(game)
            model.begin(started)
        return outcome

    async def happen(self, game: Game) -> object:
        held = threading.Event()
        game.stage.app.database.commit(lambda batch: held.wait(SECONDS_MAX))  # the rest joins it
        tasks, calls = list[asyncio.Task[Any]](), list[asyncio.Task[str]]()
        for is_call in (self.first, not self.first):
            if is_call:
                calls = Call(MUTATION, [self.script]).begin(game)
                tasks += calls
            else:
                tasks.append(asyncio.create_task(game.stage.round()))
            await asyncio.sleep(0)
        held.set()
        await asyncio.gather(*tasks)
        return [call.result() for call in calls]


@dataclass(frozen=True)
class Retry:
    """Somebody has a failed function run again, or tries it with any other."""

    number: int
    failed: bool = True

    def expect(self, game: Game) -> object:
        model = game.model
        choice = (model.failed() if self.failed else []) or model.ever()
        return model.retry(str(game.calls), choice[self.number % len(choice)])

    async def happen(self, game: Game) -> object:
        key, game.calls = str(game.calls), game.calls + 1
        try:
            game.know(key, await game.stage.app.retry(game.ids[game.model.targets[key, 0]]))
        except Exception as error:
            return type(error).__name__
        return "done"


@dataclass(frozen=True)
class Pause:
    """Nobody starts a scheduled function until it is resumed; what runs goes on."""

    resumes: bool = False

    def expect(self, game: Game) -> object:
        game.model.paused = not self.resumes
        return None

    async def happen(self, game: Game) -> object:
        app = game.stage.app
        return await (app.resume() if self.resumes else app.pause())


@dataclass(frozen=True)
class Tell:
    """Somebody tells an action that hangs to go on."""

    number: int

    def expect(self, game: Game) -> object:
        model = game.model
        if model.hanging:
            model.turn(model.hanging.pop(self.number % len(model.hanging)))
        return None

    async def happen(self, game: Game) -> object:
        stage = game.stage
        if stage.hanging:
            await stage.turn(stage.hanging.pop(self.number % len(stage.hanging)))
        return None


# Time.


@dataclass(frozen=True)
class Advance:
    milliseconds: float

    def expect(self, game: Game) -> object:
        return game.model.advance(self.milliseconds)

    async def happen(self, game: Game) -> object:
        return await game.stage.advance(self.milliseconds)


@dataclass(frozen=True)
class Idle:
    """`run_until_idle`."""

    def expect(self, game: Game) -> object:
        return game.model.settle()

    async def happen(self, game: Game) -> object:
        return await game.stage.run_until_idle()


# What happens to the process, and to its code.


@dataclass(frozen=True)
class Lose:
    """The process ends, and after some milliseconds another one opens the store."""

    how: str
    milliseconds: float

    def expect(self, game: Game) -> object:
        return game.model.lose(self.how, self.milliseconds)

    async def happen(self, game: Game) -> object:
        return await game.stage.lose(self.how, self.milliseconds)


@dataclass(frozen=True)
class Deploy:
    """Another version of the application, while calls go on by the old one."""

    functions: Mapping[str, str]

    def expect(self, game: Game) -> object:
        game.model.functions = {**game.model.functions, **self.functions}
        return None

    async def happen(self, game: Game) -> object:
        game.deploy(self.functions)
        await game.stage.app.reload()
        return None


@dataclass(frozen=True)
class Program:
    steps: Sequence[Step]
    actions_max: int = 64
    schedules_max: int = 1_000

    async def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            # How much of what is due goes into one commit depends on the machine, and with it who is first where a
            # mutation waits among the actions, because it was one. Here it is all that is due.
            patch.setattr("duly.workers.claim_size._SIZE_MIN", DUE_BATCH_MAX)
            patch.setattr("duly.database.batch.BATCH_SECONDS_MAX", float("inf"))
            patch.setattr("duly.workers.executor.DUE_SECONDS_BEHIND_CALLS_MAX", float("inf"))
            patch.setattr(logging.getLogger("duly.run"), "disabled", True)  # much fails, on purpose
            if IN_MEMORY.is_dir():  # no power is cut here
                patch.setattr("tempfile.tempdir", str(IN_MEMORY))
            game = Game(self)
            await game.play(chain(self.steps, ending(game.model)))


def ending(model: Model) -> Iterator[Step]:
    """Everybody may go on, and time passes, until nothing is left to do."""
    yield Pause(resumes=True)
    yield Idle()
    for _ in range(6):
        if model.hanging:
            yield Tell(0)
    yield Idle()
    for _ in range(5):
        if model.jobs:
            yield Advance(FIVE_YEARS_MS)
