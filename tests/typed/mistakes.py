"""Mistakes that pyright finds before anything runs: at the lines that name a rule it finds that, elsewhere nothing."""

# What follows a mistake is of an unknown type; that is not told again.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false

from typing import Any, assert_type

from duly import (
    ActionCtx,
    App,
    Id,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    action,
    define_table,
    id_of,
    internal_action,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.testing import Harness

from .shop.billing import pay, tax
from .shop.customers import names
from .shop.orders import create, get, mark_paid, total
from .shop.schema import Customer, Invoice, Order

# Documents.


@query
async def reads_fields(ctx: QueryCtx, order_id: Id[Order], customer_id: Id[Customer], invoice_id: Id[Invoice]) -> str:
    order: Order = await ctx.db.get(order_id)  # reportAssignmentType
    print(order["itmes"])  # reportGeneralTypeIssues
    print(order["note"])  # reportTypedDictNotRequiredAccess
    print(order.status)  # reportAttributeAccessIssue
    customer = await ctx.db.get(customer_id)
    print(customer.name)  # reportOptionalMemberAccess
    assert customer is not None
    print(customer.nmae)  # reportAttributeAccessIssue
    print(customer["name"])  # reportIndexIssue
    invoice = await ctx.db.query(Invoice).first()
    print(invoice.pence)  # reportOptionalMemberAccess
    event = await ctx.db.query("events").first()
    print(event["what"])  # reportOptionalSubscript
    await ctx.db.get(5)  # reportCallIssue reportArgumentType
    await ctx.db.get(Customer, order_id)  # reportCallIssue reportArgumentType
    await ctx.db.get_many(Order, [customer_id])  # reportCallIssue reportArgumentType
    names: list[str] = await ctx.db.get_many([customer_id])  # reportAssignmentType
    count: str = await ctx.db.query(Order).count()  # reportAssignmentType
    print(names, count)
    wrong: Invoice | None = await ctx.db.get(order_id)  # reportAssignmentType
    return id_of(customer) if wrong is None else invoice_id


@mutation
async def writes_fields(ctx: MutationCtx, who: Id[Customer], old: Id[Order]) -> Id[Order]:
    await ctx.db.insert(Order, {"customer": who, "itmes": [], "status": "open"})  # reportCallIssue reportArgumentType
    await ctx.db.insert(Order, {"customer": who, "status": "open"})  # reportCallIssue reportArgumentType
    await ctx.db.insert(Order, {"customer": old, "lines": [], "status": "open"})  # reportCallIssue reportArgumentType
    await ctx.db.insert(Order, {"customer": who, "lines": [], "status": "new"})  # reportCallIssue reportArgumentType
    await ctx.db.insert(Order, {"customer": who, "lines": [{"item": 5}]})  # reportCallIssue reportArgumentType
    await ctx.db.insert(Customer, Customer("Ada"))  # reportCallIssue
    await ctx.db.insert(Customer, {"name": "Ada"})  # reportCallIssue reportArgumentType
    await ctx.db.insert(int, 5)  # reportCallIssue reportArgumentType
    await ctx.db.replace(old, {"customer": who, "lines": [], "status": "new"})  # reportArgumentType
    await ctx.db.replace(who, {"name": "Ada"})  # reportArgumentType
    await ctx.db.replace(old, Customer("Ada", "ada@example.com"))  # reportArgumentType
    await ctx.db.patch(old, "paid")  # reportArgumentType
    await ctx.db.patch(old, {}, status="paid")  # reportCallIssue
    await ctx.db.delete(Customer, old)  # reportCallIssue reportArgumentType
    await ctx.db.patch(Customer, old, {})  # reportCallIssue reportArgumentType
    await ctx.db.replace(Order, old, Customer("Ada", "ada@example.com"))  # reportCallIssue reportArgumentType
    await ctx.db.insert({"name": "Ada"})  # reportArgumentType
    return who  # reportReturnType


# What each ctx can do.


@query
async def does_what_mutations_do(ctx: QueryCtx, order_id: Id[Order]) -> None:
    await ctx.db.insert("orders", {})  # reportAttributeAccessIssue
    await ctx.db.patch(order_id, {})  # reportAttributeAccessIssue
    await ctx.scheduler.run_after(0, mark_paid, {"order_id": order_id})  # reportAttributeAccessIssue
    await ctx.run_mutation(mark_paid, {"order_id": order_id})  # reportAttributeAccessIssue


@mutation
async def does_what_actions_do(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.run_action(pay, {"order_id": order_id})  # reportAttributeAccessIssue
    await ctx.db.system.insert("_scheduled_functions", {})  # reportAttributeAccessIssue
    await ctx.scheduler.run_after("soon", mark_paid)  # reportArgumentType
    await ctx.scheduler.run_in(5, mark_paid)  # reportAttributeAccessIssue
    await ctx.scheduler.run_after(0, 5)  # reportArgumentType
    await ctx.scheduler.run_after(0, mark_paid, order_id=order_id)  # reportCallIssue
    await ctx.scheduler.cancel(order_id, force=True)  # reportCallIssue
    await ctx.scheduler.run_after(0, mark_paid, order_id)  # reportArgumentType


@action
async def reads_without_a_query(ctx: ActionCtx, order_id: Id[Order]) -> None:
    await ctx.db.get(order_id)  # reportAttributeAccessIssue


@mutation  # reportArgumentType
async def takes_another_ctx(ctx: ActionCtx) -> None:
    await ctx.run_query(names)


@query  # reportArgumentType
def is_no_coroutine(ctx: QueryCtx) -> int:
    return 5


@internal_action  # reportCallIssue reportArgumentType
def blocks(ctx: ActionCtx) -> int:
    return 5


# Results.


@action
async def uses_results(ctx: ActionCtx, order_id: Id[Order]) -> str:
    (await ctx.run_query(total, {"order_id": order_id})).upper()  # reportAttributeAccessIssue
    text: str = await ctx.run_query(total, {"order_id": order_id})  # reportAssignmentType
    order: Order = await ctx.run_query(get, {"order_id": order_id})  # reportAssignmentType
    made: Id[Customer] = await ctx.run_mutation(create, {"lines": []})  # reportAssignmentType
    share: str = await ctx.run_action(tax, {"pence": 5})  # reportAssignmentType
    number, _ = await ctx.gather(ctx.run_query(total), ctx.run_query(names))
    number.upper()  # reportAttributeAccessIssue
    await ctx.run_query(total, order_id=order_id)  # reportCallIssue
    await ctx.run_query(total, [order_id])  # reportArgumentType
    return text + share + made + order["status"]


@internal_action
def uses_results_in_a_thread(ctx: SyncActionCtx) -> int:
    ctx.run_query(total).upper()  # reportAttributeAccessIssue
    return ctx.run_query(names)  # reportReturnType


async def uses_results_outside(app: App, t: Harness) -> None:
    text: str = await app.query(total)  # reportAssignmentType
    number: int = await t.mutation(create)  # reportAssignmentType
    text = await t.action(tax)  # reportAssignmentType
    await t.query(names, "Ada")  # reportArgumentType
    async for seen in app.subscribe(names):
        assert_type(seen, int)  # reportAssertTypeFailure
    order = await t.transaction(lambda ctx: ctx.db.query(Order).first())
    print(order["status"], text, number)  # reportOptionalSubscript


# Queries of tables.


@query
async def builds_queries(ctx: QueryCtx) -> list[Order]:
    orders = ctx.db.query(Order)
    await orders.order("ascending").collect()  # reportArgumentType
    await orders.with_index("by_customer", lambda q: q.equals("status", "open")).first()  # reportAttributeAccessIssue
    await orders.filter(lambda q: q.feild("status") == "open").first()  # reportAttributeAccessIssue
    await orders.filter(lambda q: print(q)).first()  # reportArgumentType
    await orders.where(lambda q: True).first()  # reportAttributeAccessIssue
    await orders.take("5")  # reportArgumentType
    await orders.filter(status="open").first()  # reportCallIssue reportCallIssue
    await orders.order_by("status").first()  # reportAttributeAccessIssue
    page = await orders.paginate(num_items=5)
    print(page["pages"])  # reportGeneralTypeIssues
    print(page["page"][0]["itmes"])  # reportGeneralTypeIssues
    async for order in orders:
        print(order["itmes"])  # reportGeneralTypeIssues
    return await ctx.db.query(Customer).collect()  # reportReturnType


# Forgotten awaits.


@mutation
async def forgets_to_await(ctx: MutationCtx, order_id: Id[Order]) -> None:
    ctx.db.patch(order_id, {"note": "forgotten"})  # reportUnusedCoroutine
    ctx.db.delete(order_id)  # reportUnusedCoroutine
    ctx.scheduler.run_after(0, mark_paid, {"order_id": order_id})  # reportUnusedCoroutine
    ctx.run_mutation(mark_paid, {"order_id": order_id})  # reportUnusedCoroutine
    mark_paid(ctx, order_id)  # reportUnusedCoroutine
    order = ctx.db.get(order_id)
    print(order["status"])  # reportIndexIssue
    for seen in ctx.db.query(Order):  # reportGeneralTypeIssues
        print(seen)
    if total(ctx, order_id):  # reportUnnecessaryComparison
        print(len(ctx.db.query(Order).collect()))  # reportArgumentType


# Plain calls.


@query
async def calls_functions(ctx: QueryCtx, order_id: Id[Order], customer_id: Id[Customer]) -> str:
    await total(ctx, 5)  # reportArgumentType
    await total(ctx, customer_id)  # reportArgumentType
    await total(ctx)  # reportCallIssue
    await total(ctx, order_id, limit=5)  # reportCallIssue
    await total(order_id)  # reportCallIssue
    await mark_paid(ctx, order_id)  # reportArgumentType
    return await total(ctx, order_id)  # reportReturnType


@internal_action
def calls_an_action(ctx: SyncActionCtx) -> str:
    return tax(ctx, 5)  # reportReturnType


# Declarations.


@internal_mutation(args={"order_id": "orders"}, returns=v.null())  # reportArgumentType
async def declares_no_validator(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.delete(order_id)


@internal_mutation(args={"order_id": v.id("orders")}, public=True)  # reportCallIssue
async def declares_too_much(ctx: MutationCtx, order_id: Id[Order]) -> None:
    await ctx.db.delete(order_id)


def declares_tables() -> list[Any]:
    return [
        define_table(5),  # reportArgumentType
        define_table({"text": str, "sent": v.bool()}),  # reportAttributeAccessIssue
        define_table(Order).index("by_status", "status"),  # reportArgumentType
        define_table(Order).index("by_note", ["note"], unique=True),  # reportCallIssue
        define_table(v.object({"text": v.array("string")})),  # reportArgumentType
        v.object({"text": v.string()}).extend({"sent": 5}),  # reportArgumentType
    ]
