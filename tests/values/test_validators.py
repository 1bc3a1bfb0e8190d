"""The validators of `v`: what each accepts, converts and says."""

from __future__ import annotations

import copy
import enum
import math
from dataclasses import dataclass
from typing import Any

import pytest

from duly.errors import ValidationError
from duly.values.plain import to_plain
from duly.values.schema.annotations import Id
from duly.values.schema.v import as_validator, v
from duly.values.schema.validator import Mismatch, Validator
from tests.values.refusals import STORE, Store, refusal

# ---- single values


@pytest.mark.parametrize(
    ("validator", "value"),
    [
        (v.string(), "tea"),
        (v.number(), 3),
        (v.number(), 3.5),
        (v.number(), -(2**63)),
        (v.float64(), 3.5),
        (v.float64(), math.inf),
        (v.int64(), 3),
        (v.int64(), 2**63 - 1),
        (v.boolean(), True),
        (v.null(), None),
        (v.bytes(), b"tea"),
        (v.any(), {"a": [None]}),
        (v.id("orders"), "orders:1"),
        (v.literal("a"), "a"),
        (v.literal(True), True),
        (v.array(v.string()), ["a", "b"]),
        (v.object({}), {}),
        (v.object({"a": v.string()}), {"a": "x"}),
        (v.record(v.string(), v.number()), {"any text": 1}),
        (v.union(v.string(), v.null()), None),
    ],
)
def test_what_fits_comes_back_as_the_same_object(validator: Validator, value: object) -> None:
    assert validator.check(value, STORE) is value


def test_an_int_becomes_a_float_where_a_float_is_asked() -> None:
    checked = v.float64().check(3, STORE)
    assert (checked, type(checked)) == (3.0, float)


def test_an_integral_float_becomes_an_int_where_an_int_is_asked() -> None:
    checked = v.int64().check(3.0, STORE)
    assert (checked, type(checked)) == (3, int)


def test_a_number_is_left_what_it_is() -> None:
    assert [type(v.number().check(number, STORE)) for number in (3, 3.0)] == [int, float]


@pytest.mark.parametrize("validator", [v.number(), v.float64(), v.int64(), v.literal(1)])
@pytest.mark.parametrize("value", [True, False])
def test_true_is_never_a_number(validator: Validator, value: bool) -> None:
    assert refusal(validator, value).endswith(f"got {value} (bool)")


def test_one_is_never_true() -> None:
    assert refusal(v.boolean(), 1) == "expected a boolean, got 1 (int)"
    assert refusal(v.literal(True), 1) == "expected True, got 1 (int)"


@pytest.mark.parametrize("validator", [v.number(), v.float64(), v.int64()])
def test_an_int_beyond_64_bits_is_refused(validator: Validator) -> None:
    assert refusal(validator, 2**63).endswith("got 9223372036854775808 (int), which does not fit 64 bits")
    assert refusal(validator, 10**5000).endswith("got a value of type int, which does not fit 64 bits")


def test_a_float_beyond_64_bits_is_no_int() -> None:
    assert refusal(v.int64(), 2.0**63).startswith("expected an integer, got")


@pytest.mark.parametrize("value", [3.5, math.nan, math.inf])
def test_a_float_that_is_not_integral_is_no_int(value: float) -> None:
    assert refusal(v.int64(), value) == f"expected an integer, got {value} (float)"


@pytest.mark.parametrize(
    ("validator", "value", "text"),
    [
        (v.string(), 5, "expected a string, got 5 (int)"),
        (v.string(), None, "expected a string, got None"),
        (v.number(), "5", 'expected a number, got "5"'),
        (v.float64(), "5", 'expected a number, got "5"'),
        (v.null(), 0, "expected null, got 0 (int)"),
        (v.bytes(), "x", 'expected bytes, got "x"'),
        (v.bytes(), bytearray(b"x"), "expected bytes, got bytearray(b'x') (bytearray)"),
        (v.array(v.string()), ("a",), "expected an array of string, got ('a',) (tuple)"),
        (v.object({}), [], "expected an object, got [] (list)"),
        (v.record(v.string(), v.number()), 5, "expected a record of number, got 5 (int)"),
        (v.literal("a"), "b", 'expected "a", got "b"'),
        (v.literal(1), 2, "expected 1, got 2 (int)"),
        (v.union(v.literal("a"), v.literal("b")), "c", 'expected one of "a", "b", got "c"'),
    ],
)
def test_a_refusal_says_what_was_expected_and_what_was_got(validator: Validator, value: object, text: str) -> None:
    assert refusal(validator, value) == text


