"""The HTTP API: one function call per request, for `ConvexHttpClient`, for Python's, and for curl."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from duly.declare.function import ACTION, MUTATION, QUERY
from duly.errors import StoreError
from duly.limits import BATCH_QUERIES_MAX, MESSAGE_BYTES_MAX
from duly.logs import log_of
from duly.server.auth.identity import ClientIdentity, IdentityError
from duly.server.calls import ALL_KINDS, Outcome
from duly.server.request_body import BodyError, limited
from duly.server.service import Service, Services
from duly.sync.convex_json import FORMATS, EncodingError, decode_ts, encode_ts
from duly.sync.protocol import data_of

_log: Final = log_of("duly.server")
_TIMEOUT: Final = 408
_SORRY: Final = "Your request couldn't be completed. Try again later."

Json = Mapping[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]


class HttpError(Exception):
    """A request that is answered with an error before a function runs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Call(NamedTuple):
    """The call that a request asks for."""

    path: str
    args: object
    format: str


def _as_endpoint(handle: Callable[[Service, Request], Awaitable[Response]], services: Services) -> Endpoint:
    """Return an endpoint that answers all errors as clients expect."""

    @functools.wraps(handle)
    async def endpoint(request: Request) -> Response:
        try:
            return await handle(await services.get(), request)
        except HttpError as error:
            return problem(error.status, error.code, str(error))
        except BodyError as error:
            return body_problem(error)
        except IdentityError as error:
            return problem(401, error.code, str(error))
        except StoreError as error:
            return unavailable(error)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        except Exception:
            _log.exception("a request failed")
            return problem(500, "InternalServerError", _SORRY)

    return endpoint


