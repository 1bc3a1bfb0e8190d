"""Pydantic models as validators: duly's rules for what duly understands, pydantic's for the rest."""

import datetime
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    field_validator,
    model_validator,
)

from duly.values.plain import to_plain
from duly.values.schema.annotations import Id, validator_of
from duly.values.schema.v import v
from duly.values.schema.validator import Mismatch
from tests.values.refusals import STORE, refusal


class Line(BaseModel):
    name: str
    price: float = Field(default=1.0, gt=0)


class Order(BaseModel):
    lines: list[Line]
    count: int = 0
    owner: "Id[Order] | None" = None


ORDER = validator_of(Order)


def test_a_dict_becomes_the_model() -> None:
    checked = ORDER.check({"lines": [{"name": "tea", "price": 3}], "count": 2.0, "owner": "users:1"}, STORE)
    assert checked == Order(lines=[Line(name="tea", price=3.0)], count=2, owner=Id("users:1"))
    assert type(checked.count) is int


def test_a_model_refuses_what_duly_refuses() -> None:
    assert refusal(ORDER, 5) == "expected an Order, got 5 (int)"
    assert refusal(ORDER, {"lines": [], "count": "5"}) == 'at .count: expected an integer, got "5"'
    assert refusal(ORDER, {"lines": [], "count": True}) == "at .count: expected an integer, got True (bool)"
    assert refusal(ORDER, {"lines": [{"name": 5}]}) == "at .lines[0].name: expected a string, got 5 (int)"
    assert refusal(ORDER, {"lines": [], "owner": "nobody"}) == 'at .owner: expected an id, got "nobody"'
    assert refusal(ORDER, {"lines": [], "colour": 1}) == (
        "at .colour: not a declared field; declared are .lines, .count, .owner"
    )


def test_a_model_refuses_what_pydantic_refuses() -> None:
    assert refusal(ORDER, {}) == "at .lines: missing required field"
    assert refusal(ORDER, {"lines": [{"name": "tea", "price": 0}]}) == (
        "at .lines[0].price: Input should be greater than 0, got 0.0 (float)"
    )


def test_an_instance_that_fits_stays_itself() -> None:
    order = Order(lines=[Line(name="tea")])
    assert ORDER.check(order, STORE) is order
    assert validator_of(Order | None).check(order, STORE) is order
    order.lines[0].name = 5  # type: ignore[assignment]
    assert refusal(ORDER, order) == "at .lines[0].name: expected a string, got 5 (int)"


def test_ids_in_a_model_are_bound() -> None:
    bound = v.array(ORDER).bind({Order: "orders"})
    assert refusal(bound, [{"lines": [], "owner": "users:1"}]) == (
        'at [0].owner: expected an id of table "orders", got an id of table "users" ("users:1")'
    )


def test_plain_makes_dicts_of_models_and_leaves_dicts() -> None:
    plain = {"lines": [{"name": "tea", "price": 1.0}], "count": 0, "owner": None}
    assert ORDER.plain(Order(lines=[Line(name="tea")]), STORE) == plain
    assert validator_of(list[Order]).plain([plain], STORE) == [plain]
    assert ORDER.plain({"lines": []}, STORE) == {"lines": []}
    with pytest.raises(Mismatch, match=r"^at \.lines\[0\]\.price: Input should be greater than 0"):
        ORDER.plain({"lines": [{"name": "tea", "price": -1}]}, STORE)
    assert ORDER.shape.shape is ORDER.shape


def test_to_plain_reaches_models_in_anything() -> None:
    @dataclass
    class Box:
        line: Line

    assert to_plain({"boxes": [Box(Line(name="tea"))]}) == {"boxes": [{"line": {"name": "tea", "price": 1.0}}]}


class Node(BaseModel):
    children: "list[Node]" = []


def test_a_model_may_contain_itself() -> None:
    checked = validator_of(Node).check({"children": [{"children": []}]}, STORE)
    assert checked == Node(children=[Node()])


