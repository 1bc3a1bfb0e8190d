"""Results arrive as what the function's annotation says, instances too; whoever is outside gets plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NotRequired, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, computed_field

from duly import (
    ActionCtx,
    ArgumentValidationError,
    Id,
    MutationCtx,
    Page,
    QueryCtx,
    QueryError,
    ReturnsValidationError,
    SchemaValidationError,
    SyncActionCtx,
    action,
    crons,
    define_schema,
    define_table,
    id_of,
    mutation,
    query,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


class Line(BaseModel):
    item: str
    cost: int = Field(default=0, exclude=True)

    @computed_field
    @property
    def shout(self) -> str:
        return self.item.upper()


class Receipt(BaseModel):
    lines: list[Line]
    at: datetime
    number: str = Field(alias="receiptNumber")


@dataclass
class Customer:
    name: str
    joined: date = date(2030, 1, 31)
    lines: list[Line] = field(default_factory=list)


class Colour(enum.Enum):
    RED = "red"


class Event(TypedDict):
    """A table of dicts that hold instances."""

    at: datetime
    lasts: timedelta
    colour: Colour
    hour: NotRequired[time]
    price: NotRequired[Decimal | None]
    keys: NotRequired[list[UUID]]
    who: NotRequired[Customer]


AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
RECEIPT = Receipt(lines=[Line(item="tea", cost=3)], at=AT, receiptNumber="7")
ADA = Customer("Ada", date(2031, 1, 1), [Line(item="jam")])
EVENT: Event = {
    "at": AT,
    "lasts": timedelta(hours=1),
    "colour": Colour.RED,
    "hour": time(9, 30),
    "price": Decimal("1.20"),
    "keys": [UUID(int=5)],
    "who": ADA,
}
PLAIN_RECEIPT = {"lines": [{"item": "tea"}], "at": "2030-01-02T03:04:05.000000Z", "receiptNumber": "7"}
PLAIN_ADA = {"name": "Ada", "joined": "2031-01-01", "lines": [{"item": "jam"}]}
PLAIN_EVENT = {
    "at": "2030-01-02T03:04:05.000000Z",
    "lasts": "PT1H",
    "colour": "red",
    "hour": "09:30:00.000000",
    "price": "1.20",
    "keys": ["00000000-0000-0000-0000-000000000005"],
    "who": {**PLAIN_ADA, "lines": [{"item": "jam", "cost": 0}]},
}
SCHEMA = define_schema(
    {
        "receipts": define_table(Receipt),
        "customers": define_table(Customer).index("by_joined", ["joined"]),
        "events": define_table(Event).index("by_at", ["at"]),
    }
)


@query
async def receipt(ctx: QueryCtx) -> Receipt:
    return RECEIPT


@query
async def receipts(ctx: QueryCtx) -> list[Receipt]:
    return await ctx.db.query(Receipt).collect()


@query
async def customer(ctx: QueryCtx) -> Customer | None:
    return await ctx.db.query(Customer).first()


@query
async def page(ctx: QueryCtx) -> Page[Customer]:
    return await ctx.db.query(Customer).paginate(num_items=1)


@mutation
async def sign_up(ctx: MutationCtx, customer: Customer) -> Customer:
    assert isinstance(customer, Customer)
    id = await ctx.db.insert(Customer, customer)
    stored = await ctx.db.get(id)
    assert stored == customer
    return stored


@query
async def event(ctx: QueryCtx) -> Event | None:
    return await ctx.db.query(Event).first()


@query
async def moment(ctx: QueryCtx, at: datetime, colour: Colour = Colour.RED) -> dict[str, datetime | Colour]:
    assert type(at) is datetime and type(colour) is Colour
    return {"at": at, "colour": colour}


@mutation
async def record(ctx: MutationCtx, event: Event) -> Event:
    assert event == EVENT and type(event["who"]) is Customer
    stored = await ctx.db.get(await ctx.db.insert(Event, event))
    assert stored is not None
    return stored


@query
async def anyhow(ctx: QueryCtx) -> Any:
    return {"receipt": RECEIPT, "ada": ADA}


@query(returns=v.any())
async def declared(ctx: QueryCtx) -> Customer:
    return ADA


@mutation
async def in_a_mutation(ctx: MutationCtx) -> list[str]:
    read, made = await ctx.run_query(receipt), await ctx.run_mutation(sign_up, {"customer": ADA})
    return [type(read).__name__, type(made).__name__, made.name, read.lines[0].shout]


@action
async def in_an_action(ctx: ActionCtx) -> list[Any]:
    read, made = await ctx.run_query(receipt), await ctx.run_mutation(sign_up, {"customer": ADA})
    acted = await ctx.run_action(in_a_thread)
    return [type(one).__name__ for one in (read, made, acted)]


@action
def in_a_thread(ctx: SyncActionCtx) -> Customer:
    made = ctx.run_mutation(sign_up, {"customer": ADA})
    assert type(made) is Customer and type(ctx.run_query(receipt)) is Receipt
    return made


FUNCTIONS = {
    "receipt": receipt,
    "receipts": receipts,
    "customer": customer,
    "page": page,
    "sign_up": sign_up,
    "event": event,
    "moment": moment,
    "record": record,
    "anyhow": anyhow,
    "declared": declared,
    "in_a_mutation": in_a_mutation,
    "in_an_action": in_an_action,
    "in_a_thread": in_a_thread,
}
APP = {"app": SimpleNamespace(**FUNCTIONS), "schema": SCHEMA}


async def test_a_result_arrives_as_the_instance_that_its_annotation_says() -> None:
    async with Harness(APP) as t:
        assert await t.query(receipt) == RECEIPT
        assert await t.query("app:receipt") == RECEIPT
        assert await t.app.query(receipt) == RECEIPT
        assert await t.with_identity({"subject": "ada"}).query(receipt) == RECEIPT
        assert (await t.query(customer), await t.query(receipts)) == (None, [])
        ada = await t.mutation(sign_up, {"customer": ADA})
        assert ada == ADA and type(ada.lines[0]) is Line
        assert [id_of(one) for one in (await t.query(page))["page"]] == [id_of(ada)]
        assert type((await t.query(page))["page"][0]) is Customer
        assert await t.mutation(in_a_mutation) == ["Receipt", "Customer", "Ada", "TEA"]
        assert await t.action(in_an_action) == ["Receipt", "Customer", "Customer"]
        assert type(await t.action(in_a_thread)) is Customer


async def test_a_result_is_the_callers_own() -> None:
    async with Harness(APP) as t:
        first = await t.query(receipt)
        first.lines.clear()
        assert await t.query(receipt) == RECEIPT and len(RECEIPT.lines) == 1


async def test_a_result_may_become_an_argument_again() -> None:
    @action
    async def name(ctx: ActionCtx, customer: Customer, event: Event) -> list[Any]:
        return [id_of(customer), customer == ADA, id_of(event), event["who"] == ADA]

    async with Harness({"app": SimpleNamespace(**FUNCTIONS, name=name), "schema": SCHEMA}) as t:
        ada, made = await t.mutation(sign_up, {"customer": ADA}), await t.mutation(record, {"event": EVENT})
        assert await t.action(name, {"customer": ada, "event": made}) == [id_of(ada), True, id_of(made), True]


async def test_without_an_annotation_that_names_a_class_results_are_plain() -> None:
    async with Harness(APP) as t:
        assert await t.query(anyhow) == {"receipt": PLAIN_RECEIPT, "ada": PLAIN_ADA}
        assert await t.query(declared) == PLAIN_ADA  # the validators win, as everywhere


async def test_who_is_outside_gets_plain_values_without_what_a_model_excludes() -> None:
    async with Harness(APP) as t:
        assert await t.app.run(receipt) == PLAIN_RECEIPT
        made = await t.app.run(sign_up, {"customer": PLAIN_ADA})
        assert {name: made[name] for name in PLAIN_ADA} == PLAIN_ADA
        assert await t.app.run(customer) == made
        assert (await t.app.run(page))["page"] == [made]
        assert (await t.app.run(in_a_thread))["joined"] == "2031-01-01"
        told = await t.app.run("app:moment", {"at": "2030-01-02T03:04:05Z"})
        assert told == {"at": "2030-01-02T03:04:05.000000Z", "colour": "red"}
        assert await t.app.run(in_a_mutation) == ["Receipt", "Customer", "Ada", "TEA"]  # inside are instances


async def test_a_subscription_gives_instances_and_ends_no_wait_for_what_is_the_same() -> None:
    async with Harness(APP) as t:
        await t.mutation(record, {"event": EVENT})
        events, customers = t.subscribe(event), t.app.subscribe("app:customer")
        assert await anext(customers) is None
        met = await anext(events)
        assert met is not None and {name: met[name] for name in EVENT} == EVENT
        await t.mutation(sign_up, {"customer": ADA})
        assert await anext(customers) == ADA


async def test_the_log_of_a_cron_has_plain_results() -> None:
    async with Harness(APP) as t:
        schedule = {"kind": "interval", "ms": 60_000}
        await t.transaction(lambda ctx: crons.register(ctx, schedule, in_a_thread, name="thread"))
        await t.transaction(lambda ctx: crons.register(ctx, schedule, record, {"event": PLAIN_EVENT}, name="record"))
        await t.advance(60_000)
        assert await t.failures() == []
        logs = await t.transaction(lambda ctx: ctx.db.system.query("_cron_job_logs").collect())
        assert {log["name"]: log["result"][:10] for log in logs} == {"thread": '{"name":"A', "record": '{"at":"203'}


# Times and their kin.


async def test_times_and_enums_are_arguments_and_results_as_instances_and_as_text() -> None:
    async with Harness(APP) as t:
        for at, colour in ((AT, Colour.RED), ("2030-01-02T03:04:05Z", "red")):
            assert await t.query(moment, {"at": at, "colour": colour}) == {"at": AT, "colour": Colour.RED}
        assert await t.query(moment, {"at": AT}) == {"at": AT, "colour": Colour.RED}
        with pytest.raises(
            ArgumentValidationError, match='app:moment: at .at: expected a datetime such as .*, got "x"'
        ):
            await t.query(moment, {"at": "x"})
        with pytest.raises(
            ArgumentValidationError, match=r"at .at: expected a datetime such as .* got datetime.date\(2030, 1, 1\)"
        ):
            await t.query(moment, {"at": date(2030, 1, 1)})


@pytest.mark.both_engines
async def test_times_are_stored_as_text_and_read_back_as_what_the_class_names() -> None:
    async def write(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(Event, EVENT)
        read = await ctx.db.get(id)
        assert read is not None and {name: read[name] for name in EVENT} == EVENT
        assert read["_id"] == id and type(read["_creationTime"]) is float  # pyright: ignore
        await ctx.db.patch(id, {"at": AT + timedelta(days=1), "price": None, "keys": (UUID(int=6),)})
        await ctx.db.replace(id, {**read, "lasts": timedelta(0)})
        await ctx.db.patch(id, {"colour": "red", "lasts": "PT60M"})
        [read] = await ctx.db.query(Event).with_index("by_at", lambda q: q.gte("at", "2030-01-02")).collect()
        assert (read["lasts"], read["colour"], read["who"]) == (timedelta(hours=1), Colour.RED, ADA)
        with pytest.raises(SchemaValidationError, match="events.patch: at .colour: expected a Colour, one of"):
            await ctx.db.patch(id, {"colour": "green"})
        with pytest.raises(SchemaValidationError, match="kept.insert: at .at: got datetime.*name it in an annotation"):
            await ctx.db.insert("kept", {"at": AT})
        ada = await ctx.db.get(await ctx.db.insert(Customer, ADA))
        assert ada == ADA
        async for one in ctx.db.query(Event):
            assert one["at"] == AT

    async with Harness(APP) as t:
        await t.transaction(write)
        [row] = await t.transaction(lambda ctx: _stored(ctx, "events"))
        assert row == PLAIN_EVENT | {"lasts": "PT1H"}
        [row] = await t.transaction(lambda ctx: _stored(ctx, "customers"))
        assert row == PLAIN_ADA | {"lines": [{"item": "jam", "cost": 0}]}
        await t.crash()
        assert (await t.query(event) or EVENT)["at"] == AT


async def _stored(ctx: MutationCtx, table: str) -> list[Any]:
    """What the store has, which indexes and filters see."""
    from duly.database.index_scan import IndexScan
    from duly.values.index_keys import EVERYTHING
    from duly.values.json import loads

    found = ctx.transaction.catalog.tables[table]
    return [loads(str(row)) for _, row in await IndexScan(ctx.transaction, found, None, EVERYTHING, False, 8).rows(8)]


@pytest.mark.both_engines
async def test_ranges_and_filters_compare_with_what_the_class_names() -> None:
    async def look(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(Event, EVENT)
        await ctx.db.insert(Receipt, RECEIPT)
        by_at = ctx.db.query(Event).with_index("by_at", lambda q: q.gt("at", AT - timedelta(1)).lte("at", AT))
        assert [one["_id"] for one in await by_at.collect()] == [id]  # pyright: ignore
        assert await ctx.db.query(Event).with_index("by_at", lambda q: q.gt("at", AT)).first() is None
        for find in (
            lambda q: q.field("at") == AT,
            lambda q: q.and_(q.lte(AT, q.field("at")), q.neq(q.field("at"), AT + timedelta(1))),
            lambda q: q.field("colour") == Colour.RED,
            lambda q: q.field("keys") == (UUID(int=5),),
            lambda q: q.field("who.joined") == ADA.joined,
            lambda q: q.field("who") == ADA,
        ):
            assert await ctx.db.query(Event).filter(find).unique() is not None
        assert await ctx.db.query(Receipt).filter(lambda q: q.field("at") == AT).unique() == RECEIPT
        with pytest.raises(QueryError, match="a filter: an operand: got datetime.*; name it in an annotation"):
            ctx.db.query("kept").filter(lambda q: q.field("at") == AT)
        with pytest.raises(QueryError, match="events.by_at: comparing 'at': got datetime.date"):
            ctx.db.query(Event).with_index("by_at", lambda q: q.gt("at", AT.date()))

    async with Harness(APP) as t:
        await t.transaction(look)


async def test_arguments_with_times_are_scheduled_as_text() -> None:
    async with Harness(APP) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, record, {"event": EVENT}))
        await t.run_until_idle()
        assert await t.failures() == []
        [job] = await t.jobs()
        assert job["args"] == [{"event": PLAIN_EVENT}]


async def test_a_result_that_does_not_fit_is_refused_for_every_caller() -> None:
    @query
    async def wrong(ctx: QueryCtx) -> Customer:
        return {"name": 5}  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    @query
    async def undated(ctx: QueryCtx) -> dict[str, Any]:
        return {"at": AT}

    @query
    async def made_of_a_dict(ctx: QueryCtx) -> Receipt:
        return {"lines": (), "at": AT, "receiptNumber": "7"}  # type: ignore[return-value]  # pyright: ignore

    functions = SimpleNamespace(wrong=wrong, undated=undated, made_of_a_dict=made_of_a_dict)
    async with Harness({"app": functions}) as t:
        assert await t.query(made_of_a_dict) == Receipt(lines=[], at=AT, receiptNumber="7")
        assert await t.app.run(made_of_a_dict) == {**PLAIN_RECEIPT, "lines": []}
        for call in (t.query, t.app.run):
            with pytest.raises(ReturnsValidationError, match="its return value: at .name: expected a string, got 5"):
                await call(wrong)
            with pytest.raises(ReturnsValidationError, match="at .at: got datetime.*; name it in an annotation"):
                await call(undated)


@query
async def asks_without_return(ctx: QueryCtx) -> int:  # type: ignore[empty-body]
    pass


@mutation
async def writes_without_return(ctx: MutationCtx) -> int:  # type: ignore[empty-body]
    pass


@action
async def acts_without_return(ctx: ActionCtx) -> int:  # type: ignore[empty-body]
    pass


@action
def blocks_without_return(ctx: SyncActionCtx) -> int:  # type: ignore[empty-body]
    pass


@action
async def calls(ctx: ActionCtx, kind: str) -> Any:
    match kind:
        case "query":
            return await ctx.run_query(asks_without_return)
        case "mutation":
            return await ctx.run_mutation(writes_without_return)
        case _:
            return await ctx.run_action(acts_without_return)


@mutation
async def calls_in_its_transaction(ctx: MutationCtx, kind: str) -> Any:
    if kind == "query":
        return await ctx.run_query(asks_without_return)
    return await ctx.run_mutation(writes_without_return)


FORGETFUL: dict[str, Any] = {
    "app": SimpleNamespace(
        asks_without_return=asks_without_return,
        writes_without_return=writes_without_return,
        acts_without_return=acts_without_return,
        blocks_without_return=blocks_without_return,
        calls=calls,
        calls_in_its_transaction=calls_in_its_transaction,
    )
}


@pytest.mark.parametrize(
    ("ref", "args"),
    [
        (asks_without_return, {}),
        (writes_without_return, {}),
        (acts_without_return, {}),
        (blocks_without_return, {}),
        (calls, {"kind": "query"}),
        (calls, {"kind": "mutation"}),
        (calls, {"kind": "action"}),
        (calls_in_its_transaction, {"kind": "query"}),
        (calls_in_its_transaction, {"kind": "mutation"}),
    ],
)
async def test_a_function_that_forgets_to_return_its_value_is_refused_however_it_is_called(
    ref: Any, args: dict[str, str]
) -> None:
    async with Harness(FORGETFUL) as t:
        with pytest.raises(
            ReturnsValidationError, match="_without_return: its return value: expected an integer, got None"
        ):
            await t.app.run(ref, args)


@pytest.mark.parametrize("ref", [writes_without_return, acts_without_return, blocks_without_return])
async def test_a_scheduled_function_that_forgets_to_return_its_value_fails(ref: Any) -> None:
    async with Harness(FORGETFUL) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, ref))
        await t.run_until_idle()
        [failed] = await t.failures()
        assert failed["state"]["error"].endswith("_without_return: its return value: expected an integer, got None")


@pytest.mark.both_engines
async def test_ids_of_a_result_may_be_of_a_table_that_the_call_has_made() -> None:
    @dataclass
    class Made:
        id: Id[Any]

    @mutation
    async def make(ctx: MutationCtx) -> Made:
        return Made(await ctx.db.insert("fresh", {}))

    make.handler.__annotations__["return"] = Made
    async with Harness({"app": SimpleNamespace(make=make)}) as t:
        made = await t.mutation(make)
        assert type(made) is Made and await t.transaction(lambda ctx: ctx.db.get(made.id)) is not None
