"""`http_router()`: the HTTP actions that an application declares in `http.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from duly.declare.function import ACTION, Function, check_ctx
from duly.hints import name_hint

HTTP_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods that a route may have. HEAD is answered as GET, without the body."""
HTTP: Final = "http"
"""The kind of an HTTP action, as the log of runs has it: beside queries, mutations and actions."""

H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True)
class HttpHandler:
    """The handler of a route."""

    name: str
    """As logs have it: `http:hook`."""
    handle: Callable[..., Any]
    """Takes a context and a request, and returns a response."""
    blocking: bool
    """Whether it is a `def`, which runs in a thread."""


class Match(NamedTuple):
    """The handler of a request, and what follows the prefix of its route: "" for a route of an exact path."""

    handler: HttpHandler
    rest: str


@name_hint('got @http.{name}, expected @http.route("/path", methods=[…])', *map(str.lower, HTTP_METHODS))
class HttpRouter:
    """The HTTP actions of an application. Made by `http_router()`.

        http = http_router()

        @http.route("/stripe", methods=["POST"])
        async def stripe(ctx: ActionCtx, request: Request) -> Response:
            await ctx.run_mutation(internal.payments.received, await request.json())
            return Response(status_code=204)

        @http.route(path_prefix="/files/", methods=["GET"])
        async def download(ctx: ActionCtx, request: Request) -> Response:
            return PlainTextResponse(f"this is {request.path_params['path']}")

    A server has them below `/http`: `/http/stripe`. The handler gets a Request of Starlette and returns a Response of
    Starlette, and `ctx` is that of an action. An exact path is preferred to a prefix, and a longer prefix to a shorter
    one. A wrong declaration raises ValueError or TypeError at its own line.
    """

    def __init__(self) -> None:
        self._paths: dict[str, dict[str, HttpHandler]] = {}
        self._prefixes: dict[str, dict[str, HttpHandler]] = {}

    def route(
        self, path: str | None = None, *, path_prefix: str | None = None, methods: Iterable[str]
    ) -> Callable[[H], H]:
        """Declare a handler of requests to a path, or to all paths that begin with a prefix, such as `/files/`."""
        if (path is None) == (path_prefix is None):
            raise ValueError(f"got path={path!r:.80} and path_prefix={path_prefix!r:.80}, expected one of them")
        table, kind, place = (
            (self._paths, "path", path) if path_prefix is None else (self._prefixes, "path_prefix", path_prefix)
        )
        _check_path(kind, place)
        wanted = _checked_methods(methods)

        def decorate(handler: H) -> H:
            _check_handler(handler)
            found = HttpHandler(f"http:{handler.__name__}", handler, not inspect.iscoroutinefunction(handler))
            known = table.setdefault(str(place), {})
            for method in wanted:
                if method in known:
                    raise ValueError(f"got the {kind} {place!r} for {method} twice, expected it once")
            known.update(dict.fromkeys(wanted, found))
            return handler

        return decorate

    def __len__(self) -> int:
        """The number of routes."""
        return len(self._paths) + len(self._prefixes)

    def find(self, method: str, path: str) -> Match | None:
        """Return the handler of a request; None if there is none for this path and method."""
        wanted = "GET" if method == "HEAD" else method
        exact = self._paths.get(path, {}).get(wanted)
        if exact is not None:
            return Match(exact, "")
        for prefix in self._prefixes_of(path):
            if (handler := self._prefixes[prefix].get(wanted)) is not None:
                return Match(handler, path.removeprefix(prefix))
        return None

    def methods_of(self, path: str) -> list[str]:
        """Return the methods that a path may be requested with."""
        handlers = [self._paths.get(path, {}), *(self._prefixes[prefix] for prefix in self._prefixes_of(path))]
        known = {method for one in handlers for method in one}
        return sorted(known | {"HEAD"} if "GET" in known else known)

    def _prefixes_of(self, path: str) -> list[str]:
        """Return the prefixes that a path begins with, the longest first."""
        return sorted((prefix for prefix in self._prefixes if path.startswith(prefix)), key=len, reverse=True)


def http_router() -> HttpRouter:
    """Return the HTTP actions of an application, still empty: `http = http_router()` in `http.py`."""
    return HttpRouter()


def _check_path(kind: str, path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"got the {kind} {path!r:.80}, expected one that begins with '/'")
    if odd := next((character for character in "{}*?#" if character in path), None):
        raise ValueError(
            f"got the {kind} {path!r:.80}, expected one without {odd!r}: a route has one path, or with path_prefix= all"
            " that begin with it; then request.path_params['path'] is the rest"
        )
    if kind == "path_prefix" and not path.endswith("/"):
        raise ValueError(f"got the path_prefix {path!r:.80}, expected one that ends with '/'")


def _checked_methods(methods: Iterable[Any]) -> list[str]:
    known = ", ".join(HTTP_METHODS)
    if isinstance(methods, str) or not isinstance(methods, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f'got methods={methods!r:.80}, expected a list, such as ["POST"]')
    given = list(methods)
    for method in given:
        if method == "HEAD":
            raise ValueError("got the method 'HEAD', which is answered as GET, without the body: declare GET")
        if method not in HTTP_METHODS:
            raise ValueError(f"got the method {method!r:.80}, expected one of {known}")
    if not given:
        raise ValueError(f"got no methods, expected at least one of {known}")
    return given


def _check_handler(handler: Callable[..., Any]) -> None:
    what = "expected `async def` or `def` with (ctx, request)"
    if isinstance(handler, Function):
        raise TypeError(f"@http.route: got the {handler!r}, {what}; it may call ctx.run_{handler.kind}(…)")
    if not inspect.isfunction(handler):
        raise TypeError(f"@http.route: got {handler!r:.80}, {what}")
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(
            f"@http.route: got {handler.__qualname__} with `yield`, expected a function that returns a Response, which"
            " may be a StreamingResponse of a generator"
        )
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError as error:
        raise TypeError(f"@http.route: {handler.__qualname__}: {error}; {what}") from None
    check_ctx(handler, ACTION)
