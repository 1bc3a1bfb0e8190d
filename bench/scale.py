"""What size costs: the same work on a small and on a large table, and with and without a thousand subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any, NamedTuple

from bench import stores as files
from bench.report import lined_up
from duly import App, Id, Limits, MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from duly.ctx.db.query import Query
from duly.values.index_keys import encode

SMALL = 10_000
LARGE = 1_000_000
SUBSCRIPTIONS = 1_000
ROUNDS = 15

GOAL_OF_SIZE = 1.5
GOAL_OF_SUBSCRIPTIONS = 1.15

_AT_ONCE = 1_000  # documents that one mutation inserts
_PLACES = 50  # where pages begin
_OPERATIONS = 50  # of one call: reading costs more than calling
_PAGE = 100
_COMMITS = 100  # of one round
_TEXT = "forty characters, as in a short message."


class Compared(NamedTuple):
    """One piece of work in two settings, in µs, round by round in turn. A floor has no goal: it is what there is."""

    title: str
    small: list[float]
    large: list[float]
    goal: float | None

    @property
    def ratio(self) -> float:
        """Of each round, for the machine's speed drifts from one to the next; the median of these."""
        return median(large / small for small, large in zip(self.small, self.large, strict=True))

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "ratio": self.ratio}


def table(compared: Sequence[Compared], small: str, large: str) -> str:
    return lined_up([("µs", small, large, "ratio", "at most"), *map(_row, compared)], left=1)


def _row(compared: Compared) -> tuple[str, ...]:
    title, small, large, goal = compared
    limit = "" if goal is None else f"{goal:.2f}"
    return title, f"{median(small):,.1f}", f"{median(large):,.1f}", f"{compared.ratio:.2f}", limit


# The application.


@mutation
async def fill(ctx: MutationCtx, first: int, ranks: list[int]) -> list[Id]:
    return [await ctx.db.insert("items", {"n": n, "rank": rank, "text": _TEXT}) for n, rank in enumerate(ranks, first)]


@query
async def get(ctx: QueryCtx, ids: list[Id]) -> None:
    for id in ids:
        assert await ctx.db.get(id) is not None


@mutation
async def get_within(ctx: MutationCtx, ids: list[Id]) -> None:
    for id in ids:
        assert await ctx.db.get(id) is not None


def _by_rank(ctx: QueryCtx) -> Query[Any]:
    return ctx.db.query("items").with_index("by_rank")


@query
async def ranges(ctx: QueryCtx, ranks: list[int]) -> None:
    for rank in ranks:
        query = ctx.db.query("items").with_index("by_rank", lambda q, rank=rank: q.gte("rank", rank))
        assert len(await query.take(_PAGE)) == _PAGE


@query
async def pages(ctx: QueryCtx, cursors: list[str]) -> None:
    for cursor in cursors:
        assert len((await _by_rank(ctx).paginate(num_items=_PAGE, cursor=cursor))["page"]) == _PAGE


@query
async def places(ctx: QueryCtx, cursor: str | None, rows: int) -> str:
    return (await _by_rank(ctx).paginate(num_items=rows, cursor=cursor))["continueCursor"]


@mutation
async def patch(ctx: MutationCtx, ids: list[Id], n: int) -> None:
    for id in ids:
        await ctx.db.patch(id, {"n": n})


@query
async def of_rank(ctx: QueryCtx, rank: int) -> int:
    found = await ctx.db.query("items").with_index("by_rank", lambda q: q.eq("rank", rank)).collect()
    return len(found)


SOURCE = {
    "scale": SimpleNamespace(
        fill=fill,
        get=get,
        get_within=get_within,
        ranges=ranges,
        pages=pages,
        places=places,
        patch=patch,
        of_rank=of_rank,
    ),
    "schema": define_schema({"items": define_table(v.any()).index("by_rank", ["rank"])}),
}


class Store:
    """A filled store and what the work on it picks from."""

    def __init__(self, app: App, floor: Floor, ids: list[Id], documents: int) -> None:
        self.app = app
        self.floor = floor
        self.ids = ids
        self.documents = documents
        self.cursors: list[str] = []
        self.random = Random(2)

    def some_ids(self) -> list[Id]:
        return self.random.choices(self.ids, k=_OPERATIONS)

    def some_ranks(self) -> list[int]:
        """Where ranges begin that have enough behind them."""
        return [self.random.randrange(self.documents - _PAGE) for _ in range(_OPERATIONS)]


class Floor:
    """The same reads with nothing but SQLite: one connection, whose cache a commit empties like that of a reader."""

    def __init__(self, store: str) -> None:
        self.connection = files.connect(store, files.READER_PRAGMAS)
        self._read = self.connection.cursor().execute
        table, index = files.table_of(store, "items"), files.index_of(store, "by_rank")
        self.ids = [id for (id,) in files.read(store, f"SELECT id FROM {table}")]
        self._get = f"SELECT document FROM {table} WHERE id = ?"
        self._range = f"""
            SELECT t.id, t.document FROM {index} i CROSS JOIN {table} t ON t.id = i.id
            WHERE i.key >= ? ORDER BY i.key LIMIT {_PAGE}
        """

    def get(self, ids: list[int]) -> None:
        with self.connection:
            for id in ids:
                assert self._read(self._get, (id,)).get is not None

    def ranges(self, ranks: list[int]) -> None:
        with self.connection:
            for rank in ranks:
                assert len(self._read(self._range, (encode(rank),)).fetchall()) == _PAGE


