"""What the store refuses: the function is postponed, ever longer, and does not hold up the others.

The refusals are real: a trigger in the store's own table refuses the documents that say so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from duly import (
    ActionCtx,
    App,
    Id,
    MutationCtx,
    QueryCtx,
    StoreError,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.database.batch import Batch
from duly.errors import StoreLostError
from duly.model import jobs
from duly.storage.requests import Claimed, View
from duly.testing import Harness
from tests.model.soundness import look
from tests.support import handlers_in

START = datetime(2030, 1, 1, tzinfo=UTC)
ran: list[str] = []


@mutation
async def schedule(ctx: MutationCtx, texts: list[str]) -> list[Id]:
    return [await ctx.scheduler.run_after(0, "app:put", {"text": text}) for text in texts]


@mutation
async def schedule_actions(ctx: MutationCtx, names: list[str]) -> None:
    for name in names:
        await ctx.scheduler.run_after(0, "app:act", {"name": name})


@mutation
async def put(ctx: MutationCtx, text: str) -> None:
    ran.append(text)
    await ctx.db.insert("notes", {"text": text})


@internal_action
async def act(ctx: ActionCtx, name: str) -> None:
    ran.append(name)


@internal_mutation
async def nothing(ctx: MutationCtx) -> None: ...


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


APP = SimpleNamespace(**handlers_in(globals()))

SQLITE = """
CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN {condition}
BEGIN SELECT RAISE(ABORT, 'refused by the test'); END
"""
POSTGRES = (
    """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF {condition} THEN RAISE 'refused by the test'; END IF; RETURN NEW; END $$
