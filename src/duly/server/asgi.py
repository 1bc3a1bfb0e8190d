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
        # Each decides by itself what pages of other origins may do.
        Route(PREFIX + "{path:path}", HttpActions(host, services)),
        Mount("", routes=_api(host, services, origins), middleware=[cors]),
    ]
    served = Starlette(
        routes=routes,
        middleware=[Middleware(_WithRequestId, host=host), Middleware(_OneSlash)],
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


class _OneSlash:
    """Lets clients have an address that ends with a slash: what they request begins with two then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root, path = scope.get("root_path", ""), scope.get("path", "")
        if path.startswith(f"{root}//"):
            scope = {**scope, "path": f"{root}/{path.removeprefix(root).lstrip('/')}"}
        await self._app(scope, receive, send)


class _Sockets:
    """The WebSockets of a server. A client that is refused only learns that it was, and tries again: so the log says
    why, where somebody has to change something."""

    def __init__(self, host: Host, services: Services, origins: frozenset[str] | None) -> None:
        self._host = host
        self._services = services
        self._origins = origins
        self._admission = Admission()

    async def sync(self, websocket: WebSocket) -> None:
        origin = websocket.headers.get("origin", "")  # programs that are no browsers send none
        if self._origins is not None and origin not in {*self._origins, ""}:
            self._warn("its page is of %.200r, expected an origin of --allow-origin or DULY_ALLOW_ORIGINS", origin)
            await websocket.close()  # which refuses the handshake
            return
        try:
            service = await self._services.get()
        except StoreError:
            await websocket.accept()  # a refused handshake has no code that clients could read
            await websocket.close(INTERNAL_ERROR, "InternalServerError")
            return
        client = None if websocket.client is None else websocket.client.host
        with self._admission.of(client, self._host.runner.limits) as problem:
            if problem is None:
                await converse(websocket, service)
            else:
                self._warn("%s", problem)
                await websocket.accept()
                await websocket.close(TRY_AGAIN_LATER, "TooManyConcurrentRequests")

    async def elsewhere(self, websocket: WebSocket) -> None:
        self._warn(
            "it requests %.200r, expected /api/…/sync: a client has an address without a path", websocket.url.path
        )
        await websocket.close()

    def _warn(self, why: str, about: str) -> None:
        if self._host.is_open:
            self._host.runner.warn_now_and_then(("sockets", why), f"a socket of a client was refused: {why}", about)


def _api(host: Host, services: Services, origins: frozenset[str] | None) -> list[BaseRoute]:
    sockets = _Sockets(host, services, origins)
    return [
        WebSocketRoute("/api/sync", sockets.sync),
        WebSocketRoute("/api/{version}/sync", sockets.sync),
        WebSocketRoute("/{path:path}", sockets.elsewhere),
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
    known = f"expected /api/query, /api/mutation or /api/action, or an HTTP action below {PREFIX}"
    return problem(404, "NotFound", f"got {what:.200}, {known}")


def _text(text: str) -> Endpoint:
    async def endpoint(request: HttpRequest) -> Response:
        return PlainTextResponse(text)

    return endpoint
