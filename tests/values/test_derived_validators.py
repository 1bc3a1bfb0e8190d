"""Validators made of others: one that takes None as well, and objects with fewer, more, or absent fields."""

from __future__ import annotations

from typing import TypedDict

import pytest

from duly.values.schema.annotations import validator_of
from duly.values.schema.containers import ObjectValidator
from duly.values.schema.v import v
from tests.values.refusals import STORE, complaint, refusal

ORDER = v.object({"items": v.array(v.string()), "status": v.string(), "note": v.optional(v.string())})


class Line(TypedDict):
    item: str
    pence: int


def test_nullable_takes_none_as_well() -> None:
    assert v.nullable(v.number()) == v.union(v.number(), v.null())
    assert v.nullable(v.number()).check(None, STORE) is None
    assert refusal(v.nullable(v.id("orders")), 5) == 'expected an id of table "orders" or null, got 5 (int)'
    assert v.nullable({"a": v.any()}) == v.union(v.object({"a": v.any()}), v.null())
    assert complaint(v.nullable, v.optional(v.string())) == (
        "v.nullable() cannot be v.optional(…): only a field of an object can be absent"
    )


def test_pick_keeps_the_named_fields() -> None:
    assert ORDER.pick("note", "status") == v.object({"note": v.optional(v.string()), "status": v.string()})
    assert ORDER.pick() == v.object({})


def test_omit_leaves_the_named_fields_out() -> None:
    assert ORDER.omit("items", "note") == v.object({"status": v.string()})
    assert ORDER.omit() == ORDER


def test_partial_takes_any_part_of_the_fields() -> None:
    partial = ORDER.partial()
    assert partial.check({}, STORE) == {}
    assert partial.check({"status": "new"}, STORE) == {"status": "new"}
    assert refusal(partial, {"status": 5}) == "at .status: expected a string, got 5 (int)"
    assert refusal(partial, {"staus": "new"}) == "at .staus: not a declared field; declared are .items, .status, .note"
    assert partial.partial() == partial


def test_extend_adds_fields_and_replaces_those_of_the_same_name() -> None:
    extended = ORDER.pick("items", "note").extend({"note": v.null(), "paid": v.boolean()})
    assert extended == v.object({"items": v.array(v.string()), "note": v.null(), "paid": v.boolean()})


def test_the_validator_they_are_made_from_stays_as_it_was() -> None:
    original = v.object(dict(ORDER.fields))
    for made in (ORDER.pick("note"), ORDER.omit("note"), ORDER.partial(), ORDER.extend({"note": v.null()})):
        assert made != original
    assert original == ORDER


def test_what_may_stand_beside_the_fields_is_kept() -> None:
    open_object = ObjectValidator({"a": v.string(), "b": v.string()}, rest=v.number())
    made = (open_object.pick("a"), open_object.omit("b"), open_object.partial(), open_object.pick("a").extend({}))
    for one in made:
        assert one.check({"a": "x", "more": 5}, STORE) == {"a": "x", "more": 5}
        assert refusal(one, {"a": "x", "more": "5"}) == 'at .more: expected a number, got "5"'


def test_the_fields_of_a_class_can_be_used_as_well() -> None:
    line = validator_of(Line)
    assert isinstance(line, ObjectValidator)
    priced = line.omit("pence").extend({"price": v.float64()})
    assert priced.check({"item": "tea", "price": 3}, STORE) == {"item": "tea", "price": 3.0}
    assert refusal(priced, {"item": "tea"}) == "at .price: missing required field of type number"


@pytest.mark.parametrize("act", ["pick", "omit"])
def test_a_field_that_is_not_there_is_told_at_the_definition(act: str) -> None:
    assert complaint(getattr(ORDER, act), "items", "staus") == (
        f'{act}: got the field "staus", which is not a declared field; declared are .items, .status, .note'
    )


def test_extending_by_what_is_no_validator_is_told_at_the_definition() -> None:
    assert complaint(ORDER.extend, {"paid": bool}) == (
        "extend: got <class 'bool'> (type) for the field \"paid\", expected a validator"
    )


def test_a_misspelled_field_is_named_beside_the_one_that_is_missing() -> None:
    assert refusal(ORDER, {"itmes": [], "status": "new"}) == (
        "at .items: missing required field of type array of string; there is .itmes, which is not declared"
    )
