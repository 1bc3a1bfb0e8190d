"""The application that the official clients are tried on."""

from __future__ import annotations

import asyncio
from typing import Any

from duly import (
    UNSET,
    ActionCtx,
    AppError,
    MutationCtx,
    PaginationOpts,
    QueryCtx,
    action,
    internal,
    internal_mutation,
    mutation,
    query,
)


@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [message["body"] async for message in ctx.db.query("messages")]


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.query("messages").count()


@query
async def filled(ctx: QueryCtx, size: int) -> list[Any]:
    """How many messages there are, and a text of so many characters."""
    return [await ctx.db.query("messages").count(), "x" * size]


@query
async def page(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Any:
    page = await ctx.db.query("messages").paginate(paginationOpts)
    return {**page, "page": [message["body"] for message in page["page"]]}


@query
async def echo(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@query
async def failing(ctx: QueryCtx) -> None:
    if await ctx.db.query("messages").first() is None:
        raise AppError({"code": "EMPTY"})


@query
async def me(ctx: QueryCtx) -> Any:
    return await ctx.auth.get_user_identity()


@mutation
async def send(ctx: MutationCtx, body: str) -> str:
    ctx.log.info("sending %r", body)
    await ctx.db.insert("messages", {"body": body})
    return body


@mutation
async def fail(ctx: MutationCtx, data: Any = UNSET) -> None:
    await ctx.db.insert("messages", {"body": "never"})
    raise AppError(data) if data is not UNSET else ValueError("a secret")


@internal_mutation
async def secret(ctx: MutationCtx) -> str:
    return "internal"


@mutation
async def send_later(ctx: MutationCtx, body: str) -> str:
    return await ctx.scheduler.run_after(300, internal.messages.send, {"body": body})


@query
async def job(ctx: QueryCtx, id: str) -> str:
    found = await ctx.db.system.get(id)
    return "none" if found is None else found["state"]["kind"]


@action
async def shout(ctx: ActionCtx, body: str) -> str:
    await asyncio.sleep(0)
    return await ctx.run_mutation("messages:send", {"body": body.upper()})
