"""Functions that take and return models."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_type

from duly import (
    UNSET,
    ActionCtx,
    Id,
    MutationCtx,
    Page,
    QueryCtx,
    SyncActionCtx,
    action,
    id_of,
    internal_action,
    mutation,
    query,
)

from .schema import Clerk, Item, Kind, Report, Sale, Shift


@mutation
async def hire(ctx: MutationCtx, name: str, at: datetime) -> Clerk:
    clerk_id = await ctx.db.insert(Clerk, Clerk(name, at))
    shift: Shift = {"clerk": clerk_id, "begun": at}
    await ctx.db.insert(Shift, shift)
    clerk = await ctx.db.get(clerk_id)
    assert clerk is not None
    return clerk


@mutation
async def sell(ctx: MutationCtx, clerk_id: Id[Clerk], items: list[Item], at: datetime, kind: Kind = Kind.CASH) -> Sale:
    sale = Sale(clerk=clerk_id, items=items, kind=kind, at=at)
    sale_id = await ctx.db.insert(Sale, sale)
    assert_type(sale_id, Id[Sale])
    await ctx.scheduler.run_after(timedelta(hours=8), close, {"clerk_id": clerk_id, "at": at, "note": UNSET})
    return sale


@query
async def latest(ctx: QueryCtx, clerk_id: Id[Clerk]) -> Sale | None:
    of_clerk = ctx.db.query(Sale).with_index("by_clerk", lambda q: q.eq("clerk", clerk_id))
    return await of_clerk.order("desc").first()


@query
async def newest(ctx: QueryCtx) -> Page[Sale]:
    return await ctx.db.query(Sale).order("desc").paginate(num_items=2)


@query
async def shifts(ctx: QueryCtx) -> list[Shift]:
    return await ctx.db.query(Shift).collect()


@query
async def report(ctx: QueryCtx) -> Report:
    sales = await ctx.db.query(Sale).collect()
    assert_type(sales, list[Sale])
    by_kind = {kind: sum((sale.total for sale in sales if sale.kind is kind), Decimal(0)) for kind in Kind}
    return Report(by_kind=by_kind, best=max(sales, key=lambda sale: sale.total, default=None))


@query
async def tally(ctx: QueryCtx, clerk_id: Id[Clerk]) -> int:
    """How many sales a clerk and others have made, by calls that are awaited together."""
    clerk, sales = await ctx.gather(ctx.db.get(clerk_id), ctx.db.query(Sale).take(10))
    assert_type(clerk, Clerk | None)
    assert_type(sales, list[Sale])
    both = await ctx.gather(ctx.db.get(Clerk, clerk_id), ctx.run_query(report), ctx.db.query(Shift).first())
    assert_type(both, tuple[Clerk | None, Report, Shift | None])
    assert_type(await ctx.gather(*[ctx.db.get(sale.clerk) for sale in sales]), list[Clerk | None])
    many = await ctx.gather(ctx.db.get_many([clerk_id]), ctx.db.query(Clerk).count())
    assert_type(many, tuple[list[Clerk | None], int])
    return len(sales)


@mutation
async def close(ctx: MutationCtx, clerk_id: Id[Clerk], at: datetime, note: str = "closed") -> int:
    sale = await ctx.run_query(latest, {"clerk_id": clerk_id})
    assert_type(sale, Sale | None)
    closed = 0
    for shift in await ctx.run_query(shifts):
        if shift["clerk"] == clerk_id and sale is not None:
            lasts = sale.at - shift["begun"]
            await ctx.db.patch(id_of(shift), {"lasts": lasts})
            closed += 1
    return closed


@action
async def audit(ctx: ActionCtx, name: str, at: datetime) -> Decimal:
    clerk = await ctx.run_mutation(hire, {"name": name, "at": at})
    assert_type(clerk, Clerk)
    items = [Item(name="tea", price=Decimal("3.50"))]
    sale = await ctx.run_mutation(sell, {"clerk_id": id_of(clerk), "items": items, "at": at})
    assert_type(sale, Sale)
    best = await ctx.run_action(best_sale)
    assert_type(best, Sale | None)
    return sale.total + (Decimal(0) if best is None else best.total)


@internal_action
def best_sale(ctx: SyncActionCtx) -> Sale | None:
    found = ctx.run_query(report)
    assert_type(found, Report)
    return found.best
