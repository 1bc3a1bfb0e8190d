"""Annotations as validators: types, TypedDicts, dataclasses, ids."""

import datetime
import enum
import fractions
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, Optional, Required, TypedDict, TypeVar, Union

import pytest
import typing_extensions

from duly.values.schema.annotations import Id, validator_of
from duly.values.schema.scalars import IdValidator
from duly.values.schema.v import v
from duly.values.schema.validator import Mismatch, Validator
from tests.values.refusals import STORE, complaint, refusal

# ---- types

T = TypeVar("T")
UserName = NewType("UserName", str)


@pytest.mark.parametrize(
    ("annotation", "validator"),
    [
        (str, v.string()),
        (int, v.int64()),
        (float, v.float64()),
        (bool, v.boolean()),
        (bytes, v.bytes()),
        (None, v.null()),
        (type(None), v.null()),
        (Any, v.any()),
        (object, v.any()),
        (list, v.array(v.any())),
        (typing.List, v.array(v.any())),  # noqa: UP006
        (list[int], v.array(v.int64())),
        (typing.List[int], v.array(v.int64())),  # noqa: UP006
        (dict, v.record(v.string(), v.any())),
        (typing.Dict, v.record(v.string(), v.any())),  # noqa: UP006
        (dict[str, list[str]], v.record(v.string(), v.array(v.string()))),
        (str | None, v.union(v.string(), v.null())),
        (Optional[str], v.union(v.string(), v.null())),  # noqa: UP045
        (Union[str, int, None], v.union(v.string(), v.int64(), v.null())),  # noqa: UP007
        (Literal["a"], v.literal("a")),
        (Literal["a", 1, True], v.union(v.literal("a"), v.literal(1), v.literal(True))),
        (Literal["a", None], v.union(v.literal("a"), v.null())),
        (Annotated[list[str], "extra", ["unhashable"]], v.array(v.string())),
        (UserName, v.string()),
        (v.id("orders"), v.id("orders")),
        (list[v.id("orders")], v.array(v.id("orders"))),
        (Id, IdValidator(None)),
        (Id[Any], IdValidator(None)),
    ],
)
def test_an_annotation_stands_for_a_validator(annotation: object, validator: Validator) -> None:
    assert validator_of(annotation) == validator


@pytest.mark.parametrize(
    ("annotation", "name", "instead"),
    [
        (datetime.tzinfo, "datetime.tzinfo", ""),
        (fractions.Fraction, "fractions.Fraction", ""),
        (set, "set", "; use list[T]"),
        (tuple[int, ...], "tuple[int, ...]", "; use list[T]"),
        (Mapping[str, int], "collections.abc.Mapping[str, int]", "; use dict[str, T]"),
        (Callable[[], int], "collections.abc.Callable[[], int]", ""),
        (complex, "complex", ""),
        (5, "5", ""),
        ([str], "[<class 'str'>]", ""),
        ("Order", "Order", ""),
        (Id["Order"], "Id[ForwardRef('Order')]", ""),
    ],
)
def test_another_annotation_is_a_type_error_that_says_what_is_understood(
    annotation: object, name: str, instead: str
) -> None:
    text = (
        complaint(validator_of, annotation).replace(f"{__name__}.", "").replace("duly.values.schema.annotations.", "")
    )
    assert text == (
        f"got the annotation {name}, expected str, int, float, bool, bytes, None, Any, list[T], dict[str, T],"
        " X | None, Literal[…], Id, Id[Model], datetime, date, time, timedelta, UUID, Decimal, an Enum, a TypedDict,"
        " a dataclass, a pydantic model or a validator" + instead
    )


def test_optional_is_no_annotation() -> None:
    assert complaint(validator_of, v.optional(v.string())) == (
        "an annotation cannot be v.optional(…): only a field of an object can be absent"
    )


def test_the_keys_of_a_dict_are_strings() -> None:
    assert complaint(validator_of, dict[int, str]) == "the keys of a record are strings or ids, got integer"


