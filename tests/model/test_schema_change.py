"""A changed schema is applied when the store is opened."""

from __future__ import annotations

from typing import Any

from duly import MutationCtx, define_schema, define_table, v
from duly.app import App
from duly.ctx.db.index_range import IndexRange

PEOPLE = define_table(v.any())


async def names(app: App, index: str, build: Any = None) -> list[str]:
    async def read(ctx: MutationCtx) -> list[str]:
        return [person["name"] for person in await ctx.db.query("people").with_index(index, build).collect()]

    return await app.runner.transaction(read)


async def test_a_new_index_holds_the_documents_that_were_there_before(store: str) -> None:
    async with App({}, store) as app:

        async def insert(ctx: MutationCtx) -> None:
            for n in range(2_500):  # more than one step of filling
                await ctx.db.insert("people", {"name": f"p{n:04}", "age": -n})

        await app.runner.transaction(insert)
    async with App({"schema": define_schema({"people": PEOPLE.index("by_age", ["age"])})}, store) as app:
        found = await names(app, "by_age")
        assert (len(found), found[0], found[-1]) == (2_500, "p2499", "p0000")

        def old(q: IndexRange) -> IndexRange:
            return q.gt("age", -2)

        assert await names(app, "by_age", old) == ["p0001", "p0000"]


async def test_an_index_whose_fields_changed_is_built_again_and_one_that_is_gone_is_dropped(store: str) -> None:
    first = define_schema({"people": PEOPLE.index("by_age", ["age"]).index("by_name", ["name"])})
    async with App({"schema": first}, store) as app:

        async def insert(ctx: MutationCtx) -> None:
            await ctx.db.insert("people", {"name": "ada", "age": 1, "size": 2})
            await ctx.db.insert("people", {"name": "bob", "age": 2, "size": 1})

        await app.runner.transaction(insert)
        assert await names(app, "by_age") == ["ada", "bob"]
    second = define_schema({"people": PEOPLE.index("by_age", ["size"])})
    async with App({"schema": second}, store) as app:
        assert await names(app, "by_age") == ["bob", "ada"]
        table = app.database.catalog.tables["people"]
        assert [index.name for index in table.indexes] == ["by_age"]
    async with App({}, store) as app:
        assert app.database.catalog.tables["people"].indexes == ()


async def test_a_declared_table_without_an_index_keeps_its_number_over_a_reopening(store: str) -> None:
    schema = {"schema": define_schema({"plain": define_table({"n": v.int64()}), "other": define_table(v.any())})}
    numbers: list[int] = []
    for _ in range(3):
        async with App(schema, store) as app:
            numbers.append(app.database.catalog.tables["plain"].number)
            assert await app.runner.transaction(lambda ctx: ctx.db.query("plain").collect()) == []
    assert len(set(numbers)) == 1
