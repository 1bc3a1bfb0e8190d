"""Many due functions on PostgreSQL: their batches overlap, and each still happens once, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from duly import App, MutationCtx, QueryCtx, faults, mutation, query
from tests import postgres

pytestmark = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))

COUNT = 600
STEPS = 20_000  # of a handler: a few dozen fill a batch
CANCELS, CANCELED = 200, 400  # the first cancels the second
CANCELED_ELSEWHERE = 500


@mutation
async def add(ctx: MutationCtx, n: int) -> None:
    for _ in range(STEPS):
        pass
    await ctx.db.insert("notes", {"n": n})
    if n < 10:
        await ctx.scheduler.run_after(0, "app:add", {"n": COUNT + n})
    if n == CANCELS:
        [job] = await ctx.db.query("to_cancel").collect()
        await ctx.scheduler.cancel(job["id"])


@mutation
async def add_all(ctx: MutationCtx) -> list[str]:
    ids = [await ctx.scheduler.run_after(0, "app:add", {"n": n}) for n in range(COUNT)]
    await ctx.db.insert("to_cancel", {"id": ids[CANCELED]})
    return ids


@mutation
async def cancel(ctx: MutationCtx, id: str) -> None:
    await ctx.scheduler.cancel(id)


@query
async def notes(ctx: QueryCtx) -> list[int]:
    return [note["n"] for note in await ctx.db.query("notes").collect()]


@query
async def pending(ctx: QueryCtx) -> int:
    jobs = await ctx.db.system.query("_scheduled_functions").collect()
    return sum(job["state"]["kind"] == "pending" for job in jobs)


SOURCE = {"app": SimpleNamespace(add=add, add_all=add_all, cancel=cancel, notes=notes, pending=pending)}


async def test_functions_that_are_claimed_together_run_once_and_in_order_but_those_that_are_canceled(
    store_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.database.batch.BATCH_SECONDS_MAX", 0.002)  # many batches, however fast the machine is
    store, loop, canceled = store_of("postgres"), asyncio.get_running_loop(), list[str]()
    async with App(SOURCE, store) as app, App(SOURCE, store, executor=False) as other:
        committer = app.database._committer  # pyright: ignore[reportPrivateUsage]
        ids: list[str] = []

        def cancel_elsewhere() -> None:
            if ids and not canceled and committer._in_flight is not None:  # pyright: ignore[reportPrivateUsage]
                canceled.append(ids[CANCELED_ELSEWHERE])
                asyncio.run_coroutine_threadsafe(other.mutation("app:cancel", {"id": canceled[0]}), loop).result()

        # While a batch is being committed, and the one that runs has claimed the function that is canceled.
        faults.arm("job.claimed", cancel_elsewhere)
        try:
            ids += await app.mutation("app:add_all")
            async with asyncio.timeout(60):
                async for left in app.subscribe("app:pending"):
                    if left == 0:
                        break
        finally:
            faults.disarm()
        ran = await app.query("app:notes")
    assert canceled == [ids[CANCELED_ELSEWHERE]]
    left_out = (CANCELED, CANCELED_ELSEWHERE)
    assert ran == [*(n for n in range(COUNT) if n not in left_out), *range(COUNT, COUNT + 10)]


@mutation
async def nothing(ctx: MutationCtx) -> None: ...


@mutation
async def schedule_nothing(ctx: MutationCtx) -> None:
    for _ in range(COUNT):
        await ctx.scheduler.run_after(0, "app:nothing")


NOTHING = {"app": SimpleNamespace(nothing=nothing, schedule_nothing=schedule_nothing)}


async def test_functions_that_several_batches_share_are_counted_once(store_of: Callable[[str], str]) -> None:
    async with App(NOTHING, store_of("postgres"), executor=False) as app:
        await app.mutation("app:schedule_nothing")
        counts: list[int] = []
        while (result := await app.executor.run_batch()).ran:
            counts.append(result.ran)
        assert sum(counts) == COUNT


@pytest.mark.parametrize(("calls", "expected"), [(0, COUNT), (1, 5)], ids=["nobody waits", "a call waits"])
async def test_a_batch_that_holds_the_lock_runs_all_that_is_due_unless_a_call_waits(
    store_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, calls: int, expected: int
) -> None:
    monkeypatch.setattr("duly.database.batch.BATCH_SECONDS_MAX", 0.0)
    monkeypatch.setattr("duly.database.batch.BATCH_SECONDS_ALONE_MAX", 60.0)
    held = threading.Event()
    async with App(NOTHING, store_of("postgres"), executor=False) as app:
        await app.mutation("app:schedule_nothing")
        monkeypatch.setattr(app.executor._claim_size, "_follow_ups", 4)  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(app.executor._claim_size, "limit", COUNT)  # pyright: ignore[reportPrivateUsage]
        app.database._committer._backoff.on_conflict()  # pyright: ignore[reportPrivateUsage]

        holding = app.database.commit(lambda batch: held.wait(60.0), is_awaited=False)  # until all of this is queued
        draining = asyncio.create_task(app.executor.run_batch())
        await asyncio.sleep(0)
        waiting = [app.mutation("app:nothing") for _ in range(calls)]
        held.set()
        await asyncio.gather(holding, *waiting)

        assert (await draining).ran == expected


ran: list[int] = []


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    ran.append(n)
    await ctx.db.query("notes").collect()
    await ctx.db.insert("notes", {"n": n})


@mutation
async def schedule_five(ctx: MutationCtx) -> list[str]:
    await ctx.db.insert("notes", {"n": -1})
    return [await ctx.scheduler.run_after(0, "app:put", {"n": n}) for n in range(5)]


@mutation
async def put_and_cancel(ctx: MutationCtx, n: int, id: str) -> None:
    await ctx.db.insert("notes", {"n": n})
    await ctx.scheduler.cancel(id)


async def test_functions_that_are_left_to_later_batches_are_claimed_anew_after_a_conflict(
    store_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duly.database.batch.BATCH_SECONDS_MAX", 0.0)  # each batch runs one, and leaves the others
    functions = {"put": put, "schedule_five": schedule_five, "put_and_cancel": put_and_cancel}
    source = {"app": SimpleNamespace(**functions)}
    ran.clear()
    store, loop, ends = store_of("postgres"), asyncio.get_running_loop(), list[None]()
    async with App(source, store, executor=False) as app, App(source, store, executor=False) as other:
        ids = await app.mutation("app:schedule_five")

        def meddle() -> None:  # when the second has run, in the second batch, which then is not what it has read
            ends.append(None)
            if len(ends) == 2:
                meddling = other.mutation("app:put_and_cancel", {"n": 100, "id": ids[3]})
                asyncio.run_coroutine_threadsafe(meddling, loop).result(20)

        faults.arm("job.ran", meddle)
        monkeypatch.setattr(app.executor._claim_size, "_follow_ups", 4)  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(app.executor._claim_size, "limit", 5)  # pyright: ignore[reportPrivateUsage]
        try:
            async with asyncio.timeout(20):
                while (await app.executor.run_batch()).ran:
                    pass
        finally:
            faults.disarm()
    last_runs = [n for at, n in enumerate(ran) if n not in ran[at + 1 :]]
    assert ran.count(1) == 2  # which had read what the other node has changed
    assert last_runs == [0, 1, 2, 4]
