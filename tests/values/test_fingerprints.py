"""The fingerprint of a declaration changes when the declaration does, and at no other time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import make_dataclass
from typing import Any, TypedDict

import pydantic
import pytest

from duly.values.schema.annotations import Id, validator_of
from duly.values.schema.fingerprints import fingerprint
from duly.values.schema.tables import define_schema, define_table
from duly.values.schema.v import v

DECLARATIONS: list[Any] = [
    {},
    {"n": v.int64()},
    {"n": v.number()},
    {"n": v.float64()},
    {"m": v.int64()},
    {"n": v.optional(v.int64())},
    {"n": v.int64(), "m": v.int64()},
    {"n": v.array(v.int64())},
    {"n": v.record(v.string(), v.int64())},
    {"n": v.record(v.id("users"), v.int64())},
    {"n": v.id("users")},
    {"n": v.id("orders")},
    {"n": v.literal("a")},
    {"n": v.literal("b")},
    {"n": v.literal(1)},
    {"n": v.literal(True)},
    {"n": v.union(v.literal("a"), v.literal("b"))},
    {"n": v.union(v.int64(), v.float64())},
    {"n": v.union(v.float64(), v.int64())},
    {"n": {"m": v.int64()}},
    v.any(),
    v.union(v.object({"a": v.int64()}), v.object({"b": v.int64()})),
]


def test_every_declaration_has_another_one() -> None:
    prints = [fingerprint(define_table(declared).document) for declared in DECLARATIONS]
    assert len(set(prints)) == len(DECLARATIONS)


def test_the_order_of_fields_makes_no_difference() -> None:
    one = v.object({"a": v.int64(), "b": v.string()})
    assert fingerprint(one) == fingerprint(v.object({"b": v.string(), "a": v.int64()}))


@pytest.mark.slow
def test_it_is_the_same_in_every_process() -> None:
    code = (
        "from duly import v, define_table; from duly.values.schema.fingerprints import fingerprint\n"
        "fields = {f'f{n}': v.optional(v.union(v.literal(n), v.null())) for n in range(50)}\n"
        "print(fingerprint(define_table(fields).document))"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1 and len(prints.pop()) == 33


MODULE = """
import dataclasses, pydantic
from typing import TypedDict

class Base:
    def __post_init__(self):
        if self.n < 0: raise ValueError("below 0")

@dataclasses.dataclass
class Data(Base):
    n: int

class Model(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def positive(cls, n):
        if n < 0: raise ValueError("below 0")
        return n

class Dict(TypedDict):
    n: int
"""


def prints(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, source: str) -> list[str]:
    """The fingerprints of Data, Model and Dict in a module with that source."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"models_{len(list(tmp_path.iterdir()))}"
    (tmp_path / f"{name}.py").write_text(source)
    module = __import__(name)
    return [fingerprint(validator_of(kind)) for kind in (module.Data, module.Model, module.Dict)]


def test_the_code_of_models_is_a_part_of_it_and_what_stands_beside_them_is_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prints(tmp_path, monkeypatch, MODULE)
    assert prints(tmp_path, monkeypatch, "x = 1\n" + MODULE) == before
    after = prints(tmp_path, monkeypatch, MODULE.replace("< 0", "< 1"))
    assert [new == old for new, old in zip(after, before, strict=True)] == [False, False, True]


def test_a_model_without_source_has_one_too() -> None:
    one, other = (make_dataclass("Made", [("n", kind)]) for kind in (int, str))
    assert fingerprint(validator_of(one)) == fingerprint(validator_of(make_dataclass("Made", [("n", int)])))
    assert fingerprint(validator_of(one)) != fingerprint(validator_of(other))
    model = pydantic.create_model("Made", n=(int, ...))
    assert fingerprint(validator_of(model)) == fingerprint(validator_of(pydantic.create_model("Made", n=(int, ...))))


class User(TypedDict):
    name: str


def test_the_table_that_an_id_belongs_to_is_a_part_of_it() -> None:
    def of(table: str) -> str:
        order = define_table({"owner": validator_of(Id[User])})
        return fingerprint(define_schema({table: define_table(User), "orders": order}).tables["orders"].document)

    assert of("users") == of("users")
    assert of("users") != of("people")
