"""The printed catalogue: a long action. If its process dies it is not run again, and says so."""

import asyncio
from typing import Any

from duly import ActionCtx, Id, MutationCtx, QueryCtx, internal, internal_action, internal_mutation, mutation, query

from .schema import Printing

SECONDS_PER_PAGE = 0.5


@mutation
async def order_printing(ctx: MutationCtx, pages: int) -> Id:
    """Have the catalogue printed. Returns the scheduled function: its state tells how it went."""
    return await ctx.scheduler.run_after(0, internal.catalogue.print_pages, {"pages": pages})


@internal_action
async def print_pages(ctx: ActionCtx, pages: int) -> None:
    printing_id = await ctx.run_mutation(internal.catalogue.begin, {"pages": pages})
    for _ in range(pages):
        await asyncio.sleep(SECONDS_PER_PAGE)  # an action may wait for whatever it likes, here for a printer
    await ctx.run_mutation(internal.catalogue.finish, {"printing_id": printing_id})


@internal_mutation
async def begin(ctx: MutationCtx, pages: int) -> Id[Printing]:
    return await ctx.db.insert("printings", {"pages": pages, "printed": False})


@internal_mutation
async def finish(ctx: MutationCtx, printing_id: Id[Printing]) -> None:
    await ctx.db.patch(printing_id, {"printed": True})


@query
async def printings(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.query("printings").collect()
