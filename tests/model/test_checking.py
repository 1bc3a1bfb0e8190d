"""Documents are checked against a declaration that changed, before it becomes active; a refusal changes nothing."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    MutationCtx,
    QueryCtx,
    SchemaValidationError,
    StoreError,
    define_schema,
    define_table,
    faults,
    mutation,
    query,
    v,
)
from duly.app import App
from duly.model.schema_change import Deploy, SchemaChange, apply_schema
from duly.storage.rows import SYSTEM_TABLES
from tests.model.soundness import complaints, indexes, look


@mutation
async def add(ctx: MutationCtx, name: str, age: Any = None) -> str:
    return await ctx.db.insert("people", {"name": name, "age": age})


@mutation
async def add_to(ctx: MutationCtx, table: str, document: dict[str, Any]) -> str:
    return await ctx.db.insert(table, document)


@mutation
async def age(ctx: MutationCtx, id: str, age: Any) -> None:
    await ctx.db.patch(id, {"age": age})


@mutation
async def remove(ctx: MutationCtx, id: str) -> None:
    await ctx.db.delete(id)


@query
async def names(ctx: QueryCtx, index: str = "by_creation_time") -> list[str]:
    return [person["name"] for person in await ctx.db.query("people").with_index(index).collect()]


@dataclass
class Pet:
    name: str


@query
async def kinds_of_pets(ctx: QueryCtx) -> list[str]:
    return [type(pet).__name__ for pet in await ctx.db.query("pets").collect()]


APP = SimpleNamespace(add=add, add_to=add_to, age=age, remove=remove, names=names, kinds_of_pets=kinds_of_pets)
LOOSE = define_table({"name": v.string(), "age": v.any()})
STRICT = define_table({"name": v.string(), "age": v.union(v.int64(), v.null())})


def modules(**tables: Any) -> dict[str, Any]:
    return {"app": APP, "schema": define_schema(tables)}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step checks two documents, or the keys of two."""
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_STEP_ROWS", 2)
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_STEP_SECONDS", 0.0)
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_LATE_MAX", 3)


def change(app: App, **tables: Any) -> SchemaChange:
    return SchemaChange(Deploy(define_schema(tables)), app.database.ids)


async def finish(app: App, change: SchemaChange) -> None:
    while not await app.database.commit(change.step, exclusive=True):
        pass


async def refusal(awaitable: Any) -> str:
    with pytest.raises(SchemaValidationError) as caught:
        await awaitable
    return str(caught.value)


# A refusal.


