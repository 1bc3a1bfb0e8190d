"""Documents by their ids: several at once, with the table first, and as an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    DocumentNotFoundError,
    FunctionError,
    Id,
    InvalidIdError,
    LimitError,
    Limits,
    MutationCtx,
    QueryCtx,
    QueryError,
    define_schema,
    define_table,
    id_of,
    query,
    v,
)
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")


@dataclass
class Payment:
    pence: int
    note: str = ""


SCHEMA = define_schema({"payments": define_table(Payment), "users": define_table(v.any())})


@query
async def names(ctx: QueryCtx, ids: list[str]) -> list[str | None]:
    return [user and user["name"] for user in await ctx.db.get_many(ids)]


def harness(limits: Limits | None = None) -> Harness:
    return Harness({"app": SimpleNamespace(names=names), "schema": SCHEMA}, limits=limits or Limits())


async def with_users(t: Harness, *names: str, table: str = "users") -> list[str]:
    async def insert(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert(table, {"name": name}) for name in names]

    return await t.transaction(insert)


# Several at once.


async def test_several_documents_come_in_the_order_of_their_ids_and_none_for_those_that_are_gone() -> None:
    async with harness() as t:
        ada, bob, cy = await with_users(t, "ada", "bob", "cy")
        await t.transaction(lambda ctx: ctx.db.delete(bob))
        assert await t.query(names, {"ids": [cy, bob, ada, cy, ada]}) == ["cy", None, "ada", "cy", "ada"]
        assert await t.query(names, {"ids": []}) == []
        many = await with_users(t, *(f"user {n}" for n in range(500)))
        assert await t.query(names, {"ids": many[::-1]}) == [f"user {n}" for n in range(499, -1, -1)]


@pytest.mark.one_engine
async def test_an_id_that_comes_twice_gives_two_documents_to_change() -> None:
    async with harness() as t:
        [ada] = await with_users(t, "ada")

        async def twice(ctx: MutationCtx) -> Any:
            one, other = await ctx.db.get_many([ada, ada])
            one["name"] = "changed"
            return other["name"]

        assert await t.transaction(twice) == "ada"


async def test_ids_of_several_tables_may_be_read_at_once_and_sees_what_was_written() -> None:
    async with harness() as t:
        ada, bob = await with_users(t, "ada", "bob")
        [tea] = await with_users(t, "tea", table="goods")

        async def read(ctx: MutationCtx) -> Any:
            new = await ctx.db.insert("users", {"name": "new"})
            await ctx.db.patch(ada, {"name": "Ada"})
            await ctx.db.delete(bob)
            paid = await ctx.db.insert("payments", {"pence": 5})
            cup = await ctx.db.insert("cups", {"name": "cup"})
            found = await ctx.db.get_many([tea, new, paid, bob, cup, ada])
            assert await ctx.run_query(names, {"ids": [cup, tea, bob, ada]}) == ["cup", "tea", None, "Ada"]
            return [one if one is None or isinstance(one, Payment) else one["name"] for one in found]

        assert await t.transaction(read) == ["tea", "new", Payment(5), None, "cup", "Ada"]


async def test_all_of_them_are_one_read_and_each_id_is_one_document() -> None:
    async with harness(Limits(reads_max=2, documents_read_max=100)) as t:
        ids = await with_users(t, *(f"user {n}" for n in range(101)))
        assert len(await t.query(names, {"ids": ids[:100] + ids[:100]})) == 200
        with pytest.raises(LimitError, match="documents_read_max"):
            await t.query(names, {"ids": ids})


async def test_a_subscription_to_several_documents_hears_of_each_also_of_one_that_is_not_there() -> None:
    async with harness() as t:
        ada, bob = await with_users(t, "ada", "bob")
        await t.transaction(lambda ctx: ctx.db.delete(bob))
        seen = t.subscribe(names, {"ids": [ada, bob]})
        assert await anext(seen) == ["ada", None]
        await t.transaction(lambda ctx: ctx.db.patch(ada, {"name": "Ada"}))
        assert await anext(seen) == ["Ada", None]


async def test_several_documents_are_read_in_one_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness() as t:
        ids = await with_users(t, *(f"user {n}" for n in range(50)))
        asked: list[type] = []
        engine = t.app.database._engine  # pyright: ignore[reportPrivateUsage]
        snapshot = engine.snapshot
        monkeypatch.setattr(engine, "snapshot", lambda: _Noting(snapshot(), asked))
        assert len(await t.query(names, {"ids": ids})) == 50
        assert [kind.__name__ for kind in asked] == ["GetMany"]


class _Noting:
    """A snapshot that notes what it is asked."""

    def __init__(self, snapshot: Any, asked: list[type]) -> None:
        self._snapshot = snapshot
        self._asked = asked

    def __enter__(self) -> Any:
        view = self._view = self._snapshot.__enter__()
        answer = view.answer

        def noted(request: Any) -> Any:
            self._asked.append(type(request))
            return answer(request)

        view.answer = noted
        return view

    def __exit__(self, *error: Any) -> Any:
        return self._snapshot.__exit__(*error)


@pytest.mark.one_engine
@pytest.mark.parametrize("ids", ["an id", b"x", 5, None, [None], ["x"], [5]])
async def test_what_are_no_ids_is_told(ids: Any) -> None:
    async with harness() as t:
        with pytest.raises(InvalidIdError, match="expected (a list of ids|the id of a document)"):
            await t.transaction(lambda ctx: ctx.db.get_many(ids))


@pytest.mark.one_engine
async def test_any_iterable_of_ids_will_do() -> None:
    async with harness() as t:
        ids = await with_users(t, "ada", "bob")

        def each() -> Iterator[str]:
            yield from ids

        for given in (tuple(ids), each(), dict.fromkeys(ids)):
            found = await t.transaction(lambda ctx, given=given: ctx.db.get_many(given))
            assert [one["name"] for one in found] == ["ada", "bob"]


# The table first.


async def test_the_table_may_stand_first() -> None:
    async with harness() as t:
        [ada] = await with_users(t, "ada")

        async def changes(ctx: MutationCtx) -> Any:
            seen = [(await ctx.db.get("users", ada))["name"]]
            await ctx.db.patch("users", ada, {"name": "Ada"})
            seen += [one["name"] for one in await ctx.db.get_many("users", [ada])]
            await ctx.db.replace("users", ada, {"name": "A."})
            seen.append((await ctx.db.get(table="users", id=ada))["name"])
            await ctx.db.patch(id=ada, fields={"n": 1})
            await ctx.db.patch(ada, fields={"n": 2})
            await ctx.db.replace(id=ada, document={"name": "last"})
            seen.append((await ctx.db.get(id=ada))["name"])
            await ctx.db.delete("users", ada)
            return [*seen, await ctx.db.get("users", ada)]

        assert await t.transaction(changes) == ["ada", "Ada", "A.", "last", None]


@pytest.mark.one_engine
async def test_the_class_of_a_table_may_stand_first() -> None:
    async with harness() as t:

        async def changes(ctx: MutationCtx) -> Any:
            id = await ctx.db.insert(Payment, Payment(5))
            await ctx.db.patch(Payment, id, {"pence": 6})
            seen: list[Any] = [await ctx.db.get(Payment, id), *await ctx.db.get_many(Payment, [id])]
            await ctx.db.replace(Payment, id, Payment(7))
            seen.append(await ctx.db.get(Payment, id))
            await ctx.db.delete(Payment, id)
            return [*seen, await ctx.db.get(Payment, id)]

        assert await t.transaction(changes) == [Payment(6), Payment(6), Payment(7), None]


WRONG = {
    "get": lambda db, id: db.get("payments", id),
    "get of a class": lambda db, id: db.get(Payment, id),
    "get_many": lambda db, id: db.get_many("payments", [id]),
    "patch": lambda db, id: db.patch("payments", id, {"pence": 5}),
    "replace": lambda db, id: db.replace(Payment, id, Payment(5)),
    "delete": lambda db, id: db.delete("payments", id),
    "a table that does not exist": lambda db, id: db.get("nothing", id),
}


@pytest.mark.one_engine
@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
async def test_an_id_of_another_table_than_the_one_that_stands_first_is_an_error(call: Any) -> None:
    async with harness() as t:
        [ada] = await with_users(t, "ada")
        with pytest.raises(InvalidIdError, match="of a document of 'users', expected one of '(payments|nothing)'"):
            await t.transaction(lambda ctx: call(ctx.db, ada))
        assert await t.query(names, {"ids": [ada]}) == ["ada"]


@pytest.mark.one_engine
async def test_an_id_before_the_table_is_told_of() -> None:
    async with harness() as t:
        [ada] = await with_users(t, "ada")
        for call in (lambda db: db.get(ada, "users"), lambda db: db.delete(ada, "users")):
            with pytest.raises(InvalidIdError, match=r"the table comes first, \('users', id\)"):
                await t.transaction(lambda ctx, call=call: call(ctx.db))


async def test_a_document_of_a_table_that_is_gone_is_not_found_where_the_table_stands_first() -> None:
    async with harness() as t:
        [ada] = await with_users(t, "ada")
        await t.transaction(lambda ctx: ctx.db.delete(ada))
        for call in (lambda db: db.patch("users", ada, {}), lambda db: db.delete("users", ada)):
            with pytest.raises(DocumentNotFoundError):
                await t.transaction(lambda ctx, call=call: call(ctx.db))


async def test_system_tables_are_read_with_the_table_first_too() -> None:
    async with harness() as t:

        async def read(ctx: MutationCtx) -> Any:
            [ada] = [await ctx.db.insert("users", {})]
            with pytest.raises(InvalidIdError):
                await ctx.db.system.get("_scheduled_functions", ada)
            assert await ctx.db.system.get_many([]) == []
            return None

        await t.transaction(read)


# An instance alone.


@pytest.mark.one_engine
async def test_an_instance_knows_its_table() -> None:
    async with harness() as t:

        async def insert(ctx: MutationCtx) -> Any:
            id: Id[Payment] = await ctx.db.insert(Payment(5, "rent"))
            found = await ctx.db.get(id)
            assert found is not None and id_of(found) == id
            return found

        assert await t.transaction(insert) == Payment(5, "rent")


@dataclass
class Unbound:
    n: int = 1


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pence": 5}, FunctionError, r'got a document without its table alone, expected insert\("orders", \{…\}\)'),
        ("payments", FunctionError, 'got "payments" alone, expected insert'),
        (Payment, FunctionError, "alone, expected insert"),
        (Unbound(), QueryError, r"got Unbound as a table, expected its name.*define_table\(Unbound\)"),
    ],
)
async def test_what_does_not_know_its_table_is_told(given: Any, error: type[Exception], message: str) -> None:
    async with harness() as t:
        with pytest.raises(error, match=message):
            await t.transaction(lambda ctx: ctx.db.insert(given))


# The index by id.


async def test_the_index_by_id_is_there_for_every_table() -> None:
    async with harness() as t:
        ada, bob, cy = await with_users(t, "ada", "bob", "cy")

        async def read(ctx: MutationCtx) -> Any:
            users = ctx.db.query("users")
            one = await users.with_index("by_id", lambda q: q.eq("_id", bob)).unique()
            after = await users.with_index("by_id", lambda q: q.gt("_id", ada)).collect()
            upto = await users.with_index("by_id", lambda q: q.gte("_id", ada).lt("_id", cy)).order("desc").collect()
            found = [one, *after, *upto]
            count = await users.with_index("by_id", lambda q: q.lte("_id", bob)).count()
            page = await users.with_index("by_id", lambda q: q.gt("_id", ada)).paginate(num_items=1)
            return (
                [user["name"] for user in (*found, *page["page"])],
                count,
                len(await users.with_index("by_id").take(9)),
            )

        assert await t.transaction(read) == (["bob", "bob", "cy", "bob", "ada", "bob"], 2, 3)


async def test_the_index_by_id_is_there_for_system_tables() -> None:
    async with harness() as t:

        async def read(ctx: MutationCtx) -> Any:
            return await ctx.db.system.query("_scheduled_functions").with_index("by_id").count()

        assert await t.transaction(read) == 0


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda q, other: q.eq("_id", other), InvalidIdError, "of a document of 'goods', expected one of 'users'"),
        (lambda q, other: q.eq("_id", "x"), InvalidIdError, "expected the id of a document"),
        (lambda q, other: q.eq("_id", None), InvalidIdError, "expected the id of a document"),
        (lambda q, other: q.eq("name", "ada"), QueryError, "got a comparison of 'name', expected one of '_id'"),
        (lambda q, other: q.eq("_creationTime", 5), QueryError, "expected one of '_id'"),
    ],
)
async def test_the_index_by_id_takes_ids_of_its_table(build: Any, error: type[Exception], message: str) -> None:
    async with harness() as t:
        await with_users(t, "ada")
        [tea] = await with_users(t, "tea", table="goods")

        async def read(ctx: MutationCtx) -> Any:
            return await ctx.db.query("users").with_index("by_id", lambda q: build(q, tea)).collect()

        with pytest.raises(error, match=message):
            await t.transaction(read)