def test_a_mismatch_is_a_validation_error() -> None:
    assert issubclass(Mismatch, ValidationError)


def test_subclasses_of_the_types_of_values_are_accepted() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Level(enum.IntEnum):
        HIGH = 3

    assert v.string().check(Id("x"), STORE) == "x"
    assert v.literal("red").check(Colour.RED, STORE) is Colour.RED
    assert v.int64().check(Level.HIGH, STORE) is Level.HIGH
    assert v.union(v.null(), v.string()).check(Colour.RED, STORE) is Colour.RED


@pytest.mark.parametrize(("given", "asked"), [(1.0, 1), (1, 1.0)])
def test_a_literal_number_takes_the_equal_number_as_its_own_type(given: float, asked: float) -> None:
    checked = v.literal(asked).check(given, STORE)
    assert (checked, type(checked)) == (asked, type(asked))


# ---- ids


def test_an_id_belongs_to_its_table() -> None:
    orders = v.id("orders")
    assert orders.check("orders:1", STORE) == "orders:1"
    assert refusal(orders, "users:1") == ('expected an id of table "orders", got an id of table "users" ("users:1")')
    assert refusal(orders, "tea") == 'expected an id of table "orders", got "tea"'
    assert refusal(orders, 5) == 'expected an id of table "orders", got 5 (int)'


# ---- objects


ORDER = v.object({"items": v.array(v.string()), "note": v.optional(v.string())})


def test_a_missing_field_is_named_with_its_type() -> None:
    assert refusal(ORDER, {}) == "at .items: missing required field of type array of string"


def test_an_extra_field_is_named_with_the_declared_ones() -> None:
    assert refusal(ORDER, {"items": [], "colour": 1}) == (
        "at .colour: not a declared field; declared are .items, .note"
    )
    assert refusal(v.object({}), {"a b": 1}) == 'at ["a b"]: not a declared field; no field is declared'
    assert refusal(v.object({}), {5: 1}) == "at [5]: not a declared field; no field is declared"


def test_many_declared_fields_are_not_all_listed() -> None:
    wide = v.object({f"f{number}": v.any() for number in range(30)})
    fields = {f"f{number}": 0 for number in range(30)}
    assert refusal(wide, {**fields, "x": 1}).endswith(".f18, .f19 and 10 more")


def test_absent_and_none_are_different() -> None:
    assert ORDER.check({"items": []}, STORE) == {"items": []}
    assert refusal(ORDER, {"items": [], "note": None}) == "at .note: expected a string, got None"
    nullable = v.object({"note": v.union(v.string(), v.null())})
    assert nullable.check({"note": None}, STORE) == {"note": None}
    assert refusal(nullable, {}) == "at .note: missing required field of type string or null"


def test_the_path_leads_to_the_value() -> None:
    nested = v.object({"user": v.object({"tags": v.array(v.string()), "by_day": v.record(v.string(), v.number())})})
    tags = {"user": {"tags": ["a", "b", "c", 5], "by_day": {}}}
    assert refusal(nested, tags) == "at .user.tags[3]: expected a string, got 5 (int)"
    by_day = {"user": {"tags": [], "by_day": {"2030-01-01": "x"}}}
    assert refusal(nested, by_day) == 'at .user.by_day["2030-01-01"]: expected a number, got "x"'


def test_a_conversion_copies_only_the_way_to_it() -> None:
    validator = v.object({"a": v.array(v.float64()), "b": v.any(), "c": v.record(v.string(), v.int64())})
    value = {"a": [1, 2.5], "b": {"x": 1}, "c": {"k": 2.0}}
    before = copy.deepcopy(value)
    checked = validator.check(value, STORE)
    assert repr(checked) == "{'a': [1.0, 2.5], 'b': {'x': 1}, 'c': {'k': 2}}"
    assert checked["b"] is value["b"]
    assert repr(value) == repr(before)


