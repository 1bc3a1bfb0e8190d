"""What a program and its tests do with the till."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import assert_type

from duly import App, Id, id_of
from duly.testing import Harness

from .sales import audit, hire, latest, newest, report, sell, shifts, tally
from .schema import Clerk, Item, Kind, Report, Sale, Shift

NINE = datetime(2030, 1, 1, 9, tzinfo=UTC)
TEA = Item(name="tea", price=Decimal("3.50"))


async def spend(t: Harness) -> Report:
    """A day: 3.50 in cash, 7.00 by card; then a shift of an hour is closed."""
    ada = await t.mutation(hire, {"name": "Ada", "at": NINE})
    assert_type(ada, Clerk)
    ada_id: Id[Clerk] = id_of(ada)
    at = ada.hired + timedelta(hours=1)
    sale = await t.mutation(sell, {"clerk_id": ada_id, "items": [TEA], "at": NINE})
    assert_type(sale, Sale)
    await t.mutation(sell, {"clerk_id": ada_id, "items": [TEA, *sale.items], "at": at, "kind": Kind.CARD})
    await t.advance(timedelta(days=1))
    [shift] = await t.query(shifts)
    assert_type(shift, Shift)
    assert shift.get("lasts") == timedelta(hours=1)
    found = await t.with_identity({"subject": "ada"}).query(report)
    assert_type(found, Report)
    return found


async def look(app: App, clerk_id: Id[Clerk]) -> list[Decimal]:
    """What the totals of the newest sales are, by each of the ways to ask."""
    sale = await app.query(latest, {"clerk_id": clerk_id})
    assert_type(sale, Sale | None)
    page = await app.query(newest)
    totals = [one.total for one in page["page"]] + ([] if sale is None else [sale.total])
    async for found in app.subscribe(report):
        assert_type(found, Report)
        totals.append(Decimal(0) if found.best is None else found.best.total)
        break
    totals.append(await app.action(audit, {"name": "Bea", "at": NINE}))
    anything: object = await app.query(latest, {"clerk_id": clerk_id})  # what takes an object takes any result
    assert isinstance(anything, Sale)
    assert str(await app.query(newest))
    assert "best" in repr(await app.query(report))
    assert int(await app.query(tally, {"clerk_id": clerk_id})) == 3
    return totals
