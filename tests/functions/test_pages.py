"""Pagination: no page skips or repeats a document, whatever happens around the cursor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, TypedDict

import pytest

from duly import (
    App,
    AppError,
    ArgumentValidationError,
    Limits,
    MutationCtx,
    Page,
    PaginationOpts,
    QueryCtx,
    QueryError,
    ReturnsValidationError,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from duly.ctx.db.cursor import Journal
from duly.ctx.db.query import Query
from duly.testing import Harness

pytestmark = pytest.mark.usefixtures("engine")

SCHEMA = define_schema({"notes": define_table(v.any()).index("by_rank", ["rank"])})


def harness(**functions: Any) -> Harness:
    return Harness({"app": SimpleNamespace(**functions), "schema": SCHEMA})


async def with_notes(t: Harness, *ranks: object) -> list[str]:
    async def insert(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert("notes", {"rank": rank, "n": n}) for n, rank in enumerate(ranks)]

    return await t.transaction(insert)


async def page(t: Harness, cursor: str | None = None, size: int = 2, narrow: Any = None, **options: Any) -> Any:
    """A page of notes by rank, as (ranks, isDone, cursor)."""

    async def read(ctx: MutationCtx) -> Any:
        query: Query[Any] = ctx.db.query("notes")
        query = query.with_index("by_rank") if narrow is None else narrow(query)
        found = await query.paginate(num_items=size, cursor=cursor, **options)
        return [note["rank"] for note in found["page"]], found["isDone"], found["continueCursor"]

    return await t.transaction(read)


async def test_pages_follow_each_other_to_the_end() -> None:
    async with harness() as t:
        await with_notes(t, 3, 1, 2, 5, 4)
        first, done, cursor = await page(t)
        assert (first, done) == ([1, 2], False)
        second, done, cursor = await page(t, cursor)
        assert (second, done) == ([3, 4], False)
        third, done, cursor = await page(t, cursor)
        assert (third, done) == ([5], True)
        assert await page(t, cursor) == ([], True, cursor)


@pytest.mark.one_engine
async def test_a_full_last_page_is_followed_by_an_empty_one() -> None:
    async with harness() as t:
        await with_notes(t, 1, 2)
        full, done, cursor = await page(t)
        assert (full, done) == ([1, 2], False)
        empty, done, _ = await page(t, cursor)
        assert (empty, done) == ([], True)


async def test_an_empty_table_and_one_that_does_not_exist_are_one_empty_page() -> None:
    async with harness() as t:
        assert (await page(t))[:2] == ([], True)
        found = await t.transaction(lambda ctx: ctx.db.query("nowhere").paginate(num_items=3, cursor=None))
        assert (found["page"], found["isDone"]) == ([], True)


async def test_what_is_inserted_and_deleted_around_the_cursor_is_neither_skipped_nor_repeated() -> None:
    async with harness() as t:
        ids = await with_notes(t, 10, 20, 30, 40, 50)
        _, _, cursor = await page(t)  # 10, 20

        async def change(ctx: MutationCtx) -> None:
            await ctx.db.insert("notes", {"rank": 15})  # on the page that was read
            await ctx.db.insert("notes", {"rank": 20})  # right behind the cursor: a later one of equal rank
            await ctx.db.insert("notes", {"rank": 25})
            await ctx.db.delete(ids[1])  # the document of the cursor
            await ctx.db.delete(ids[3])
            await ctx.db.patch(ids[4], {"rank": 5})  # moved to before the cursor

        await t.transaction(change)
        rest, done, _ = await page(t, cursor, 10)
        assert (rest, done) == ([20, 25, 30], True)


async def test_pages_go_down_as_well_and_equal_ranks_are_in_the_order_of_creation() -> None:
    async def read(ctx: MutationCtx) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = None
        while True:
            query = ctx.db.query("notes").with_index("by_rank").order("desc")
            of_cursor = await query.paginate(num_items=2, cursor=cursor)
            found += [(note["rank"], note["n"]) for note in of_cursor["page"]]
            cursor = of_cursor["continueCursor"]
            if of_cursor["isDone"]:
                return found

    async with harness() as t:
        await with_notes(t, 1, 2, 1, 2, 1)
        assert await t.transaction(read) == [(2, 3), (2, 1), (1, 4), (1, 2), (1, 0)]


@pytest.mark.one_engine
async def test_a_page_counts_what_passes_its_filters() -> None:
    def even(query: Query[Any]) -> Query[Any]:
        return query.with_index("by_rank").filter(lambda q: q.eq(q.field("rank") % 2, 0))

    async with harness() as t:
        await with_notes(t, *range(10))
        first, done, cursor = await page(t, None, 3, even)
        assert (first, done) == ([0, 2, 4], False)
        rest, done, _ = await page(t, cursor, 3, even)
        assert (rest, done) == ([6, 8], True)


@pytest.mark.one_engine
async def test_a_page_may_end_early_at_a_number_of_rows_or_bytes() -> None:
    def high(query: Query[Any]) -> Query[Any]:
        return query.with_index("by_rank").filter(lambda q: q.field("rank") >= 3)

    async with harness() as t:
        await with_notes(t, *range(10))
        short, done, cursor = await page(t, None, 5, high, maximum_rows_read=3)
        assert (short, done) == ([], False)
        rest, done, _ = await page(t, cursor, 10, high)
        assert (rest, done) == ([3, 4, 5, 6, 7, 8, 9], True)
        one, done, _ = await page(t, None, 10, maximum_bytes_read=1)
        assert (one, done) == ([0], False)


@pytest.mark.one_engine
async def test_a_page_that_had_to_end_early_says_where_to_split_it() -> None:
    async def read(ctx: MutationCtx) -> Any:
        query = ctx.db.query("notes").with_index("by_rank")
        cut = await query.paginate(num_items=9, cursor=None, maximum_rows_read=5)
        split = cut.get("splitCursor")
        half = await query.paginate(num_items=9, cursor=None, end_cursor=split)
        return cut.get("pageStatus"), [note["rank"] for note in half["page"]]

    async with harness() as t:
        await with_notes(t, *range(10))
        assert await t.transaction(read) == ("SplitRequired", [0, 1, 2])


async def test_a_page_with_an_end_holds_all_that_lies_between_however_much_it_is() -> None:
    async with harness() as t:
        ids = await with_notes(t, 10, 20, 30)
        _, _, end = await page(t)

        async def change(ctx: MutationCtx) -> None:
            for rank in (11, 12, 13, 25):
                await ctx.db.insert("notes", {"rank": rank})
            await ctx.db.delete(ids[1])

        await t.transaction(change)
        assert await page(t, None, 2, end_cursor=end) == ([10, 11, 12, 13], False, end)
        _, _, last = await page(t, None, 10)
        assert await page(t, end, 1, end_cursor=last) == ([25, 30], True, last)


@pytest.mark.one_engine
async def test_the_options_of_an_official_client_are_one_dict() -> None:
    @query
    async def list_notes(ctx: QueryCtx, paginationOpts: dict[str, Any]) -> Any:
        return await ctx.db.query("notes").paginate(paginationOpts)

    async with harness(list_notes=list_notes) as t:
        await with_notes(t, 1, 2, 3)
        first = await t.query("app:list_notes", {"paginationOpts": {"numItems": 2, "cursor": None, "id": 7}})
        assert [note["rank"] for note in first["page"]] == [1, 2]
        assert set(first) == {"page", "isDone", "continueCursor"}
        options = {"numItems": 2, "cursor": first["continueCursor"]}
        assert [n["rank"] for n in (await t.query("app:list_notes", {"paginationOpts": options}))["page"]] == [3]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    "narrow",
    [
        lambda q: q.with_index("by_rank").order("desc"),
        lambda q: q.with_index("by_rank", lambda r: r.gt("rank", 0)),
        lambda q: q.with_index("by_creation_time"),
        lambda q: q.with_index("by_rank").filter(lambda f: f.field("n") > 0),
    ],
)
async def test_the_cursor_of_another_query_is_refused_with_data_that_official_clients_understand(narrow: Any) -> None:
    async with harness() as t:
        await with_notes(t, 1, 2, 3)
        _, _, cursor = await page(t)
        with pytest.raises(AppError, match="InvalidCursor: got the cursor of another query") as caught:
            await page(t, cursor, 2, narrow)
        data: Any = caught.value.data
        assert data["isConvexSystemError"] is True
        assert data["paginationError"] == "InvalidCursor"


@pytest.mark.one_engine
@pytest.mark.parametrize("cursor", ["", "x", "é", "AAAA" * 20, 5, b"bytes"])
async def test_what_is_no_cursor_is_refused(cursor: Any) -> None:
    async with harness() as t:
        await with_notes(t, 1)
        with pytest.raises(AppError, match="InvalidCursor: got .*, expected None or the continueCursor"):
            await page(t, cursor)


@pytest.mark.one_engine
async def test_a_cursor_that_was_changed_is_refused() -> None:
    async with harness() as t:
        await with_notes(t, 1, 2, 3)
        _, _, cursor = await page(t)
        for position in range(0, len(cursor) - 2, 5):
            other = "A" if cursor[position] != "A" else "B"
            with pytest.raises(AppError, match="InvalidCursor"):
                await page(t, cursor[:position] + other + cursor[position + 1 :])


@pytest.mark.one_engine
@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "3", 6])
async def test_a_page_has_a_size(size: Any) -> None:
    @query
    async def list_notes(ctx: QueryCtx, size: Any) -> Any:
        return await ctx.db.query("notes").paginate(num_items=size)

    modules = {"app": SimpleNamespace(list_notes=list_notes)}
    async with Harness(modules, limits=Limits(documents_read_max=5)) as t:
        with pytest.raises(
            QueryError, match=r"for num_items, expected a whole number from 1 to 5 \(documents_read_max\)"
        ):
            await t.query("app:list_notes", {"size": size})


async def test_cursors_hold_any_value_that_an_index_holds() -> None:
    ranks = [None, 1, 1.5, True, "a\x00b", b"\xff\x00", [1, [2]], {"a": {"b": 1}}, float("nan"), 2**63 - 1]
    async with harness() as t:
        await with_notes(t, *ranks)
        await t.transaction(lambda ctx: ctx.db.insert("notes", {"no": "rank"}))

        async def read(ctx: MutationCtx) -> list[int]:
            found: list[int] = []
            cursor: str | None = None
            for _ in range(len(ranks) + 1):
                one = await ctx.db.query("notes").with_index("by_rank").paginate(num_items=1, cursor=cursor)
                found.append(one["page"][0].get("n", -1))
                cursor = one["continueCursor"]
            return found

        # missing, None, numbers (NaN above all others), True, strings, bytes, lists, dicts
        assert await t.transaction(read) == [-1, 0, 1, 2, 9, 8, 3, 4, 5, 6, 7]


async def test_scheduled_functions_are_paged_like_documents() -> None:
    async def read(ctx: MutationCtx) -> Any:
        found: list[Any] = []
        cursor: str | None = None
        while True:
            jobs = ctx.db.system.query("_scheduled_functions").with_index("by_name_scheduled_time")
            of_cursor = await jobs.paginate(num_items=2, cursor=cursor)
            found += [job["args"][0]["n"] for job in of_cursor["page"]]
            cursor = of_cursor["continueCursor"]
            if of_cursor["isDone"]:
                return found

    async def schedule(ctx: MutationCtx) -> None:
        for n, delay in enumerate((5_000, 1_000, 3_000, 1_000, 4_000)):
            await ctx.scheduler.run_after(delay, "app:noop", {"n": n})

    @mutation
    async def noop(ctx: MutationCtx, n: int) -> None: ...

    async with harness(noop=noop) as t:
        await t.transaction(schedule)
        assert await t.transaction(read) == [1, 3, 2, 4, 0]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (2, r"paginate: got 2, expected num_items=… or a dict such as \{'numItems': 100\}"),
        ({"numItems": 2, "endcursor": "x"}, "paginate: got the option 'endcursor', expected one of numItems, cursor"),
        ({"cursor": None}, "paginate: got None for num_items"),
    ],
)
async def test_options_that_are_none_are_refused(options: Any, message: str) -> None:
    async with harness() as t:
        with pytest.raises(QueryError, match=message):
            await t.transaction(lambda ctx: ctx.db.query("notes").paginate(options))


class Note(TypedDict):
    rank: int


@query
async def notes(ctx: QueryCtx, cursor: str | None = None) -> Page[Note]:
    return await ctx.db.query(Note).paginate(num_items=1, cursor=cursor)


@query
async def wrong_notes(ctx: QueryCtx) -> Page[Note]:
    return {"page": [{"rank": "high"}], "isDone": True, "continueCursor": ""}  # pyright: ignore[reportReturnType]


@query
async def any_notes(ctx: QueryCtx) -> Page[Any]:
    return await notes(ctx)


@pytest.mark.one_engine
async def test_a_query_may_say_that_it_returns_a_page_of_what() -> None:
    functions = SimpleNamespace(notes=notes, any_notes=any_notes, wrong_notes=wrong_notes)
    async with Harness({"app": functions, "schema": define_schema({"notes": define_table(Note)})}) as t:
        await t.transaction(lambda ctx: ctx.db.insert(Note, {"rank": 1}))
        page = await t.query(notes)
        assert [note["rank"] for note in page["page"]] == [1]
        assert page == await t.query(any_notes)
        with pytest.raises(ReturnsValidationError, match=r'at \.page\[0\]\.rank: expected an integer, got "high"'):
            await t.query(wrong_notes)


@pytest.mark.one_engine
async def test_options_may_be_spelled_like_the_keywords() -> None:
    async with harness() as t:
        await with_notes(t, 1, 2, 3)
        found = await t.transaction(lambda ctx: ctx.db.query("notes").paginate({"num_items": 2, "cursor": None}))
        assert len(found["page"]) == 2


# Cut in two.


@pytest.mark.one_engine
async def test_a_page_that_has_read_more_than_two_documents_says_where_its_middle_is() -> None:
    async with harness() as t:
        await with_notes(t, 1, 2, 3, 4, 5)

        async def read(ctx: MutationCtx) -> list[Any]:
            notes = ctx.db.query("notes")
            two = await notes.paginate(num_items=2)
            assert set(two) == {"page", "isDone", "continueCursor"}
            three = await notes.paginate(num_items=3)
            assert set(three) == {"page", "isDone", "continueCursor", "splitCursor"}
            middle = three.get("splitCursor")
            before = await notes.paginate(num_items=3, end_cursor=middle)
            behind = await notes.paginate(num_items=3, cursor=middle, end_cursor=three["continueCursor"])
            all = await notes.paginate(num_items=9, end_cursor=three["continueCursor"])
            assert all.get("splitCursor") == middle
            odd = await notes.filter(lambda q: q.field("rank") % 2 == 1).paginate(num_items=2)
            assert "splitCursor" in odd  # it has read 1, 2 and 3
            return [[note["rank"] for note in one["page"]] for one in (before, behind)]

        assert await t.transaction(read) == [[1, 2], [3]]


@pytest.mark.one_engine
async def test_a_page_that_had_to_end_early_says_so_however_short_it_is() -> None:
    async with harness() as t:
        await with_notes(t, 1, 2, 3)

        async def read(ctx: MutationCtx) -> Any:
            return await ctx.db.query("notes").paginate(num_items=3, maximum_rows_read=1)

        cut: Any = await t.transaction(read)
        assert cut["pageStatus"] == "SplitRequired"
        assert "splitCursor" not in cut


# Live pages.


@query
async def ranked(ctx: QueryCtx, paginationOpts: PaginationOpts, above: int = 0) -> Page[Any]:
    notes = ctx.db.query("notes").with_index("by_rank", lambda q: q.gt("rank", above))
    return await notes.paginate(paginationOpts)


@query
async def ranked_within(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[Any]:
    return await ctx.run_query(ranked, {"paginationOpts": paginationOpts})


@query
async def both_ends(ctx: QueryCtx) -> list[Any]:
    notes = ctx.db.query("notes").with_index("by_rank")
    pages = [await notes.order(one).paginate(num_items=2) for one in ("asc", "desc")]
    return [[note["rank"] for note in page["page"]] for page in pages]


def shown(page: Any) -> tuple[list[Any], bool]:
    return [note["rank"] for note in page["page"]], page["isDone"]


@pytest.mark.parametrize("name", ["app:ranked", "app:ranked_within"])
async def test_a_live_page_keeps_the_end_it_first_had(name: str) -> None:
    async with harness(ranked=ranked, ranked_within=ranked_within) as t:
        one, two, _three = await with_notes(t, 1, 2, 3)
        options: dict[str, Any] = {"numItems": 2, "cursor": None}
        pages = t.subscribe(name, {"paginationOpts": options})
        first = await anext(pages)
        assert shown(first) == ([1, 2], False)
        await t.transaction(lambda ctx: ctx.db.delete(one))
        page = await anext(pages)
        assert shown(page) == ([2], False)
        assert page["continueCursor"] == first["continueCursor"]
        await with_notes(t, 1.5, 0.5, 1.7)
        assert shown(await anext(pages)) == ([0.5, 1.5, 1.7, 2], False)
        await t.transaction(lambda ctx: ctx.db.delete(two))
        assert shown(await anext(pages)) == ([0.5, 1.5, 1.7], False)
        again = t.subscribe(name, {"paginationOpts": options})
        assert shown(await anext(again)) == ([0.5, 1.5], False)
        assert shown(await t.query(name, {"paginationOpts": options})) == ([0.5, 1.5], False)


async def test_live_pages_meet_whatever_comes_and_goes_between_them() -> None:
    async with harness(ranked=ranked) as t:
        await with_notes(t, 1, 2, 3, 4)
        first = t.subscribe("app:ranked", {"paginationOpts": {"numItems": 2, "cursor": None}})
        end = (await anext(first))["continueCursor"]
        second = t.subscribe("app:ranked", {"paginationOpts": {"numItems": 2, "cursor": end}})
        assert shown(await anext(second)) == ([3, 4], False)
        await with_notes(t, 2.5)
        assert shown(await anext(second)) == ([2.5, 3, 4], False)
        await with_notes(t, 2)
        assert shown(await anext(second)) == ([2, 2.5, 3, 4], False)  # behind the 2 that the first one ends with


async def test_the_last_live_page_stays_the_last() -> None:
    async with harness(ranked=ranked) as t:
        await with_notes(t, 1)
        pages = t.subscribe("app:ranked", {"paginationOpts": {"numItems": 2, "cursor": None}})
        assert shown(await anext(pages)) == ([1], True)
        await with_notes(t, 2, 3, 4)
        assert shown(await anext(pages)) == ([1, 2, 3, 4], True)


async def test_each_page_of_a_live_query_keeps_its_own_end() -> None:
    async with harness(both_ends=both_ends) as t:
        one, *_ = await with_notes(t, 1, 2, 3, 4)
        pages = t.subscribe("app:both_ends")
        assert await anext(pages) == [[1, 2], [4, 3]]
        await t.transaction(lambda ctx: ctx.db.delete(one))
        assert await anext(pages) == [[2], [4, 3]]
        await with_notes(t, 5, 0)
        assert await anext(pages) == [[0, 2], [5, 4, 3]]


async def test_an_end_that_is_asked_for_is_the_end_of_a_live_page() -> None:
    async with harness(ranked=ranked) as t:
        one, *_ = await with_notes(t, 1, 2, 3)
        end = (await t.query("app:ranked", {"paginationOpts": {"numItems": 3, "cursor": None}}))["splitCursor"]
        options = {"numItems": 1, "cursor": None, "endCursor": end, "id": 5}
        pages = t.subscribe("app:ranked", {"paginationOpts": options})
        assert shown(await anext(pages)) == ([1, 2], False)
        await t.transaction(lambda ctx: ctx.db.delete(one))
        assert shown(await anext(pages)) == ([2], False)


# The options of clients.


@pytest.mark.one_engine
@pytest.mark.parametrize(
    "options",
    [
        {"numItems": 2, "cursor": None},
        {"numItems": 2.0, "cursor": None, "endCursor": None, "id": 7},
        {"numItems": 2, "cursor": None, "id": 7.5, "maximumRowsRead": 100, "maximumBytesRead": 100_000},
    ],
)
async def test_the_options_of_a_client_are_what_their_annotation_says(options: dict[str, Any]) -> None:
    async with harness(ranked=ranked) as t:
        await with_notes(t, 1, 2, 3)
        assert shown(await t.query("app:ranked", {"paginationOpts": options})) == ([1, 2], False)


@pytest.mark.one_engine
@pytest.mark.parametrize("options", [{"numItems": 2}, {"cursor": None}, {"numItems": "2", "cursor": None}, {"num": 5}])
async def test_other_options_are_refused(options: dict[str, Any]) -> None:
    async with harness(ranked=ranked) as t:
        with pytest.raises(ArgumentValidationError, match="paginationOpts"):
            await t.query("app:ranked", {"paginationOpts": options})


@mutation
async def put_number(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("numbers", {"n": n})


@query
async def first_numbers(ctx: QueryCtx, count: int) -> list[int]:
    page = await ctx.db.query("numbers").paginate(num_items=count)
    return [row["n"] for row in page["page"]]


@query
async def pages_of_two_sizes(ctx: QueryCtx) -> list[list[int]]:
    return [await ctx.run_query(first_numbers, {"count": 1}), await ctx.run_query(first_numbers, {"count": 3})]


async def test_two_pages_of_one_query_with_different_sizes_each_keep_their_own_end(store: str) -> None:
    numbers = SimpleNamespace(put_number=put_number, first_numbers=first_numbers, pages_of_two_sizes=pages_of_two_sizes)
    async with App({"numbers": numbers}, store) as app:
        for n in range(5):
            await app.mutation(put_number, {"n": n})
        pages = app.subscribe(pages_of_two_sizes)
        assert await anext(pages) == [[0], [0, 1, 2]]
        await app.mutation(put_number, {"n": 5})
        assert await app.query(pages_of_two_sizes) == [[0], [0, 1, 2]]
        row = await app.runner.transaction(lambda ctx: ctx.db.query("numbers").first())
        await app.runner.transaction(lambda ctx: ctx.db.delete(row["_id"]))
        assert await anext(pages) == [[], [1, 2]]


def test_a_live_page_that_the_last_run_did_not_read_keeps_no_end() -> None:
    journal, page, other = Journal(), ("page",), ("other",)
    runs = [object() for _ in range(3)]
    assert journal.end_of(runs[0], page) is None
    journal.record(page, "the end of the page")
    assert journal.end_of(runs[1], other) is None
    journal.record(other, "the end of the other")
    assert journal.end_of(runs[2], page) is None
    assert journal.end_of(runs[2], other) == "the end of the other"