class Dated(BaseModel):
    at: datetime.datetime
    ended: datetime.datetime | None = None
    due: datetime.datetime | str = "soon"


def test_what_only_pydantic_understands_is_left_to_it() -> None:
    dated = validator_of(Dated)
    assert dated.check({"at": "2030-01-01T00:00:00Z"}, STORE).at.year == 2030
    assert refusal(dated, {"at": "soon"}).startswith("at .at: Input should be a valid datetime")
    assert dated.plain({"at": "2030-01-01T00:00:00Z"}, STORE) == {"at": "2030-01-01T00:00:00.000000Z"}
    assert dated.plain({"at": "1893456000", "ended": "2030-01-01 00:00Z", "due": "2030-01-01 00:00Z"}, STORE) == {
        "at": "1893456000",
        "ended": "2030-01-01T00:00:00.000000Z",
        "due": "2030-01-01 00:00Z",
    }


class Split(BaseModel):
    tags: list[str]
    settings: Json[dict[str, int]] = {}

    @field_validator("tags", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


class Renamed(BaseModel):
    new: str

    @model_validator(mode="before")
    @classmethod
    def rename(cls, value: Any) -> Any:
        return {"new": value["old"]} if "old" in value else value


class Settings(BaseModel):
    settings: Json[dict[str, int]]

    @field_validator("settings")
    @classmethod
    def not_empty(cls, value: dict[str, int]) -> dict[str, int]:
        if not value:
            raise ValueError("empty")
        return value


def test_a_model_may_parse_its_input_itself() -> None:
    assert validator_of(Split).check({"tags": "a,b"}, STORE).tags == ["a", "b"]
    assert validator_of(Renamed).check({"old": "x"}, STORE).new == "x"
    assert validator_of(Settings).check({"settings": '{"a": 1}'}, STORE).settings == {"a": 1}
    assert refusal(validator_of(Settings), {"settings": "{}"}) == 'at .settings: Value error, empty, got "{}"'


class Picky(BaseModel):
    a: str

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> "Picky":
        raise ValueError("never")


def test_a_value_error_of_the_model_is_a_mismatch() -> None:
    assert refusal(v.array(Picky), [{"a": "x"}]) == "at [0]: never"


def test_a_root_model_takes_what_its_root_takes() -> None:
    tags = validator_of(RootModel[list[str]] | None)
    assert tags.check(["a"], STORE).root == ["a"]
    assert tags.plain(RootModel[list[str]](["a"]), STORE) == ["a"]


class Aliased(BaseModel):
    order_id: str = Field(alias="orderId")


class ByName(Aliased):
    model_config = ConfigDict(populate_by_name=True)


class Choices(BaseModel):
    order_id: str = Field(validation_alias=AliasChoices("orderId", "id"))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: str


def test_aliases_are_the_names_in_data() -> None:
    aliased = validator_of(Aliased)
    assert aliased.check({"orderId": "x"}, STORE).order_id == "x"
    assert refusal(aliased, {"order_id": "x"}) == "at .order_id: not a declared field; declared are .orderId"
    assert aliased.plain(Aliased(orderId="x"), STORE) == {"orderId": "x"}
    assert validator_of(ByName).check({"order_id": "x"}, STORE).order_id == "x"
    assert validator_of(Choices).check({"id": "x"}, STORE).order_id == "x"


def test_a_model_may_allow_extra_fields() -> None:
    assert validator_of(Open).check({"a": "x", "b": 1}, STORE).model_dump() == {"a": "x", "b": 1}


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def test_a_union_takes_the_model_that_fits() -> None:
    pet = validator_of(list[Cat | Dog])
    assert pet.check([{"kind": "dog"}, {"kind": "cat"}], STORE) == [Dog(kind="dog"), Cat(kind="cat")]
    assert refusal(pet, [{"kind": "cow"}]) == "at [0]: expected a Cat or a Dog, got {'kind': 'cow'} (dict)"
