"""The application that is fuzzed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from duly import (
    ActionCtx,
    AppError,
    MutationCtx,
    Page,
    PaginationOpts,
    QueryCtx,
    action,
    define_schema,
    define_table,
    http_router,
    internal_query,
    mutation,
    query,
    v,
)
from tests.server.signing import Signer, oidc
from tests.support import app_of

ONE = Signer()
SCHEMA = define_schema({"documents": define_table({"key": v.string(), "value": v.any()}).index("by_key", ["key"])})


@query
async def get(ctx: QueryCtx, key: str) -> Any:
    found = await ctx.db.query("documents").with_index("by_key", lambda q: q.eq("key", key)).first()
    return None if found is None else found["value"]


@mutation
async def put(ctx: MutationCtx, key: str, value: Any) -> Any:
    found = await ctx.db.query("documents").with_index("by_key", lambda q: q.eq("key", key)).first()
    if found is None:
        await ctx.db.insert("documents", {"key": key, "value": value})
    else:
        await ctx.db.patch(found["_id"], {"value": value})
    return value


@query
async def echo(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@action
async def act(ctx: ActionCtx, value: Any = None) -> Any:
    return value


@query
async def me(ctx: QueryCtx) -> Any:
    return await ctx.auth.get_user_identity()


@query
async def page(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[Any]:
    return await ctx.db.query("pages").paginate(paginationOpts)


@mutation
async def fail(ctx: MutationCtx) -> None:
    raise ValueError("on purpose")


@mutation
async def refuse(ctx: MutationCtx, value: Any = None) -> None:
    raise AppError(value)


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "internal"


@mutation
async def add_one(ctx: MutationCtx) -> int:
    """What the well-behaved client calls, and no other."""
    n = await count.handler(ctx) + 1
    found = await ctx.db.query("counts").first()
    await (ctx.db.insert("counts", {"n": n}) if found is None else ctx.db.patch(found["_id"], {"n": n}))
    return n


@query
async def count(ctx: QueryCtx) -> int:
    found = await ctx.db.query("counts").first()
    return 0 if found is None else found["n"]


http = http_router()


@http.route("/echo", methods=["POST"])
async def post(ctx: ActionCtx, request: Request) -> Response:
    return Response(await request.body())


@http.route(path_prefix="/files/", methods=["GET"])
async def files(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(request.path_params["path"])


APP = {
    **app_of(get, put, echo, act, me, page, fail, refuse, secret, add_one, count),
    "schema": SimpleNamespace(schema=SCHEMA),
    "http": SimpleNamespace(http=http),
    "auth": SimpleNamespace(providers=[oidc(ONE)]),
}
