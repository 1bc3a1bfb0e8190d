"""Bills: written down for all in one commit, and charged one by one."""

from duly import ActionCtx, MutationCtx, internal, internal_action, internal_mutation

from . import outside


@internal_mutation
async def bill_everybody(ctx: MutationCtx) -> None:
    async for user in ctx.db.query("users"):
        await ctx.db.insert("bills", {"user": user["name"], "pence": 900})
        await ctx.scheduler.run_after(0, internal.billing.charge, {"name": user["name"], "pence": 900})


@internal_action
async def charge(ctx: ActionCtx, name: str, pence: int) -> None:
    await outside.ask(f"charge {name} {pence}")
