"""Keys sort as values do."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from duly.values.index_keys import FIRST, LAST, Cut, compare, encode, encode_id, field_of
from duly.values.plain import UNSET

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
values = st.recursive(
    st.sampled_from([UNSET, None, False, True])
    | st.integers(-2, 2)
    | numbers
    | st.floats()
    | texts
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)

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


def test_there_is_one_nan_whatever_its_sign() -> None:
    assert encode(math.nan) == encode(-math.nan) == encode(math.inf - math.inf) > encode(math.inf)


def test_values_compare_as_they_stand_in_order() -> None:
    for place, value in enumerate(IN_ORDER):
        after = len(IN_ORDER) - place - 1
        assert [compare(value, other) for other in IN_ORDER] == [1] * place + [0] + [-1] * after
    assert compare(1, 1.0) == compare(-0.0, 0) == compare(math.nan, math.inf - math.inf) == 0
    assert compare(math.nan, math.inf) == 1


@given(values, values)
def test_values_compare_as_their_keys_do(a: Any, b: Any) -> None:
    assert compare(a, b) == (encode(a) > encode(b)) - (encode(a) < encode(b)) == -compare(b, a)
    assert compare(a, a) == 0


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
