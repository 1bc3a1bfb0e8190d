"""E-mails to all users."""

from duly import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    internal,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
)

from . import outside

AWAY_MS = 14 * 86_400_000


@mutation
async def sign_up(ctx: MutationCtx, name: str) -> None:
    await ctx.db.insert("users", {"name": name, "seen": ctx.now})


@internal_query
async def everybody(ctx: QueryCtx) -> list[str]:
    return [user["name"] async for user in ctx.db.query("users")]


@internal_action
async def send(ctx: ActionCtx, what: str) -> None:
    for name in await ctx.run_query(internal.emails.everybody):
        await outside.ask(f"{what} to {name}")


@internal_mutation
async def invite_back(ctx: MutationCtx) -> None:
    """Who was not seen for two weeks gets an e-mail, once: what is noted and what is scheduled are one commit."""
    async for user in ctx.db.query("users").filter(lambda q: q.field("seen") <= ctx.now - AWAY_MS):
        await ctx.db.patch(user["_id"], {"seen": ctx.now})
        await ctx.scheduler.run_after(0, internal.emails.invite, {"name": user["name"]})


@internal_action
async def invite(ctx: ActionCtx, name: str) -> None:
    await outside.ask(f"we miss you to {name}")
