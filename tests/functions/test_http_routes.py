"""`http_router()`: what it takes, which handler it finds, and where an application may have it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from duly import LoadError, action, http_router
from duly.declare.registry import Registry


async def handle(ctx: Any, request: Any) -> Any: ...


async def other(ctx: Any, request: Any) -> Any: ...


def blocking(ctx: Any, request: Any) -> Any: ...


async def generate(ctx: Any, request: Any) -> Any:
    yield


async def only_ctx(ctx: Any) -> Any: ...


async def more(ctx: Any, request: Any, name: str) -> Any: ...


async def of_a_mutation(ctx: MutationCtx, request: Any) -> Any: ...  # type: ignore[name-defined]  # noqa: F821


@action
async def decorated(ctx: Any) -> Any: ...


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ({"path": "hook"}, "got the path 'hook', expected one that begins with '/'"),
        ({"path": 7}, "got the path 7, expected one that begins with '/'"),
        ({"path_prefix": "files/"}, "got the path_prefix 'files/', expected one that begins with '/'"),
        ({"path_prefix": "/files"}, "got the path_prefix '/files', expected one that ends with '/'"),
        ({}, "got path=None and path_prefix=None, expected one of them"),
        ({"path": "/a", "path_prefix": "/a/"}, "got path='/a' and path_prefix='/a/', expected one of them"),
        ({"path": "/orders/{id}"}, "got the path '/orders/{id}', expected one without '{': a route has one path"),
        ({"path_prefix": "/files/*/"}, "got the path_prefix '/files/*/', expected one without '*'"),
        ({"path": "/a?b=1"}, "got the path '/a?b=1', expected one without '?'"),
    ],
)
def test_a_route_has_one_path_that_a_request_may_have(place: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        http_router().route(**place, methods=["GET"])


@pytest.mark.parametrize("name", ["get", "post", "put", "patch", "delete", "options"])
def test_a_decorator_of_other_frameworks_is_pointed_to_route(name: str) -> None:
    problem = f'got @http.{name}, expected @http.route("/path", methods=[…])'
    with pytest.raises(AttributeError, match=f"^{re.escape(problem)}$"):
        getattr(http_router(), name)


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (["post"], "got the method 'post', expected one of GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        (["GET", 1], "got the method 1, expected one of"),
        (["HEAD"], "got the method 'HEAD', which is answered as GET"),
        ([], "got no methods, expected at least one of GET"),
        ("POST", "got methods='POST', expected a list"),
        (None, "got methods=None, expected a list"),
    ],
)
def test_a_method_of_a_route_is_a_known_one(methods: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        http_router().route("/a", methods=methods)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (only_ctx, "@http.route: only_ctx: too many positional arguments; expected `async def` or `def` with (ctx, re"),
        (more, "@http.route: more: missing a required argument: 'name'; expected `async def` or `def` with (ctx, re"),
        (generate, "@http.route: got generate with `yield`, expected a function that returns a Response"),
        (decorated, "@http.route: got the <action tests.functions.test_http_routes.decorated>, expected `async def`"),
        (SimpleNamespace, "@http.route: got <class 'types.SimpleNamespace'>, expected `async def` or `def`"),
        (of_a_mutation, "of_a_mutation() has ctx: MutationCtx, expected ctx: ActionCtx"),
    ],
)
def test_a_handler_takes_a_context_and_a_request(handler: Any, problem: str) -> None:
    router = http_router()
    with pytest.raises(TypeError, match=f"^{re.escape(problem)}"):
        router.route("/a", methods=["GET"])(handler)
    assert len(router) == 0


def test_a_path_has_one_handler_for_each_method() -> None:
    router = http_router()
    router.route("/a", methods=["GET", "POST"])(handle)
    router.route("/a", methods=["PUT"])(other)
    router.route(path_prefix="/a/", methods=["GET"])(other)
    with pytest.raises(ValueError, match="^got the path '/a' for POST twice, expected it once$"):
        router.route("/a", methods=["PATCH", "POST"])(other)
    assert router.find("PATCH", "/a") is None


def test_a_handler_stays_a_function_and_may_have_several_routes() -> None:
    router = http_router()
    assert router.route("/a", methods=["GET"])(router.route("/b", methods=["GET"])(handle)) is handle
    assert len(router) == 2


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/files/", ("http:other", "")),
        ("GET", "/files/a/b", ("http:other", "a/b")),
        ("GET", "/files/big/b", ("http:blocking", "b")),
        ("GET", "/files/big/exact", ("http:handle", "")),
        ("POST", "/files/big/exact", ("http:other", "big/exact")),
        ("HEAD", "/files/big/exact", ("http:handle", "")),
        ("GET", "/files", None),
        ("GET", "/", None),
        ("PUT", "/files/a", None),
    ],
)
def test_an_exact_path_comes_first_and_then_the_longest_prefix(method: str, path: str, found: Any) -> None:
    router = http_router()
    router.route(path_prefix="/files/", methods=["GET", "POST"])(other)
    router.route(path_prefix="/files/big/", methods=["GET"])(blocking)
    router.route("/files/big/exact", methods=["GET"])(handle)
    match = router.find(method, path)
    assert (match and (match.handler.name, match.rest)) == found


def test_the_methods_of_a_path_are_those_of_all_its_routes() -> None:
    router = http_router()
    router.route(path_prefix="/files/", methods=["POST"])(other)
    router.route("/files/a", methods=["GET"])(handle)
    assert router.methods_of("/files/a") == ["GET", "HEAD", "POST"]
    assert router.methods_of("/files/b") == ["POST"]
    assert router.methods_of("/elsewhere") == []


def test_the_router_of_an_application_is_http_in_its_module_http() -> None:
    router = http_router()
    router.route("/a", methods=["GET"])(handle)
    assert Registry({"http": SimpleNamespace(http=router)}).http is router
    assert Registry({"http": router}).http is router
    assert len(Registry({"http": SimpleNamespace()}).http) == 0
    assert len(Registry({}).http) == 0


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ({"http": SimpleNamespace(http=7)}, r"^http: got 7 as `http`, expected `http = http_router\(\)`$"),
        ({"api": SimpleNamespace(http=http_router())}, r"^api: got `http = http_router\(\)`, expected all routes in"),
        ({"http": SimpleNamespace(routes=http_router())}, r"^http: got `routes = http_router\(\)`, expected all"),
    ],
)
def test_a_router_elsewhere_does_not_load(modules: dict[str, Any], problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        Registry(modules)
