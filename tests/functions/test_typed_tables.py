"""Tables described by classes: a TypedDict answers with dicts, a dataclass and a pydantic model with instances."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NotRequired, TypedDict

import pytest
from pydantic import BaseModel, ConfigDict, Field

from duly import (
    UNSET,
    ActionCtx,
    Id,
    MutationCtx,
    QueryCtx,
    QueryError,
    ReturnsValidationError,
    SchemaValidationError,
    action,
    define_schema,
    define_table,
    id_of,
    mutation,
    query,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

START_MS = 1_893_456_000_000.0  # of the harness: 2030


class Line(TypedDict):
    item: str
    pence: int


class Order(TypedDict):
    _id: NotRequired[Id[Order]]
    _creationTime: NotRequired[float]
    lines: list[Line]
    note: NotRequired[str]


@dataclass
class Address:
    city: str
    country: str = "DE"


@dataclass
class Customer:
    name: str
    addresses: list[Address] = field(default_factory=list)
    visits: int = 0
    friend: Id[Customer] | None = None


class Stamp(BaseModel):
    by: str = "nobody"


class Invoice(BaseModel):
    model_config = ConfigDict(frozen=True)

    order_id: Id[Order] = Field(alias="orderId")
    pence: int = Field(gt=0)
    stamps: list[Stamp] = []


@dataclass(frozen=True)
class Rate:
    percent: float


@dataclass(slots=True)
class Point:
    x: float
    _id: Id[Point] = field(init=False, repr=False, compare=False)


@dataclass(slots=True)
class Closed:
    x: float


@dataclass(slots=True)
class Shelf:
    boards: int
    _id: Id[Shelf] | None = field(init=False, default=None, compare=False)
    _creationTime: float = field(init=False, default=0, compare=False)


SCHEMA = define_schema(
    {
        "orders": define_table(Order),
        "customers": define_table(Customer).index("by_name", ["name"]),
        "invoices": define_table(Invoice),
        "rates": define_table(Rate),
        "points": define_table(Point),
        "closed": define_table(Closed),
        "shelves": define_table(Shelf),
    }
)
ADA = Customer("Ada", [Address("Berlin")], visits=3)


def harness(**functions: Any) -> Harness:
    return Harness({"app": SimpleNamespace(**functions), "schema": SCHEMA})


def in_mutation(test: Callable[[MutationCtx], Any]) -> Callable[[], Any]:
    """Make a test of what a mutation does."""

    async def run() -> None:
        async with harness() as t:
            await t.transaction(test)

    run.__name__ = test.__name__
    return run


# Reading.


@in_mutation
async def test_a_table_of_a_typed_dict_answers_with_dicts(ctx: MutationCtx) -> None:
    order_id = await ctx.db.insert(Order, {"lines": [{"item": "tea", "pence": 350}]})
    order = await ctx.db.get(order_id)
    assert order == {
        "lines": [{"item": "tea", "pence": 350}],
        "_id": order_id,
        "_creationTime": pytest.approx(START_MS, abs=1),
    }
    assert type(order) is dict
    assert await ctx.db.query(Order).collect() == await ctx.db.query("orders").collect() == [order]


@in_mutation
async def test_a_table_of_a_dataclass_answers_with_instances_down_to_the_innermost(ctx: MutationCtx) -> None:
    ada = await ctx.db.get(await ctx.db.insert(Customer, ADA))
    assert ada == ADA and ada is not ADA
    assert type(ada) is Customer and type(ada.addresses[0]) is Address


@in_mutation
async def test_a_table_of_a_pydantic_model_answers_with_instances_down_to_the_innermost(ctx: MutationCtx) -> None:
    order_id = await ctx.db.insert(Order, {"lines": []})
    invoice = Invoice(orderId=order_id, pence=5, stamps=[Stamp(by="Bob")])
    read = await ctx.db.get(await ctx.db.insert(Invoice, invoice))
    assert read == invoice and read is not invoice
    assert type(read) is Invoice and type(read.stamps[0]) is Stamp


@in_mutation
async def test_what_is_read_bears_its_id_and_time_of_creation(ctx: MutationCtx) -> None:
    order_id = await ctx.db.insert(Order, {"lines": []})
    for table, document in ((Customer, ADA), (Rate, Rate(19)), (Invoice, Invoice(orderId=order_id, pence=5))):
        id = await ctx.db.insert(table, document)
        read: Any = await ctx.db.get(id)
        assert (read._id, read._creationTime) == (id, pytest.approx(START_MS, abs=1))
        assert id_of(read) == id
        assert not hasattr(document, "_id")  # what was inserted stays as it was
    assert (ctx.db.normalize_id(Order, order_id), ctx.db.normalize_id(Customer, order_id)) == (order_id, None)


@pytest.mark.both_engines
@in_mutation
async def test_every_way_to_read_answers_alike(ctx: MutationCtx) -> None:
    ids = [await ctx.db.insert(Customer, Customer(name)) for name in ("Ada", "Bob", "Cy")]
    customers = ctx.db.query(Customer)
    expected = [Customer("Ada"), Customer("Bob"), Customer("Cy")]
    assert await customers.collect() == expected
    assert await ctx.db.query("customers").collect() == expected
    assert [customer async for customer in customers] == expected
    assert (await customers.paginate(num_items=5))["page"] == expected
    assert await customers.order("desc").take(2) == expected[:0:-1]
    assert await customers.first() == Customer("Ada")
    named = customers.with_index("by_name", lambda q: q.eq("name", "Bob"))
    assert (
        await named.unique() == await customers.filter(lambda q: q.field("name") == "Bob").unique() == Customer("Bob")
    )
    assert list(map(id_of, await customers.collect())) == ids
    with pytest.raises(QueryError, match=f"unique.. found {ids[0]}, {ids[1]} and perhaps more"):
        await customers.unique()


@in_mutation
async def test_a_field_that_was_never_stored_has_its_default(ctx: MutationCtx) -> None:
    id = await ctx.db.insert("customers", {"name": "Ada"})
    ada = await ctx.db.get(id)
    assert ada == Customer("Ada", [], 0, None)
    ada.addresses.append(Address("Athens"))
    assert await ctx.db.get(id) == Customer("Ada", [], 0, None)


# Writing.


@in_mutation
async def test_a_table_of_a_class_takes_dicts_as_well(ctx: MutationCtx) -> None:
    table: Any = Customer
    id = await ctx.db.insert(table, {"name": "Ada", "addresses": [{"city": "Berlin"}, Address("Athens")]})
    assert await ctx.db.get(id) == Customer("Ada", [Address("Berlin"), Address("Athens")])
    by_alias = {"orderId": await ctx.db.insert(Order, {"lines": []}), "pence": 5}
    assert await ctx.db.get(await ctx.db.insert("invoices", by_alias)) == Invoice(**by_alias)


@pytest.mark.both_engines
@in_mutation
async def test_an_instance_that_was_read_can_be_changed_and_put_back(ctx: MutationCtx) -> None:
    id = await ctx.db.insert(Customer, ADA)
    ada = await ctx.db.get(id)
    assert ada is not None
    ada.visits += 1
    await ctx.db.replace(id, ada)
    assert await ctx.db.get(id) == Customer("Ada", [Address("Berlin")], visits=4)
    await ctx.db.replace(id_of(ada), dataclasses.replace(ada, name="Bea"))
    await ctx.db.patch(id, {"addresses": [Address("Oslo")], "visits": UNSET})
    assert await ctx.db.get(id) == Customer("Bea", [Address("Oslo")], visits=0)


@in_mutation
async def test_a_document_never_takes_the_place_of_another_by_its_id(ctx: MutationCtx) -> None:
    first, second = await ctx.db.insert(Customer, ADA), await ctx.db.insert(Customer, ADA)
    ada = await ctx.db.get(first)
    assert ada is not None
    with pytest.raises(SchemaValidationError, match=f"replace: got '{first}' as _id, which never changes"):
        await ctx.db.replace(second, ada)
    with pytest.raises(SchemaValidationError, match="customers.insert: got the field '_id'"):
        await ctx.db.insert(Customer, ada)


@in_mutation
async def test_what_the_class_refuses_is_not_stored(ctx: MutationCtx) -> None:
    order_id = await ctx.db.insert(Order, {"lines": []})
    wrong: Any = Customer
    with pytest.raises(SchemaValidationError, match=r"customers.insert: at \.visits: expected an integer, got \"3\""):
        await ctx.db.insert(wrong, {"name": "Ada", "visits": "3"})
    with pytest.raises(SchemaValidationError, match=r"at \.pence: Input should be greater than 0, got 0"):
        await ctx.db.insert("invoices", {"orderId": order_id, "pence": 0})
    with pytest.raises(
        SchemaValidationError, match=r"at \.friend: expected an id of table \"customers\", got an id of"
    ):
        await ctx.db.insert(Customer, Customer("Ada", friend=order_id))
    with pytest.raises(
        SchemaValidationError, match=r"at \.name: missing required field of type string; there is \.percent"
    ):
        await ctx.db.insert(wrong, Rate(19))
    assert await ctx.db.query(Customer).collect() == []


@in_mutation
async def test_a_class_that_no_table_was_defined_with_is_told(ctx: MutationCtx) -> None:
    expected = (
        "got Address as a table, expected its name, or a class that a table of the schema was defined with:"
        " define_table(Address)"
    )
    with pytest.raises(QueryError, match=re.escape(expected)):
        ctx.db.query(Address)
    with pytest.raises(QueryError, match=re.escape(expected)):
        await ctx.db.insert(Address, Address("Berlin"))
    no_class: Any = 5
    with pytest.raises(QueryError, match=r"got 5 as a table, .* define_table\(Order\)"):
        ctx.db.query(no_class)


# The system's fields.


@in_mutation
async def test_a_class_with_slots_bears_the_system_fields_it_declares(ctx: MutationCtx) -> None:
    id = await ctx.db.insert(Point, Point(1.5))
    point = await ctx.db.get(id)
    assert point == Point(1.5) and id_of(point) == point._id == id
    assert not hasattr(point, "_creationTime")
    closed = await ctx.db.get(await ctx.db.insert(Closed, Closed(2)))
    assert closed == Closed(2.0)
    with pytest.raises(
        TypeError, match=r"Closed has slots and no place for its id: declare `_id: Id\[Closed\] = field"
    ):
        id_of(closed)


def test_only_what_was_read_has_an_id() -> None:
    for document in (ADA, {"name": "Ada"}, Point(1), 5):
        with pytest.raises(TypeError, match="expected a document that was read from the database$"):
            id_of(document)


def test_a_class_that_must_be_given_a_system_field_is_refused_as_a_table() -> None:
    @dataclass
    class WithId:
        _id: str

    @dataclass
    class WithTime:
        _creationTime: float = 0

    class Aliased(BaseModel):
        id: str = Field(alias="_id")

    expected = (
        "define_table: got '_id' among the fields that WithId is made from, expected it to be left to the system,"
        " which sets it on what is read: write `_id: Id[WithId] = field(init=False)`; id_of(document) gives the id"
    )
    with pytest.raises(SchemaValidationError, match=f"^{re.escape(expected)}$"):
        define_table(WithId)
    with pytest.raises(SchemaValidationError, match=r"write `_creationTime: float = field\(init=False\)`"):
        define_table(WithTime)
    with pytest.raises(SchemaValidationError, match="that Aliased is made from, .*: leave it out; id_of"):
        define_table(Aliased)


def test_a_class_describes_one_table() -> None:
    with pytest.raises(SchemaValidationError, match="got the class Rate for the tables 'rates' and 'prices', expected"):
        define_schema({"rates": define_table(Rate), "prices": define_table(Rate)})


@in_mutation
async def test_a_default_of_a_system_field_is_not_stored(ctx: MutationCtx) -> None:
    id = await ctx.db.insert(Shelf, Shelf(5))
    shelf = await ctx.db.get(id)
    assert shelf == Shelf(5) and shelf._id == id and shelf._creationTime == pytest.approx(START_MS, abs=1)
    await ctx.db.replace(id, shelf)
    assert await ctx.db.query(Shelf).collect() == [shelf]


class Note(TypedDict):
    _id: Id[Note]
    _creationTime: float
    text: str


async def test_a_typed_dict_may_declare_the_system_fields() -> None:
    """Required or not: they are not demanded of what is stored, and are there in what is read."""

    @mutation
    async def add(ctx: MutationCtx) -> list[Note]:
        notes: Any = Note
        await ctx.db.insert(notes, {"text": "hi"})
        return await ctx.db.query(Note).collect()

    async with Harness({"app": SimpleNamespace(add=add), "schema": define_schema({"notes": define_table(Note)})}) as t:
        [note] = await t.mutation(add)
        assert note == {"text": "hi", "_id": note["_id"], "_creationTime": START_MS}
        with pytest.raises(SchemaValidationError, match="notes.insert: got the field '_id'"):
            await t.transaction(lambda ctx: ctx.db.insert("notes", note))


# Results.


@query
async def first(ctx: QueryCtx) -> Customer:
    found = await ctx.db.query(Customer).first()
    assert found is not None
    return found


@query
async def maybe(ctx: QueryCtx) -> Customer | None:
    return await ctx.db.query(Customer).first()


@query
async def several(ctx: QueryCtx) -> list[Customer]:
    return await ctx.db.query(Customer).collect()


@query
async def page(ctx: QueryCtx) -> Any:
    return await ctx.db.query(Customer).paginate(num_items=1)


@query(returns=v.nullable(Customer))
async def declared(ctx: QueryCtx) -> Any:
    return await ctx.db.query(Customer).first()


@query
async def invoices(ctx: QueryCtx) -> list[Invoice]:
    return await ctx.db.query(Invoice).collect()


@mutation
async def prepare(ctx: MutationCtx) -> Id[Customer]:
    await ctx.db.insert(Invoice, Invoice(orderId=await ctx.db.insert(Order, {"lines": []}), pence=5))
    return await ctx.db.insert(Customer, ADA)


async def test_an_instance_that_is_returned_reaches_the_caller_as_one_and_who_is_outside_as_a_dict() -> None:
    async with harness(first=first, maybe=maybe, several=several, page=page, declared=declared, prepare=prepare) as t:
        assert (await t.query(maybe), await t.query(declared), await t.query(several)) == (None, None, [])
        id = await t.mutation(prepare)
        customer = await t.query(first)
        assert customer == ADA and id_of(customer) == id
        assert (await t.query(maybe), await t.query(declared), await t.query(several)) == (ADA, ADA, [ADA])
        ada: Any = await t.app.run(first)
        assert ada == {
            "name": "Ada",
            "addresses": [{"city": "Berlin", "country": "DE"}],
            "visits": 3,
            "friend": None,
            "_id": id,
            "_creationTime": pytest.approx(START_MS, abs=1),
        }
        assert (await t.app.run(maybe), await t.app.run(declared), await t.app.run(several)) == (ada, ada, [ada])
        assert (await t.query(page))["page"] == [ada]


async def test_a_pydantic_model_that_is_returned_has_the_names_of_its_aliases_outside() -> None:
    async with harness(invoices=invoices, prepare=prepare) as t:
        await t.mutation(prepare)
        [instance] = await t.query(invoices)
        [invoice] = await t.app.run(invoices)
        order = await t.transaction(lambda ctx: ctx.db.query(Order).first())
        assert order is not None
        assert (instance.order_id, instance.pence) == (id_of(order), 5)
        assert invoice == {
            "orderId": id_of(order),
            "pence": 5,
            "stamps": [],
            "_id": invoice["_id"],
            "_creationTime": pytest.approx(START_MS, abs=1),
        }


async def test_what_was_returned_becomes_an_argument_again_as_an_instance() -> None:
    seen: list[Customer] = []

    @action
    async def greet(ctx: ActionCtx, customer: Customer) -> str:
        seen.append(customer)
        return id_of(customer)

    async with harness(first=first, prepare=prepare, greet=greet) as t:
        id = await t.mutation(prepare)
        assert await t.action(greet, {"customer": await t.query(first)}) == id
        assert await t.action(greet, {"customer": await t.app.run(first)}) == id
        assert seen == [ADA, ADA]


async def test_a_result_that_is_no_document_of_its_class_is_refused() -> None:
    @query
    async def wrong(ctx: QueryCtx) -> Customer:
        rate: Any = await ctx.db.query("rates").first()
        return rate

    async with harness(wrong=wrong) as t:
        await t.transaction(lambda ctx: ctx.db.insert(Rate, Rate(19)))
        with pytest.raises(ReturnsValidationError, match=r"at \.name: missing required field of type string"):
            await t.query(wrong)