def endpoints(services: Services) -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints by their method and path."""
    handlers = {
        ("POST", "/api/query"): _calls(QUERY),
        ("GET", "/api/query"): _query_by_get,
        ("POST", "/api/mutation"): _calls(MUTATION),
        ("POST", "/api/action"): _calls(ACTION),
        ("POST", "/api/function"): _function,
        ("POST", "/api/run/{path:path}"): _run,
        ("POST", "/api/query_batch"): _query_batch,
        ("POST", "/api/query_ts"): _query_ts,
        ("POST", "/api/query_at_ts"): _query_at_ts,
        ("POST", "/api/debug_event"): _ignored,
    }
    return {route: _as_endpoint(handler, services) for route, handler in handlers.items()}


# What is asked for.


async def _body(request: Request) -> Json:
    """Return the body of a request, an object."""
    receive = limited(request.receive, "MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX)
    text = await Request(request.scope, receive).body()
    try:
        body: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, "BadJsonBody", f"got a body that is no JSON ({error})") from None
    if not isinstance(body, dict):
        raise HttpError(400, "BadJsonBody", f"got {body!r:.80} as the body, expected an object")
    return cast("Json", body)


def _call_of(body: Json) -> Call:
    return Call(_path_of(body), _args_of(body.get("args", {})), _format_of(body.get("format")))


def _calls_of(queries: object) -> list[Call]:
    """Return the calls of a batch."""
    found = cast("list[object]", queries) if isinstance(queries, list) else [None]
    if not all(isinstance(one, dict) for one in found):
        raise HttpError(400, "BadJsonBody", f"got {queries!r:.80} for 'queries', expected a list of objects")
    if len(found) > BATCH_QUERIES_MAX:
        limit = f"at most {BATCH_QUERIES_MAX:,} (BATCH_QUERIES_MAX)"
        raise HttpError(400, "TooManyQueries", f"got {len(found):,} queries, expected {limit}")
    return [_call_of(cast("Json", one)) for one in found]


def _path_of(body: Json) -> str:
    path = body.get("path")
    if not isinstance(path, str) or not path:
        raise HttpError(400, "BadConvexFunctionIdentifier", f"got the path {path!r:.80}, expected 'module:function'")
    if body.get("componentPath"):
        raise HttpError(400, "BadConvexFunctionIdentifier", "got a componentPath: this server has no components")
    return path


def _args_of(args: object) -> object:
    """Return the one object of arguments, which some clients send in a list."""
    if not isinstance(args, list):
        return args
    several = cast("list[object]", args)
    if len(several) > 1:
        raise HttpError(400, "BadArgs", f"got a list of {len(several)} arguments, expected one object")
    return several[0] if several else {}


def _format_of(name: object) -> str:
    if name is None:
        return "json"
    if not isinstance(name, str) or name not in FORMATS:
        raise HttpError(400, "BadFormat", f"format param must be one of [`json`]. Got {name!r:.80}")
    return name


async def _who(service: Service, request: Request) -> ClientIdentity:
    return await service.authentication.of_header(request.headers.get("authorization"))


# The endpoints.


def _calls(kind: str) -> Callable[[Service, Request], Awaitable[Response]]:
    async def handle(service: Service, request: Request) -> Response:
        call = _call_of(await _body(request))
        return await _answer(service, call, await _who(service, request), (kind,))

    return handle


async def _query_by_get(service: Service, request: Request) -> Response:
    given = request.query_params
    try:
        args = orjson.loads(given.get("args", "{}"))
    except orjson.JSONDecodeError as error:
        raise HttpError(400, "BadJsonBody", f"got args that are no JSON ({error})") from None
    call = _call_of({"path": given.get("path"), "args": args, "format": given.get("format")})
    return await _answer(service, call, await _who(service, request), (QUERY,))


async def _function(service: Service, request: Request) -> Response:
    who = await _who(service, request)
    if not who.is_admin:
        raise HttpError(403, "BadDeployKey", "got a call of /api/function without an admin key")
    return await _answer(service, _call_of(await _body(request)), who, ALL_KINDS)


async def _run(service: Service, request: Request) -> Response:
    *module, name = request.path_params["path"].split("/")
    if not module or not name:
        raise HttpError(400, "MissingIdentifier", "got no function, expected /api/run/module/function")
    call = _call_of({**await _body(request), "path": f"{'/'.join(module)}:{name}"})
    return await _answer(service, call, await _who(service, request), ALL_KINDS)


async def _query_batch(service: Service, request: Request) -> Response:
    calls, who = _calls_of((await _body(request)).get("queries")), await _who(service, request)
    outcomes = await service.calls.queries([(call.path, call.args) for call in calls], who)
    answers = [_envelope(outcome, call.format) for call, outcome in zip(calls, outcomes, strict=True)]
    return json_response(200, {"results": answers})


async def _query_ts(service: Service, request: Request) -> Response:
    return json_response(200, {"ts": encode_ts(service.timestamps.now)})


async def _query_at_ts(service: Service, request: Request) -> Response:
    """Answer a query as of an earlier timestamp: if what it reads has not changed since then, it is as it was."""
    body, who = await _body(request), await _who(service, request)
    try:
        ts = decode_ts(body.get("ts"))
    except EncodingError as error:
        raise HttpError(400, "BadTimestamp", str(error)) from None
    call = _call_of(body)
    outcome, is_unchanged = await service.calls.query_at(call.path, call.args, who, service.timestamps.version_at(ts))
    if not is_unchanged:
        raise HttpError(503, "OutOfRetention", "got a timestamp since when the result has changed: ask for a new one")
    return json_response(200, _envelope(outcome, call.format))


async def _ignored(service: Service, request: Request) -> Response:
    return Response(status_code=200)


# Answers.


async def _answer(service: Service, call: Call, who: ClientIdentity, kinds: tuple[str, ...]) -> Response:
    return json_response(200, _envelope(await service.calls.call(call.path, call.args, who, kinds), call.format))


def _envelope(outcome: Outcome, format: str) -> Json:
    """Return the outcome of a call. That of a failed one has the status 200, too: some clients read no other."""
    lines = {"logLines": outcome.lines} if outcome.lines else {}
    if outcome.failure is not None:
        data = data_of(outcome.failure)
        return {"status": "error", "errorMessage": outcome.failure.message, **data, **lines}
    return {"status": "success", "value": orjson.Fragment(FORMATS[format](outcome.value)), **lines}


def body_problem(error: BodyError) -> Response:
    response = problem(error.status, error.code, str(error))
    if error.status == _TIMEOUT:
        response.headers["connection"] = "close"  # what else it sends would be taken for the next request
    return response


def unavailable(error: StoreError) -> Response:
    _log.warning("a request could not be answered: %s", error)
    return problem(503, "ServiceUnavailable", _SORRY)


def problem(status: int, code: str, message: str) -> Response:
    return json_response(status, {"code": code, "message": message})


def json_response(status: int, body: Json) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