async def open_store(stack: AsyncExitStack, path: Path, documents: int) -> Store:
    """A store of so many documents with ranks at random."""
    limits = Limits(documents_read_max=LARGE, bytes_read_max=1 << 40)  # to find places in the middle
    app = await stack.enter_async_context(App(SOURCE, f"sqlite:///{path}", limits=limits))
    ranks = list(range(documents))
    Random(1).shuffle(ranks)
    ids: list[Id] = []
    for first in range(0, documents, _AT_ONCE):
        ids += await app.mutation("scale:fill", {"first": first, "ranks": ranks[first : first + _AT_ONCE]})
    floor = Floor(f"sqlite:///{path}")
    stack.callback(floor.connection.close)
    store = Store(app, floor, ids, documents)
    cursor: str | None = None
    for _ in range(_PLACES):
        cursor = await app.query("scale:places", {"cursor": cursor, "rows": documents // (_PLACES + 2)})
        store.cursors.append(cursor)
    return store


# Size.


async def _get(store: Store) -> None:
    await store.app.query("scale:get", {"ids": store.some_ids()})


async def _floor_of_get(store: Store) -> None:
    store.floor.get(store.random.choices(store.floor.ids, k=_OPERATIONS))


async def _get_in_mutation(store: Store) -> None:
    await store.app.mutation("scale:get_within", {"ids": store.some_ids()})


async def _ranges(store: Store) -> None:
    await store.app.query("scale:ranges", {"ranks": store.some_ranks()})


async def _floor_of_ranges(store: Store) -> None:
    store.floor.ranges(store.some_ranks())


async def _pages(store: Store) -> None:
    await store.app.query("scale:pages", {"cursors": store.random.choices(store.cursors, k=_OPERATIONS)})


async def _patch(store: Store) -> None:
    await store.app.mutation("scale:patch", {"ids": store.some_ids(), "n": store.random.randrange(1 << 40)})


WORK: tuple[tuple[str, Callable[[Store], Awaitable[None]], float | None], ...] = (
    ("get by id, in a query", _get, GOAL_OF_SIZE),
    ("– SQLite alone", _floor_of_get, None),
    ("get by id, in a mutation", _get_in_mutation, GOAL_OF_SIZE),
    ("index range of 100", _ranges, GOAL_OF_SIZE),
    ("– SQLite alone", _floor_of_ranges, None),
    ("page of 100 in the middle", _pages, GOAL_OF_SIZE),
    ("patch, with its share of a commit", _patch, GOAL_OF_SIZE),
)


async def compare_sizes(folder: Path, small: int, large: int, rounds: int) -> list[Compared]:
    """Each piece of work on a small and on a large table, in turn."""
    async with AsyncExitStack() as stack:
        stores = [
            await open_store(stack, folder / "small.db", small),
            await open_store(stack, folder / "large.db", large),
        ]
        found = [Compared(title, [], [], goal) for title, _, goal in WORK]
        for at in range(rounds + 1):
            for name in ("small.db", "large.db"):
                files.touch(f"{folder}/{name}")
            for compared, (_, work, _) in zip(found, WORK, strict=True):
                for store, times in zip(stores, (compared.small, compared.large), strict=True):
                    started = perf_counter()
                    await work(store)
                    if at > 0:  # the first round warms up
                        times.append((perf_counter() - started) / _OPERATIONS * 1e6)
        return found


# Subscriptions.


async def compare_subscriptions(folder: Path, subscriptions: int, rounds: int) -> tuple[list[Compared], int]:
    """Commits beside no and beside many subscriptions of other ranges; and how many wake when one is read."""
    async with AsyncExitStack() as stack:
        alone = await open_store(stack, folder / "alone.db", SMALL)
        watched = await open_store(stack, folder / "watched.db", SMALL)
        waiting = [await _subscribed(watched.app, rank) for rank in range(subscriptions)]
        compared = Compared("commit of one document", [], [], GOAL_OF_SUBSCRIPTIONS)
        for at in range(rounds + 1):
            for store, times in ((alone, compared.small), (watched, compared.large)):
                seconds = await _commit(store)
                if at > 0:
                    times.append(seconds / _COMMITS * 1e6)
        assert not any(task.done() for task in waiting), "a subscription woke, expected none to"
        await watched.app.mutation("scale:fill", {"first": 0, "ranks": [subscriptions // 2]})
        await waiting[subscriptions // 2]
        woken = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return [compared], woken


async def _subscribed(app: App, rank: int) -> asyncio.Task[Any]:
    """A subscription that has its first value and waits for the next."""
    values = app.subscribe("scale:of_rank", {"rank": rank})
    assert await anext(values) == 1
    task = asyncio.ensure_future(anext(values))
    await asyncio.sleep(0)
    return task


async def _commit(store: Store) -> float:
    started = perf_counter()
    for n in range(_COMMITS):
        await store.app.mutation("scale:fill", {"first": n, "ranks": [store.documents + n]})
    return perf_counter() - started
