"""A backup at night. One that was missed is of no use in the morning: `missed="skip"`."""

from duly import ActionCtx, QueryCtx, internal, internal_action, internal_query

from . import outside


@internal_query
async def users(ctx: QueryCtx) -> list[str]:
    return [user["name"] async for user in ctx.db.query("users")]


@internal_action
async def run(ctx: ActionCtx) -> None:
    names = await ctx.run_query(internal.backup.users)
    await outside.ask(f"backup of {len(names)} users")
