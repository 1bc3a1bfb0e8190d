"""Random programs of reads and writes: at every step the database answers what its model answers.

`DULY_STEPS=1000000` plays other programs each time, and at least so many steps on each engine.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count, product
from random import Random, SystemRandom
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from duly import UNSET
from tests.functions.database_model import INDEXES, All, Bound, Compare, Condition, Not, Select, Some
from tests.functions.database_steps import (
    START_MS,
    Ask,
    Audit,
    Collect,
    Crash,
    Delete,
    First,
    Get,
    Insert,
    Look,
    Loop,
    Mutate,
    Of,
    Page,
    Pages,
    Patch,
    Program,
    PutBack,
    Replace,
    Script,
    Step,
    Sub,
    Take,
    Unique,
    Wait,
)

SOAK: Final = "DULY_STEPS" in os.environ
STEPS: Final = {"sqlite": 3_000, "postgres": 1_500}
"""Of one part of the test."""
PROGRAMS: Final = 9
"""Programs of one round. After ten Hypothesis begins to repeat itself, with small changes."""
WORDS: Final = 800
"""Writes, reads and the like that the programs of one round are made of."""

# What steps are about.

VALUES: Final[list[Any]] = [
    *(None, False, True, 0, -0.0, 1, 1.0, -1, 1.5, math.inf, -math.inf, math.nan),
    *(2**53, 2**53 + 1, float(2**53), 2**63 - 1, float(2**63), -(2**63)),
    *("", "\x00", "a", "a\x00", "aa", "ab", "é", "\uffff", "\U0001f600"),
    *(b"", b"\x00", b"a", b"\xff"),
    *([], [None], [1], [1.0, "a"], [[]], {}, {"b": 1}, {"b": None, "c": 1}, {"c": 1}),
]
COMMON: Final[list[Any]] = [1, 1.0, "a", None, UNSET]
"""Values that meet often; UNSET is none."""
TIMES: Final[list[Any]] = [UNSET, None, START_MS, START_MS + 1.0, math.inf, math.nan, "a"]
ORDERS: Final = [
    (table, index)
    for table, indexes in INDEXES.items()
    for index in [None, *indexes]
    for _ in range(3 if table == "items" else 1)
]
SIDES: Final = [(), ("gt",), ("gte",), ("lt",), ("lte",), *product(("gt", "gte"), ("lt", "lte"))]


class Author:
    """Writes the parts of which programs are made. Hypothesis puts them together."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def words(self, write: Callable[[], Any]) -> st.SearchStrategy[Any]:
        """Many of one kind, the simplest first: it is the one that Hypothesis tries to replace others by."""
        return st.sampled_from(sorted((write() for _ in range(WORDS)), key=lambda word: len(repr(word))))

    def _one_of(self, *choices: Any) -> Any:
        return self._chance.choice(choices)

    def _value(self) -> Any:
        return self._chance.choice(self._one_of(COMMON, VALUES))

    def _nested(self) -> Any:
        value = self._value()
        return value if value is UNSET else self._one_of(value, {"b": value}, {"b": value}, {"b": value, "c": 0})

    def fields(self) -> dict[str, Any]:
        drawn = {"x": self._value(), "y": self._value(), "a": self._nested(), "n": self._one_of(UNSET, 0, 1, 2)}
        return {name: value for name, value in drawn.items() if value is not UNSET}

    def _changes(self) -> dict[str, Any]:
        drawn = {"x": self._value(), "y": self._value(), "a": self._nested(), "n": self._one_of(UNSET, 0, 1, 2)}
        return {name: value for name, value in drawn.items() if self._one_of(True, False)}

    def _target(self) -> int | None:
        return self._chance.choice([None, None, None, *range(30), -1, -2, -3])

    # Queries.

    def book(self) -> Select:
        """Something to be read in pages: much of an index."""
        select = self.select()
        return replace(select, equal=(), bounds=select.bounds[:1] if not select.equal else ())

    def select(self) -> Select:
        table, index = self._chance.choice(ORDERS)
        equal, bounds = self._range(len(INDEXES[table][index])) if index is not None else ((), ())
        filters = self._one_of((), (), (), (self._condition(),), (self._condition(), self._condition()))
        return Select(table, index, equal, bounds, self._one_of(True, False), filters)

    def _range(self, fields: int) -> tuple[tuple[Any, ...], tuple[Bound, ...]]:
        length = min(self._one_of(0, 0, 1, 1, 2, 3), fields + 1)
        # Mostly that of a document, so that there is something in it.
        like = self._one_of(None, Of(self._target()), Of(self._target()))
        equal = [self._compared(position < fields) if like is None else like for position in range(length)]
        sides = self._chance.choice(SIDES) if length <= fields else ()
        return tuple(equal), tuple(Bound(side, self._compared(length < fields)) for side in sides)

    def _compared(self, is_field: bool) -> Any:
        """A value to be compared with a field, or with the time of creation."""
        of = self._one_of(self._target(), self._target(), None)
        if of is not None:
            return Of(of, 0 if is_field else self._one_of(-1, 0, 1))
        return self._value() if is_field else self._chance.choice(TIMES)

    def _condition(self) -> Condition:
        one, other = self._comparison(), self._comparison()
        return self._one_of(one, one, Not(one), All([one, other]), Some([one, other]), self._one_of(All([]), Some([])))

    def _comparison(self) -> Compare:
        path = self._one_of("x", "x", "y", "a", "a.b", "n")
        return Compare(self._one_of("eq", "neq", "lt", "lte", "gt", "gte"), path, self._value())

    # Steps.

    def insert(self) -> Insert:
        return Insert(self._one_of("items", "items", "items", "notes", "scraps"), self.fields())

    def patch(self) -> Patch:
        return Patch(self._target(), self._changes())

    def write(self) -> Step:
        target = self._target()
        return self._one_of(
            *[self.insert()] * 4,
            *[self.patch()] * 3,
            *[Delete(target)] * 2,
            Replace(target, self.fields()),
            PutBack(target, self._one_of("patch", "replace")),
        )

    def read(self) -> Step:
        select, book, items = self.select(), self._one_of(0, 1, 2), self._one_of(1, 2, 3, 4, 5, 6)
        few, looks = self._one_of(0, 1, 2, 3, 4), self._one_of(None, None, 1, 2, 3, 4, 5, 6)
        return self._one_of(
            Get(self._target()),
            *[Collect(select)] * 2,
            Take(few, select),
            First(select),
            Unique(select),
            Loop(select, [], few + 1),
            Pages(select, items, looks),
            Page(book, items),
            Page(book, items, few, self._one_of(None, None, 0, 1, 2, 3), looks),
        )