def test_a_long_value_is_shortened() -> None:
    text = refusal(v.number(), "x" * 10_000)
    assert text == f'expected a number, got "{"x" * 75}…"'
    assert len(refusal(v.number(), list(range(10_000)))) < 130
    assert len(refusal(v.object({}), {"x" * 10_000: 1})) < 160


def test_a_message_can_always_be_sent() -> None:
    refusal(v.number(), "\ud800").encode()


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Shy" in refusal(v.string(), Shy())


# ---- records


def test_the_keys_of_a_record_are_checked() -> None:
    scores = v.object({"scores": v.record(v.id("users"), v.number())})
    assert scores.check({"scores": {"users:1": 3}}, STORE) == {"scores": {"users:1": 3}}
    assert refusal(scores, {"scores": {"bad": 3}}) == (
        'at .scores (key "bad"): expected an id of table "users", got "bad"'
    )
    assert refusal(v.record(v.string(), v.any()), {5: 1}) == "at (key 5 (int)): expected a string, got 5 (int)"


def test_the_keys_of_a_record_may_be_a_union_of_ids_and_literals() -> None:
    validator = v.record(v.union(v.id("users"), v.literal("all")), v.null())
    assert validator.check({"all": None, "users:1": None}, STORE) == {"all": None, "users:1": None}
    assert refusal(validator, {"x": None}) == ('at (key "x"): expected an id of table "users" or "all", got "x"')
    with pytest.raises(TypeError, match="keys of a record are strings or ids, got string or any value"):
        v.record(v.union(v.string(), v.any()), v.null())


# ---- unions


def test_a_union_whose_one_member_could_apply_gives_its_error() -> None:
    union = v.union(v.object({"a": v.string()}), v.string(), v.null())
    assert refusal(union, {"a": 5}) == "at .a: expected a string, got 5 (int)"


def test_a_union_whose_members_could_all_apply_names_them() -> None:
    union = v.union(v.object({"a": v.string()}), v.record(v.string(), v.boolean()), v.null())
    assert refusal(union, {"a": 5}) == "expected an object or a record of boolean or null, got {'a': 5} (dict)"


def test_a_union_that_no_member_could_apply_to_names_all() -> None:
    union = v.union(v.string(), v.array(v.int64()), v.null())
    assert refusal(union, 5.5) == "expected a string or an array of integer or null, got 5.5 (float)"
    assert refusal(union, Store()).startswith("expected a string or an array of integer or null, got <")


@pytest.mark.parametrize("union", [v.union(v.int64(), v.float64()), v.union(v.float64(), v.int64())])
def test_a_union_changes_no_number_that_a_member_takes_as_it_is(union: Validator) -> None:
    assert [repr(union.check(number, STORE)) for number in (3, 3.0)] == ["3", "3.0"]


def test_a_union_takes_a_discriminated_object() -> None:
    union = v.union(
        v.object({"kind": v.literal("a"), "x": v.float64()}), v.object({"kind": v.literal("b"), "y": v.string()})
    )
    assert union.check({"kind": "b", "y": "z"}, STORE) == {"kind": "b", "y": "z"}
    assert repr(union.check({"kind": "a", "x": 1}, STORE)) == "{'kind': 'a', 'x': 1.0}"


def test_unions_in_unions_are_one_union() -> None:
    assert v.union(v.union(v.string(), v.null()), v.bytes()) == v.union(v.string(), v.null(), v.bytes())


def test_the_empty_union_accepts_nothing() -> None:
    assert refusal(v.union(), None) == "expected nothing, got None"


# ---- definitions


def test_a_dict_stands_for_an_object() -> None:
    assert v.array({"a": v.string()}) == v.array(v.object({"a": v.string()}))
    assert v.object({"a": {"b": v.null()}}) == v.object({"a": v.object({"b": v.null()})})
    assert as_validator({"a": v.string()}) == v.object({"a": v.string()})


def test_a_model_stands_for_its_validator() -> None:
    @dataclass
    class Point:
        x: float

    assert v.array(Point).check([{"x": 1}], STORE) == [Point(1.0)]


