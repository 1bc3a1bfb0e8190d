"""Documents of classes: what a class refuses, slots, members of enums as names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from duly import (
    QueryError,
    SchemaValidationError,
    define_schema,
    define_table,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("below zero")


@dataclass
class Pair:
    a: Positive
    b: Positive


POSITIVE = define_schema({"numbers": define_table(Positive), "pairs": define_table(Pair)})


@pytest.mark.parametrize(("table", "document"), [("numbers", {"n": -1}), ("pairs", {"a": {"n": 1}, "b": {"n": -1}})])
async def test_what_a_dataclass_itself_refuses_is_not_stored(table: str, document: dict[str, Any]) -> None:
    async with Harness({"schema": POSITIVE}) as t:
        with pytest.raises(SchemaValidationError, match="below zero"):
            await t.transaction(lambda ctx: ctx.db.insert(table, document))
        id = await t.transaction(lambda ctx: ctx.db.insert("numbers", Positive(1)))
        with pytest.raises(SchemaValidationError, match="below zero"):
            await t.transaction(lambda ctx: ctx.db.patch(id, {"n": -1}))


@dataclass(slots=True)
class Slotted:
    n: int


async def test_unique_names_documents_that_have_no_place_for_their_id() -> None:
    async with Harness({"schema": define_schema({"numbers": define_table(Slotted)})}) as t:
        for _ in range(2):
            await t.transaction(lambda ctx: ctx.db.insert("numbers", {"n": 1}))
        with pytest.raises(QueryError, match="expected at most one document"):
            await t.transaction(lambda ctx: ctx.db.query("numbers").unique())


async def test_members_of_enums_are_names_of_fields() -> None:
    class Name(StrEnum):
        RED = "red"
        OWN = "_own"

    async with Harness({}) as t:
        id = await t.transaction(lambda ctx: ctx.db.insert("colors", {Name.RED: {Name.RED: 1}}))
        document: Any = await t.transaction(lambda ctx: ctx.db.get(id))
        assert document["red"] == {"red": 1}
        with pytest.raises(SchemaValidationError, match="names that do not start with '_'"):
            await t.transaction(lambda ctx: ctx.db.insert("colors", {Name.OWN: 1}))


async def test_a_range_that_is_not_returned_is_told() -> None:
    schema = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"])})

    def nothing(_: object) -> Any:
        """A range that was forgotten."""

    async with Harness({"schema": schema}) as t:
        with pytest.raises(QueryError, match="returned None, expected a range made with its parameter"):
            await t.transaction(lambda ctx: ctx.db.query("notes").with_index("by_rank", nothing).collect())
