"""What is handed over is stored, sent and returned as plain values: subclasses, tuples, UNSET, any names, bytes."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple, TypedDict, cast

import pytest
from pydantic import BaseModel

from duly import (
    UNSET,
    ActionCtx,
    AppError,
    ArgumentValidationError,
    Id,
    Limits,
    MutationCtx,
    QueryCtx,
    QueryError,
    ReturnsValidationError,
    SchemaValidationError,
    action,
    crons,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.errors import LimitError
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


class Double(float):
    """Such as numpy.float64."""


class Size(enum.IntEnum):
    SMALL = 1


class Colour(enum.StrEnum):
    RED = "red"


class Tint(enum.Enum):
    RED = "red"


class Stain(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: float
    y: float


GIVEN: dict[str, Any] = {
    "double": Double(1.5),
    "size": Size.SMALL,
    "colour": Colour.RED,
    "ordered": OrderedDict(b=1, a=(2,)),
    "grouped": defaultdict(list, a=[Point(1, 2)]),
    "none": UNSET,
    "inner": {"none": UNSET, "some": [{"none": UNSET}]},
}
PLAIN: dict[str, Any] = {
    "double": 1.5,
    "size": 1,
    "colour": "red",
    "ordered": {"b": 1, "a": [2]},
    "grouped": {"a": [[1, 2]]},
    "inner": {"some": [{}]},
}
DECLARED = v.object(
    {
        "double": v.float64(),
        "size": v.int64(),
        "colour": v.union(v.literal("red"), v.literal("blue")),
        "ordered": v.record(v.string(), v.any()),
        "grouped": v.object({"a": v.array(v.array(v.number()))}),
        "none": v.optional(v.string()),
        "inner": v.object({"none": v.optional(v.null()), "some": v.array(v.object({"none": v.optional(v.any())}))}),
    }
)


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return type(value) is dict and all(type(key) is str and is_plain(item) for key, item in items)
    if isinstance(value, list):
        return type(value) is list and all(map(is_plain, cast("list[Any]", value)))
    return type(value) in (str, int, float, bool, bytes, type(None))


def same(value: Any) -> bool:
    fields = {name: item for name, item in value.items() if name[0] != "_"}
    return fields == PLAIN and is_plain(value)


@query
async def anything(ctx: QueryCtx, value: Any = "nothing") -> Any:
    return value


@query(args={"value": DECLARED}, returns=DECLARED)
async def declared(ctx: QueryCtx, value: Any) -> Any:
    assert same(value)
    return GIVEN


@mutation
async def stores(ctx: MutationCtx, value: Any) -> None:
    assert same(value)
    await ctx.db.insert("kept", value)


@action
async def calls(ctx: ActionCtx) -> Any:
    assert same(await ctx.run_query(declared, {"value": GIVEN}))
    return GIVEN


SCHEMA = define_schema({"declared": define_table(DECLARED)})
APP: dict[str, Any] = {
    "app": SimpleNamespace(anything=anything, declared=declared, stores=stores, calls=calls),
    "schema": SCHEMA,
}


async def test_arguments_and_results_are_plain_values() -> None:
    async with Harness(APP) as t:
        assert same(await t.query(anything, {"value": GIVEN}))
        assert same(await t.query(declared, {"value": GIVEN}))
        assert same(await t.action(calls))
        assert await t.query(anything, {"value": (1, (2,), Point(3, 4))}) == [1, [2], [3, 4]]
        assert await t.query(anything, {"value": Colour.RED}) == "red"
        assert await t.query(anything, defaultdict(str, value=Double(2))) == 2.0
        assert await t.query(anything, {"value": UNSET}) == "nothing"


@pytest.mark.parametrize("table", ["declared", "kept"])
async def test_documents_are_plain_values(table: str) -> None:
    async def write(ctx: MutationCtx) -> None:
        id = await ctx.db.insert(table, GIVEN)
        assert same(await ctx.db.get(id))
        await ctx.db.patch(id, {"double": Double(2), "inner": {"none": UNSET, "some": ({"none": UNSET},)}})
        assert (await ctx.db.get(id) or {})["double"] == 2.0
        await ctx.db.replace(id, OrderedDict(GIVEN, _id=id))
        assert same(await ctx.db.get(id))
        await ctx.db.patch(id, {"none": "some"})
        await ctx.db.patch(id, OrderedDict(none=UNSET))  # a dict like any other: this removes the field
        assert same(await ctx.db.get(id))

    async with Harness(APP) as t:
        await t.transaction(write)


@pytest.mark.both_engines
async def test_arguments_that_are_scheduled_are_plain_values() -> None:
    async with Harness(APP) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, stores, {"value": GIVEN}))
        schedule = {"kind": "interval", "ms": 60_000}
        await t.transaction(lambda ctx: crons.register(ctx, schedule, stores, {"value": GIVEN}, name="again"))
        await t.advance(60_000)
        assert await t.failures() == []
        assert len(await t.transaction(lambda ctx: ctx.db.query("kept").collect())) == 2
        [job] = await t.jobs()
        assert same(job["args"][0]["value"])


async def test_delays_times_and_the_data_of_errors_are_plain_too() -> None:
    @mutation
    async def fails(ctx: MutationCtx) -> None:
        raise AppError(GIVEN)

    async with Harness({"app": SimpleNamespace(anything=anything, fails=fails, stores=stores)}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(Double(5), stores, {"value": GIVEN}))
        await t.transaction(lambda ctx: ctx.scheduler.run_at(Double(t.now.timestamp() * 1000 + 5), fails))
        assert all(type(job["scheduledTime"]) is float for job in await t.jobs())
        with pytest.raises(AppError) as caught:
            await t.mutation(fails)
        assert same(t.app.client_error(caught.value).data)


async def test_filters_and_ranges_take_what_documents_take() -> None:
    async def look(ctx: MutationCtx) -> None:
        id = await ctx.db.insert("points", {"at": (1, 2.5), "kind": "red", "n": 1.5, "o": {"a": 1}})
        for value in ([1, 2.5], (1, 2.5), Point(1, Double(2.5))):
            assert (await ctx.db.query("points").filter(lambda q, at=value: q.field("at") == at).unique())["_id"] == id
            found = ctx.db.query("points").with_index("by_at", lambda q, at=value: q.eq("at", at).gte("kind", "a"))
            assert (await found.unique())["_id"] == id
        by_o = ctx.db.query("points").with_index("by_o", lambda q: q.eq("o", OrderedDict(a=Size.SMALL, b=UNSET)))
        assert (await by_o.unique())["_id"] == id
        assert await ctx.db.query("points").filter(lambda q: q.field("o") == {"a": 1, "b": UNSET}).unique() is not None
        assert await ctx.db.query("points").with_index("by_kind", lambda q: q.eq("kind", Colour.RED)).unique()
        by_n = ctx.db.query("points").with_index("by_n", lambda q: q.gt("n", Double(1)).lt("n", Double(2)))
        assert await by_n.unique() is not None
        with pytest.raises(QueryError, match=r"points.by_at: comparing 'at': at \[0\]: got UNSET"):
            ctx.db.query("points").with_index("by_at", lambda q: q.eq("at", (UNSET,)))

    indexes = {"by_at": ["at", "kind"], "by_kind": ["kind"], "by_n": ["n"], "by_o": ["o"]}
    points = define_table(v.any())
    for name, fields in indexes.items():
        points = points.index(name, fields)
    async with Harness({"schema": define_schema({"points": points})}) as t:
        await t.transaction(look)


class Visit(BaseModel):
    at: datetime


@dataclass
class Call:
    at: datetime


@pytest.mark.both_engines
@pytest.mark.parametrize("kind", [Visit, Call])
async def test_times_with_and_without_a_fraction_are_in_their_order(kind: Any) -> None:
    nine = datetime(2030, 1, 31, 9, tzinfo=UTC)
    times = [nine + timedelta(milliseconds=count) for count in (0, 1, 500, 1000)]

    async def look(ctx: MutationCtx) -> None:
        for given in (times[2], times[0].isoformat(), times[3].isoformat(), times[1]):
            await ctx.db.insert(kind, {"at": given} if isinstance(given, str) else kind(at=given))
        for lower in range(4):
            found = ctx.db.query(kind).with_index("by_at", lambda q, at=times[lower]: q.gte("at", at))
            assert [one.at for one in await found.collect()] == times[lower:]
            found = ctx.db.query(kind).filter(lambda q, at=times[lower]: q.field("at") > at)
            assert {one.at for one in await found.collect()} == set(times[lower + 1 :])

    async with Harness({"schema": define_schema({"events": define_table(kind).index("by_at", ["at"])})}) as t:
        await t.transaction(look)


@dataclass
class Price:
    price: Decimal
    lasts: timedelta | None = None


async def test_decimals_and_durations_are_compared_for_equality_only() -> None:
    cents, hour = Decimal("1.20"), timedelta(hours=1)
    filters: list[tuple[str, Any]] = [
        ("lt", lambda q: q.lt(q.field("price"), cents)),
        ("gte", lambda q: q.gte(hour, q.field("lasts"))),
        ("lt", lambda q: q.field("price") < cents),
        ("lte", lambda q: q.field("price") <= cents),
        ("gt", lambda q: q.field("lasts") > hour),
        ("gte", lambda q: q.field("lasts") >= hour),
        ("gt", lambda q: cents < q.field("price")),
        ("lt", lambda q: q.field("price") < [cents]),
    ]

    async def look(ctx: MutationCtx) -> None:
        await ctx.db.insert(Price, Price(cents, hour))
        prices = ctx.db.query(Price)
        for name, build in filters:
            with pytest.raises(
                QueryError, match=rf"a filter: q.{name}: got .* are stored as text and sort as text; keep"
            ):
                prices.filter(build)
        for bound in ("gt", "gte", "lt", "lte"):
            with pytest.raises(
                QueryError, match=r"events.by_price: comparing 'price': got Decimal\('1.20'\).*cents as"
            ):
                prices.with_index("by_price", lambda q, bound=bound: getattr(q, bound)("price", cents))
            with pytest.raises(QueryError, match=r"durations are stored as text.*milliseconds as a number"):
                prices.with_index("by_lasts", lambda q, bound=bound: getattr(q, bound)("lasts", hour))
        assert await prices.with_index("by_price", lambda q: q.eq("price", cents).eq("lasts", hour)).first()
        for price, is_there in ((cents, True), (Decimal("1.2"), False)):
            found = prices.filter(lambda q, price=price: q.and_(q.field("price") == price, q.field("lasts") == hour))
            assert (await found.first() is not None) is is_there

    prices = define_table(Price).index("by_price", ["price", "lasts"]).index("by_lasts", ["lasts"])
    async with Harness({"schema": define_schema({"events": prices})}) as t:
        await t.transaction(look)


@mutation
async def dated(
    ctx: MutationCtx,
    day: date | None = None,
    at: datetime | None = None,
    tint: Tint | None = None,
    call: Call | None = None,
    near: list[date] | None = None,
    id: Id[Any] | None = None,
    rest: Any = None,
) -> None:
    pass


NINE = datetime(2030, 1, 31, 9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"day": NINE}, r'at .day: expected a date such as "2030-01-31" or null, got datetime.datetime\(2030, 1, 31'),
        ({"day": NINE, "at": NINE}, r"at .day: expected a date such as"),
        ({"at": NINE.date()}, r"at .at: expected a datetime such as .* got datetime.date\(2030, 1, 31\)"),
        ({"tint": Stain.RED}, r'at .tint: expected a Tint, one of "red" or null, got <Stain.RED: \'red\'>'),
        ({"call": {"at": NINE.date()}}, "at .call.at: expected a datetime such as"),
        ({"near": [NINE]}, r"at .near\[0\]: expected a date such as"),
        ({"rest": NINE}, "at .rest: got datetime.*; name it in an annotation"),
    ],
)
async def test_arguments_of_another_class_than_asked_for_are_told_what_is_expected(args: Any, message: str) -> None:
    async def schedule(ctx: MutationCtx) -> None:
        args["id"] = await ctx.db.insert("kept", {})
        with pytest.raises(ArgumentValidationError, match=f"dated: {message}"):
            await ctx.scheduler.run_after(0, dated, args)

    async with Harness({"app": SimpleNamespace(dated=dated)}) as t:
        await t.transaction(schedule)
        for call in (t.mutation, t.app.run):
            with pytest.raises(ArgumentValidationError, match=f"dated: {message}"):
                await call(dated, args)


async def test_a_cron_is_changed_to_arguments_that_hold_times() -> None:
    async def change(ctx: MutationCtx) -> None:
        await crons.register(ctx, {"kind": "interval", "ms": 60_000}, dated, {"day": NINE.date()}, name="r")
        await crons.update(ctx, "r", args={"at": NINE, "near": [NINE.date()]})
        cron = await crons.get(ctx, "r")
        assert cron is not None and cron["args"] == {"at": "2030-01-31T09:00:00.000000", "near": ["2030-01-31"]}
        with pytest.raises(ArgumentValidationError, match="dated: at .day: expected a date such as"):
            await crons.update(ctx, "r", args={"day": NINE})

    async with Harness({"app": SimpleNamespace(dated=dated)}) as t:
        await t.transaction(change)


async def test_a_result_of_another_class_than_named_is_told_what_is_expected() -> None:
    @query
    async def days(ctx: QueryCtx) -> list[date]:
        return [NINE]

    async with Harness({"app": SimpleNamespace(days=days)}) as t:
        for call in (t.query, t.app.run):
            with pytest.raises(ReturnsValidationError, match=r'at \[0\]: expected a date such as "2030-01-31", got'):
                await call(days)


@pytest.mark.both_engines
async def test_pages_go_on_behind_any_of_these_values() -> None:
    async def look(ctx: MutationCtx) -> None:
        for n in range(3):
            await ctx.db.insert("points", {"at": Point(n, 0)})
        cursor, met = None, list[Any]()
        while cursor is None or len(met) < 3:
            page = await ctx.db.query("points").with_index("by_at").paginate(num_items=1, cursor=cursor)
            met += page["page"]
            cursor = page["continueCursor"]
        assert [point["at"] for point in met] == [[0, 0], [1, 0], [2, 0]]

    points = define_table(v.any()).index("by_at", ["at"])
    async with Harness({"schema": define_schema({"points": points})}) as t:
        await t.transaction(look)


@dataclass
class Line:
    name: str
    sizes: list[int] = field(default_factory=list)
    note: Any = UNSET


class Order(TypedDict):
    lines: list[Line]


async def test_fields_of_instances_are_plain_values_too() -> None:
    @mutation
    async def add(ctx: MutationCtx, order: Order, sizes: list[int] = (1, 2)) -> Any:  # pyright: ignore[reportArgumentType]
        await ctx.db.insert("orders", order)
        sized: Any = (3, 4)
        await ctx.db.insert(Line, Line(Colour.RED, sized))
        await ctx.db.insert("lines", {"name": "tea", "sizes": sized, "note": UNSET})
        return await ctx.db.query(Line).collect()

    schema = define_schema({"lines": define_table(Line)})
    async with Harness({"app": SimpleNamespace(add=add), "schema": schema}) as t:
        sizes: Any = (1, Size.SMALL)
        lines = await t.mutation(add, {"order": {"lines": (Line("jam", sizes), {"name": "tea", "note": UNSET})}})
        assert [(line["name"], line["sizes"], "note" in line) for line in lines] == [
            ("red", [3, 4], False),
            ("tea", [3, 4], False),
        ]
        [order] = await t.transaction(lambda ctx: ctx.db.query("orders").collect())
        assert order["lines"] == [{"name": "jam", "sizes": [1, 1]}, {"name": "tea", "sizes": []}]


async def test_unset_in_a_list_and_as_a_whole_stays_an_error() -> None:
    @query
    async def unset(ctx: QueryCtx) -> Any:
        return UNSET

    @query
    async def in_a_list(ctx: QueryCtx) -> Any:
        return {"a": [UNSET]}

    async with Harness({"app": SimpleNamespace(unset=unset, in_a_list=in_a_list, anything=anything)}) as t:
        with pytest.raises(ReturnsValidationError, match="its return value: got UNSET"):
            await t.query(unset)
        with pytest.raises(ReturnsValidationError, match=r"its return value: at .a\[0\]: got UNSET"):
            await t.query(in_a_list)
        with pytest.raises(ArgumentValidationError, match=r"at .value\[1\]: got UNSET"):
            await t.query(anything, {"value": (1, UNSET)})
        with pytest.raises(SchemaValidationError, match=r"kept.insert: at .a\[0\]: got UNSET"):
            await t.transaction(lambda ctx: ctx.db.insert("kept", {"a": (UNSET,)}))


async def test_a_required_field_that_is_unset_is_missing() -> None:
    @query(args={"text": v.string()})
    async def needs(ctx: QueryCtx, text: str) -> None: ...

    schema = define_schema({"notes": define_table({"text": v.string()})})
    async with Harness({"app": SimpleNamespace(needs=needs), "schema": schema}) as t:
        with pytest.raises(ArgumentValidationError, match="at .text: missing required field of type string"):
            await t.query(needs, {"text": UNSET})
        with pytest.raises(SchemaValidationError, match="notes.insert: at .text: missing required field"):
            await t.transaction(lambda ctx: ctx.db.insert("notes", {"text": UNSET}))


NAMES = ["", " ", "é", "日本語", "a.b", "a b", "☕", "\n", '"', "\\", "a\0b", "_x" * 2, "e\u0301", "é" * 1024]


async def test_fields_have_any_names_but_the_reserved_ones() -> None:
    names = dict.fromkeys(NAMES, 1)

    async def write(ctx: MutationCtx) -> None:
        top = {name: item for name, item in names.items() if name[:1] != "_"}
        id = await ctx.db.insert("kept", {**top, "inner": names})
        document = await ctx.db.get(id) or {}
        assert {name: item for name, item in document.items() if name[:1] != "_"} == {**top, "inner": names}
        await ctx.db.patch(id, {"": 2, "a.b": 3, "é": UNSET})
        document = await ctx.db.get(id) or {}
        assert (document[""], document["a.b"], document["日本語"], "é" in document) == (2, 3, 1, False)
        assert await ctx.db.query("kept").filter(lambda q: q.field("日本語") == 1).first() is not None
        await ctx.db.insert("records", {"by_name": names})
        for name, message in {
            "_x": "names that do not start with '_'",
            "$x": "one that does not start with '\\$'",
            "x" * 1025: "at most 1,024 .FIELD_NAME_LENGTH_MAX",
            "\ud800": "lone surrogate",
        }.items():
            with pytest.raises(SchemaValidationError, match=message):
                await ctx.db.insert("kept", {name: 1})
        with pytest.raises(SchemaValidationError, match="one that does not start with '\\$'"):
            await ctx.db.insert("kept", {"inner": {"$bytes": "aGk="}})

    schema = define_schema({"records": define_table({"by_name": v.record(v.string(), v.int64())})})
    async with Harness({**APP, "schema": schema}) as t:
        assert await t.query(anything, {"value": names}) == names
        await t.transaction(write)


async def test_a_patch_of_a_path_is_an_error_that_says_what_a_patch_does() -> None:
    async def write(ctx: MutationCtx) -> None:
        id = await ctx.db.insert("kept", {"address": {"city": "Berlin"}, "dotted.name": 1})
        for value in ("Rome", UNSET):
            with pytest.raises(SchemaValidationError, match="kept.patch: got the field 'address.city', .* patch puts"):
                await ctx.db.patch(id, {"address.city": value})
        await ctx.db.patch(id, {"dotted.name": 2})  # it has a field of this name
        assert (await ctx.db.get(id) or {})["dotted.name"] == 2
        declared = await ctx.db.insert("dotted", {})
        await ctx.db.patch(declared, {"a.b": "c"})
        assert (await ctx.db.get(declared) or {})["a.b"] == "c"
        with pytest.raises(SchemaValidationError, match="dotted.patch: got the field 'a.c'"):
            await ctx.db.patch(declared, {"a.c": "c"})

    schema = define_schema({"dotted": define_table({"a.b": v.optional(v.string())})})
    async with Harness({"schema": schema}) as t:
        await t.transaction(write)


LIMITED = Limits(
    document_bytes_max=1_000,
    bytes_written_max=10_000,
    bytes_read_max=10_000,
    arguments_bytes_max=1_000,
    result_bytes_max=1_000,
    scheduled_arguments_bytes_max=900,
)


async def test_bytes_count_as_bytes_against_every_limit() -> None:
    @mutation
    async def write(ctx: MutationCtx, length: int, times: int) -> None:
        for _ in range(times):
            await ctx.db.insert("blobs", {"b": b"x" * length})

    @query
    async def read(ctx: QueryCtx, times: int) -> None:
        for blob in await ctx.db.query("blobs").collect():
            for _ in range(times):
                await ctx.db.get(blob["_id"])

    @query
    async def gives(ctx: QueryCtx, length: int) -> bytes:
        return b"x" * length

    @mutation
    async def schedules(ctx: MutationCtx, length: int) -> None:
        await ctx.scheduler.run_after(0, "app:write", {"b": b"x" * length})

    functions = SimpleNamespace(write=write, read=read, gives=gives, schedules=schedules, anything=anything)
    async with Harness({"app": functions}, limits=LIMITED) as t:
        around = len('{"b":""}')
        await t.mutation(write, {"length": 1_000 - around, "times": 10})
        with pytest.raises(LimitError, match=r"a document: got 1,001 bytes, expected at most 1,000"):
            await t.mutation(write, {"length": 1_001 - around, "times": 1})
        with pytest.raises(LimitError, match="bytes_written_max"):
            await t.mutation(write, {"length": 1_000 - around, "times": 11})
        with pytest.raises(LimitError, match="bytes_read_max"):
            await t.query(read, {"times": 1})
        assert await t.query(gives, {"length": 998}) == b"x" * 998
        with pytest.raises(LimitError, match="its return value: got 1,001 bytes"):
            await t.query(gives, {"length": 999})
        around = len('{"value":""}')
        assert await t.query(anything, {"value": b"x" * (1_000 - around)}) == b"x" * (1_000 - around)
        with pytest.raises(LimitError, match="arguments: got 1,001 bytes"):
            await t.query(anything, {"value": b"x" * (1_001 - around)})
        around = len('{"b":""}')
        await t.mutation(schedules, {"length": 900 - around})
        with pytest.raises(LimitError, match=r"with 901 bytes of arguments.*scheduled_arguments_bytes_max"):
            await t.mutation(schedules, {"length": 901 - around})


@pytest.mark.both_engines
async def test_a_document_of_nearly_a_mebibyte_of_bytes_is_stored() -> None:
    async with Harness({}) as t:
        length = (1 << 20) - len('{"b":""}')
        id = await t.transaction(lambda ctx: ctx.db.insert("blobs", {"b": b"\xff" * length}))
        assert (await t.transaction(lambda ctx: ctx.db.get(id)) or {})["b"] == b"\xff" * length
        with pytest.raises(LimitError, match="got 1,048,577 bytes, expected at most 1,048,576"):
            await t.transaction(lambda ctx: ctx.db.insert("blobs", {"b": b"\xff" * (length + 1)}))