@pytest.mark.parametrize(
    ("define", "text"),
    [
        (
            lambda: v.object({"a": 5}),
            'v.object(), field "a", takes validators such as v.string(), got 5 (int)',
        ),
        (
            lambda: v.object({"a": v.string}),
            'v.object(), field "a", got v.string without its parentheses, expected v.string(…)',
        ),
        (
            lambda: v.object({"a": str}),
            "v.object(), field \"a\", takes validators such as v.string(), got <class 'str'> (type)",
        ),
        (lambda: v.object({5: v.any()}), "v.object() takes fields with names that are strings, got 5 (int)"),
        (lambda: v.object([]), "v.object() takes a dict of validators, got [] (list)"),
        (lambda: v.literal(["a"]), "v.literal() takes a string, a number or a boolean, got ['a'] (list)"),
        (lambda: v.literal(None), "v.literal() takes a string, a number or a boolean, got None"),
        (lambda: v.id(5), "v.id() takes the name of a table, got 5 (int)"),
        (lambda: v.id(None), "v.id() takes the name of a table, got None"),
        (lambda: v.id(""), 'v.id() takes the name of a table, got ""'),
        (
            lambda: v.record(v.string(), v.optional(v.any())),
            "the values of v.record() cannot be v.optional(…): only a field of an object can be absent",
        ),
        (
            lambda: v.record(v.optional(v.string()), v.any()),
            "the keys of v.record() cannot be v.optional(…): only a field of an object can be absent",
        ),
        (lambda: v.record(v.number(), v.any()), "the keys of a record are strings or ids, got number"),
        (
            lambda: v.array(v.optional(v.any())),
            "v.array() cannot be v.optional(…): only a field of an object can be absent",
        ),
        (
            lambda: v.union(v.optional(v.any())),
            "v.union() cannot be v.optional(…): only a field of an object can be absent",
        ),
        (
            lambda: v.optional(v.optional(v.any())),
            "v.optional() cannot be v.optional(…): only a field of an object can be absent",
        ),
        (
            lambda: as_validator(v.optional(v.any()), "returns"),
            "returns cannot be v.optional(…): only a field of an object can be absent",
        ),
        (lambda: as_validator("x"), 'a declaration takes validators such as v.string(), got "x"'),
    ],
)
def test_a_bad_definition_is_a_type_error(define: Any, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        define()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("validator", "words"),
    [
        (v.string(), "string"),
        (v.any(), "any value"),
        (v.id("orders"), 'id of table "orders"'),
        (v.union(v.literal("a"), v.literal("b")), '"a" or "b"'),
        (v.array(v.union(v.string(), v.null())), "array of (string or null)"),
        (v.record(v.string(), v.array(v.int64())), "record of array of integer"),
        (v.optional(v.boolean()), "optional boolean"),
        (v.object({}), "object"),
        (v.union(), "nothing"),
    ],
)
def test_a_validator_describes_itself(validator: Validator, words: str) -> None:
    assert validator.describe() == words
    assert repr(validator) == f"<validator: {words}>"


def test_validators_that_accept_the_same_are_equal() -> None:
    one, other = (v.object({"a": v.array(v.id("x")), "b": v.optional(v.literal(1))}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert v.literal(1) != v.literal(1.0)
    assert v.object({"a": v.any()}) != v.object({"a": v.optional(v.any())})
    assert v.number() != v.float64()


# ---- plain values


@dataclass
class Line:
    name: str
    price: float


def test_plain_takes_instances_where_objects_are_declared() -> None:
    validator = v.object({"lines": v.array({"name": v.string(), "price": v.float64()})})
    plain = validator.plain({"lines": [Line("tea", 3)]}, STORE)
    assert repr(plain) == "{'lines': [{'name': 'tea', 'price': 3.0}]}"


def test_to_plain_returns_the_same_object_when_it_has_no_models() -> None:
    value = {"a": [1, {"b": None}], "c": b"x", "d": object()}
    assert to_plain(value) is value


def test_to_plain_copies_only_the_way_to_a_model() -> None:
    value = {"a": [Line("tea", 3.0)], "b": [1]}
    plain = to_plain(value)
    assert plain == {"a": [{"name": "tea", "price": 3.0}], "b": [1]}
    assert plain["b"] is value["b"]
    assert value["a"] == [Line("tea", 3.0)]


def test_to_plain_ends_on_a_value_that_contains_itself() -> None:
    value: list[Any] = []
    value.append(value)
    assert to_plain(value) is value
