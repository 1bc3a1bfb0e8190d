"""HTTP actions: requests to the routes of an application, and what is answered when a handler fails."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from duly import (
    ActionCtx,
    App,
    AppError,
    Limits,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    http_router,
    internal_mutation,
    internal_query,
    query,
)
from duly.limits import HTTP_ACTION_BYTES_MAX
from duly.server.listen import listening
from duly.testing import Harness
from tests.clients.server import Server
from tests.server.raw import connected
from tests.server.support import Client, client_of
from tests.support import until

http = http_router()


@internal_mutation
async def add(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@internal_query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query("notes")]


@query
async def me(ctx: QueryCtx) -> Any:
    return await ctx.auth.get_user_identity()


@http.route("/notes", methods=["POST"])
async def post_note(ctx: ActionCtx, request: Request) -> Response:
    text = (await request.body()).decode()
    await ctx.run_mutation(add, {"text": text})
    await ctx.scheduler.run_after(1_000, add, {"text": f"{text}, later"})
    ctx.log.info("noted")
    return JSONResponse({"noted": text}, 201, {"X-Noted": "yes"})


@http.route("/notes", methods=["GET"])
async def get_notes(ctx: ActionCtx, request: Request) -> Response:
    return JSONResponse(await ctx.run_query(notes))


@http.route("/blocking", methods=["POST"])
def block(ctx: SyncActionCtx, request: Request) -> Response:
    text = ctx.wait(request.body()).decode()
    ctx.run_mutation(add, {"text": text})
    return PlainTextResponse(text)


@http.route("/length", methods=["POST"])
async def length(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())}")


@http.route(path_prefix="/files/", methods=["GET", "PUT"])
async def file(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(f"{request.method} {request.path_params['path']} {request.url.path} {request.url.query}")


@http.route("/events", methods=["GET"])
async def events(ctx: ActionCtx, request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            await ctx.run_mutation(add, {"text": str(number)})
            yield f"{len(await ctx.run_query(notes))}\n"
        if "fails" in request.query_params:
            raise ValueError("in the middle")

    return StreamingResponse(lines())


@http.route("/who", methods=["GET"])
async def who(ctx: ActionCtx, request: Request) -> Response:
    inner = await ctx.run_query(me)
    return JSONResponse([await ctx.auth.get_user_identity(), inner])


@http.route("/who", methods=["POST"])
def who_blocking(ctx: SyncActionCtx, request: Request) -> Response:
    return JSONResponse(ctx.auth.get_user_identity())


@http.route("/own-token", methods=["GET"])
async def own_token(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(request.headers["authorization"])


@http.route(path_prefix="/fail/", methods=["GET"])
async def fail(ctx: ActionCtx, request: Request) -> Any:
    match request.path_params["path"]:
        case "crash":
            raise ValueError("the password is xyzzy")
        case "app":
            raise AppError({"code": "SOLD_OUT", "left": 2**60})
        case "http":
            raise HTTPException(402, "pay first", {"X-Price": "3"})
        case "none":
            return None
        case _:
            return {"a": "dict"}


@http.route("/stuck", methods=["GET"])
async def stuck(ctx: ActionCtx, request: Request) -> Response:
    await asyncio.sleep(3_600)
    raise AssertionError


APP = {
    "http": SimpleNamespace(http=http),
    "app": SimpleNamespace(add=add, notes=notes, me=me),
}


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[tuple[Harness, Client]]:
    async with Harness(APP, **options) as t, client_of(t.app) as client:
        yield t, client


class Runs(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (run := getattr(record, "run", None)) is None:
            self.errors.append(record.getMessage())
        elif run.kind == "http":
            self.lines.append(f"{run.function} {run.args} {type(run.error).__name__}")


@pytest.fixture
def runs() -> Iterator[Runs]:
    logger, handler = logging.getLogger("duly.run"), Runs()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


async def test_a_handler_answers_a_request_and_works_as_an_action_does(runs: Runs) -> None:
    async with served() as (t, client):
        answer = await client.http.post("/http/notes", content=b"tea")
        assert (answer.status_code, answer.json(), answer.headers["x-noted"]) == (201, {"noted": "tea"}, "yes")
        assert (await client.http.get("/http/notes")).json() == ["tea"]
        await t.advance(1_000)
        assert (await client.http.get("/http/notes")).json() == ["tea", "tea, later"]
    assert runs.lines[:2] == [
        'http:post_note {"method":"POST","path":"/notes"} NoneType',
        'http:get_notes {"method":"GET","path":"/notes"} NoneType',
    ]


async def test_a_plain_function_runs_in_a_thread() -> None:
    async with served() as (t, client):
        assert (await client.http.post("/http/blocking", content=b"tea")).text == "tea"
        assert await t.query(notes) == ["tea"]


async def test_what_follows_a_prefix_is_a_parameter_and_the_url_is_that_of_the_client() -> None:
    async with served() as (_, client):
        answer = await client.http.get("/http/files/a%20b/c.txt?x=1")
        assert answer.text == "GET a b/c.txt /http/files/a b/c.txt x=1"
        assert (await client.http.put("/http/files/")).text == "PUT  /http/files/ "


async def test_head_is_get_without_a_body() -> None:
    async with served() as (_, client):
        answer = await client.http.head("/http/files/a")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(len("HEAD a /http/files/a "))


async def test_a_request_without_a_route_is_a_404_and_one_of_another_method_a_405() -> None:
    async with served() as (_, client):
        unknown = await client.http.get("/http/nothing")
        assert (unknown.status_code, unknown.text) == (404, "No HttpAction routed for /nothing")
        assert (await client.http.get("/http/")).text == "No HttpAction routed for /"
        assert (await client.http.get("/http/files")).status_code == 404
        wrong = await client.http.delete("/http/notes")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, POST")
        assert wrong.text == "No HttpAction routed for DELETE /notes, which allows GET, HEAD, POST"


async def test_a_handler_decides_which_origins_may_call() -> None:
    async with served() as (_, client):
        asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        assert (await client.http.options("/http/notes", headers=asks)).status_code == 405
        answer = await client.http.get("/http/notes", headers=asks)
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-origin" in (await client.http.get("/version", headers=asks)).headers


async def test_a_body_is_sent_as_it_is_made() -> None:
    async with served() as (_, client), client.http.stream("GET", "/http/events") as answer:
        assert [line async for line in answer.aiter_lines()] == ["1", "2", "3"]


async def test_an_error_in_the_middle_of_a_body_cuts_the_connection(runs: Runs) -> None:
    async with served() as (_, client):
        async with client.http.stream("GET", "/http/events?fails") as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx2.RemoteProtocolError):
                await answer.aread()
        assert (await client.http.get("/http/notes")).json() == ["0", "1", "2"]
    assert runs.lines[0].endswith("ValueError")
    assert "ValueError: in the middle" in runs.errors[0]


async def test_a_client_that_goes_away_ends_the_body(runs: Runs) -> None:
    never = asyncio.Event()
    ended: list[str] = []
    router = http_router()

    @router.route("/endless", methods=["GET"])
    async def endless(ctx: ActionCtx, request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await never.wait()
            finally:
                ended.append("here")

        return StreamingResponse(lines())

    async with Harness({"http": router}) as t, client_of(t.app) as client:
        async with client.http.stream("GET", "/http/endless") as answer:
            assert await anext(answer.aiter_bytes()) == b"first"
        await until(lambda: ended == ["here"] and len(t.app.executor.called_actions) == 0)


@pytest.mark.parametrize("path", ["/http/fail/crash", "/http/fail/none", "/http/fail/dict"])
async def test_in_production_a_client_learns_only_that_a_handler_failed(path: str, runs: Runs) -> None:
    async with served() as (_, client):
        answer = await client.http.get(path)
        assert (answer.status_code, [*answer.json()]) == (500, ["code"])
        request_id, _, text = answer.json()["code"].partition("] ")
        assert text == "Server Error"
        assert request_id in runs.errors[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("crash", "ValueError: the password is xyzzy\n  at fail (test_http_actions.py:"),
        ("none", "FunctionError: http:fail: it returned None (NoneType), expected a Response of Starlette, such as"),
        ("dict", "FunctionError: http:fail: it returned {'a': 'dict'} (dict), expected a Response of Starlette"),
    ],
)
async def test_in_development_a_client_gets_the_error(path: str, text: str) -> None:
    async with served(development=True) as (_, client):
        answer = await client.http.get(f"/http/fail/{path}")
        assert answer.status_code == 500
        assert answer.json()["code"].partition("] ")[2].startswith(text)


async def test_an_app_error_reaches_the_client_with_its_data() -> None:
    async with served() as (_, client):
        answer = await client.http.get("/http/fail/app")
        assert answer.status_code == 500
        assert answer.json() == {
            "code": "{'code': 'SOLD_OUT', 'left': 1152921504606846976}",
            "data": {"code": "SOLD_OUT", "left": {"$integer": "AAAAAAAAABA="}},
        }


async def test_an_http_exception_of_starlette_is_its_status() -> None:
    async with served() as (_, client):
        answer = await client.http.get("/http/fail/http")
        assert (answer.status_code, answer.text, answer.headers["x-price"]) == (402, "pay first", "3")


async def test_the_identity_is_that_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    ada = {"subject": "ada", "issuer": "https://id.test", "tokenIdentifier": "https://id.test|ada"}
    header = {"Authorization": f"Convex key:{base64.b64encode(json.dumps(ada).encode()).decode()}"}
    async with served() as (_, client):
        assert (await client.http.get("/http/who")).json() == [None, None]
        assert (await client.http.get("/http/who", headers=header)).json() == [ada, ada]
        assert (await client.http.post("/http/who", headers=header)).json() == ada


async def test_a_token_that_is_not_valid_is_an_error_where_the_identity_is_asked_for() -> None:
    async with served() as (_, client):
        for header in ("Bearer eyJ.x.y", "Convex wrong", "Basic YTpi"):
            authorization = {"Authorization": header}
            assert (await client.http.get("/http/own-token", headers=authorization)).text == header
            for answer in (
                await client.http.get("/http/who", headers=authorization),
                await client.http.post("/http/who", headers=authorization),
            ):
                assert answer.status_code == 401
                assert answer.json()["code"] in ("NoAuthProvider", "BadAdminKey", "InvalidAuthHeader")


async def test_a_body_may_be_so_large_and_not_larger() -> None:
    async with served() as (_, client):
        largest = b"x" * HTTP_ACTION_BYTES_MAX
        assert (await client.http.post("/http/length", content=largest)).text == "20971520"
        answer = await client.http.post("/http/length", content=largest + b"x")
        assert (answer.status_code, answer.json()) == (
            413,
            {"code": "RequestTooLarge", "message": "got a body of more than 20,971,520 bytes (HTTP_ACTION_BYTES_MAX)"},
        )


async def test_a_body_that_does_not_arrive_is_a_408(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    monkeypatch.setattr("duly.server.request_body.REQUEST_BODY_SECONDS", 0.1)
    async with served() as (_, client), connected(client.address) as connection:
        await connection.send(b"POST /http/length HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        assert (await connection.rest()).startswith(b"HTTP/1.1 408 ")
    assert runs.lines == ['http:length {"method":"POST","path":"/length"} BodyError']
    assert runs.errors == []


async def test_a_handler_has_the_time_of_an_action(runs: Runs) -> None:
    async with served(limits=Limits(action_seconds_max=0.05)) as (_, client):
        answer = await client.http.get("/http/stuck")
        assert answer.json()["code"].endswith("] Server Error")
    assert "http:stuck: it ran longer than 0.05 s (action_seconds_max)" in runs.errors[0]


async def test_closing_waits_for_a_handler_and_then_interrupts_it(runs: Runs) -> None:
    async with served() as (t, client):
        answer = asyncio.ensure_future(client.http.get("/http/stuck"))
        await until(lambda: t.app.executor.called_actions.names == ["http:stuck"])
        await t.app.close(grace_seconds=0.01)
        assert (await answer).json()["code"].endswith("] Server Error")
        closed = await client.http.get("/http/notes")
        assert (closed.status_code, closed.json()["code"]) == (503, "ServiceUnavailable")


def write_route(folder: Path, path: str) -> Path:
    """An application in a folder, of one route that answers its path."""
    folder.mkdir(exist_ok=True)
    (folder / "http.py").write_text(
        "from starlette.responses import PlainTextResponse\n"
        "from duly import http_router\n"
        "http = http_router()\n"
        f"@http.route({path!r}, methods=['GET'])\n"
        f"async def hook(ctx, request):\n    return PlainTextResponse({path!r})\n"
    )
    return folder


async def test_a_reload_takes_new_routes(tmp_path: Path) -> None:
    folder = write_route(tmp_path / "shop_routes", "/one")
    async with App(folder, f"sqlite:///{tmp_path}/data.db") as app, client_of(app) as client:
        assert (await client.http.get("/http/one")).text == "/one"
        write_route(folder, "/another")
        await app.reload()
        assert (await client.http.get("/http/another")).text == "/another"
        assert (await client.http.get("/http/one")).status_code == 404


async def test_a_mounted_app_has_them_below_its_own_path() -> None:
    async with Harness(APP) as t:
        api = FastAPI()
        api.mount("/live", t.app.asgi)
        async with listening(api, "127.0.0.1", [0]) as address, httpx2.AsyncClient(base_url=address) as client:
            answer = await client.get("/live/http/files/a/b")
            assert answer.text == "GET a/b /live/http/files/a/b "


@pytest.mark.slow
def test_dev_says_where_the_routes_are(tmp_path: Path) -> None:
    folder = write_route(tmp_path / "shop_routes", "/hook")
    with Server(tmp_path, "dev", folder) as server, urllib.request.urlopen(f"{server.address}/http/hook") as answer:
        assert answer.read() == b"/hook"
    log = (tmp_path / "server.log").read_text()
    assert f"runs 0 functions and 1 HTTP route of {tmp_path}/shop_routes" in log
    assert f"HTTP actions are below {server.address}/http\n" in log
    assert "✓ http     http:hook" in log
