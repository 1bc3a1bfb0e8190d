"""Values keep their type through JSON, and what is no value is refused with the place it stands at."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.errors import LimitError, ValidationError
from duly.limits import Limits
from duly.values.value import check_document, check_size, dumps, loads

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=20)
)
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=8).filter(
    lambda name: name[0] != "$"
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@given(values)
def test_a_value_comes_back_from_json_as_it_went(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert repr(loads(dumps(value))) == repr(value)  # 1 and 1.0, 0.0 and -0.0 are told apart


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_come_back(value: float) -> None:
    assert loads(dumps([value])) == [value]


def test_nan_comes_back() -> None:
    assert math.isnan(loads(dumps({"x": math.nan}))["x"])


def test_text_that_looks_like_an_escape_stays_text() -> None:
    assert loads(dumps({"price": "$bytes", "a": ['"$float"']})) == {"price": "$bytes", "a": ['"$float"']}


def test_bytes_are_readable_in_json() -> None:
    assert dumps({"b": b"hi"}) == '{"b":{"$bytes":"aGk="}}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"tags": {1}},
            "at .tags: got {1} (set), expected a value: None, bool, int, float, str, bytes, list or dict; use a list",
        ),
        ({"n": [0, 2**63]}, "at .n[1]: got an int of 65 bits, expected at most 64; use a float or a str"),
        (-(2**63) - 1, "got an int of 65 bits, expected at most 64; use a float or a str"),
        ({"a": {"$b": 1}}, "at .a.$b: got the field name '$b', expected one that does not start with '$'"),
        ({"": 1}, "got the field name '', expected 1 to 1024 printable ASCII characters"),
        ({"é": 1}, "got the field name 'é', expected 1 to 1024 printable ASCII characters"),
        ({1: 2}, "got the field name 1 (int), expected a str"),
        (nested(17), "got a value nested more than 16 levels deep, expected at most 16"),
        ([0] * 8193, "got an array of 8193 elements, expected at most 8192"),
        ({str(n): n for n in range(1025)}, "got an object of 1025 fields, expected at most 1024"),
        ("\ud800", "got text with a lone surrogate, expected Unicode text"),
    ],
)
def test_what_is_no_value_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        dumps(value)
    assert message in str(caught.value)


def test_the_bounds_themselves_are_values() -> None:
    for value in (nested(16), [0] * 8192, {f"f{n}": n for n in range(1024)}, 2**63 - 1, -(2**63), {"x" * 1024: 1}):
        assert loads(dumps(value)) == value


def test_documents_leave_the_systems_names_alone() -> None:
    with pytest.raises(
        ValidationError, match="orders.insert: got the field '_id', expected names that do not start with '_'"
    ):
        check_document({"_id": "x"}, "orders.insert")
    with pytest.raises(ValidationError, match=r"orders.insert: got \[1\] \(list\), expected a dict"):
        check_document([1], "orders.insert")
    assert check_document({"a": {"_b": 1}}, "orders.insert") == {"a": {"_b": 1}}


def test_a_size_is_counted_in_bytes() -> None:
    assert check_size("é" * 5, Limits(document_bytes_max=10), "document_bytes_max", "it") == "é" * 5
    with pytest.raises(LimitError, match=r"it: got 12 bytes, expected at most 10 \(document_bytes_max\)"):
        check_size("é" * 6, Limits(document_bytes_max=10), "document_bytes_max", "it")
