"""The ASGI application of an app: its routes. It may be served alone, or mounted in another one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from duly.declare.http_router import HTTP_METHODS
from duly.errors import StoreError
from duly.logs import REQUEST, Request
from duly.server.admission import Admission
from duly.server.health import alive, readiness
from duly.server.host import Host
from duly.server.http_actions import PREFIX, HttpActions
from duly.server.http_api import Endpoint, endpoints, problem
from duly.server.origins import allowed_origins
from duly.server.service import Services
from duly.server.socket import converse
from duly.sync.session import INTERNAL_ERROR, TRY_AGAIN_LATER


def application(host: Host, allow_origins: Iterable[str] | None = None) -> Starlette:
    """Return the application that serves an app to remote clients. The app must be open when it is called.

    Pages of these origins may call it; by default those that the environment names, else those of any origin: what a
    caller may do is told by its token, never by a cookie. Raises ValueError for what is no origin.
    """
    services, origins = Services(host), allowed_origins(allow_origins)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins or (),
        allow_origin_regex=".*" if origins is None else None,
        allow_credentials=True,
        allow_methods=HTTP_METHODS,
        allow_headers=["*"],
        max_age=86_400,
    )
    routes: list[BaseRoute] = [
        Route(
            PREFIX + "{path:path}", HttpActions(host, services)
        ),  # each decides by itself what pages of other origins may do
        Mount("", routes=_api(host, services, origins), middleware=[cors]),
    ]
    served = Starlette(
        routes=routes,
        middleware=[Middleware(_WithRequestId, host=host)],
        exception_handlers={404: _unknown, 405: _unknown},  # a method, or an address, that no route can have
    )
    served.state.services = services
    return served


class _WithRequestId:
    """Gives each request and each connection an id, before anything is done for it."""

    def __init__(self, app: ASGIApp, host: Host) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_client = scope["type"] != "lifespan"
        token = REQUEST.set(Request(self._host.new_request_id()) if is_client else None)
        try:
            await self._app(scope, receive, send)
        finally:
            REQUEST.reset(token)


def _api(host: Host, services: Services, origins: frozenset[str] | None) -> list[BaseRoute]:
    admission = Admission()

    async def sync(websocket: WebSocket) -> None:
        if origins is not None and websocket.headers.get("origin", "") not in {*origins, ""}:
            await websocket.close()  # which refuses the handshake; programs that are no browsers send no origin
            return
        try:
            service = await services.get()
        except StoreError:
            await websocket.accept()  # a refused handshake has no code that clients could read
            await websocket.close(INTERNAL_ERROR, "InternalServerError")
            return
        client = None if websocket.client is None else websocket.client.host
        with admission.of(client, host.runner.limits) as problem:
            if problem is None:
                await converse(websocket, service)
            else:
                host.runner.warn_now_and_then(("sockets", ""), "a socket of a client was refused: %s", problem)
                await websocket.accept()
                await websocket.close(TRY_AGAIN_LATER, "TooManyConcurrentRequests")

    return [
        WebSocketRoute("/api/sync", sync),
        WebSocketRoute("/api/{version}/sync", sync),
        Route("/", _text("duly serves this address: point a Convex client at it")),
        Route("/healthz", alive),
        Route("/readyz", readiness(host)),
        Route("/version", _text(version("duly"))),
        Route("/instance_version", _text(version("duly"))),
        Route("/instance_name", _text("duly")),
        *(Route(path, endpoint, methods=[method]) for (method, path), endpoint in endpoints(services).items()),
        Route("/{path:path}", _elsewhere, methods=HTTP_METHODS),
    ]


async def _elsewhere(request: HttpRequest) -> Response:
    """Answer what no other route does: pages ask for the options of each before they call it."""
    return PlainTextResponse("") if request.method == "OPTIONS" else await _unknown(request)


async def _unknown(request: HttpRequest, error: Exception | None = None) -> Response:
    what = f"{request.method} {request.scope['path']}"
    return problem(404, "NotFound", f"got {what:.200}, which this server does not know")


def _text(text: str) -> Endpoint:
    async def endpoint(request: HttpRequest) -> Response:
        return PlainTextResponse(text)

    return endpoint
