"""Shared results: who is told what, and how often a query runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from duly import AppError, MutationCtx, QueryCtx, mutation, query
from duly.database.database import QueryOutcome
from duly.run.runner import QueryCall
from duly.server.calls import ClientCalls
from duly.sync.effects import Result
from duly.sync.protocol import Failure
from duly.sync.results import QueryKey, SharedResults
from duly.sync.timestamps import Timestamps
from duly.testing import Harness
from tests.support import app_of, until


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return [row["n"] async for row in ctx.db.query("numbers")]


@query
async def letters(ctx: QueryCtx) -> int:
    return await ctx.db.query("letters").count()


@query
async def empty(ctx: QueryCtx) -> None:
    if await ctx.db.query("numbers").first() is None:
        raise AppError("empty")


@mutation
async def add(ctx: MutationCtx, table: str, n: int = 0) -> None:
    await ctx.db.insert(table, {"n": n})


@query
async def mine(ctx: QueryCtx) -> list[int]:
    """Looks at the identity only while there are numbers."""
    found = [row["n"] async for row in ctx.db.query("numbers")]
    if found:
        identity = await ctx.auth.get_user_identity()
        return [n for n in found if identity is not None and n == identity["number"]]
    return []


@query
async def turning(ctx: QueryCtx) -> int:
    """The same for all, then a page, then what only one user may see."""
    count = await ctx.db.query("numbers").count()
    if count == 1:
        await ctx.db.query("letters").paginate({"numItems": 1, "cursor": None})
    identity = await ctx.auth.get_user_identity() if count == 2 else None
    return 0 if identity is None else identity["number"]


@query
async def through(ctx: QueryCtx) -> list[int]:
    return await ctx.run_query("app:mine")


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.stale: list[tuple[int, int]] = []
        self.wakes = 0
        self.has_given_up = False

    def query_ran(self, query_id: int, result: Result) -> None:
        self.results[query_id] = result

    def query_stale(self, query_id: int, at: int) -> None:
        self.stale.append((query_id, at))

    def wake(self) -> None:
        self.wakes += 1

    def give_up(self) -> None:
        self.has_given_up = True


def key(path: str, args: bytes = b"{}", journal: str | None = None) -> QueryKey:
    return QueryKey(path, args, None, journal)


@asynccontextmanager
async def results(calls: type[ClientCalls] = ClientCalls) -> AsyncGenerator[tuple[Harness, SharedResults]]:
    async with Harness(app_of(numbers, letters, empty, add, mine, through, turning)) as t:
        timestamps = Timestamps(t.app.database)
        await timestamps.start()
        yield t, SharedResults(t.app.runner, timestamps, calls(t.app))


async def test_a_watcher_gets_the_result_now_and_after_each_commit_that_changes_it() -> None:
    async with results() as (t, shared):
        watcher = Watcher()
        shared.watch(watcher, 7, key("app:numbers"), None)
        await until(lambda: 7 in watcher.results)
        first = watcher.results[7]
        await t.mutation("app:add", {"table": "numbers", "n": 1})
        await until(lambda: watcher.results[7] is not first)

        assert (first.value, watcher.results[7].value) == (b"[]", b"[1.0]")
        [(query_id, at)] = watcher.stale
        assert query_id == 7 and first.since < at <= watcher.results[7].since


async def test_a_commit_to_what_was_not_read_runs_nothing() -> None:
    async with results() as (t, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:numbers"), None)
        await until(lambda: 0 in watcher.results)
        await t.mutation("app:add", {"table": "letters"})
        await t.mutation("app:add", {"table": "numbers"})
        await until(lambda: watcher.results[0].value == b"[0.0]")
        assert shared.runs == 2


async def test_who_comes_later_gets_the_result_that_is_there() -> None:
    async with results() as (_, shared):
        first, second = Watcher(), Watcher()
        shared.watch(first, 0, key("app:numbers"), None)
        await until(lambda: 0 in first.results)
        shared.watch(second, 5, key("app:numbers"), None)
        assert second.results[5] is first.results[0]
        assert (shared.runs, second.wakes) == (1, 1)


async def test_other_arguments_are_other_queries() -> None:
    async with results() as (_, shared):
        watcher = Watcher()
        for query_id, one in enumerate((key("app:numbers"), key("app:numbers", b'{"a":1}'))):
            shared.watch(watcher, query_id, one, None)
        assert len(shared) == 2


def watch_as(shared: SharedResults, path: str, number: int) -> Watcher:
    watcher = Watcher()
    shared.watch(watcher, 0, QueryKey(path, b"{}", f'{{"number":{number}}}', None), {"number": number})
    return watcher


async def test_users_share_a_query_that_looks_at_no_identity() -> None:
    async with results() as (t, shared):
        watchers = [watch_as(shared, "app:numbers", number) for number in range(3)]
        await until(lambda: all(watcher.results for watcher in watchers))
        assert (len(shared), shared.runs) == (1, 3)
        watchers.append(watch_as(shared, "app:numbers", 3))
        assert watchers[3].results[0].value == b"[]"

        await t.mutation("app:add", {"table": "numbers", "n": 1})
        await until(lambda: all(watcher.results[0].value == b"[1.0]" for watcher in watchers))

        assert shared.runs == 4
        for watcher in watchers:
            shared.unwatch(watcher, 0)
        assert len(shared) == 0


@pytest.mark.parametrize("path", ["app:mine", "app:through"])
async def test_users_get_results_of_their_own_once_a_query_looks_at_the_identity(path: str) -> None:
    async with results() as (t, shared):
        watchers = [watch_as(shared, path, number) for number in range(3)]
        await until(lambda: all(watcher.results for watcher in watchers))
        assert len(shared) == 1
        shared.unwatch(watchers.pop(0), 0)

        await t.mutation("app:add", {"table": "numbers", "n": 2})
        await until(lambda: [watcher.results[0].value for watcher in watchers] == [b"[]", b"[2.0]"])

        assert len(shared) == 2
        assert all(watcher.stale for watcher in watchers)


async def test_users_who_share_a_query_that_paginates_meanwhile_get_results_of_their_own() -> None:
    async with results() as (t, shared):
        watchers = [watch_as(shared, "app:turning", number) for number in (1, 2)]
        await until(lambda: all(watcher.results for watcher in watchers))
        for _ in range(2):
            before, runs = [watcher.results[0] for watcher in watchers], shared.runs
            await t.mutation("app:add", {"table": "numbers"})
            await until(lambda: shared.runs > runs)  # noqa: B023
            await until(lambda: all(w.results[0] is not b for w, b in zip(watchers, before, strict=True)))  # noqa: B023
        assert [watcher.results[0].value for watcher in watchers] == [b"1.0", b"2.0"]


async def test_a_query_that_looks_at_the_identity_is_never_shared() -> None:
    async with results() as (t, shared):
        await t.mutation("app:add", {"table": "numbers", "n": 1})
        first = watch_as(shared, "app:mine", 1)
        await until(lambda: 0 in first.results)
        second = watch_as(shared, "app:mine", 2)
        await until(lambda: 0 in second.results)
        assert (first.results[0].value, second.results[0].value, len(shared)) == (b"[1.0]", b"[]", 2)


async def test_a_result_that_comes_late_lets_nobody_share_what_depends_on_an_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with results() as (t, shared):
        first = watch_as(shared, "app:mine", 1)
        await until(lambda: 0 in first.results)
        may_end, read_together = asyncio.Event(), t.app.runner.read_together

        async def held(calls: Sequence[QueryCall]) -> list[QueryOutcome[Any]]:
            monkeypatch.setattr(t.app.runner, "read_together", read_together)  # the next round is not held
            outcomes = await read_together(calls)
            await may_end.wait()
            return outcomes

        monkeypatch.setattr(t.app.runner, "read_together", held)
        before = shared.runs
        shared.run_together(first)
        await until(lambda: shared.runs == before + 1)
        await t.mutation("app:add", {"table": "numbers", "n": 1})
        shared.run_together(first)
        await until(lambda: first.results[0].value == b"[1.0]")
        may_end.set()
        await until(lambda: not shared._rounds)  # pyright: ignore[reportPrivateUsage]

        second = watch_as(shared, "app:mine", 2)
        await until(lambda: 0 in second.results)

        assert second.results[0].value == b"[]"


async def test_a_failed_query_is_a_result_that_changes_like_others() -> None:
    async with results() as (t, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:empty"), None)
        await until(lambda: 0 in watcher.results)
        assert watcher.results[0].value == Failure("empty", b'"empty"')
        await t.mutation("app:add", {"table": "numbers"})
        await until(lambda: watcher.results[0].value == b"null")


async def test_two_failures_that_differ_in_their_request_only_look_the_same() -> None:
    async with results() as (t, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:nothing"), None)
        await until(lambda: 0 in watcher.results)
        first = watcher.results[0]
        await t.app.reload()
        await until(lambda: watcher.results[0] is not first)
        second = watcher.results[0]
        assert isinstance(first.value, Failure) and isinstance(second.value, Failure)
        assert first.value.message != second.value.message
        assert first.digest == second.digest


async def test_queries_that_are_run_together_hold_at_one_time() -> None:
    async with results() as (t, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:numbers"), None)
        await until(lambda: 0 in watcher.results)
        await t.mutation("app:add", {"table": "letters"})
        shared.watch(watcher, 1, key("app:letters"), None)
        await until(lambda: 1 in watcher.results)
        assert watcher.results[0].since < watcher.results[1].since

        before = dict(watcher.results)
        shared.run_together(watcher)
        await until(lambda: watcher.results[0] is not before[0])

        assert watcher.results[0].since == watcher.results[1].since
        await t.mutation("app:add", {"table": "numbers"})  # and they are still watched
        await until(lambda: watcher.results[0].value == b"[0.0]")


async def test_nothing_is_kept_of_what_nobody_watches() -> None:
    async with results() as (t, shared):
        watcher: Any = Watcher()
        for query_id, path in enumerate(("app:numbers", "app:letters", "app:nothing")):
            shared.watch(watcher, query_id, key(path), None)
        await until(lambda: len(watcher.results) == 3)
        for query_id in range(3):
            shared.unwatch(watcher, query_id)
        await t.mutation("app:add", {"table": "numbers"})
        assert (len(shared), shared.runs) == (0, 2)
        assert t.app.database.commit_log._watchers.watches == set()  # pyright: ignore


async def test_a_query_that_nobody_watches_any_more_when_it_has_run_is_forgotten() -> None:
    async with results() as (_, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:numbers"), None)
        while not shared.runs:
            await asyncio.sleep(0)
        shared.unwatch(watcher, 0)
        await until(lambda: not shared._rounds)
        assert (watcher.results, shared._for_all, shared._entries) == ({}, {}, {})


async def test_a_query_has_no_other_result_when_the_app_is_closed() -> None:
    async with results() as (_, shared):
        watcher = Watcher()
        shared.watch(watcher, 0, key("app:numbers"), None)
        await until(lambda: 0 in watcher.results)
    for _ in range(10):
        await asyncio.sleep(0)
    assert watcher.results[0].value == b"[]"


class FaultyCalls(ClientCalls):
    """Has a bug in what it makes of the failures of functions."""

    def failure(self, error: BaseException) -> Failure:
        raise ZeroDivisionError("a bug of the server")


async def test_an_error_of_the_server_itself_in_one_query_ends_those_who_watch_it_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with results(FaultyCalls) as (t, shared):
        bad, good = Watcher(), Watcher()
        shared.watch(bad, 0, key("app:empty"), None)
        shared.watch(bad, 1, key("app:letters"), None)
        shared.watch(good, 0, key("app:numbers"), None)
        await until(lambda: bad.has_given_up and 0 in good.results)
        assert not good.has_given_up
        await t.mutation("app:add", {"table": "numbers", "n": 1})
        await until(lambda: good.results[0].value == b"[1.0]")

    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "clients that watch app:empty are disconnected after an error of the server"
    assert isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_query_that_the_server_fails_to_run_runs_again_for_who_comes_later() -> None:
    async with results(FaultyCalls) as (t, shared):
        first, second = Watcher(), Watcher()
        shared.watch(first, 0, key("app:empty"), None)
        await until(lambda: first.has_given_up)
        shared.unwatch(first, 0)
        await t.mutation("app:add", {"table": "numbers", "n": 1})
        shared.watch(second, 0, key("app:empty"), None)
        await until(lambda: 0 in second.results)
        assert second.results[0].value == b"null"