def test_an_enum_is_no_literal() -> None:
    colour = enum.Enum("Colour", ["RED"])
    assert "v.literal() takes" in complaint(validator_of, Literal[colour.RED])  # type: ignore[valid-type]


# ---- TypedDict


class Inner(TypedDict):
    price: float


class Order(TypedDict):
    items: list[Inner]
    note: NotRequired[str]
    later: "NotRequired[Required[int]]"


class Partial(TypedDict, total=False):
    a: Required[str]
    b: "int"
    c: "Required[int]"


class Child(Partial):
    d: bool


class Extended(typing_extensions.TypedDict):
    a: typing_extensions.ReadOnly[str]
    b: typing_extensions.NotRequired[typing_extensions.ReadOnly[int]]


def test_a_typed_dict_is_an_object() -> None:
    order = validator_of(Order)
    assert order == v.object(
        {"items": v.array({"price": v.float64()}), "note": v.optional(v.string()), "later": v.int64()}
    )
    checked = order.check({"items": [{"price": 3}], "later": 1}, STORE)
    assert repr(checked) == "{'items': [{'price': 3.0}], 'later': 1}"


def test_a_typed_dict_says_itself_which_fields_are_required() -> None:
    partial = {"a": v.string(), "b": v.optional(v.int64()), "c": v.int64()}
    assert validator_of(Partial) == v.object(partial)
    assert validator_of(Child) == v.object({**partial, "d": v.boolean()})


def test_a_generic_typed_dict_has_what_its_variables_stand_for() -> None:
    class Pair(TypedDict, Generic[T]):
        one: T
        rest: NotRequired[list[T | None]]

    text = v.object({"one": v.string(), "rest": v.optional(v.array(v.union(v.string(), v.null())))})
    anything = v.object({"one": v.any(), "rest": v.optional(v.array(v.union(v.any(), v.null())))})
    assert validator_of(Pair[str]) == text
    assert validator_of(Pair) == anything
    assert validator_of(list[Pair[int]]).describe() == "array of Pair"


def test_an_id_in_a_typed_dict_may_be_one_of_any_table() -> None:
    class Message(TypedDict):
        job: Id | None
        others: list[Id]

    any_id = IdValidator(None)
    assert validator_of(Message) == v.object({"job": v.union(any_id, v.null()), "others": v.array(any_id)})


def test_the_typed_dict_of_typing_extensions_is_one_too() -> None:
    assert validator_of(Extended) == v.object({"a": v.string(), "b": v.optional(v.int64())})


def test_messages_call_a_typed_dict_by_its_name() -> None:
    assert refusal(validator_of(Order), 5) == "expected an Order, got 5 (int)"


# ---- dataclasses


@dataclass
class Line:
    name: str
    price: float = 1.0


@dataclass
class Basket:
    lines: list[Line]
    owner: "Id[Basket]"
    tags: list[str] = field(default_factory=list)
    size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if len(self.lines) > 2:
            raise ValueError("at most two lines")
        self.size = len(self.lines)


BASKET = validator_of(Basket)


def test_a_dict_becomes_the_dataclass() -> None:
    checked = BASKET.check({"lines": [{"name": "tea", "price": 3}], "owner": "users:1"}, STORE)
    assert checked == Basket([Line("tea", 3.0)], Id("users:1"), [])
    assert type(checked.lines[0].price) is float


def test_a_dataclass_refuses_what_does_not_fit_its_fields() -> None:
    assert refusal(BASKET, {"lines": [{"name": 5}], "owner": "users:1"}) == (
        "at .lines[0].name: expected a string, got 5 (int)"
    )
    assert refusal(BASKET, {"lines": []}) == "at .owner: missing required field of type id"
    assert refusal(BASKET, {"lines": [], "owner": "users:1", "size": 3}) == (
        "at .size: not a declared field; declared are .lines, .owner, .tags"
    )
    assert refusal(BASKET, 5) == "expected a Basket, got 5 (int)"