""",
    "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
)


def refuse(store: str, table: str, condition: str) -> None:
    """Have the store refuse new rows of a table."""
    statements = (SQLITE,) if store.startswith("sqlite") else POSTGRES
    for statement in statements:
        look(store, lambda ask: ask(statement.format(table=table, condition=condition)))  # noqa: B023


def accept(store: str, table: str) -> None:
    """Have it accept them again."""
    on = "" if store.startswith("sqlite") else f" ON {table}"
    look(store, lambda ask: ask(f"DROP TRIGGER refuse{on}"))


POISON = "NEW.document LIKE '%poison%'"


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    ran.clear()


async def notes(t: Harness, store: str) -> str:
    """Make the table of notes, and name it."""
    await t.mutation(put, {"text": "first"})
    ran.clear()
    return f"t{t.app.database.catalog.tables['notes'].number}_notes"


async def test_a_function_that_the_store_refuses_does_not_hold_up_the_others(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        refuse(store, await notes(t, store), POISON)
        await t.mutation(schedule, {"texts": ["a", "poison", "b", "c"]})
        await t.run_until_idle()
        assert await t.query(texts) == ["first", "a", "b", "c"]
        assert [job["state"] for job in await t.jobs()] == [
            {"kind": "success"},
            {"kind": "pending"},
            {"kind": "success"},
            {"kind": "success"},
        ]


async def test_it_is_tried_again_and_succeeds_once_the_store_accepts_it(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        table = await notes(t, store)
        refuse(store, table, POISON)
        await t.mutation(schedule, {"texts": ["poison"]})
        await t.advance(timedelta(minutes=1))
        assert ran.count("poison") > 3
        accept(store, table)
        await t.advance(timedelta(minutes=2))
        assert await t.query(texts) == ["first", "poison"]
        [job] = await t.jobs()
        assert job["state"] == {"kind": "success"}
        assert job["scheduledTime"] == START.timestamp() * 1000
        assert START.timestamp() * 1000 + 60_000 < job["completedTime"] <= START.timestamp() * 1000 + 180_000


async def test_it_is_tried_ever_less_often_up_to_every_two_hours(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        refuse(store, await notes(t, store), POISON)
        await t.mutation(schedule, {"texts": ["poison"]})
        await t.advance(timedelta(days=1))
        first_day = len(ran)
        await t.advance(timedelta(days=10))
        # Two hours at most are one hour on average: 240 in ten days, give or take 4 standard deviations.
        assert 180 < len(ran) - first_day < 300
        assert [job["state"] for job in await t.jobs()] == [{"kind": "pending"}]


async def test_each_pause_is_random_and_at_most_500_ms_then_twice_as_long(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        refuse(store, await notes(t, store), POISON)
        await t.mutation(schedule, {"texts": ["poison"]})
        await t.run_until_idle()
        for tries in range(6):
            before, step = t.now, 5 * 2**tries
            while len(ran) <= tries + 1:
                await t.advance(step)
            assert 0 < (t.now - before) / timedelta(milliseconds=1) <= 500 * 2**tries + step


async def test_an_action_whose_start_the_store_refuses_is_started_later_and_once(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        table = "scheduled_functions" if store.startswith("sqlite") else "jobs"
        condition = "NEW.state = 'inProgress' AND NEW.args LIKE '%poison%'"
        refuse(store, table, condition)
        if store.startswith("sqlite"):
            accept(store, table)
            sql = SQLITE.replace("BEFORE INSERT", "BEFORE UPDATE").format(table=table, condition=condition)
            look(store, lambda ask: ask(sql))
        await t.mutation(schedule_actions, {"names": ["a", "poison", "b"]})
        await t.run_until_idle()
        assert sorted(ran) == ["a", "b"]
        accept(store, table)
        await t.advance(timedelta(seconds=1))
        assert sorted(ran) == ["a", "b", "poison"]
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success"] * 3


async def test_a_store_that_refuses_everything_changes_nothing(store: str) -> None:
    async with Harness({"app": APP}, store=store, start=START) as t:
        table = "duly_store" if store.startswith("sqlite") else "log"
        await t.mutation(schedule, {"texts": ["a", "b"]})
        if store.startswith("sqlite"):
            sql = SQLITE.replace("BEFORE INSERT", "BEFORE UPDATE").format(table=table, condition="true")
            look(store, lambda ask: ask(sql))
        else:
            refuse(store, table, "true")
        with pytest.raises(StoreError, match="refused by the test"):
            await t.run_until_idle()
        accept(store, table)
        await t.run_until_idle()
        assert await t.query(texts) == ["a", "b"]


async def test_the_executor_goes_on_by_itself_after_a_refusal(store: str) -> None:
    async with App({"app": APP}, store) as app:
        await app.mutation(put, {"text": "first"})
        refuse(store, f"t{app.database.catalog.tables['notes'].number}_notes", POISON)
        await app.mutation(schedule, {"texts": ["poison", "a", "b"]})
        async for found in app.subscribe(texts):
            if found == ["first", "a", "b"]:
                break


async def test_a_batch_that_is_refused_before_it_has_taken_anything_is_no_functions_fault(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with App({"app": APP}, store, executor=False) as app:
        executor, engine = app.executor, app.database._engine  # pyright: ignore[reportPrivateUsage]
        await app.mutation(schedule, {"texts": ["a", "b"]})
        await executor.step()
        assert await app.query(texts) == ["a", "b"]

        def refuse_all(exclusive: bool = False) -> View:
            raise StoreError("refused by the test")

        with monkeypatch.context() as refusing:
            refusing.setattr(engine, "begin", refuse_all)
            with pytest.raises(StoreError, match="refused by the test"):  # which the alarm waits after, ever longer
                await executor.step()
        await app.mutation(schedule, {"texts": ["c"]})
        await executor.step()
        assert await app.query(texts) == ["a", "b", "c"]


@pytest.mark.parametrize(("losses", "claimed"), [(0, 16), (1, 8), (9, 1)])
async def test_few_functions_are_claimed_at_first_and_fewer_where_the_store_is_lost(
    store: str, monkeypatch: pytest.MonkeyPatch, losses: int, claimed: int
) -> None:
    """All that are due may be more than the memory holds, or than the store tells in time."""
    async with App({"app": APP}, store, executor=False) as app:
        engine, claim = app.database._engine, jobs.claim  # pyright: ignore[reportPrivateUsage]
        asked: list[int] = []

        def note(batch: Batch, mutations: int, actions: int) -> Claimed:
            asked.append(mutations - 1)  # one more tells whether there are more
            return claim(batch, mutations, actions)

        def lose(exclusive: bool = False) -> View:
            raise StoreLostError("lost by the test")

        await app.mutation(schedule, {"texts": [str(n) for n in range(40)]})
        with monkeypatch.context() as losing:
            losing.setattr("duly.database.committer.STORE_LOST_SECONDS_MAX", -1)
            losing.setattr(engine, "begin", lose)
            for _ in range(losses):
                with pytest.raises(StoreLostError):
                    await app.executor.run_batch()
        monkeypatch.setattr(jobs, "claim", note)
        assert (await app.executor.run_batch()).ran == claimed
        assert set(asked) == {claimed}  # a batch may be run again
