"""HTTP actions: the requests that the routes of an application answer, with its own responses."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from duly.ctx.caller import Caller
from duly.declare.http_router import HttpHandler, HttpRouter
from duly.errors import FunctionError, StoreError
from duly.limits import HTTP_ACTION_BYTES_MAX
from duly.run.failure import ClientError
from duly.server.auth.identity import IdentityError
from duly.server.host import Host
from duly.server.http_api import body_problem, json_response, problem, unavailable
from duly.server.request_body import BodyError, limited
from duly.server.service import Services
from duly.sync import convex_json
from duly.values.plain import UNSET

PREFIX: Final = "/http/"
"""The path below which a server has the routes of its application."""


class HttpActions:
    """An ASGI application, for a route whose parameter `path` is what follows `PREFIX`."""

    def __init__(self, host: Host, services: Services) -> None:
        self._host = host
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(send, is_head=scope["method"] == "HEAD")
        answer = await self._answer(scope, limited(receive, "HTTP_ACTION_BYTES_MAX", HTTP_ACTION_BYTES_MAX), reply)
        # After an error in the middle of a body there is no answer: the server cuts the connection.
        if answer is not None and not reply.has_begun:
            await answer(scope, receive, reply)

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply) -> Response | None:
        """Run the handler of a request, which sends its response. Return another response if it cannot."""
        method, path = scope["method"], f"/{scope['path_params']['path']}"
        try:
            routes = self._host.runner.registry.http
            match = routes.find(method, path)
            if match is None:
                return _not_routed(routes, method, path)
            scope = {**scope, "path_params": {"path": match.rest}}
            await self._run(match.handler, path, Request(scope, receive, reply), reply)
        except ClientDisconnect:
            return None  # while the handler read the body
        except BodyError as error:
            return body_problem(error)
        except HTTPException as error:  # Starlette raises it, too, for a form that is none
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        except IdentityError as error:
            return problem(401, error.code, str(error))
        except StoreError as error:
            return unavailable(error)
        except Exception as error:
            return _failure(self._host.client_error(error))
        return None

    async def _run(self, handler: HttpHandler, path: str, request: Request, reply: _Reply) -> None:
        async def respond(result: object) -> None:
            if not isinstance(result, Response):
                raise FunctionError(
                    f"{handler.name}: it returned {result!r:.80} ({type(result).__name__}), expected a Response of"
                    " Starlette, such as PlainTextResponse or JSONResponse of starlette.responses"
                )
            await result(request.scope, request.receive, reply)

        about = {"method": request.method, "path": path}
        run = self._host.runner.http_action(handler, request, respond, about, await self._caller_of(request))
        await self._host.executor.called_actions.run(handler.name, run)

    async def _caller_of(self, request: Request) -> Caller:
        """Return for whom a request runs. A token that is refused counts only if the handler wants to know the
        identity: the header may be meant for the handler itself."""
        authentication = (await self._services.get()).authentication
        try:
            return Caller((await authentication.of_header(request.headers.get("authorization"))).identity)
        except IdentityError as error:
            return Caller(refusal=error)


class _Reply:
    """Sends a response: to HEAD without its body. It knows whether the response has begun."""

    def __init__(self, send: Send, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        if self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _not_routed(routes: HttpRouter, method: str, path: str) -> Response:
    if allowed := ", ".join(routes.methods_of(path)):
        text = f"No HttpAction routed for {method} {path:.200}, which allows {allowed}"
        return PlainTextResponse(text, 405, {"Allow": allowed})
    return PlainTextResponse(f"No HttpAction routed for {path:.200}", 404)


def _failure(known: ClientError) -> Response:
    data = {} if known.data is UNSET else {"data": orjson.Fragment(convex_json.dumps(known.data))}
    return json_response(500, {"code": known.message, **data})