# Programs.


def many(steps: st.SearchStrategy[Any], least: int, most: int) -> st.SearchStrategy[list[Any]]:
    """Lists that are long, but shrink to short ones."""
    return weighted((1, st.lists(steps, max_size=most)), (9, st.lists(steps, min_size=least, max_size=most)))


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of several strategies, the first the simplest, each as often as its number says."""
    numbers = [number for number, (weight, _) in enumerate(choices) for _ in range(weight)]
    return st.sampled_from(numbers).flatmap(lambda number: choices[number][1])


def programs(author: Author) -> st.SearchStrategy[Program]:
    inserts = author.words(author.insert)
    books, selects = author.words(author.book), author.words(author.select)
    writes, reads = author.words(author.write), author.words(author.read)
    fails, catches = st.sampled_from([False, False, True]), st.sampled_from([True] * 7 + [False])
    items, looks = st.sampled_from([1, 2, 3, 4, 5]), st.sampled_from([None, None, 1, 2, 3, 4, 5])
    few = weighted((1, writes), (1, reads))
    small = st.builds(Sub, st.builds(Script, st.lists(few, max_size=4), fails), catches)
    meanwhile = many(weighted((3, writes), (3, author.words(author.patch)), (1, small)), 3, 8)
    act = weighted(
        (1, st.builds(Loop, books, meanwhile)),
        (1, st.builds(Loop, selects, meanwhile, looks)),
        (1, st.builds(Pages, books, items, looks, meanwhile)),
        (1, st.builds(Ask, st.builds(Script, st.lists(reads, max_size=4)))),
        (1, st.just(Audit())),
    )

    def steps(depth: int) -> st.SearchStrategy[Step]:
        """What a mutation may do, with sub-transactions down to a depth."""
        script = st.builds(Script, st.lists(steps(depth - 1), max_size=6), fails) if depth else None
        deeper = [] if script is None else [(1, st.builds(Sub, script, catches))]
        return weighted((3, writes), (3, reads), (1, act), *deeper)

    mutation = st.builds(Script, many(steps(3), 6, 12), fails)
    look = st.builds(Script, many(weighted((8, reads), (1, st.just(Audit()))), 4, 8))
    happening = weighted(
        (9, st.builds(Mutate, st.lists(mutation, min_size=1, max_size=2))),
        (3, st.builds(Look, look)),
        (1, st.just(Crash())),
        (1, st.builds(Wait, st.sampled_from([0.25, 1.0]))),
    )
    return st.builds(
        Program,
        many(inserts, 8, 24),
        st.lists(books, min_size=1, max_size=3),
        many(happening, 8, 16),
        st.sampled_from([256, 3, 2, 1]),
    )


def play(first_seed: int, steps: int) -> int:
    """Play programs of at least so many steps, and return how many there were."""
    played = 0

    def run(program: Program) -> None:
        nonlocal played
        played += asyncio.run(program.run())

    configure = settings(
        max_examples=PROGRAMS,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    for number in count(first_seed):
        if played >= steps:
            break
        try:
            seed(number)(configure(given(programs(Author(Random(number))))(run)))()
        except Exception as error:
            error.add_note(f"play({number}, 1) finds it again")
            raise
    return played


@pytest.mark.timeout(0 if SOAK else 600)  # a failing program is shrunk, which takes longer than all that do not fail
@pytest.mark.parametrize(
    ("engine", "part"),
    [("sqlite", 0), pytest.param("sqlite", 1, marks=pytest.mark.slow), ("postgres", 2)],
    indirect=["engine"],
)
def test_the_database_agrees_with_its_model_at_every_step(engine: str, part: int) -> None:
    steps = int(os.environ["DULY_STEPS"]) if SOAK else STEPS[engine]
    assert play(SystemRandom().getrandbits(32) if SOAK else 1_000 * part, steps) >= steps