def test_a_value_error_of_the_dataclass_is_a_mismatch() -> None:
    lines = [{"name": "x"}] * 3
    text = refusal(v.array(Basket), [{"lines": lines, "owner": "users:1"}])
    assert text.startswith("at [0]: expected a Basket, got {")
    assert text.endswith(": at most two lines")


def test_an_instance_that_fits_stays_itself() -> None:
    basket = Basket([Line("tea")], Id("users:1"))
    assert BASKET.check(basket, STORE) is basket
    converted = BASKET.check(Basket([Line("tea", 3)], Id("users:1")), STORE)
    assert type(converted.lines[0].price) is float
    assert refusal(BASKET, Basket([Line("tea")], Id("nobody"))) == 'at .owner: expected an id, got "nobody"'


def test_a_union_takes_dataclasses() -> None:
    union = validator_of(Line | None)
    assert union.check(None, STORE) is None
    assert union.check({"name": "tea"}, STORE) == Line("tea")
    line = Line("tea")
    assert union.check(line, STORE) is line


def test_plain_makes_dicts_of_instances_and_leaves_dicts() -> None:
    basket = {"lines": [{"name": "tea", "price": 3.0}], "owner": "users:1", "tags": []}
    assert BASKET.plain(Basket([Line("tea", 3)], Id("users:1")), STORE) == basket
    assert BASKET.plain(basket, STORE) is basket
    assert BASKET.plain({"lines": [], "owner": "users:1"}, STORE) == {"lines": [], "owner": "users:1"}
    with pytest.raises(Mismatch, match=r"^at \.lines\[0\]\.name: expected a string, got 5 \(int\)$"):
        BASKET.plain(Basket([Line(5)], Id("users:1")), STORE)  # type: ignore[arg-type]


@dataclass
class Tree:
    children: "list[Tree]"


@dataclass
class Lost:
    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Meeting:
    at: datetime.tzinfo


def test_a_model_that_is_not_understood_is_a_type_error_that_names_the_field() -> None:
    assert complaint(validator_of, Tree) == (
        "field children of Tree: Tree contains itself, expected dict for the inner one"
    )
    assert complaint(validator_of, Lost) == (
        "cannot evaluate the annotations of Lost (NameError: name 'Nowhere' is not defined)"
    )
    assert complaint(validator_of, list[Meeting]).startswith(
        "field at of Meeting: got the annotation datetime.tzinfo, expected str,"
    )


# ---- ids and binding


def test_an_id_of_a_model_is_bound_to_its_table_later() -> None:
    unbound = validator_of(dict[str, list[Id[Line] | None]])
    assert unbound.check({"a": ["users:1", None]}, STORE) == {"a": ["users:1", None]}
    bound = unbound.bind({Line: "orders"})
    assert refusal(bound, {"a": ["users:1"]}) == (
        'at .a[0]: expected an id of table "orders", got an id of table "users" ("users:1")'
    )
    assert bound.bind({Line: "orders"}) is bound
    assert unbound.bind({Basket: "users"}) is unbound


def test_binding_reaches_into_models_and_optional_fields() -> None:
    bound = v.object({"basket": v.optional(BASKET)}).bind({Basket: "orders"})
    assert refusal(bound, {"basket": {"lines": [], "owner": "users:1"}}).startswith(
        "at .basket.owner: expected an id of"
    )
    checked = bound.check({"basket": {"lines": [], "owner": "orders:1"}}, STORE)
    assert checked == {"basket": Basket([], Id("orders:1"))}


def test_a_shape_with_models_differs_from_its_validator() -> None:
    assert BASKET.shape.check({"lines": [], "owner": "users:1"}, STORE) == {"lines": [], "owner": "users:1"}
    assert BASKET.shape.shape is BASKET.shape
