"""Keys sort as values do."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from duly.values.keys import FIRST, LAST, Cut, encode, encode_id, field_of
from duly.values.value import UNSET

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)

IN_ORDER: list[Any] = [
    UNSET,
    None,
    -math.inf,
    -(2**63),
    -(2**63) + 1,
    -1.5,
    -1,
    0,
    5e-324,
    1,
    1.5,
    2**53,
    2**53 + 1,
    2**62,
    2**62 + 1,
    2**63 - 1,
    math.inf,
    False,
    True,
    "",
    "\x00",
    "\x00\x00",
    "a",
    "a\x00",
    "aa",
    "b",
    "é",
    "\U0001f600",
    b"",
    b"\x00",
    b"\xff",
    [],
    [None],
    [1],
    [1, 1],
    [2],
    ["a"],
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"a": 2},
    {"b": 0},
]


def test_values_of_all_types_have_one_order() -> None:
    keys = [encode(value) for value in IN_ORDER]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@given(numbers, numbers)
def test_numbers_compare_exactly_across_int_and_float(a: float, b: float) -> None:
    assert (encode(a) < encode(b)) == (a < b)
    assert (encode(a) == encode(b)) == (a == b)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_strings_compare_by_code_point(a: str, b: str) -> None:
    assert (encode(a) < encode(b)) == ([*map(ord, a)] < [*map(ord, b)])


@given(st.text("ab\x00", max_size=3), st.integers(0, 2**63 - 1), st.text("ab\x00", max_size=3))
def test_cuts_lie_before_and_after_all_keys_that_begin_with_their_values(a: str, id: int, b: str) -> None:
    key = encode(a) + encode_id(id)
    longer = encode(a) + encode(1) + encode_id(id)
    assert Cut((a,), after=False).key() <= min(key, longer)
    assert Cut((a,), after=True).key() > max(key, longer)
    assert Cut((a,), after=False, id=id).key() == key < Cut((a,), after=True, id=id).key()
    if b > a:
        assert Cut((a,), after=True).key() <= encode(b) + encode_id(0)
    assert FIRST.key() <= key < LAST.key()


def test_a_field_is_found_by_its_path() -> None:
    document = {"a": {"b": {"c": 1}}, "list": [{"b": 1}], "none": None}
    assert field_of(document, "a.b.c") == 1
    assert field_of(document, "a.x") is UNSET
    assert field_of(document, "list.b") is UNSET
    assert field_of(document, "none") is None
