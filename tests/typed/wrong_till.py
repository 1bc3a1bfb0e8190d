"""Mistakes with results that are instances: pyright and mypy find each, at the same line."""

from datetime import datetime
from decimal import Decimal

from duly import App, MutationCtx, QueryCtx, internal_mutation, internal_query

from .till.sales import hire, latest, newest, report, shifts


@internal_query
async def takes_an_instance_for_a_dict(ctx: QueryCtx) -> Decimal:
    found = await ctx.run_query(report)
    return found["best"]  # reportIndexIssue reportUnknownVariableType


@internal_query
async def forgets_that_there_may_be_none(ctx: QueryCtx) -> Decimal:
    sale = await ctx.run_query(latest, {"clerk_id": ""})
    return sale.total  # reportOptionalMemberAccess


@internal_mutation
async def misspells_a_field(ctx: MutationCtx) -> datetime:
    clerk = await ctx.run_mutation(hire, {"name": "Ada", "at": ctx.now})
    return clerk.hird  # reportAttributeAccessIssue reportUnknownMemberType reportUnknownVariableType


@internal_query
async def takes_a_text_for_a_time(ctx: QueryCtx) -> list[str]:
    return [shift["begun"] for shift in await ctx.run_query(shifts)]  # reportReturnType


async def takes_a_page_for_its_sales(app: App) -> list[Decimal]:
    page = await app.query(newest)
    return [sale.total for sale in page]  # reportAttributeAccessIssue reportUnknownMemberType


async def takes_a_report_for_a_sale(app: App) -> Decimal:
    async for found in app.subscribe(report):
        return found.total  # reportAttributeAccessIssue reportUnknownMemberType reportUnknownVariableType
    return Decimal(0)
