"""The steps of a program: each is made in a database and in its model, and tells where they differ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final, Protocol

import pytest

from duly import (
    UNSET,
    DocumentNotFoundError,
    MutationCtx,
    QueryCtx,
    QueryError,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.testing import Harness
from tests.functions.database_model import (
    END,
    INDEXES,
    TICK_MS,
    All,
    Bound,
    Compare,
    Condition,
    Model,
    Not,
    Place,
    Row,
    Select,
    shown,
)

START_MS: Final = 1_893_456_000_000
"""The time at which a harness starts."""

_items = define_table(v.any())
for _name, _fields in INDEXES["items"].items():
    _items = _items.index(_name, list(_fields)) if _fields else _items
SCHEMA: Final = define_schema({"items": _items})


class Step(Protocol):
    async def play(self, game: Game, ctx: Any) -> None: ...


class Undone(Exception):
    """What a script raises that is to be undone."""


@dataclass(frozen=True)
class Script:
    """The steps of one mutation, or of one query."""

    steps: Sequence[Step]
    fails: bool = False
    """Whether it raises at its end."""


class Game:
    """A program that is being played: a database, its model, and what the steps refer to."""

    def __init__(self, books: Sequence[Select]) -> None:
        self.model = Model()
        self.made: list[str] = []
        """The ids of all documents ever inserted, those of transactions that were undone too."""
        self.books = [Book(select) for select in books]
        self.current: str | None = None
        """The document that the innermost loop is at."""
        self.steps = 0
        self._scripts: list[Script] = []
        self._before: dict[int, dict[str, Row]] = {}
        """What there was before each of the last mutations, by its script."""

    def functions(self) -> SimpleNamespace:
        @mutation
        async def change(ctx: MutationCtx, script: int) -> None:
            if script in self._before:  # its batch is run again from here on, and with other ids
                self.model.rows, self._before = self._before[script], {}
            kept = self._before[script] = dict(self.model.rows)
            try:
                await self.play(ctx, self._scripts[script].steps)
                if self._scripts[script].fails:
                    raise Undone
            except BaseException:
                self.model.rows = dict(kept)
                raise

        @query
        async def look(ctx: QueryCtx, script: int) -> None:
            await self.play(ctx, self._scripts[script].steps)

        return SimpleNamespace(change=change, look=look)

    def script(self, script: Script) -> dict[str, int]:
        """The arguments of a function that is to play a script."""
        self._scripts.append(script)
        return {"script": len(self._scripts) - 1}

    async def play(self, ctx: Any, steps: Sequence[Step]) -> None:
        for step in steps:
            self.steps += 1
            await step.play(self, ctx)

    # What steps refer to.

    def id_of(self, target: Target) -> str:
        if target is None and self.current is not None:
            return self.current
        rows = list(self.model.rows)
        if not rows or (target is not None and target < 0):
            return self.made[(target or 0) % len(self.made)]
        return rows[-1 - (target or 0) % len(rows)]

    def _value(self, value: Any, field: str) -> Any:
        if not isinstance(value, Of):
            return value
        row = self.model.rows.get(self.id_of(value.target))
        own = UNSET if row is None else row.at(field)
        return own + value.ticks * TICK_MS if value.ticks and own is not UNSET else own

    def known(self, select: Select) -> Select:
        """The same, with values in the place of documents that have them."""
        equal = tuple(map(self._value, select.equal, select.compared))
        bounds = tuple(
            Bound(bound.operator, self._value(bound.value, select.compared[len(equal)])) for bound in select.bounds
        )
        return replace(select, equal=equal, bounds=bounds)

    # Where the database and the model meet.

    async def write(self, step: Step, call: Awaitable[None], change: Callable[[], None]) -> None:
        """Make one change in both; that of a document that does not exist fails in both."""
        try:
            change()
            expected = "done"
        except KeyError:
            expected = "not found"
        try:
            await call
            agree(step, "done", expected)
        except DocumentNotFoundError:
            agree(step, "not found", expected)


def agree(step: object, got: object, expected: object) -> None:
    assert got == expected, f"{step}\n  got      {got}\n  expected {expected}"


def agree_on(step: object, documents: list[dict[str, Any]], rows: list[Row]) -> None:
    agree(step, [shown(document) for document in documents], [row.shown for row in rows])
    for document in documents:
        document.clear()  # which changes nothing stored


Target = int | None
"""A document: 0 is the last one, 1 the one before; -1, -2 … any ever inserted; None the one that a loop is at."""


@dataclass(frozen=True)
class Of:
    """In a range: what a document has in the field that is compared, or ticks before or after its creation."""

    target: Target
    ticks: int = 0


# Writes.


@dataclass(frozen=True)
class Insert:
    table: str
    fields: dict[str, Any]

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        id = await ctx.db.insert(self.table, self.fields)
        game.model.insert(id, self.table, self.fields, ctx.now)
        game.made.append(id)


@dataclass(frozen=True)
class Patch:
    target: Target
    fields: dict[str, Any]

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        id = game.id_of(self.target)
        await game.write(self, ctx.db.patch(id, self.fields), lambda: game.model.patch(id, self.fields))


@dataclass(frozen=True)
class Replace:
    target: Target
    fields: dict[str, Any]

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        id = game.id_of(self.target)
        await game.write(self, ctx.db.replace(id, self.fields), lambda: game.model.replace(id, self.fields))


@dataclass(frozen=True)
class Delete:
    target: Target

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        id = game.id_of(self.target)
        await game.write(self, ctx.db.delete(id), lambda: game.model.delete(id))


@dataclass(frozen=True)
class PutBack:
    """Replace a document by what was read of it, or patch all of its fields with it: nothing changes."""

    target: Target
    act: str

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        document = await ctx.db.get(game.id_of(self.target))
        if document is not None:
            await getattr(ctx.db, self.act)(document["_id"], document)


# Reads.


@dataclass(frozen=True)
class Get:
    target: Target

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        id = game.id_of(self.target)
        row = game.model.rows.get(id)
        document = await ctx.db.get(id)
        agree_on(self, [] if document is None else [document], [] if row is None else [row])
        assert row is None or ctx.db.normalize_id(row.table, id) == id


def built(ctx: QueryCtx, select: Select) -> Any:
    """The query that selects."""

    def span(q: Any) -> Any:
        for field, value in zip(select.compared, select.equal, strict=False):
            q = q.eq(field, value)
        for bound in select.bounds:
            q = getattr(q, bound.operator)(select.compared[len(select.equal)], bound.value)
        return q

    made = ctx.db.query(select.table)
    if select.index is not None:
        made = made.with_index(select.index, span)
    for condition in select.filters:
        made = made.filter(lambda q, condition=condition: expression(q, condition))
    return made.order("desc") if select.descending else made


def expression(q: Any, condition: Condition) -> Any:
    if isinstance(condition, Compare):
        return getattr(q, condition.operator)(q.field(condition.path), condition.value)
    if isinstance(condition, Not):
        return q.not_(expression(q, condition.condition))
    conditions = [expression(q, one) for one in condition.conditions]
    return q.and_(*conditions) if isinstance(condition, All) else q.or_(*conditions)


@dataclass(frozen=True)
class Collect:
    select: Select

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        select = game.known(self.select)
        agree_on(self, await built(ctx, select).collect(), game.model.find(select))


@dataclass(frozen=True)
class Take:
    n: int
    select: Select

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        select = game.known(self.select)
        agree_on(self, await built(ctx, select).take(self.n), game.model.find(select)[: self.n])


@dataclass(frozen=True)
class First:
    select: Select

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        select = game.known(self.select)
        document = await built(ctx, select).first()
        agree_on(self, [] if document is None else [document], game.model.find(select)[:1])


@dataclass(frozen=True)
class Unique:
    select: Select

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        select = game.known(self.select)
        rows = game.model.find(select)
        try:
            document = await built(ctx, select).unique()
        except QueryError:
            assert len(rows) > 1, f"{self} raised"
        else:
            agree_on(self, [] if document is None else [document], rows)


@dataclass(frozen=True)
class Audit:
    """Look at everything, in every order."""

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        for table, indexes in INDEXES.items():
            for index in indexes:
                await Collect(Select(table, index)).play(game, ctx)


# Loops.


@dataclass(frozen=True)
class Loop:
    """`async for`, which writes at each document what is written while it goes on, and stops after `most`.

    It goes on to the next document there is by then, and to none twice.
    """

    select: Select
    writes: Sequence[Step] = ()
    most: int | None = None

    async def play(self, game: Game, ctx: Any) -> None:
        select, outer = game.known(self.select), game.current
        place: Place | None = None
        met: list[str] = []
        async for document in built(ctx, select):
            row = self._next(game, select, place, met)
            assert row is not None, f"{self}\n  got      {shown(document)}\n  expected no more"
            agree(self, shown(document), row.shown)
            place, game.current = select.place_of(row), row.id
            met.append(row.id)
            await game.play(ctx, self.writes[len(met) - 1 : len(met)])
            if len(met) == self.most:
                break
        else:
            agree(self, None, self._next(game, select, place, met))
        game.current = outer

    def _next(self, game: Game, select: Select, place: Place | None, met: list[str]) -> Row | None:
        return next((row for row in game.model.find(select, place) if row.id not in met), None)


# Pages.


@dataclass(frozen=True)
class Cursor:
    text: str | None = None
    place: Place | None = None


class Book:
    """A query that is read in pages, and the cursors it was given so far."""

    def __init__(self, select: Select) -> None:
        self.select = select
        self.cursors = [Cursor()]

    async def read(
        self, step: Step, game: Game, ctx: QueryCtx, start: Cursor, until: Cursor, items: int, looks: int | None
    ) -> list[Row]:
        """Read one page, and keep the cursors it gives."""
        self.select = game.known(self.select)
        page = await built(ctx, self.select).paginate(
            num_items=items, cursor=start.text, end_cursor=until.text, maximum_rows_read=looks
        )
        if until.place is not None:
            rows, end = game.model.between(self.select, start.place, until.place), until.place
            behind = game.model.scan(self.select, start.place)
            scanned = [row for row in behind if not self.select.is_beyond(row, until.place)]
            agree(step, page["continueCursor"], until.text)
        else:
            expected = game.model.page(self.select, start.place, items, looks)
            rows, end, scanned = expected.rows, expected.end, expected.scanned
            if expected.is_cut:
                agree(step, page.pop("pageStatus"), "SplitRequired")
        if len(scanned) > 2:
            place = self.select.place_of(scanned[len(scanned) // 2])
            self.cursors.append(Cursor(page.pop("splitCursor"), place))
        self.cursors.append(Cursor(page.pop("continueCursor"), end))
        agree_on(step, page.pop("page"), rows)
        agree(step, page, {"isDone": end == END})
        return rows


@dataclass(frozen=True)
class Page:
    """One page of a book, from a cursor it was given once; 0 is the last one, and from the end it begins again."""

    book: int
    items: int
    cursor: int = 0
    until: int | None = None
    looks: int | None = None

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        book = game.books[self.book % len(game.books)]
        start = book.cursors[-1 - self.cursor % len(book.cursors)]
        if self.cursor == 0 and start.place == END:
            start = Cursor()
        until = Cursor() if self.until is None else book.cursors[-1 - self.until % len(book.cursors)]
        await book.read(self, game, ctx, start, until, self.items, self.looks)


@dataclass(frozen=True)
class Pages:
    """All pages, with one write after each: what it leaves alone is found once."""

    select: Select
    items: int
    looks: int | None = None
    writes: Sequence[Step] = ()

    async def play(self, game: Game, ctx: Any) -> None:
        book = Book(self.select)
        found: list[Row] = []
        steady = set(game.model.rows.values())
        turned = 0
        while book.cursors[-1].place != END:
            found += await book.read(self, game, ctx, book.cursors[-1], Cursor(), self.items, self.looks)
            await game.play(ctx, self.writes[turned : turned + 1])
            turned += 1
            steady &= set(game.model.rows.values())
        for row in steady:
            times = [one.id for one in found].count(row.id)
            agree(self, times, int(book.select.spans(row) and book.select.passes(row)))


# Transactions.


@dataclass(frozen=True)
class Sub:
    """A sub-transaction."""

    script: Script
    catch: bool = True

    async def play(self, game: Game, ctx: MutationCtx) -> None:
        outer = game.current
        try:
            await ctx.run_mutation("app:change", game.script(self.script))
            assert not self.script.fails
        except Undone:
            if not self.catch:
                raise
        finally:
            game.current = outer


@dataclass(frozen=True)
class Ask:
    """A query within a transaction."""

    script: Script

    async def play(self, game: Game, ctx: QueryCtx) -> None:
        await ctx.run_query("app:look", game.script(self.script))


# What happens outside.


@dataclass(frozen=True)
class Mutate:
    """Mutations that are called at once, and so may share a commit."""

    scripts: Sequence[Script]

    async def happen(self, game: Game, t: Harness) -> None:
        calls = [t.mutation("app:change", game.script(script)) for script in self.scripts]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            if error is not None and not isinstance(error, Undone):
                raise error


@dataclass(frozen=True)
class Look:
    """A query of what was committed."""

    script: Script

    async def happen(self, game: Game, t: Harness) -> None:
        await t.query("app:look", game.script(self.script))


@dataclass(frozen=True)
class Wait:
    milliseconds: float

    async def happen(self, game: Game, t: Harness) -> None:
        await t.advance(timedelta(milliseconds=self.milliseconds))


@dataclass(frozen=True)
class Crash:
    async def happen(self, game: Game, t: Harness) -> None:
        await t.crash()
        await t.advance(timedelta(milliseconds=1))  # a process is not back within a tick


@dataclass(frozen=True)
class Program:
    inserts: Sequence[Insert]
    books: Sequence[Select]
    happenings: Sequence[Mutate | Look | Wait | Crash]
    rows_at_once: int
    """How many rows are read from the store at once, which must make no difference."""

    async def run(self) -> int:
        """Play it, and return of how many steps it was."""
        game = Game(self.books)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("duly.database.index_scan.SCAN_ROWS_MAX", self.rows_at_once)
            async with Harness({"app": game.functions(), "schema": SCHEMA}) as t:
                await Mutate([Script([Insert("items", {})], fails=True)]).happen(game, t)  # an id that never exists
                await Mutate([Script(self.inserts)]).happen(game, t)
                for happening in self.happenings:
                    await happening.happen(game, t)
                await Look(Script([Audit()])).happen(game, t)
        return game.steps
