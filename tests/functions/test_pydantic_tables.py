"""What only pydantic knows of a field: computed and excluded ones, aliases, times and other types with a JSON form."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Json, RootModel, computed_field, field_serializer

from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
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


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


class Line(BaseModel):
    item: str = Field(serialization_alias="Item")
    pence: int
    cost: int = Field(exclude=True)
    due: dt.date = dt.date(2030, 1, 2)

    @computed_field
    @property
    def gross(self) -> int:
        return self.pence * 2


class Receipt(BaseModel):
    lines: list[Line]
    by_name: dict[str, Line] = {}
    title: str = Field(validation_alias=AliasChoices("_title", "title", "name"), serialization_alias="Title")
    secret: str = Field(alias="passWord", exclude=True)
    hidden_line: Line | None = Field(default=None, exclude=True)

    @computed_field
    @property
    def total(self) -> int:
        return sum(line.pence for line in self.lines)


class Event(BaseModel):
    at: dt.datetime
    day: dt.date
    hour: dt.time = dt.time(3, 30)
    lasts: dt.timedelta = dt.timedelta(seconds=3.5)
    key: uuid.UUID = uuid.UUID(int=5)
    price: Decimal = Decimal("1.20")
    colour: Colour = Colour.RED
    size: Size = Size.SMALL
    tags: set[str] = {"b", "a"}
    span: tuple[dt.date, float] | None = None
    by_key: dict[uuid.UUID, set[int]] = {}
    raw: bytes = b"\xff"
    ratio: float = math.inf
    settings: Json[dict[str, int]] = {}
    anything: Any = None


class Stamped(BaseModel):
    at: dt.datetime

    @field_serializer("at")
    def in_seconds(self, at: dt.datetime) -> float:
        return at.timestamp()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime


class Tags(RootModel[set[str]]):
    pass


SCHEMA = define_schema(
    {
        "receipts": define_table(Receipt),
        "events": define_table(Event).index("by_at", ["at"]),
        "stamps": define_table(Stamped),
        "strict": define_table(Strict),
        "notes": define_table({"text": v.string(), "tags": v.optional(Tags)}),
    }
)
RECEIPT = Receipt(
    lines=[Line(item="tea", pence=3, cost=1)],
    by_name={"tea": Line(item="tea", pence=4, cost=2)},
    passWord="x",
    title="T",
    hidden_line=Line(item="milk", pence=5, cost=3),
)
AT = dt.datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
JSON: Any = '{"a": 1}'
EVENT = Event(at=AT, day=AT.date(), span=(AT.date(), 1.5), by_key={uuid.UUID(int=7): {10, 9}}, settings=JSON)


def harness(**functions: Any) -> Harness:
    return Harness({"app": SimpleNamespace(**functions), "schema": SCHEMA})


async def test_computed_fields_are_not_stored_and_excluded_ones_are_under_the_names_the_class_takes() -> None:
    async def check(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(Receipt, RECEIPT)
        read = await ctx.db.get(id)
        assert read == RECEIPT and read is not None and read.total == 3 and read.secret == "x"
        read.secret = "y"
        read.lines.append(Line(item="milk", pence=4, cost=5))
        await ctx.db.replace(id, read)
        assert await ctx.db.get(id) == read
        await ctx.db.patch(id, {"title": "U", "lines": [Line(item="jam", pence=1, cost=6)]})
        patched = await ctx.db.get(id)
        assert patched is not None and (patched.title, patched.total, patched.lines[0].cost) == ("U", 1, 6)

    async with harness() as t:
        await t.transaction(check)


@query
async def receipts(ctx: QueryCtx) -> list[Receipt]:
    return await ctx.db.query(Receipt).collect()


@query
async def anyhow(ctx: QueryCtx) -> Any:
    return {"all": await ctx.db.query(Receipt).collect()}


@mutation
async def add(ctx: MutationCtx, receipt: Receipt) -> None:
    await ctx.db.insert(Receipt, receipt)


async def test_who_is_outside_gets_neither_computed_nor_excluded_fields() -> None:
    line = {"item": "tea", "pence": 3, "due": "2030-01-02"}
    async with harness(receipts=receipts, anyhow=anyhow, add=add) as t:
        await t.mutation(add, {"receipt": RECEIPT})
        assert await t.query(receipts) == [RECEIPT]
        [receipt] = await t.app.run(receipts)
        shown = {"lines": [line], "by_name": {"tea": {**line, "pence": 4}}, "title": "T"}
        assert {name: receipt[name] for name in receipt if name[0] != "_"} == shown
        assert await t.query(anyhow) == {"all": [receipt]}
        stored = await t.transaction(lambda ctx: ctx.db.query(Receipt).first())
        assert stored == RECEIPT


async def test_types_with_a_json_form_are_stored_in_it_and_read_back_as_they_were() -> None:
    async def check(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(Event, EVENT)
        read = await ctx.db.get(id)
        assert read == EVENT and read is not None and type(read.tags) is set and read.colour is Colour.RED
        read.colour, read.tags = Colour.BLUE, {"z", "y", "x"}
        await ctx.db.replace(id, read)
        assert await ctx.db.get(id) == read
        await ctx.db.patch(id, {"day": dt.date(2031, 1, 1), "tags": {"q"}, "ratio": math.nan})
        patched = await ctx.db.get(id)
        assert patched is not None and (patched.day, patched.tags) == (dt.date(2031, 1, 1), {"q"})
        assert math.isnan(patched.ratio)
        table: Any = Event
        other = await ctx.db.insert(table, {"at": AT, "day": "2030-01-02"})
        found = await ctx.db.get(other)
        assert found is not None and found.at == AT

    async with harness() as t:
        await t.transaction(check)


async def test_indexes_filters_and_who_is_outside_see_the_stored_form() -> None:
    @query
    async def events(ctx: QueryCtx) -> list[Event]:
        text = "2030-01-02T03:04:05.000678Z"
        indexed = await ctx.db.query(Event).with_index("by_at", lambda q: q.eq("at", text)).collect()
        filtered = await ctx.db.query(Event).filter(lambda q: q.field("colour") == "red").collect()
        assert indexed == filtered
        return indexed

    seen: list[Event] = []

    @action
    async def take(ctx: ActionCtx, event: Event) -> Event:
        seen.append(event)
        return event

    async with harness(events=events, take=take) as t:
        await t.transaction(lambda ctx: ctx.db.insert(Event, EVENT))
        assert await t.query(events) == [EVENT]
        [event] = await t.app.run(events)
        assert (event["at"], event["lasts"], event["key"]) == ("2030-01-02T03:04:05.000678Z", "PT3.5S", str(EVENT.key))
        assert (event["price"], event["colour"], event["size"], event["tags"]) == ("1.20", "red", 1, ["a", "b"])
        assert event["by_key"] == {str(uuid.UUID(int=7)): [9, 10]} and event["raw"] == b"\xff"
        assert (await t.app.run(take, {"event": EVENT}))["day"] == "2030-01-02"
        assert await t.action(take, {"event": EVENT}) == EVENT
        del event["_id"], event["_creationTime"]
        await t.action(take, {"event": event})
        assert seen == [EVENT, EVENT, EVENT]


async def test_a_serializer_of_the_model_says_how_its_field_is_stored() -> None:
    async def check(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(Stamped, Stamped(at=AT))
        assert await ctx.db.get(id) == Stamped(at=AT)
        note_id = await ctx.db.insert("notes", {"text": "a", "tags": Tags({"b", "a"})})
        note: Any = await ctx.db.get(note_id)
        assert note["tags"] == ["a", "b"]

    async with harness() as t:
        await t.transaction(check)


async def test_what_would_not_be_read_back_as_it_was_is_refused() -> None:
    async def check(ctx: MutationCtx) -> None:
        with pytest.raises(SchemaValidationError, match=r"got datetime.*anything.*|anything.*got datetime"):
            await ctx.db.insert(Event, EVENT.model_copy(update={"anything": AT}))
        with pytest.raises(SchemaValidationError, match=r"at \.at: Input should be a valid datetime"):
            await ctx.db.insert(Strict, Strict(at=AT))

    async with harness() as t:
        await t.transaction(check)


class Shown(BaseModel):
    id: str = Field(alias="_id")
    created: float = Field(alias="_creationTime")
    text: str


@dataclass
class Given:
    _id: str
    text: str


async def test_a_class_that_takes_the_system_fields_itself_gets_them() -> None:
    @query
    async def shown(ctx: QueryCtx) -> list[Shown]:
        return [Shown(**note) for note in await ctx.db.query("notes").collect()]

    @query
    async def documents(ctx: QueryCtx) -> list[Shown]:
        return await ctx.db.query("notes").collect()

    @action
    async def texts(ctx: ActionCtx, one: Shown, other: Given) -> list[str]:
        assert str(id_of(one)) == one.id
        return [one.id, other._id, one.text, other.text]

    async with harness(shown=shown, documents=documents, texts=texts) as t:
        id = await t.transaction(lambda ctx: ctx.db.insert("notes", {"text": "a"}))
        [instance] = await t.query(shown)
        assert (instance.id, instance.text) == (id, "a")
        [note] = await t.app.run(shown)
        assert note == {"_id": id, "_creationTime": note["_creationTime"], "text": "a"}
        assert await t.query(documents) == [instance] and await t.app.run(documents) == [note]
        other = {"_id": "7", "text": "b"}
        assert await t.action(texts, {"one": note, "other": other}) == [id, "7", "a", "b"]
        assert await t.action(texts, {"one": Shown(**note), "other": Given("7", "b")}) == [id, "7", "a", "b"]
