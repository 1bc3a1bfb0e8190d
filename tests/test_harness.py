"""What `Harness` does with the store it is given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from duly import ActionCtx, MutationCtx, cron_jobs, internal_action, internal_mutation, mutation
from duly.testing import Harness
from tests import postgres
from tests.conftest import skip_without_postgres
from tests.model.soundness import look


@mutation
async def put(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {})


MODULES = {"app": SimpleNamespace(put=put)}


async def test_a_store_in_postgresql_is_a_schema_of_its_own_that_is_dropped_at_the_end() -> None:
    skip_without_postgres()
    address = postgres.shared_address()

    def schemas() -> set[str]:
        return {name for (name,) in look(address, lambda ask: ask("SELECT nspname::text FROM pg_namespace"))}

    before = schemas()
    async with Harness(MODULES, store=address) as one, Harness(MODULES, store=address) as other:
        await one.mutation(put)
        assert len(await one.transaction(lambda ctx: ctx.db.query("notes").collect())) == 1
        assert await other.transaction(lambda ctx: ctx.db.query("notes").collect()) == []
        new = schemas() - before
        assert len([name for name in new if name.startswith("duly_test_")]) == 2
    assert not [name for name in schemas() if name.startswith("duly_test_")]


async def test_a_store_that_is_named_is_the_tests_own_affair(store: str) -> None:
    async with Harness(MODULES, store=store) as t:
        await t.mutation(put)
    async with Harness(MODULES, store=store) as t:
        assert len(await t.transaction(lambda ctx: ctx.db.query("notes").collect())) == 1


@pytest.mark.usefixtures("engine")
async def test_a_harness_that_is_given_none_begins_empty_each_time() -> None:
    for _ in range(2):
        async with Harness(MODULES) as t:
            assert await t.jobs() == []
            await t.mutation(put)


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    raise ValueError("no tea")


@internal_action
async def fail_in_an_action(ctx: ActionCtx) -> None:
    raise ValueError("no coffee")


@pytest.mark.usefixtures("engine")
async def test_failures_are_those_of_crons_too() -> None:
    crons = cron_jobs()
    crons.interval("brew tea", {"hours": 1}, fail)
    crons.interval("brew coffee", {"hours": 1}, fail_in_an_action)
    app = SimpleNamespace(fail=fail, fail_in_an_action=fail_in_an_action)
    async with Harness({"app": app, "crons": crons}) as t:
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, fail))
        await t.run_until_idle()
        job, *runs = await t.failures()
        assert job["state"]["kind"] == "failed"
        said = {run["name"]: run["status"]["error"].partition("\n")[0] for run in runs}
        assert said == {"brew tea": "ValueError: no tea", "brew coffee": "ValueError: no coffee"}
        assert {run["scheduledTime"] for run in runs} == {job["scheduledTime"]}
