"""Connections over WebSockets: shared results, reconnects, faults of clients, the end of a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from duly import AppError, MutationCtx, Page, PaginationOpts, QueryCtx, mutation, query
from duly.server.outbox import Texts
from duly.server.service import Service
from duly.sync.convex_json import encode_ts
from duly.sync.protocol import ServerMessage
from duly.testing import Harness
from tests.server.support import Client, client_of
from tests.support import app_of, until

pytestmark = pytest.mark.usefixtures("engine")


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return [row["n"] async for row in ctx.db.query("numbers")]


@query
async def fixed(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@query
async def page(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[Any]:
    return await ctx.db.query("numbers").paginate(paginationOpts)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddAppError(Odd, AppError): ...


@query
async def odd(ctx: QueryCtx, data: bool) -> None:
    raise OddAppError({"code": 1}) if data else Odd


@mutation
async def add(ctx: MutationCtx, n: int) -> int:
    await ctx.db.insert("numbers", {"n": n})
    return n


APP = app_of(numbers, fixed, page, odd, add)


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[Harness, Client]]:
    async with Harness(APP) as t, client_of(t.app) as client:
        yield t, client


def service_of(t: Harness) -> Service:
    """What the connections of an app share."""
    return t.app.asgi.state.services._service  # pyright: ignore


async def test_a_mutation_is_answered_and_then_shown() -> None:
    async with served() as (_, client), client.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:numbers")
        assert await socket.transition() == {0: []}
        await socket.mutate(0, "app:add", n=5)
        response = await socket.next()
        assert (response["type"], response["success"], response["result"]) == ("MutationResponse", True, 5)
        assert await socket.transition() == {0: [5]}


async def test_a_query_that_many_watch_is_run_once_for_each_commit() -> None:
    async with served() as (t, client), contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(client.socket()) for _ in range(10)]
        for socket in sockets:
            await socket.hello()
            await socket.add(0, "app:numbers", {})
            assert await socket.transition() == {0: []}
        service = service_of(t)
        before = service.results.runs

        for n in (1, 2, 3):
            await t.mutation("app:add", {"n": n})
            for socket in sockets:
                assert (await socket.transition())[0][-1] == n

        assert service.results.runs - before == 3
        assert len(service.results) == 1


async def test_what_nobody_watches_any_more_is_forgotten() -> None:
    async with served() as (t, client):
        async with client.socket() as socket:
            await socket.hello()
            await socket.add(0, "app:numbers")
            await socket.add(1, "app:fixed", {"value": 1})
            await socket.transition()
            assert len(service_of(t).results) == 2
            await socket.modify({"type": "Remove", "queryId": 1})
            while (await socket.transition()).get(1) != "removed":
                pass
            assert len(service_of(t).results) == 1
        await until(lambda: len(service_of(t).results) == 0)


async def test_two_queries_of_one_commit_change_in_one_transition() -> None:
    async with served() as (t, client), client.socket() as socket:
        await socket.hello()
        await socket.modify(
            {"type": "Add", "queryId": 0, "udfPath": "app:numbers", "args": [{}]},
            {"type": "Add", "queryId": 1, "udfPath": "app.js:numbers", "args": [{}]},
        )
        assert await socket.transition() == {0: [], 1: []}
        await t.mutation("app:add", {"n": 1})
        assert await socket.transition() == {0: [1], 1: [1]}


async def test_a_page_keeps_its_end_over_a_reconnect() -> None:
    async with served() as (t, client):
        for n in range(3):
            await t.mutation("app:add", {"n": n})
        options = {"paginationOpts": {"numItems": 2, "cursor": None, "id": 1}}
        async with client.socket() as socket:
            await socket.hello()
            await socket.add(0, "app:page", options)
            [change] = (await socket.next())["modifications"]
            journal = change["journal"]
            assert [row["n"] for row in change["value"]["page"]] == [0, 1]
        await t.transaction(_delete_first)
        async with client.socket() as socket:
            await socket.hello()
            await socket.add(0, "app:page", options, journal=journal)
            assert [row["n"] for row in (await socket.transition())[0]["page"]] == [1]
            await socket.add(1, "app:page", options, journal="[[nonsense")
            assert "InvalidCursor" in (await socket.transition())[1]


async def _delete_first(ctx: MutationCtx) -> None:
    first = await ctx.db.query("numbers").first()
    assert first is not None
    await ctx.db.delete(first["_id"])


async def test_a_mutation_that_is_sent_on_another_connection_again_happens_once() -> None:
    session = str(uuid4())
    async with served() as (t, client):
        for count in range(3):
            async with client.socket() as socket:
                await socket.hello(session, connectionCount=count)
                await socket.mutate(4, "app:add", n=7)
                assert (await socket.next())["result"] == 7
                await socket.transition()
        assert await t.query("app:numbers") == [7]


async def test_timestamps_go_on_after_a_crash_of_the_server() -> None:
    async with Harness(APP) as t:
        async with client_of(t.app) as client, client.socket() as socket:
            await socket.hello()
            await socket.mutate(0, "app:add", n=1)
            await socket.next()
            await socket.transition()
            seen = socket.ts
        await t.crash()
        async with client_of(t.app) as client, client.socket() as socket:
            await socket.hello(maxObservedTimestamp=encode_ts(seen))
            await socket.add(0, "app:numbers")
            assert await socket.transition() == {0: [1]}
            assert socket.ts >= seen


async def test_a_client_that_has_seen_more_than_a_restored_backup_knows_gets_later_timestamps() -> None:
    async with served() as (t, client):
        async with client.socket() as socket:
            await socket.hello()
            await socket.modify()
            await socket.transition()
            seen = socket.ts + 1_000_000  # a thousand commits later, say, all of which are gone
        await t.advance(1_000)
        async with client.socket() as socket:
            await socket.hello(maxObservedTimestamp=encode_ts(seen))
            await socket.modify()
            await socket.transition()
            assert socket.ts > seen


async def test_a_timestamp_from_the_future_is_not_believed() -> None:
    async with served() as (_, client), client.socket() as socket:
        await socket.hello(maxObservedTimestamp=encode_ts((1 << 63) - 1))
        assert await socket.closed() == (1011, "InternalServerError")


async def test_a_rejected_token_is_told_and_the_connection_closed() -> None:
    async with served() as (_, client), client.socket() as socket:
        await socket.hello()
        await socket.send("Authenticate", baseVersion=0, tokenType="User", value="eyJ.x.y")
        error = await socket.next()
        assert (error["type"], error["baseVersion"], error["authUpdateAttempted"]) == ("AuthError", 0, True)
        assert (await socket.closed())[0] == 1000


@pytest.mark.parametrize(
    "sent", ["{", "\x00", '{"type":"Sing"}', "[" * 2_000, '{"type":"Mutation"}', b"\xff\xfe", '"' + "x" * 100_000]
)
async def test_a_fault_of_a_client_ends_its_connection_and_no_other(sent: str | bytes) -> None:
    async with served() as (t, client), client.socket() as other, client.socket() as socket:
        await other.hello()
        await other.add(0, "app:numbers")
        await other.transition()
        await socket.connection.send(sent)
        assert (await socket.next())["type"] == "FatalError"
        assert await socket.closed() == (1000, "FatalError")
        await t.mutation("app:add", {"n": 1})
        assert await other.transition() == {0: [1]}


async def test_wrong_arguments_fail_the_query_and_not_the_connection() -> None:
    async with served() as (_, client), client.socket() as socket:
        await socket.hello()
        for query_id, args in enumerate([{"value": {"$integer": "no"}}, {"no": 1}, [1]]):
            await socket.add(query_id, "app:fixed", args)
            assert "Server Error" in (await socket.transition())[query_id]


async def test_a_query_whose_error_has_no_text_holds_no_other_up() -> None:
    async with served() as (_, client), client.socket() as socket:
        await socket.hello()
        await socket.modify(
            {"type": "Add", "queryId": 0, "udfPath": "app:odd", "args": [{"data": False}]},
            {"type": "Add", "queryId": 1, "udfPath": "app:odd", "args": [{"data": True}]},
            {"type": "Add", "queryId": 2, "udfPath": "app:numbers", "args": [{}]},
        )
        values = await socket.transition()
        assert values[0].endswith("] Server Error")
        assert (values[1], values[2]) == ("OddAppError", [])


async def test_an_error_of_the_server_ends_one_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Texts):
        is_broken = True

        def of(self, message: ServerMessage) -> str:
            self.is_broken, is_broken = False, self.is_broken
            return str(1 / 0) if is_broken else super().of(message)

    async with served() as (t, client), client.socket() as one, client.socket() as other:
        for socket in (one, other):
            await socket.hello()
            await socket.add(0, "app:numbers")
            assert await socket.transition() == {0: []}
        service_of(t).texts = Broken()
        await t.mutation("app:add", {"n": 1})
        ended = [asyncio.ensure_future(socket.next()) for socket in (one, other)]
        await asyncio.wait(ended)
        assert sorted(each.exception() is None for each in ended) == [False, True]
        for each, socket in zip(ended, (one, other), strict=True):
            if each.exception() is None:
                assert each.result()["modifications"][0]["value"] == [1]
            else:
                assert await socket.closed() == (1011, "InternalServerError")
    assert [record.message for record in caplog.records] == ["a client was disconnected after an error of the server"]


async def test_new_code_is_shown_to_all_who_watch() -> None:
    @query
    async def doubled(ctx: QueryCtx) -> list[int]:
        return [2 * row["n"] async for row in ctx.db.query("numbers")]

    app = app_of(numbers, add)
    async with Harness(app) as t, client_of(t.app) as client, client.socket() as socket:
        await t.mutation("app:add", {"n": 4})
        await socket.hello()
        await socket.add(0, "app:numbers")
        assert await socket.transition() == {0: [4]}
        app["app"].numbers = doubled
        await t.app.reload()
        assert await socket.transition() == {0: [8]}


async def test_a_server_that_ends_closes_its_connections_so_that_clients_come_back() -> None:
    async with Harness(APP) as t:
        async with client_of(t.app) as client:
            stack = contextlib.AsyncExitStack()
            socket = await stack.enter_async_context(client.socket())
            await socket.hello()
            await socket.modify()
            await socket.transition()
        assert (await socket.closed())[0] == 1012
        await stack.aclose()


async def test_an_app_that_is_not_open_refuses_clients() -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        await t.app.close()
        async with client.socket() as socket:
            assert await socket.closed() == (1011, "InternalServerError")
        assert (await client.post("/api/query", {"path": "app:numbers"}))[0] == 503


async def test_queries_that_are_woken_in_turns_all_the_time_are_shown_nevertheless() -> None:
    @query
    async def letters(ctx: QueryCtx) -> int:
        return await ctx.db.query("letters").count()

    @mutation
    async def put(ctx: MutationCtx) -> None:
        await ctx.db.insert("letters", {})

    async with Harness(app_of(numbers, letters, add, put)) as t, client_of(t.app) as client, client.socket() as socket:

        async def write(name: str, **args: Any) -> None:
            while not enough.is_set():
                await t.mutation(f"app:{name}", args)

        enough = asyncio.Event()
        await socket.hello()
        await socket.modify(
            {"type": "Add", "queryId": 0, "udfPath": "app:numbers", "args": [{}]},
            {"type": "Add", "queryId": 1, "udfPath": "app:letters", "args": [{}]},
        )
        await socket.transition()
        writing = asyncio.gather(*(write("add", n=n) for n in range(3)), *(write("put") for _ in range(3)))
        for _ in range(20):
            assert await socket.transition() != {}
        enough.set()
        await writing


async def test_the_state_stays_consistent_while_many_write() -> None:
    """Each transition shows the same numbers in all queries, however fast they change."""
    async with served() as (t, client), client.socket() as socket:
        await socket.hello()
        await socket.modify(
            *(
                {"type": "Add", "queryId": n, "udfPath": path, "args": [{}]}
                for n, path in enumerate(("app:numbers", "app.py:numbers", "app.js:numbers"))
            )
        )
        shown: dict[int, Any] = await socket.transition()
        writing = asyncio.gather(*(t.mutation("app:add", {"n": n}) for n in range(60)))
        while len(shown[0]) < 60:
            shown |= await socket.transition()
            assert shown[0] == shown[1] == shown[2]
        await writing
