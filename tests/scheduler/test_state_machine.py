"""Random programs of a scheduler's life: after every step duly has the same state as its model.

`make soak` plays many more, others each time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.scheduler.model import (
    ACTION,
    CLOSE,
    CRASH,
    FIVE_YEARS_MS,
    FOREIGN,
    GONE,
    GRACE,
    MUTATION,
    NONSENSE,
    OWN,
    QUERY,
    RETENTION_MS,
    STRICT,
    Act,
    After,
    At,
    Breathe,
    Cancel,
    Hang,
    Look,
    Schedule,
    Script,
    Sub,
    Target,
)
from tests.scheduler.steps import (
    ACTION_AT_FIRST,
    FUNCTIONS,
    Advance,
    Call,
    Deploy,
    Idle,
    Lose,
    Pause,
    Program,
    Race,
    Retry,
    Tell,
)

PROGRAMS: Final = 10
"""Programs of one round. After ten Hypothesis begins to repeat itself, with small changes."""
PARTS: Final = {"sqlite": 40, "postgres": 20}
"""Programs of one part of the test. In 40, nearly every defect of `test_defects` is found."""
WORDS: Final = 300
"""Acts that the scripts of one round are made of."""

TIMES: Final[list[After | At]] = [After(0), At(0), At(-5), At(5), After(5), After(5), After(10), At(10), After(1_000)]
ODD_TIMES: Final[list[After | At]] = [
    *(After(-1), After(math.nan), After(math.inf), At(math.nan), At(-math.inf)),
    *(After(0.25), After(FIVE_YEARS_MS), After(FIVE_YEARS_MS + 1), At(FIVE_YEARS_MS), At(FIVE_YEARS_MS + 1)),
    *(At(-FIVE_YEARS_MS), At(-FIVE_YEARS_MS - 1)),
]
SPANS: Final = [0, 0.25, 5, 5, 10, 10, 1_000, 86_400_000, RETENTION_MS - 10, RETENTION_MS]
KINDS: Final = [MUTATION, MUTATION, ACTION, ACTION, QUERY, GONE, STRICT + MUTATION, STRICT + ACTION]
STEPS_MIN: Final = 10
"""A program of fewer steps does not count; Hypothesis makes some in order to have simple ones."""
STEPS_MAX: Final = 40
STEPS_MAX_HERE: Final = 20  # where there is less time


class Author:
    """Writes the acts of which programs are made. Hypothesis puts them together."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def words(self, write: Callable[[], Any]) -> st.SearchStrategy[Any]:
        """Many of one kind, the simplest first: it is the one that Hypothesis tries to replace others by."""
        return st.sampled_from(sorted((write() for _ in range(WORDS)), key=lambda word: len(repr(word))))

    def act(self, depth: int = 2) -> Act:
        one_of = self._rng.choice
        act = one_of([Schedule] * 5 + [Cancel] * 4 + [Look, Sub, Sub, Breathe, Hang])
        if act is Schedule:
            return self.schedule(depth)
        if act is Sub:
            return Sub(self._script(depth))
        return act() if act in (Breathe, Hang) else act(self._target())

    def schedule(self, depth: int = 2) -> Schedule:
        one_of = self._rng.choice
        name, times = one_of([*FUNCTIONS, ACTION_AT_FIRST]), one_of([TIMES] * 9 + [ODD_TIMES])
        script = self._script(depth)
        if name == ACTION_AT_FIRST and one_of([True, False]):
            script = replace(script, acts=[Hang(), *script.acts])
        return Schedule(name, one_of(times), one_of([script] * 5 + [None]), fits=one_of([True] * 11 + [False]))

    def _script(self, depth: int) -> Script:
        one_of = self._rng.choice
        acts = [self.act(depth - 1) for _ in range(one_of([0, 1, 1, 2, 2, 3]))] if depth else []
        return Script(acts, fails=one_of([False] * 5 + [True]), strict=one_of([False] * 5 + [True]))

    def _target(self) -> Target:
        odd = self._rng.choice([NONSENSE, FOREIGN])
        return self._rng.choice([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, OWN, OWN, OWN, odd])


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of several strategies, the first the simplest, each as often as its number says."""
    numbers = [number for number, (weight, _) in enumerate(choices) for _ in range(weight)]
    return st.sampled_from(numbers).flatmap(lambda number: choices[number][1])


def programs(author: Author, steps_max: int) -> st.SearchStrategy[Program]:
    acts = weighted((1, author.words(author.schedule)), (1, author.words(author.act)))
    rarely, seldom = st.sampled_from([False] * 3 + [True]), st.sampled_from([False] * 7 + [True])
    script = st.builds(Script, st.lists(acts, min_size=1, max_size=4), seldom, seldom)
    cancel = st.builds(Cancel, st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6]))
    cancels = st.builds(Script, st.lists(cancel, min_size=1, max_size=2), rarely)
    step = weighted(
        (6, st.builds(Call, st.just(MUTATION), st.lists(script, min_size=1, max_size=2))),
        (6, st.builds(Advance, st.sampled_from(SPANS))),
        (2, st.just(Idle())),
        (3, st.builds(Tell, st.sampled_from([0, 0, 1]))),
        (1, st.builds(Call, st.just(ACTION), st.lists(script, min_size=1, max_size=1))),
        (2, st.builds(Call, st.just(MUTATION), st.lists(cancels, min_size=1, max_size=1))),
        (3, st.builds(Race, weighted((2, cancels), (1, script)), st.booleans())),
        (1, st.builds(Retry, st.sampled_from([0, 0, 1, 2]), st.sampled_from([True, True, True, False]))),
        (1, st.just(Pause())),
        (2, st.just(Pause(resumes=True))),
        (
            2,
            st.builds(
                Lose, st.sampled_from([CRASH, CRASH, CLOSE, GRACE]), st.sampled_from([1, 1, 10, 1_000, 86_400_000])
            ),
        ),
        (2, st.builds(Deploy, st.dictionaries(st.sampled_from([*FUNCTIONS]), st.sampled_from(KINDS), min_size=1))),
    )
    return st.builds(
        Program,
        weighted((1, st.lists(step, max_size=steps_max)), (9, st.lists(step, min_size=STEPS_MIN, max_size=steps_max))),
        st.sampled_from([64, 1, 2]),
        st.sampled_from([1_000, 2]),
    )


def play(
    first_seed: int,
    number: int,
    phases: Sequence[Phase] = (Phase.generate, Phase.shrink),
    steps_max: int = STEPS_MAX,
) -> int:
    """Play programs, and return of how many steps they were."""
    played = steps = 0

    def run(program: Program) -> None:
        nonlocal played, steps
        asyncio.run(program.run())
        played += len(program.steps) >= STEPS_MIN
        steps += len(program.steps)

    for number_of_round in count(first_seed):
        if played >= number:
            break
        configure = settings(
            max_examples=PROGRAMS,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        try:
            seed(number_of_round)(configure(given(programs(Author(Random(number_of_round)), steps_max))(run)))()
        except Exception as error:
            error.add_note(f"play({number_of_round}, 1, steps_max={steps_max}) finds it again")
            raise
    return steps


@pytest.mark.timeout(600)  # a failing program is shrunk, which takes longer than all that do not fail
@pytest.mark.parametrize(
    ("engine", "part"),
    [
        ("sqlite", 0),
        *(pytest.param("sqlite", part, marks=pytest.mark.slow) for part in (1, 2, 3)),
        ("postgres", 4),
    ],
    indirect=["engine"],
)
def test_duly_agrees_with_its_model_after_every_step(engine: str, part: int) -> None:
    number = PARTS[engine]
    assert play(1_000 * part, number, steps_max=STEPS_MAX_HERE) >= STEPS_MIN * number
