"""A day in the shop, as a test would write it: what comes back has the types that the functions say."""

from datetime import timedelta
from typing import assert_type

from duly import App, Id
from duly.testing import Harness

from .billing import pay, unsent
from .customers import names, sign_up
from .orders import create, get, total
from .schema import Customer, Order


async def spend(t: Harness) -> list[int]:
    ada = await t.mutation(sign_up, {"name": "Ada", "email": "ada@example.com"})
    lines = [{"item": "tea", "pence": 350}, {"item": "milk", "pence": 120}]
    order_id = await t.mutation(create, {"customer_id": ada, "lines": lines})
    assert_type(order_id, Id[Order])
    seen = [await t.query(total, {"order_id": order_id})]
    assert_type(await t.with_identity({"subject": "ada"}).action(pay, {"order_id": order_id}), str)
    seen.append(await t.query(unsent))
    await t.advance(timedelta(seconds=1))
    seen.append(await t.query(unsent))
    customer = await t.transaction(lambda ctx: ctx.db.get(ada))
    assert_type(customer, Customer | None)
    return seen


async def watch(app: App, order_id: Id[Order]) -> list[str]:
    order = await app.query(get, {"order_id": order_id})
    assert_type(order, Order | None)
    async for seen in app.subscribe(names, {"visits": 1}):
        assert_type(seen, list[str])
        return seen
    return [] if order is None else [order["status"]]
