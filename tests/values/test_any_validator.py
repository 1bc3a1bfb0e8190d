"""What holds for every validator and every value."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from duly.values.schema.v import v
from duly.values.schema.validator import Mismatch, Validator
from tests.values.refusals import STORE


@dataclass
class Line:
    name: str
    price: float = 1.0


def values() -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.sampled_from(["a", "b", "orders:1", "users:2"])
        | st.binary(max_size=2)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=8,
    )


def validators() -> st.SearchStrategy[Validator]:
    leaves = st.sampled_from(
        [
            *(v.string(), v.number(), v.float64(), v.int64(), v.boolean(), v.null(), v.bytes(), v.any()),
            *(v.id("orders"), v.literal("a"), v.literal(1), v.literal(2.0), v.literal(True)),
        ]
    )

    def larger(inner: st.SearchStrategy[Validator]) -> st.SearchStrategy[Validator]:
        fields = st.dictionaries(st.sampled_from("abc"), inner | inner.map(v.optional), max_size=3)
        return (
            inner.map(v.array)
            | fields.map(v.object)
            | inner.map(lambda part: v.record(v.string(), part))
            | st.lists(inner, max_size=3).map(lambda parts: v.union(*parts))
        )

    return st.recursive(leaves, larger, max_leaves=6)


@given(validators(), values())
def test_checking_never_changes_its_input(validator: Validator, value: Any) -> None:
    before = repr(value)
    with contextlib.suppress(Mismatch):
        validator.check(value, STORE)
    assert repr(value) == before


@given(validators(), values())
def test_what_check_returns_passes_again_unchanged(validator: Validator, value: Any) -> None:
    try:
        checked = validator.check(value, STORE)
    except Mismatch:
        return
    assert checked == value
    assert repr(validator.check(checked, STORE)) == repr(checked)


@given(validators())
def test_a_validator_without_models_is_its_own_shape(validator: Validator) -> None:
    assert validator.shape is validator
    assert validator.bind({int: "orders"}) is validator


@given(
    st.fixed_dictionaries(
        {"name": st.text() | st.integers()}, optional={"price": st.none() | st.integers() | st.floats()}
    )
)
def test_what_a_dataclass_accepts_passes_again_and_its_plain_form_too(value: dict[str, Any]) -> None:
    validator = v.array(Line)
    before = repr(value)
    try:
        checked = validator.check([value], STORE)
    except Mismatch:
        return
    assert repr(value) == before
    assert validator.check(checked, STORE) is checked
    plain = validator.plain(checked, STORE)
    assert repr(validator.check(plain, STORE)) == repr(checked)