async def test_the_first_document_that_does_not_fit_is_named(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        await app.mutation(add, {"name": "ada", "age": 36})
        bob = await app.mutation(add, {"name": "bob", "age": "old"})
        await app.mutation(add, {"name": "cy", "age": "older"})
        assert await refusal(apply_schema(app.database, Deploy(define_schema({"people": STRICT})))) == (
            f"people: the document {bob} does not fit the schema: at .age: expected an integer or null, got"
            ' "old". The schema was not applied and nothing has changed; declare what fits this document too, or change'
            " the document first"
        )


async def test_a_refused_reload_changes_nothing(store: str) -> None:
    source = modules(people=LOOSE.index("by_age", ["age"]))
    async with App(source, store) as app:
        await app.mutation(add, {"name": "ada", "age": 36})
        await app.mutation(add, {"name": "bob", "age": "old"})
        tables, before = app.database.catalog.tables, indexes(store)
        pets = define_table({"name": v.string()})
        source["schema"] = define_schema(
            {"people": STRICT.index("by_age", ["name"]).index("by_name", ["name", "age"]), "pets": pets}
        )
        assert "expected an integer or null" in await refusal(app.reload())
        assert app.database.catalog.tables == tables
        assert indexes(store) == before == {("people", "by_age"): [True]}
        await app.mutation(add, {"name": "cy", "age": "older"})  # the definition is the old one, too
        assert await app.query(names, {"index": "by_age"}) == ["ada", "bob", "cy"]
        assert complaints(store) == []


async def test_an_app_that_was_refused_does_not_open_and_the_old_one_still_does(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        await app.mutation(add, {"name": "ada", "age": "old"})
    assert 'got "old"' in await refusal(App(modules(people=STRICT.index("by_age", ["age"])), store).__aenter__())
    assert indexes(store) == {}
    async with App(modules(people=LOOSE), store) as app:
        assert await app.query(names) == ["ada"]


async def test_a_document_of_a_table_that_is_declared_for_the_first_time_is_checked(store: str) -> None:
    async with App(modules(), store) as app:
        await app.mutation(add, {"name": "ada", "age": "old"})
        assert "people: the document" in await refusal(finish(app, change(app, people=STRICT)))


async def test_a_declaration_that_was_given_up_is_checked_when_it_comes_back(store: str) -> None:
    async with App(modules(people=STRICT), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
    async with App(modules(), store) as app:
        await app.mutation(add, {"name": "bob", "age": "old"})
    assert 'got "old"' in await refusal(App(modules(people=STRICT), store, development=True).__aenter__())


async def test_ids_in_documents_are_checked_too(store: str) -> None:
    async with App(modules(), store) as app:
        ada = await app.mutation(add, {"name": "ada"})
        note = await app.mutation(add_to, {"table": "notes", "document": {"about": ada}})
        await finish(app, change(app, notes=define_table({"about": v.id("people")})))
        said = await refusal(finish(app, change(app, notes=define_table({"about": v.id("notes")}))))
        assert f'notes: the document {note} does not fit the schema: at .about: expected an id of table "notes"' in said


@dataclass
class Aged:
    name: str
    age: Any

    def __post_init__(self) -> None:
        if self.age < 0:
            raise ValueError("nobody is so young")


@pytest.mark.parametrize(
    ("age", "problem"),
    [
        (-1, "nobody is so young. The schema"),
        (None, "TypeError: '<' not supported between instances of 'NoneType' and 'int'. The schema"),
    ],
)
async def test_what_a_model_itself_refuses_does_not_fit(store: str, age: Any, problem: str) -> None:
    async with App(modules(), store) as app:
        await app.mutation(add, {"name": "ada", "age": 36})
        bob = await app.mutation(add, {"name": "bob", "age": age})
        said = await refusal(finish(app, change(app, people=define_table(Aged))))
        assert said.startswith(f"people: the document {bob} does not fit the schema: ") and problem in said


async def test_documents_that_fit_are_left_as_they_are(store: str) -> None:
    async with App(modules(), store) as app:
        await app.mutation(add, {"name": "ada", "age": 36})
        await finish(app, change(app, people=define_table({"name": v.string(), "age": v.float64()})))
        [ada] = await app.runner.transaction(lambda ctx: ctx.db.query("people").collect())
        assert (ada["age"], type(ada["age"])) == (36, int)


# A schema that did not change.


def spoil(store: str) -> None:
    """Make of every document one that fits nothing, as only a look at it would tell."""
    look(store, lambda ask: ask("""UPDATE t100_people SET document = '{"strange": 1}'"""))


async def test_documents_are_not_read_where_the_declaration_is_the_same(store: str) -> None:
    async with App(modules(people=STRICT), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
    spoil(store)
    same = {"age": v.union(v.int64(), v.null()), "name": v.string()}
    async with App(modules(people=define_table(same)), store) as app:
        before = app.database.commit_log.version
        await app.reload()
        assert app.database.commit_log.version == before  # not even a commit
    async with App(modules(people=define_table(same).index("by_age", ["age"])), store):
        pass  # an index reads them, but does not check
    assert "missing required field" in await refusal(App(modules(people=LOOSE), store).__aenter__())


async def test_documents_are_not_read_where_anything_fits(store: str) -> None:
    async with App(modules(people=STRICT), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
    spoil(store)
    async with App(modules(people=define_table(v.any())), store):
        pass
    said = await refusal(App(modules(people=STRICT), store, development=True).__aenter__())
    assert "missing required field" in said


async def test_queries_know_the_schema_of_a_start_that_changed_nothing(store: str) -> None:
    for _ in range(2):
        async with App(modules(pets=define_table(Pet)), store) as app:
            if not await app.query(kinds_of_pets):
                await app.mutation(add_to, {"table": "pets", "document": {"name": "rex"}})
            assert await app.query(kinds_of_pets) == ["Pet"]


# Writes beside the check.


async def half_checked(app: App, count: int = 6) -> tuple[list[str], SchemaChange]:
    """People who fit, and a change that has looked at the first two of them."""
    people = [await app.mutation(add, {"name": f"p{n}", "age": n}) for n in range(count)]
    under_way = change(app, people=STRICT)
    assert not await app.database.commit(under_way.step, exclusive=True)
    return people, under_way


@pytest.mark.usefixtures("small_steps")
async def test_a_write_to_a_document_that_was_checked_already_is_not_missed(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        people, under_way = await half_checked(app)
        await app.mutation(age, {"id": people[0], "age": "late"})
        assert (
            f'the document {people[0]} does not fit the schema: at .age: expected an integer or null, got "late"'
            in (await refusal(finish(app, under_way)))
        )


@pytest.mark.usefixtures("small_steps")
async def test_a_document_that_is_new_is_not_missed(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        _, under_way = await half_checked(app)
        late = await app.mutation(add, {"name": "late", "age": "late"})
        assert f"the document {late} does not fit" in await refusal(finish(app, under_way))


@pytest.mark.usefixtures("small_steps")
async def test_what_fits_again_or_is_gone_before_the_end_is_no_obstacle(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        people, under_way = await half_checked(app)
        late = await app.mutation(add, {"name": "late", "age": "late"})
        await app.mutation(age, {"id": people[0], "age": "late"})
        await app.mutation(age, {"id": people[5], "age": "ahead"})
        await app.mutation(age, {"id": people[0], "age": 1})
        await app.mutation(age, {"id": people[5], "age": 1})
        await app.mutation(remove, {"id": late})
        await finish(app, under_way)
        assert "expected an integer" in await refusal(app.mutation(age, {"id": people[0], "age": "late"}))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("wrong", [0, 7, 19])
async def test_many_late_writes_are_checked_in_several_steps(store: str, wrong: int) -> None:
    async with App(modules(people=LOOSE), store) as app:
        _, under_way = await half_checked(app)
        late = [await app.mutation(add, {"name": f"l{n}", "age": n}) for n in range(20)]
        await app.mutation(age, {"id": late[wrong], "age": "late"})
        assert f"the document {late[wrong]} does not fit" in await refusal(finish(app, under_way))


@pytest.mark.usefixtures("small_steps")
async def test_those_who_write_without_pause_do_not_keep_a_schema_off(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        _, under_way = await half_checked(app)
        steps = 0
        while not await app.database.commit(under_way.step, exclusive=True):
            steps += 1
            for n in range(10):  # more than a step checks at first
                await app.mutation(add, {"name": "new", "age": n})
            assert steps < 500
        assert "expected an integer" in await refusal(app.mutation(add, {"name": "x", "age": "x"}))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("age", [1, "late"])
async def test_a_table_that_is_made_meanwhile_is_checked_and_indexed(store: str, age: Any) -> None:
    async with App(modules(people=LOOSE), store) as app:
        await half_checked(app)
        under_way = change(app, people=STRICT, pets=STRICT.index("by_age", ["age"]))
        assert not await app.database.commit(under_way.step, exclusive=True)
        for n in range(5):
            await app.mutation(add_to, {"table": "pets", "document": {"name": "rex", "age": n}})
        rex = await app.mutation(add_to, {"table": "pets", "document": {"name": "rex", "age": age}})
        if age == "late":
            assert f"pets: the document {rex} does not fit" in await refusal(finish(app, under_way))
            await app.database.commit(under_way.withdraw, exclusive=True)
        else:
            await finish(app, under_way)
            pets = await app.runner.transaction(lambda ctx: ctx.db.query("pets").with_index("by_age").collect())
            assert [pet["age"] for pet in pets] == [0, 1, 1, 2, 3, 4]
    assert complaints(store) == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("moment", range(0, 15, 2))
async def test_a_table_may_be_made_at_any_step(store: str, moment: int) -> None:
    async with App(modules(people=LOOSE), store) as app:
        await half_checked(app)
        under_way = change(app, people=STRICT, pets=STRICT.index("by_age", ["age"]))
        steps = 0
        while not await app.database.commit(under_way.step, exclusive=True):
            if steps == moment:
                await app.mutation(add_to, {"table": "pets", "document": {"name": "rex", "age": 1}})
            if steps == 1:  # much to do at the end
                for n in range(40):
                    await app.mutation(add, {"name": "new", "age": n})
            steps += 1
        assert steps > moment
    assert indexes(store) == {("pets", "by_age"): [True]}
    assert complaints(store) == []


# The moment it becomes active.


@pytest.fixture
def long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls that wait together are one batch, and a change is one step, however slow the machine is."""
    monkeypatch.setattr("duly.database.batch.BATCH_SECONDS_MAX", 60.0)
    monkeypatch.setattr("duly.model.schema_change.SCHEMA_STEP_SECONDS", 60.0)


async def in_one_batch(app: App, *works: Any) -> list[Any]:
    """The results and errors of calls that wait together."""
    gate = threading.Event()
    closed = app.database.commit(lambda batch: gate.wait())
    calls = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0)  # they are queued now, in this order
    gate.set()
    await closed
    return await asyncio.gather(*calls, return_exceptions=True)


def adding(app: App, age: Any) -> Any:
    return app.mutation(add, {"name": "x", "age": age})


async def step(app: App, change: SchemaChange) -> bool:
    return await app.database.commit(change.step, exclusive=True)


@pytest.mark.usefixtures("long_batches")
async def test_calls_before_it_in_its_batch_go_by_the_old_schema_and_those_behind_by_the_new_one(store: str) -> None:
    async with App(modules(people=STRICT), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
        version = app.database.commit_log.version
        wide = change(app, people=LOOSE)
        before, done, behind = await in_one_batch(app, adding(app, "early"), step(app, wide), adding(app, "behind"))
        assert "expected an integer" in str(before) and done is True and isinstance(behind, str)
        assert app.database.commit_log.version == version + 1


@pytest.mark.usefixtures("long_batches", "small_steps")
async def test_a_write_before_it_in_its_batch_is_checked(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        _, strict = await half_checked(app, 2)  # all of them, so that only the last step is left
        early, refused, behind = await in_one_batch(app, adding(app, "early"), step(app, strict), adding(app, "behind"))
        assert f"the document {early} does not fit" in str(refused)
        assert isinstance(behind, str)


@pytest.mark.usefixtures("long_batches")
async def test_a_write_behind_it_in_its_batch_goes_by_the_new_schema(store: str) -> None:
    async with App(modules(people=LOOSE), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
        strict = change(app, people=STRICT)
        early, done, behind = await in_one_batch(app, adding(app, 2), step(app, strict), adding(app, "behind"))
        assert isinstance(early, str) and done is True
        assert "expected an integer" in str(behind)


async def test_a_batch_that_fails_leaves_the_old_schema(store: str) -> None:
    def fail() -> None:
        faults.disarm()
        raise StoreError("no space left on the disk")

    async with App(modules(people=LOOSE), store) as app:
        await app.mutation(add, {"name": "ada", "age": 1})
        tables = app.database.catalog.tables
        faults.arm("schema.ready", lambda: faults.arm("commit.flushed", fail))
        with pytest.raises(StoreError, match="no space left"):
            await apply_schema(app.database, Deploy(define_schema({"people": STRICT.index("by_age", ["age"])})))
        assert app.database.catalog.tables == tables
        await app.mutation(add, {"name": "bob", "age": "old"})
        assert await app.query(names) == ["ada", "bob"]
    assert complaints(store) == []


async def test_a_table_that_an_insert_makes_leaves_the_schema_what_it_is(store: str) -> None:
    async with App(modules(people=STRICT), store) as app:
        await app.mutation(add_to, {"table": "pets", "document": {"anything": "fits"}})
        assert "expected an integer" in await refusal(app.mutation(add, {"name": "x", "age": "x"}))


async def test_a_store_holds_no_more_tables_than_it_may(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.database.catalog.TABLES_MAX", 2)
    async with App(modules(people=LOOSE), store) as app:
        await app.mutation(add_to, {"table": "pets", "document": {}})
        with pytest.raises(Exception, match=r"toys: got 3 tables in a store, expected at most 2 \(TABLES_MAX\)"):
            await app.mutation(add_to, {"table": "toys", "document": {}})
        with pytest.raises(Exception, match=r"cars: got 3 tables in a store, expected at most 2 \(TABLES_MAX\)"):
            await apply_schema(app.database, Deploy(define_schema({"people": STRICT, "cars": LOOSE})))
        assert set(app.database.catalog.tables) == {*SYSTEM_TABLES, "people", "pets"}
        await app.mutation(add, {"name": "bob", "age": "old"})
