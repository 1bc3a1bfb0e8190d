"""Reports: one function for two crons, which differ in their arguments."""

from typing import Literal

from duly import MutationCtx, QueryCtx, internal_mutation, query


@internal_mutation
async def generate(ctx: MutationCtx, kind: Literal["full", "short"] = "full") -> None:
    users = len(await ctx.db.query("users").collect())
    await ctx.db.insert("reports", {"kind": kind, "users": users, "at": ctx.now})


@query
async def count(ctx: QueryCtx, kind: Literal["full", "short"]) -> int:
    return len(await ctx.db.query("reports").filter(lambda q: q.field("kind") == kind).collect())
