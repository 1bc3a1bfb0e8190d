"""The HTTP API: what is answered, also to requests that no client sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from duly import AppError, MutationCtx, QueryCtx, internal_query, mutation, query
from duly.testing import Harness
from tests.server.raw import connected
from tests.server.support import Client, client_of
from tests.support import app_of


@query
async def echo(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.query("rows").count()


@mutation
async def put(ctx: MutationCtx) -> None:
    ctx.log.warning("putting")
    await ctx.db.insert("rows", {})


@mutation
async def fail(ctx: MutationCtx, data: Any = None) -> None:
    raise AppError(data)


@mutation
async def crash(ctx: MutationCtx) -> None:
    raise ValueError("the password is xyzzy")


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "internal"


@query
async def me(ctx: QueryCtx) -> Any:
    return await ctx.auth.get_user_identity()


APP = app_of(echo, count, put, fail, crash, secret, me)


@asynccontextmanager
async def served(development: bool = False) -> AsyncGenerator[Client]:
    async with Harness(APP, development=development) as t, client_of(t.app) as client:
        yield client


async def test_a_function_is_called_with_an_object_or_a_list_of_one() -> None:
    async with served() as client:
        for args in ({"value": 3}, [{"value": 3}]):
            assert await client.post("/api/query", {"path": "app:echo", "args": args}) == (
                200,
                {"status": "success", "value": 3},
            )
        assert (await client.post("/api/query", {"path": "app.js:echo", "args": []}))[1]["value"] is None
        assert (await client.http.get('/api/query?path=app:echo&args={"value":"x"}')).json()["value"] == "x"
        assert (await client.post("/api/run/app/echo", {"args": {"value": 1}}))[1]["value"] == 1
        batch = {"queries": [{"path": "app:echo", "args": {"value": n}} for n in (1, 2)]}
        results = (await client.post("/api/query_batch", batch))[1]["results"]
        assert results == [{"status": "success", "value": 1}, {"status": "success", "value": 2}]


async def test_the_format_is_the_callers_choice() -> None:
    async with served() as client:
        big = {"$integer": "AQAAAAAAIAA="}
        body = {"path": "app:echo", "args": {"value": big}}
        assert (await client.post("/api/query", body))[1]["value"] == "9007199254740993"
        assert (await client.post("/api/query", {**body, "format": "convex_encoded_json"}))[1]["value"] == big
        assert (await client.post("/api/query", {**body, "format": "export_json"}))[1]["value"] == 9007199254740993
        assert await client.post("/api/query", {**body, "format": "xml"}) == (
            400,
            {"code": "BadFormat", "message": "format param must be one of [`json`]. Got 'xml'"},
        )


async def test_an_error_of_a_function_has_the_status_200_and_its_data() -> None:
    async with served() as client:
        status, answer = await client.post("/api/mutation", {"path": "app:fail", "args": {"data": {"code": 1}}})
        assert (status, answer["status"], answer["errorData"]) == (200, "error", {"code": 1})
        _, answer = await client.post("/api/mutation", {"path": "app:fail", "args": {"data": None}})
        assert answer["errorData"] is None
        status, answer = await client.post("/api/mutation", {"path": "app:crash", "args": {}})
        assert (status, answer["status"], "errorData" in answer) == (200, "error", False)
        assert answer["errorMessage"].endswith("] Server Error") and "xyzzy" not in str(answer)


async def test_internal_and_unknown_functions_are_the_same_to_a_client() -> None:
    async with served(development=True) as client:
        messages = [
            (await client.post("/api/query", {"path": path, "args": {}}))[1]["errorMessage"].partition("] ")[2]
            for path in ("app:secret", "app:nothing")
        ]
        assert messages == [
            f"FunctionNotFoundError: got the function '{path}', which does not exist or is not public"
            for path in ("app:secret", "app:nothing")
        ]


@pytest.mark.parametrize(
    ("path", "hint"),
    [("app:counts", "; did you mean 'app:count'?"), ("app.count", "; did you mean 'app:count'?"), ("app:secrets", "")],
)
async def test_in_development_a_public_function_of_a_similar_name_is_named(path: str, hint: str) -> None:
    async with served(development=True) as client:
        _, answer = await client.post("/api/query", {"path": path})
        assert answer["errorMessage"].endswith(
            f"got the function '{path}', which does not exist or is not public{hint}"
        )


async def test_of_a_long_name_only_the_beginning_is_compared_with_others() -> None:
    async with served(development=True) as client:
        _, answer = await client.post("/api/query", {"path": f"app:{'x' * 10_000_000}", "args": {}})
        name = f"'app:{'x' * 196}'"
        assert answer["errorMessage"].endswith(f"the function {name}, which does not exist or is not public")


async def test_the_administrator_calls_every_function_as_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    async with served() as client:
        body = {"path": "app:secret", "args": {}}
        assert (await client.post("/api/function", body, Authorization="Convex key"))[1]["value"] == "internal"
        assert (await client.post("/api/query", body, Authorization="convex dev:shop|key"))[1]["value"] == "internal"
        assert (await client.post("/api/function", body))[0] == 403
        for wrong in ("Convex kex", "Convex", "Convex :"):
            assert (await client.post("/api/query", body, Authorization=wrong))[1]["code"] == "BadAdminKey"


async def test_without_an_admin_key_nobody_is_the_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DULY_ADMIN_KEY", raising=False)
    async with served() as client:
        for key in ("Convex", "Convex key"):
            assert (await client.post("/api/query", {"path": "app:secret"}, Authorization=key))[0] == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "BadJsonBody"),
        (b"", 400, "BadJsonBody"),
        (b"\xff", 400, "BadJsonBody"),
        ([], 400, "BadJsonBody"),
        ({}, 400, "BadConvexFunctionIdentifier"),
        ({"path": 7}, 400, "BadConvexFunctionIdentifier"),
        ({"path": "app:echo", "componentPath": "x"}, 400, "BadConvexFunctionIdentifier"),
        ({"path": "app:echo", "args": [{}, {}]}, 400, "BadArgs"),
        (b'{"path":"app:echo","args":{"value":"' + b"x" * (17 << 20) + b'"}}', 413, "RequestTooLarge"),
    ],
)
async def test_a_request_that_is_none_is_refused(body: Any, status: int, code: str) -> None:
    async with served() as client:
        got, answer = await client.post("/api/query", body)
        assert (got, answer["code"]) == (status, code)


@pytest.mark.parametrize(
    ("queries", "code"),
    [
        ({}, "BadJsonBody"),
        ([3], "BadJsonBody"),
        ([{"path": "app:echo"}, {}], "BadConvexFunctionIdentifier"),
        ([{"path": "app:echo"}] * 1_001, "TooManyQueries"),
    ],
)
async def test_a_batch_that_is_none_is_refused(queries: Any, code: str) -> None:
    async with served() as client:
        status, answer = await client.post("/api/query_batch", {"queries": queries})
        assert (status, answer["code"]) == (400, code)


async def test_the_queries_of_a_batch_fail_each_by_itself() -> None:
    async with served() as client:
        queries = [{"path": "app:nothing"}, {"path": "app:echo", "args": {"value": 1}}, {"path": "app:echo", "args": 3}]
        _, answer = await client.post("/api/query_batch", {"queries": queries})
        assert [one["status"] for one in answer["results"]] == ["error", "success", "error"]
        assert await client.post("/api/query_batch", {"queries": []}) == (200, {"results": []})


async def test_a_client_that_goes_away_amid_its_request_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as client:
        async with connected(client.address) as connection:
            await connection.send(b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert (await client.post("/api/query", {"path": "app:count"}))[0] == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    "args", [3, "x", None, {"value": {"$integer": "AQ=="}}, {"value": {"a": 1, "$b": 2}}, {"other": 1}]
)
async def test_wrong_arguments_are_an_error_of_the_function(args: Any) -> None:
    async with served() as client:
        status, answer = await client.post("/api/query", {"path": "app:echo", "args": args})
        assert (status, answer["status"]) == (200, "error")


async def test_deep_arguments_are_an_error_of_the_function() -> None:
    deep = b'{"path":"app:echo","args":{"value":' + b"[" * 900 + b"]" * 900 + b"}}"
    async with served() as client:
        status, answer = await client.post("/api/query", deep)
        assert (status, answer["status"]) == (200, "error")


async def test_a_consistent_query_is_answered_as_of_its_timestamp_or_not_at_all() -> None:
    async with served() as client:
        _, now = await client.post("/api/query_ts", b"")
        body = {"path": "app:count", "args": {}, **now}
        assert (await client.post("/api/query_at_ts", body))[1]["value"] == 0
        await client.app.mutation("app:put")
        status, answer = await client.post("/api/query_at_ts", body)
        assert (status, answer["code"]) == (503, "OutOfRetention")
        assert (await client.post("/api/query_at_ts", {**body, "path": "app:echo"}))[1]["value"] is None


async def test_log_lines_reach_clients_in_development_only() -> None:
    for development, lines in ((True, ["[WARN] putting"]), (False, None)):
        async with served(development) as client:
            _, answer = await client.post("/api/mutation", {"path": "app:put", "args": {}})
            assert answer.get("logLines") == lines


async def test_what_a_client_alone_is_to_blame_for_is_logged_as_a_warning_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as client:
        for path, args in (("app:nothing", {}), ("app:put", {}), ("app:echo", {"x": 1}), ("app:echo", {"$x": 1})):
            assert (await client.post("/api/query", {"path": path, "args": args}))[1]["status"] == "error"
        assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)] * 4
        assert caplog.messages[2].endswith(
            "ArgumentValidationError: app:echo: at .x: not a declared field; declared are .value"
        )
        caplog.clear()
        await client.post("/api/mutation", {"path": "app:crash", "args": {}})
        [record] = caplog.records
        assert (record.levelname, record.exc_info is not None) == ("ERROR", True)


async def test_pages_of_other_origins_may_call() -> None:
    async with served() as client:
        origin = {"Origin": "https://shop.example"}
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        preflight = await client.http.options("/api/query", headers={**origin, **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
        answer = await client.http.post("/api/query", json={"path": "app:echo"}, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert (await client.http.options("/api/query")).status_code == 200


async def test_an_unknown_address_is_a_404() -> None:
    async with served() as client:
        for method, path in (("GET", "/api/nothing"), ("FOO", "/api/query"), ("GET", "/api/query_batch")):
            unknown = await client.http.request(method, path)
            assert (unknown.status_code, unknown.json()["code"]) == (404, "NotFound")
        unknown = await client.http.get("/api/nothing")
        assert unknown.json()["message"] == (
            "got GET /api/nothing, expected /api/query, /api/mutation or /api/action, or an HTTP action below /http/"
        )
        assert (await client.http.get("/version")).status_code == 200


async def test_an_address_may_end_with_a_slash() -> None:
    async with served() as client, client.socket("//api/1.48.0/sync") as socket:
        assert (await client.post(f"{client.address}//api/query", {"path": "app:count"}))[1]["value"] == 0
        await socket.hello()
        await socket.add(0, "app:count")
        assert await socket.transition() == {0: 0}


async def test_a_socket_at_an_unknown_address_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as client:
        with pytest.raises(InvalidStatus, match="403"):
            async with client.socket("/app/api/1.48.0/sync"):
                pass
    [warning] = caplog.messages
    assert warning == (
        "a socket of a client was refused: it requests '/app/api/1.48.0/sync', expected /api/…/sync: a client has an"
        " address without a path"
    )
