"""By which id a request, a call over a connection, its log lines and its errors are found."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.responses import Response

from duly import ActionCtx, MutationCtx, QueryCtx, action, http_router, mutation, query
from duly.cli.json_log import JsonFormatter, print_json
from duly.testing import Harness
from tests.server.support import client_of
from tests.support import app_of


@query
async def numbers(ctx: QueryCtx) -> int:
    ctx.log.info("counting")
    return await ctx.db.query("numbers").count()


@mutation
async def add(ctx: MutationCtx) -> None:
    ctx.log.info("adding")
    await ctx.db.insert("numbers", {})


@mutation
async def fail(ctx: MutationCtx) -> None:
    raise ValueError("\ud800 no")


@action
async def act(ctx: ActionCtx) -> None:
    ctx.log.info("acting")
    await ctx.run_mutation(add)


http = http_router()


@http.route("/fail", methods=["GET"])
async def hook(ctx: ActionCtx, request: Request) -> Response:
    await ctx.run_mutation(add)
    raise ValueError("no")


APP = {**app_of(numbers, add, fail, act), "http": http}


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def found(self, text: str) -> list[Any]:
        return [record for record in self.records if text in record.getMessage()]


@pytest.fixture
def log() -> Iterator[Records]:
    handler, loggers = Records(), [logging.getLogger(name) for name in ("duly", "duly.app", "duly.run")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.INFO)
    yield handler
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].removeHandler(handler)


@pytest.mark.parametrize("path", ["/api/mutation", "/http/fail"])
async def test_what_a_request_logs_has_the_id_of_its_error(path: str, log: Records) -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        if path == "/http/fail":
            text = (await client.http.get(path)).json()["code"]
        else:
            text = (await client.post(path, {"path": "app:fail", "args": {}}))[1]["errorMessage"]
    id = text.removeprefix("[Request ID: ").partition("]")[0]
    assert len(id) == 16
    expected = ("app:fail",) if path == "/api/mutation" else ("adding", "mutation app:add", "http http:hook")
    for what in expected:
        assert [(record.request_id, record.session) for record in log.found(what)][:1] == [(id, None)], what


async def test_each_call_over_a_connection_has_an_id_and_all_have_the_session(log: Records) -> None:
    session = str(uuid4())
    async with Harness(APP) as t, client_of(t.app) as client, client.socket() as socket:
        await socket.hello(session)
        for request in range(2):
            await socket.mutate(request, "app:fail")
            head = (await socket.next())["result"].partition("]")[0]
            [record] = log.found(head)
            assert (head, record.session) == (f"[Request ID: {record.request_id}", session)
            await socket.transition()
        await socket.send("Action", requestId=2, udfPath="app:act", args=[{}])
        await socket.next()
    ids = {record.request_id for what in ("acting", "adding", "action app:act") for record in log.found(what)}
    assert len(ids) == 1
    assert len({record.request_id for record in log.found("app:fail")} | ids) == 3


async def test_a_query_that_many_watch_works_for_none_of_them(log: Records) -> None:
    async with Harness(APP) as t, client_of(t.app) as client, client.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:numbers")
        assert await socket.transition() == {0: 0}
        await client.post("/api/mutation", {"path": "app:add", "args": {}})
        assert await socket.transition() == {0: 1}
    for what in ("counting", "query app:numbers"):
        assert [(record.request_id, record.session) for record in log.found(what)] == [(None, None)] * 2


async def test_calls_of_the_program_itself_have_no_id(log: Records) -> None:
    async with Harness(APP) as t:
        await t.mutation("app:add")
    [record] = log.found("adding")
    assert (record.request_id, record.session) == (None, None)


async def test_a_program_may_name_the_request_itself(log: Records) -> None:
    @mutation
    async def named(ctx: MutationCtx) -> None:
        ctx.log.info("named", extra={"request_id": "own"})

    async with Harness(app_of(named)) as t:
        await t.mutation("app:named")
    assert log.found("named")[0].request_id == "own"


# Lines of JSON.


async def test_each_record_is_a_line_of_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, log: Records
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    print_json()
    session = str(uuid4())
    async with Harness(APP) as t, client_of(t.app) as client, client.socket() as socket:
        await socket.hello(session)
        await socket.mutate(0, "app:add")
        await socket.next()
        await client.post("/api/mutation", {"path": "app:fail", "args": {}})
    logging.getLogger("elsewhere").warning("odd %s", "\ud800")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    adding, added, failed, error, odd = lines
    assert list(adding) == ["time", "level", "logger", "message", "request_id", "session"]
    assert (adding["level"], adding["logger"], adding["message"]) == ("INFO", "duly.app.app:add", "adding")
    assert (adding["session"], added["session"]) == (session, session)
    assert added["request_id"] == adding["request_id"]
    assert {**added["run"], "milliseconds": 0} == {
        "function": "app:add",
        "kind": "mutation",
        "milliseconds": 0,
        "failed": False,
        "scheduled": False,
        "job": None,
    }
    assert failed["run"]["failed"] is True
    assert error["message"].startswith(f"[Request ID: {failed['request_id']}] ValueError: \\ud800 no\n  at fail (")
    assert error["exception"].splitlines()[-1] == "ValueError: \\ud800 no"
    assert (odd["logger"], odd["message"], "request_id" in odd) == ("elsewhere", "odd \\ud800", False)


def test_the_time_of_a_line_is_that_of_the_record_in_utc() -> None:
    record = logging.LogRecord("duly", logging.INFO, "", 0, "text", None, None)
    record.created = 1_893_456_000.25
    assert json.loads(JsonFormatter().format(record))["time"] == "2030-01-01T00:00:00.250+00:00"
