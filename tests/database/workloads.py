"""Workloads of concurrent calls, each of which returns the anomalies it has found: what no serial order explains.

Each makes many calls at once, some of them through the executor. By whom they are made is handed in: by callers in
this process, or in several that share the store.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from duly import App, Id, MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from tests.support import handlers_in

SEED = 20
CALLERS = 48
SCHEDULED_SHARE = 0.3  # of the calls, which are left to the executor
COUNT = 1_200  # calls of a workload, more or less
COUNTERS = 40
TRIES = 8  # to sign up each e-mail
ROOMS, HOURS_MAX = 4, 8
ACCOUNTS, WATCHERS = 12, 4
APPENDS_TO_ONE, NEAR = 100, 16

# What the callers call.


async def value(ctx: QueryCtx, id: Id, field: str) -> Any:
    document = await ctx.db.get(id)
    assert document is not None
    return document[field]


@mutation
async def fill(ctx: MutationCtx, table: str, documents: list[dict[str, Any]]) -> list[str]:
    return [await ctx.db.insert(table, document) for document in documents]


@query
async def everything(ctx: QueryCtx, table: str) -> list[dict[str, Any]]:
    return await ctx.db.query(table).collect()


@mutation
async def schedule(ctx: MutationCtx, name: str, args: dict[str, Any]) -> None:
    await ctx.scheduler.run_after(0, name, args)


@query
async def count_jobs(ctx: QueryCtx, state: str) -> int:
    jobs = ctx.db.system.query("_scheduled_functions")
    return len(await jobs.with_index("by_state_scheduled_time", lambda q: q.eq("state.kind", state)).collect())


@mutation
async def withdraw(ctx: MutationCtx, one: Id, other: Id, amount: int) -> None:
    mine, theirs = [await value(ctx, id, "balance") for id in (one, other)]
    if mine + theirs >= amount:
        await ctx.db.patch(one, {"balance": mine - amount})


@mutation
async def transfer(ctx: MutationCtx, source: Id, target: Id, amount: int) -> None:
    left, right = [await value(ctx, id, "balance") for id in (source, target)]
    await ctx.db.patch(source, {"balance": left - amount})
    await ctx.db.patch(target, {"balance": right + amount})


@query
async def balances(ctx: QueryCtx, accounts: list[Id]) -> list[int]:
    return [await value(ctx, id, "balance") for id in accounts]


@mutation
async def increment(ctx: MutationCtx, counter: Id) -> None:
    await ctx.db.patch(counter, {"n": await value(ctx, counter, "n") + 1})


@mutation
async def sign_up(ctx: MutationCtx, email: str) -> None:
    if await ctx.db.query("users").with_index("by_email", lambda q: q.eq("email", email)).first() is None:
        await ctx.db.insert("users", {"email": email})


@mutation
async def book(ctx: MutationCtx, room: int, start: int, end: int) -> None:
    bookings = ctx.db.query("bookings").with_index(
        "by_room_and_start", lambda q: q.eq("room", room).gt("start", start - HOURS_MAX).lt("start", end)
    )
    if all(booking["end"] <= start for booking in await bookings.collect()):
        await ctx.db.insert("bookings", {"room": room, "start": start, "end": end})


@mutation
async def append(ctx: MutationCtx, number: int, to: list[Id], beside: list[Id]) -> None:
    """Append to some lists and note what they were, and what the lists beside them are."""
    seen = {id: await value(ctx, id, "numbers") for id in (*to, *beside)}
    for id in to:
        await ctx.db.patch(id, {"numbers": [*seen[id], number]})
    await ctx.db.insert("appends", {"number": number, "to": to, "seen": seen})


SCHEMA = define_schema(
    {
        "accounts": define_table({"balance": v.int64()}),
        "counters": define_table({"n": v.int64()}),
        "users": define_table({"email": v.string()}).index("by_email", ["email"]),
        "bookings": define_table({"room": v.int64(), "start": v.int64(), "end": v.int64()}).index(
            "by_room_and_start", ["room", "start"]
        ),
        "lists": define_table({"numbers": v.array(v.int64())}),
        "appends": define_table({"number": v.int64(), "to": v.array(v.string()), "seen": v.any()}),
    }
)
FUNCTIONS = SimpleNamespace(**handlers_in(globals()))
SOURCE = {"app": FUNCTIONS, "schema": SCHEMA}


# How they call.

Call = tuple[str, dict[str, Any]]


class Make(Protocol):
    """Makes all calls, many at once, and returns when all of them, and what they scheduled, are done."""

    async def __call__(self, app: App, calls: list[Call]) -> None: ...


async def make(app: App, calls: list[Call], random: Random, callers: int = CALLERS) -> int:
    """Make calls, which must succeed; each caller takes the next one when its last is done.

    Some are left to the executor. Returns how many are done.
    """
    left, returned = iter(calls), 0

    async def caller() -> None:
        nonlocal returned
        for name, args in left:
            if random.random() < SCHEDULED_SHARE:
                await app.mutation("app:schedule", {"name": f"app:{name}", "args": args})
            else:
                await app.mutation(f"app:{name}", args)
                returned += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return returned


async def end(app: App) -> int:
    """Wait for what is scheduled. Returns how many of it are done."""
    async for pending in app.subscribe("app:count_jobs", {"state": "pending"}):
        if not pending:
            break
    return await app.query("app:count_jobs", {"state": "success"})


async def call_all(app: App, calls: list[Call]) -> None:
    """Make all calls in this process."""
    version = app.database.commit_log.version
    assert await make(app, calls, Random(SEED)) + await end(app) == len(calls)
    # Batches of many calls; that there are many batches is certain, as no caller has two calls in one.
    assert app.database.commit_log.version - version < len(calls) / 2


async def inserted(app: App, table: str, count: int, document: dict[str, Any]) -> list[str]:
    ids: list[str] = []
    while left := count - len(ids):
        ids += await app.mutation("app:fill", {"table": table, "documents": [document] * min(left, 1_000)})
    return ids


async def found(app: App, table: str) -> list[dict[str, Any]]:
    return await app.query("app:everything", {"table": table})


# The workloads.


class Workload(Protocol):
    """Makes about `count` calls and returns what is wrong afterwards."""

    __name__: str

    async def __call__(self, app: App, make: Make = call_all, count: int = COUNT) -> list[str]: ...


async def write_skew(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """Two accounts may not be overdrawn together: of two withdrawals, one from each, only one is allowed."""
    accounts = await inserted(app, "accounts", count, {"balance": 50})
    calls: list[Call] = []
    for one, other in zip(accounts[::2], accounts[1::2], strict=True):
        calls += [
            ("withdraw", {"one": mine, "other": theirs, "amount": 100}) for mine, theirs in ((one, other), (other, one))
        ]
    await make(app, calls)
    left = [account["balance"] for account in await found(app, "accounts")]
    return [
        f"{one} and {other} are left, not 0" for one, other in zip(left[::2], left[1::2], strict=True) if one + other
    ]


async def lost_update(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """Counters have counted every call that was acknowledged."""
    counters = await inserted(app, "counters", COUNTERS, {"n": 0})
    chosen = Random(SEED).choices(counters, k=count)
    await make(app, [("increment", {"counter": counter}) for counter in chosen])
    expected = Counter(chosen)
    return [
        f"got {counter['n']} of {expected[counter['_id']]} increments"
        for counter in await found(app, "counters")
        if counter["n"] != expected[counter["_id"]]
    ]


async def phantom(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """No two users have the same e-mail, though several callers try to sign up each of them, at the same time."""
    emails = [f"{n}@example.org" for n in range(count // TRIES)]
    calls: list[Call] = [("sign_up", {"email": email}) for email in emails for _ in range(TRIES)]
    await make(app, calls)
    users = Counter(user["email"] for user in await found(app, "users"))
    return [f"{users[email]} users are {email}" for email in emails if users[email] != 1]


class Booking(NamedTuple):
    room: int
    start: int
    end: int

    def overlaps(self, other: Booking) -> bool:
        return self.room == other.room and self.start < other.end and other.start < self.end


async def phantom_in_a_range(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """No bookings of a room overlap, and none was refused that overlaps no other."""
    random = Random(SEED)
    requests = [
        Booking(random.randrange(ROOMS), start, start + random.randint(1, HOURS_MAX))
        for start in sorted(random.choices(range(2 * count // 3), k=count))
    ]
    await make(app, [("book", request._asdict()) for request in requests])
    bookings = [Booking(row["room"], row["start"], row["end"]) for row in await found(app, "bookings")]
    return [f"{one} overlaps {other}" for one, other in combinations(bookings, 2) if one.overlaps(other)] + [
        f"{request} was refused without reason" for request in requests if not any(map(request.overlaps, bookings))
    ]


async def changed_total(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """While money is transferred, all queries see the same total."""
    random = Random(SEED)
    accounts = await inserted(app, "accounts", ACCOUNTS, {"balance": 100})
    calls: list[Call] = []
    for _ in range(count):
        source, target = random.sample(accounts, 2)
        calls.append(("transfer", {"source": source, "target": target, "amount": random.randint(1, 9)}))
    seen: list[list[int]] = []

    async def watch() -> None:
        while not calling.done():
            seen.append(await app.query("app:balances", {"accounts": accounts}))

    calling = asyncio.create_task(make(app, calls))
    await asyncio.gather(*(watch() for _ in range(WATCHERS)))
    await calling
    assert len(set(map(tuple, seen))) > 2  # the queries ran between the transfers
    return [f"a query saw {total}" for total in map(sum, seen) if total != 100 * ACCOUNTS]


async def disorder_of_lists(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """Calls that append to some lists and read others have an order that explains what each has seen."""
    lists, random = await inserted(app, "lists", count // APPENDS_TO_ONE, {"numbers": []}), Random(SEED)
    chosen = [random.sample(lists, 4) for _ in range(count // 2)]
    return await disorders_of(app, make, [(some[:2], some[2:]) for some in chosen])


async def disorder_of_reads(app: App, make: Make = call_all, count: int = COUNT) -> list[str]:
    """The same where each call writes to a list of its own: then only what they have read can be out of order."""
    count //= 2
    lists, random = await inserted(app, "lists", count, {"numbers": []}), Random(SEED)
    near = (lists[max(0, n - NEAR) : n] + lists[n + 1 : n + NEAR] for n in range(count))
    return await disorders_of(app, make, [([lists[n]], random.sample(others, 4)) for n, others in enumerate(near)])


async def disorders_of(app: App, make: Make, chosen: list[tuple[list[str], list[str]]]) -> list[str]:
    await make(app, [("append", {"number": n, "to": to, "beside": beside}) for n, (to, beside) in enumerate(chosen)])
    final = {row["_id"]: row["numbers"] for row in await found(app, "lists")}
    return disorders(final, [Append(row["number"], row["to"], row["seen"]) for row in await found(app, "appends")])


WORKLOADS: tuple[Workload, ...] = (
    write_skew,
    lost_update,
    phantom,
    phantom_in_a_range,
    changed_total,
    disorder_of_lists,
    disorder_of_reads,
)


# What no order explains. As every number is appended once, a list tells the order of those who appended to it.

Lists = dict[str, list[int]]


class Append(NamedTuple):
    number: int
    to: list[str]
    seen: Lists
    """What the lists were before; also some that it did not append to."""


def disorders(final: Lists, appends: list[Append]) -> list[str]:
    """Numbers that are lost, lists that never were, and circles of calls that come before one another."""
    disorders: list[str] = []
    before: dict[int, set[int]] = {append.number: set() for append in appends}
    for numbers in final.values():
        for earlier, later in pairwise(numbers):
            before[later].add(earlier)
    for number, to, seen in appends:
        disorders += [f"{number} is not in {name}" for name in to if final[name].count(number) != 1]
        for name, numbers in seen.items():
            length = len(numbers)
            if final[name][:length] != numbers:
                disorders.append(f"{number} saw {numbers} in {name}, which is not how it begins")
                continue
            before[number].update(numbers[-1:])  # it saw that one,
            for unseen in final[name][length : length + 1]:
                before[unseen].update({number} - {unseen})  # and not this one
    return disorders + [f"each before the next: {circle}" for circle in circles(before)]


def circles(before: dict[int, set[int]]) -> Iterator[list[int]]:
    """Circles in a graph that have no node in common."""
    while True:
        try:
            TopologicalSorter(before).prepare()
            return
        except CycleError as error:
            circle: list[int] = error.args[1]
            yield circle
            before = {node: others.difference(circle) for node, others in before.items() if node not in circle}
