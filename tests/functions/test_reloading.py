"""New code and a new schema while calls, functions that are due and subscriptions go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    App,
    FunctionNotFoundError,
    MutationCtx,
    QueryCtx,
    SchemaValidationError,
    StoreError,
    StoreLostError,
    internal,
    mutation,
    query,
)
from duly.database.environment import ALL_IDS
from duly.limits import CATALOGS_MAX
from duly.testing import Harness
from tests.live_schema import BOTH, LIVE, ONE, ordered, put, reload, slow, with_m

pytestmark = pytest.mark.usefixtures("engine")


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@query
async def one(ctx: QueryCtx) -> int:
    return 1


SHOP = {
    "schema": """
from dataclasses import dataclass
from duly import define_schema, define_table

@dataclass
class Order:
    n: int

schema = define_schema({"orders": define_table(Order)})
""",
    "orders": """
import asyncio
from duly import action, mutation
from .schema import Order

@mutation
async def add(ctx, times: int = 0) -> None:
    await ctx.db.insert(Order, Order(1))
    await ctx.db.query(Order).first()
    for _ in range(times):
        await ctx.scheduler.run_after(0, add)

@action
async def buy(ctx) -> None:
    await ctx.run_mutation(started)
    await asyncio.sleep(0.1)
    await ctx.run_mutation(add)

@mutation
async def started(ctx) -> None: ...
""",
}


def change(folder: Path) -> None:
    """Change every module without changing what it does."""
    for file in folder.glob("*.py"):
        file.write_text(f"{file.read_text()}# changed\n")


async def test_what_is_due_during_a_reload_does_not_fail(tmp_path: Path, store: str) -> None:
    folder = write(tmp_path / "shop_during_reload", **SHOP)
    async with App(str(folder), store) as app:
        for _ in range(10):
            await app.mutation("orders:add", {"times": 100})
            change(folder)
            await app.reload()

        async def states(ctx: MutationCtx) -> set[str]:
            return {job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()}

        while "pending" in (found := await app.runner.transaction(states)):
            await asyncio.sleep(0)
        assert found == {"success"}


async def test_calls_that_began_before_a_reload_know_their_classes_and_functions(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop_before_reload", **SHOP)
    async with Harness(str(folder)) as t:
        bought = asyncio.create_task(t.action("orders:buy"))
        await t.mutation("orders:started")
        queued = asyncio.create_task(t.mutation("orders:add"))
        change(folder)
        await t.app.reload()
        await queued
        await bought
        assert len(await t.transaction(lambda ctx: ctx.db.query("orders").collect())) == 2


async def test_a_function_that_another_one_made_is_not_taken_for_its_sibling() -> None:
    def adding(table: str) -> Any:
        @mutation
        async def add(ctx: MutationCtx) -> None:
            await ctx.db.insert(table, {})

        return add

    async with Harness({"app": SimpleNamespace(add=adding("ours"))}) as t:
        with pytest.raises(FunctionNotFoundError, match="is no function of this app"):
            await t.mutation(adding("others"))


async def test_a_reload_that_is_canceled_leaves_code_and_schema_that_belong_together(tmp_path: Path) -> None:
    declared = (
        'from duly import define_schema, define_table, v\nschema = define_schema({{"{}": define_table(v.any())}})'
    )
    folder = write(tmp_path / "canceled_reload", schema=declared.format("old"))
    async with Harness(str(folder)) as t:
        for turns in range(5):
            write(folder, schema=declared.format(f"new_{turns}"))
            reload = asyncio.create_task(t.app.reload())
            for _ in range(turns):
                await asyncio.sleep(0)
            reload.cancel()
            await asyncio.gather(reload, return_exceptions=True)
            assert t.app.database.catalog.schema is t.app.runner.registry.schema


def shop(status: str) -> str:
    return f"""
from enum import StrEnum
from duly import define_schema, define_table
from pydantic import BaseModel

class Status(StrEnum):
    {status} = "{status}"

class Order(BaseModel):
    status: Status

schema = define_schema({{"orders": define_table(Order)}})
"""


async def test_documents_are_checked_when_an_enum_of_their_model_changes(tmp_path: Path) -> None:
    folder = write(tmp_path / "enum_changes", schema=shop("new"))
    async with Harness(str(folder)) as t:
        await t.transaction(lambda ctx: ctx.db.insert("orders", {"status": "new"}))
        write(folder, schema=shop("paid"))
        with pytest.raises(SchemaValidationError, match="does not fit the schema: at .status"):
            await t.app.reload()


async def test_references_by_names_that_are_data_are_not_kept_one_by_one() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        found: dict[Any, Any] = t.app.runner.registry._found  # pyright: ignore[reportPrivateUsage]
        await t.query(internal["app:one"])
        before = len(found)
        await t.query(internal["app:one"])
        await t.query(internal.app.one)
        assert len(found) == before


async def test_the_tables_of_old_versions_are_not_kept_for_ever() -> None:
    async with Harness({}) as t:
        for number in range(2 * CATALOGS_MAX):
            await t.transaction(lambda ctx, number=number: ctx.db.insert(f"table_{number}", {}))
        kept: list[Any] = t.app.database._committer.catalogs._versions  # pyright: ignore[reportPrivateUsage]
        assert len(kept) == CATALOGS_MAX


async def test_a_schema_that_could_not_follow_what_others_wrote_can_be_applied_again() -> None:
    async with Harness({"app": SimpleNamespace(one=one)}) as t:
        commit = t.app.database.commit
        await commit(lambda batch: batch.track("notes"))
        await commit(lambda batch: batch.tracked["notes"].add(ALL_IDS))  # as after a lost connection

        with pytest.raises(StoreLostError, match="apply the schema again"):
            await commit(lambda batch: batch.track("notes"))

        assert await commit(lambda batch: batch.track()) == {"notes": set()}


async def test_a_write_in_the_batch_of_a_reload_is_indexed_rightly(store: str) -> None:
    async with App({"app": LIVE, "schema": BOTH}, store) as app:
        calls = [app.mutation(slow), app.mutation(put, {"n": 1})]
        app._source = {"app": LIVE, "schema": ONE}  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(*calls, app.reload(), app.mutation(put, {"n": 2}))
        assert await app.query(with_m, {"m": -1}) == [1]
        assert await app.query(with_m, {"m": -2}) == [2]


async def test_a_schema_that_cannot_be_applied_changes_nothing(store: str) -> None:
    async with App({"app": LIVE, "schema": ONE}, store) as app:
        await app.mutation(put, {"n": 1})
        engine = app.database._engine
        fill_index = engine.fill_index

        def refuse(index: Any, keys: Any) -> None:
            raise StoreError("disk full")

        engine.fill_index = refuse
        with pytest.raises(StoreError, match="disk full"):
            await reload(app, {"app": LIVE, "schema": BOTH})
        engine.fill_index = fill_index
        assert [index.name for index in app.database.catalog.tables["rows"].indexes] == ["by_m"]
        await app.mutation(put, {"n": 2})
        await reload(app, {"app": LIVE, "schema": BOTH})
        assert await app.query(ordered) == [1, 2]
