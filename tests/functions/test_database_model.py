"""Random programs of reads and writes: at every step the database answers what its model answers.

`DULY_STEPS=1000000` plays other programs each time, and at least so many steps.
"""

from __future__ import annotations

import asyncio
import math
import os
from itertools import count, product
from random import SystemRandom
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
    Page,
    Pages,
    Patch,
    Program,
    PutBack,
    Replace,
    Script,
    Sub,
    Take,
    TimeOf,
    Unique,
    Wait,
)

STEPS: Final = 20_000
PROGRAMS: Final = 50
"""Programs of one round; there are as many rounds as it takes."""

# Values.

VALUES: Final[list[Any]] = [
    *(None, False, True, 0, -0.0, 1, 1.0, -1, 1.5, math.inf, -math.inf, math.nan),
    *(2**53, 2**53 + 1, float(2**53), 2**63 - 1, float(2**63), -(2**63)),
    *("", "\x00", "a", "a\x00", "aa", "ab", "é", "\uffff", "\U0001f600"),
    *(b"", b"\x00", b"a", b"\xff"),
    *([], [None], [1], [1.0, "a"], [[]], {}, {"b": 1}, {"b": None, "c": 1}, {"c": 1}),
]
COMMON: Final[list[Any]] = [1, 1.0, "a", None]
"""Values that meet often."""
KEPT: Final = object()
"""What a patch does not mention."""

# What is drawn costs more time than what is played: so there are few choices, and no strategy is made while drawing.
values = st.sampled_from([UNSET, *COMMON * 6, UNSET, UNSET, *VALUES])
nested = st.sampled_from([UNSET, *[{"b": value} for value in COMMON * 6 + VALUES], *VALUES, {"b": 1, "c": 2}])
kept = st.just(KEPT)
documents = st.tuples(values, values, nested, st.sampled_from([UNSET, 0, 1])).map(
    lambda drawn: {name: value for name, value in zip("xyan", drawn, strict=True) if value is not UNSET}
)
changes = st.tuples(kept | values, kept | values, kept | nested, st.sampled_from([KEPT, 0, 1])).map(
    lambda drawn: {name: value for name, value in zip("xyan", drawn, strict=True) if value is not KEPT}
)
tables = st.sampled_from(["items", "items", "items", "notes", "scraps"])
times = st.sampled_from(
    [TimeOf(target, ticks) for target in range(20) for ticks in (0, -1, 1)]
    + [UNSET, None, START_MS, START_MS + 1.0, math.inf, math.nan, "a"]
)

# Queries.

comparisons = st.builds(
    Compare,
    st.sampled_from(["eq", "neq", "lt", "lte", "gt", "gte"]),
    st.sampled_from(["x", "y", "a", "a.b", "n"]),
    values,
)
conditions: st.SearchStrategy[Condition] = st.one_of(
    comparisons,
    comparisons,
    st.builds(Not, comparisons),
    st.builds(All, st.lists(comparisons, max_size=3)),
    st.builds(Some, st.lists(comparisons, max_size=3)),
)
ORDERS: Final = [
    (table, index, descending)
    for table, indexes in INDEXES.items()
    for index in [None, *indexes]
    for descending in (False, True)
    for _ in range(3 if table == "items" else 1)
]
orders = st.sampled_from(ORDERS)
lengths = [st.integers(0, most) for most in range(4)]
sides = st.sampled_from([(), ("gt",), ("gte",), ("lt",), ("lte",), *product(("gt", "gte"), ("lt", "lte"))])
filters = st.just(()) | st.just(()) | st.just(()) | st.lists(conditions, min_size=1, max_size=2).map(tuple)


@st.composite
def _selects(draw: st.DrawFn) -> Select:
    table, index, descending = draw(orders)
    equal: tuple[Any, ...] = ()
    bounds: tuple[Bound, ...] = ()
    if index is not None:
        compared = [values for _ in INDEXES[table][index]] + [times]
        equal = tuple([draw(value) for value in compared[: draw(lengths[len(compared)])]])
        if len(equal) < len(compared):
            bounds = tuple([Bound(side, draw(compared[len(equal)])) for side in draw(sides)])
    return Select(table, index, equal, bounds, descending, draw(filters))


selects = _selects()

# Steps.

targets = st.sampled_from([None, *range(30)])
a_few = st.integers(0, 4)
writes = st.one_of(
    [st.builds(Insert, tables, documents)] * 3
    + [st.builds(Patch, targets, changes)] * 2
    + [st.builds(Delete, targets)] * 2
    + [st.builds(Replace, targets, documents), st.builds(PutBack, targets, st.sampled_from(["patch", "replace"]))]
)
items = st.integers(1, 5)
looks = st.sampled_from([None, None, None, 1, 2, 3, 4, 5])
mosts = st.sampled_from([None, None, 1, 2, 3, 4, 5])
reads = st.one_of(
    st.builds(Get, targets),
    st.builds(Collect, selects),
    st.builds(Collect, selects),
    st.builds(Take, a_few, selects),
    st.builds(First, selects),
    st.builds(Unique, selects),
    st.builds(Loop, selects, st.just(()), mosts),
    st.builds(Pages, selects, items, looks),
    st.builds(Page, st.integers(0, 2), items, a_few, st.sampled_from([None, None, 0, 1, 2, 3]), looks),
)


def many(steps: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    """Lists that are long, but shrink to short ones."""
    return st.lists(steps, max_size=most) | st.lists(steps, min_size=most // 2, max_size=most)


fails, catches = st.sampled_from([False, False, True]), st.sampled_from([True, True, True, False])
small = st.builds(Sub, st.builds(Script, st.lists(writes | reads, max_size=4), fails), catches)
meanwhile = st.lists(st.one_of([writes] * 4 + [small]), max_size=5)
acts = st.one_of(
    st.builds(Loop, selects, meanwhile, mosts),
    st.builds(Loop, selects, meanwhile, mosts),
    st.builds(Pages, selects, items, looks, meanwhile),
    st.builds(Ask, st.builds(Script, st.lists(reads, max_size=4))),
    st.just(Audit()),
)


def mutations(depth: int) -> st.SearchStrategy[Script]:
    """What a mutation may do, with sub-transactions down to a depth."""
    steps = [writes, writes, reads, reads, acts]
    if depth > 0:
        steps.append(st.builds(Sub, mutations(depth - 1), catches))
    return st.builds(Script, many(st.one_of(steps), 12), fails)


scripts = mutations(3)
looking = st.builds(Look, st.builds(Script, many(reads | st.just(Audit()), 8)))
mutating = st.builds(Mutate, st.lists(scripts, min_size=1, max_size=2))
waits = st.builds(Wait, st.sampled_from([0.25, 1.0]))
happenings = st.one_of([mutating] * 6 + [looking] * 2 + [st.just(Crash()), waits])
programs = st.builds(
    Program, st.lists(selects, min_size=1, max_size=3), many(happenings, 20), st.sampled_from([256, 3, 2, 1])
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
            return played
        seed(number)(configure(given(programs)(run)))()
    raise AssertionError


@pytest.mark.slow
@pytest.mark.timeout(600)  # a failing program is shrunk, which takes longer than all those that do not fail
def test_the_database_agrees_with_its_model_at_every_step() -> None:
    soak = int(os.environ.get("DULY_STEPS", "0"))
    steps = play(SystemRandom().getrandbits(32) if soak else 0, soak or STEPS)
    assert steps >= 20_000
