"""What may be declared as a table, an index and a schema, and what it is told that may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from duly.errors import DulyError, LimitError, SchemaValidationError
from duly.limits import INDEX_FIELDS_MAX, INDEXES_MAX, TABLES_MAX
from duly.values.schema.annotations import Id, validator_of
from duly.values.schema.tables import Index, Table, TableDefinition, define_schema, define_table
from duly.values.schema.v import v
from tests.values.refusals import STORE, refusal

ANY = define_table(v.any())


def complaint(act: Any, *args: Any) -> str:
    with pytest.raises(DulyError) as caught:
        act(*args)
    assert type(caught.value) in (SchemaValidationError, LimitError)
    return str(caught.value)


class Person(TypedDict):
    name: str


class Order(TypedDict):
    owner: Id[Person]
    parent: Id[Order] | None


@dataclass
class Company:
    name: str


# Documents.


@pytest.mark.parametrize(
    "document",
    [
        {"name": v.string()},
        v.object({"name": v.string()}),
        v.union(v.object({"a": v.string()}), v.object({"b": v.string()})),
        v.union(Person, Company),
        v.any(),
        Person,
        Company,
    ],
)
def test_a_document_is_an_object_or_one_of_several_or_anything(document: Any) -> None:
    assert isinstance(define_table(document), TableDefinition)


@pytest.mark.parametrize(
    ("document", "got"),
    [
        (v.string(), "a string"),
        (v.array(v.object({})), "an array of object"),
        (v.record(v.string(), v.any()), "a record of any value"),
        (v.union(v.object({}), v.null()), "an object or null"),
        (str, "a string"),
    ],
)
def test_a_document_is_nothing_else(document: Any, got: str) -> None:
    assert complaint(define_table, document) == (
        f"define_table: got {got}, expected what a document can be: an object (a dict of validators, a TypedDict, a"
        " dataclass or a pydantic model), a union of objects, or v.any()"
    )


@pytest.mark.parametrize("name", ["_id", "_creationTime", "_x"])
def test_the_systems_fields_are_not_declared(name: str) -> None:
    said = (
        f"define_table: got the field {name!r}, expected names that do not start with '_'; those belong to the"
        " system, which adds `_id` and `_creationTime` to every document by itself"
    )
    assert complaint(define_table, {"name": v.string(), name: v.string()}) == said
    assert complaint(define_table, v.union(v.object({"a": v.any()}), v.object({name: v.any()}))) == said


# Indexes.


def test_an_index_has_a_name_of_its_own_and_fields_of_the_document() -> None:
    table = ANY.index("by_city_age", ["address.city", "age"]).index("by_age", ["age"])
    assert table.indexes == {"by_city_age": ("address.city", "age"), "by_age": ("age",)}


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("by_age", ["name"], "got the index 'by_age' twice, expected each name once in a table"),
        ("by_id", ["name"], "got the index 'by_id', expected another name: that one is the system's own"),
        ("by_creation_time", ["x"], "got the index 'by_creation_time', expected another name: that one is the system"),
        ("_by_x", ["x"], "index: got the name '_by_x', expected letters, digits and '_', a letter first, at most 64"),
        ("_by_x", ["x"], "names that start with '_' are the system's"),
        ("by x", ["x"], "index: got the name 'by x', expected letters, digits and '_'"),
        ("by_x", [], "index 'by_x': got the fields [], expected a list of at least one"),
        ("by_x", "x", "index 'by_x': got the fields 'x', expected a list of at least one"),
        ("by_x", [["x"]], "index 'by_x': field: got the name ['x'], expected letters"),
        ("by_x", ["x", "y", "x"], "index 'by_x': got the field 'x' twice, expected each once"),
        ("by_x", ["x", "_id"], "got the field '_id', which needs no index: ctx.db.get finds a document by its id"),
        (
            "by_x",
            ["_creationTime"],
            "got the field '_creationTime', which is added to the end of every index by itself",
        ),
        ("by_x", ["_x"], "index 'by_x': field: got the name '_x', expected letters, digits and '_', a letter first"),
        ("by_x", ["a._x"], "names that start with '_' are the system's"),
        ("by_x", ["a..b"], "index 'by_x': field: got the name '', expected letters"),
        ("by_x", ["age"], "index 'by_x': got the fields of the index 'by_age', expected other ones"),
    ],
)
def test_an_index_that_cannot_be_is_refused(name: str, fields: Any, said: str) -> None:
    assert said in complaint(ANY.index("by_age", ["age"]).index, name, fields)


def test_the_same_fields_in_another_order_are_another_index() -> None:
    table = ANY.index("by_a_b", ["a", "b"]).index("by_b_a", ["b", "a"]).index("by_a", ["a"])
    assert list(table.indexes) == ["by_a_b", "by_b_a", "by_a"]


def test_an_index_has_sixteen_fields_and_not_one_more() -> None:
    fields = [f"f{n}" for n in range(INDEX_FIELDS_MAX)]
    assert ANY.index("by_many", fields).indexes["by_many"] == tuple(fields)
    assert complaint(ANY.index, "by_more", [*fields, "one"]) == (
        "index 'by_more': got 17 fields, expected at most 16 (INDEX_FIELDS_MAX)"
    )


def test_a_table_has_thirty_two_indexes_and_not_one_more() -> None:
    table = ANY
    for n in range(INDEXES_MAX):
        table = table.index(f"by_f{n}", [f"f{n}"])
    assert complaint(table.index, "by_one_more", ["one"]) == (
        "index 'by_one_more': got 33 indexes of one table, expected at most 32 (INDEXES_MAX): each costs every write"
    )


def test_an_index_that_is_being_built_is_no_index_for_a_query() -> None:
    old, new = Index("by_n", 100, ("n",)), Index("by_n", 101, ("m",), ready=False)
    assert Table("notes", 100, (new, old)).index("by_n") == old
    assert Table("notes", 100, (new, old)).readable == (old,)
    assert Table("notes", 100, (new,)).index("by_n") is None


# Schemas.


def test_a_schema_has_ten_thousand_tables_and_not_one_more() -> None:
    tables = {f"t{n}": ANY for n in range(TABLES_MAX)}
    assert len(define_schema(tables).tables) == 10_000
    assert complaint(define_schema, {**tables, "one": ANY}) == (
        "got 10,001 tables in a schema, expected at most 10,000 (TABLES_MAX)"
    )


@pytest.mark.parametrize("name", ["_users", "1st", "a b", "", 5])
def test_a_table_needs_a_name(name: Any) -> None:
    assert f"table: got the name {name!r}, expected letters, digits and '_'" in complaint(define_schema, {name: ANY})


def test_an_id_of_a_model_is_an_id_of_the_table_that_it_describes() -> None:
    schema = define_schema(
        {
            "users": define_table(Person),
            "orders": define_table(Order),
            "notes": define_table({"about": v.array(validator_of(Id[Order]))}),
        }
    )
    order = schema.tables["orders"].document
    assert order.check({"owner": "users:1", "parent": "orders:1"}, STORE) == {"owner": "users:1", "parent": "orders:1"}
    said = 'expected an id of table "users", got an id of table "orders" ("orders:2")'
    assert refusal(order, {"owner": "orders:2", "parent": None}) == f"at .owner: {said}"
    assert 'at .about[0]: expected an id of table "orders"' in refusal(
        schema.tables["notes"].document, {"about": ["users:1"]}
    )


def test_a_document_of_a_bound_table_has_no_place_for_the_systems_fields() -> None:
    bound = define_schema({"users": define_table(Person)}).tables["users"].document
    assert refusal(bound, {"name": "ada", "_id": "users:1"}) == "at ._id: not a declared field; declared are .name"
