"""Pagination: a page of a query behind a cursor, and the cursor of the next page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, NotRequired, TypedDict, TypeVar, cast

from duly.ctx.db.cursor import END, Place, read_cursor, write_cursor
from duly.ctx.db.query_plan import QueryPlan
from duly.database.index_scan import FoundRow, IndexScan, interval_after, interval_up_to
from duly.database.indexes.row_keys import values_in
from duly.errors import QueryError
from duly.limits import Limits
from duly.values.index_keys import Interval
from duly.values.json import Document

M = TypeVar("M")


class Page(TypedDict, Generic[M]):
    """The result of `paginate`: documents, whether they are the last ones, and the cursor of the next page.

    `splitCursor` is a place in the middle of the page. It exists if more than two documents were read for the page.
    `pageStatus` exists if so many were read that the page should be cut in two ("SplitRecommended"), or had to end
    early ("SplitRequired").
    """

    page: list[M]
    isDone: bool
    continueCursor: str
    pageStatus: NotRequired[str]
    splitCursor: NotRequired[str]


_OPTIONS: Final = {
    "numItems": "num_items",
    "cursor": "cursor",
    "endCursor": "end_cursor",
    "maximumRowsRead": "maximum_rows_read",
    "maximumBytesRead": "maximum_bytes_read",
}
_OF_THE_CLIENT: Final = "id"  # by which a client distinguishes its requests
_SPLIT_SHARE: Final = 0.75
"""A page that used this share of a limit should be split, as in the Convex backend."""


class PaginationOpts(TypedDict):
    """The options of a page as the official clients send them: the annotation of an argument for `paginate`.

    @query
    async def newest(ctx: QueryCtx, paginationOpts: PaginationOpts) -> Page[Order]:
        return await ctx.db.query(Order).order("desc").paginate(paginationOpts)
    """

    numItems: int
    cursor: str | None
    endCursor: NotRequired[str | None]
    id: NotRequired[float]
    maximumRowsRead: NotRequired[int]
    maximumBytesRead: NotRequired[int]


class Paging(NamedTuple):
    """The options of a page, by the names of the keywords."""

    num_items: int
    cursor: str | None = None
    end_cursor: str | None = None
    maximum_rows_read: int | None = None
    maximum_bytes_read: int | None = None


def paging_of(options: Mapping[str, Any] | None, given: Mapping[str, Any], limits: Limits) -> Paging:
    """Return the options of a page from keywords, from the `paginationOpts` of an official client, or from both."""
    values = _named({} if options is None else options)
    values |= {name: value for name, value in given.items() if value is not None}
    items: Any = values.get("num_items")
    if isinstance(items, bool) or not isinstance(items, int) or not 1 <= items <= limits.documents_read_max:
        raise QueryError(
            f"paginate: got {items!r} for num_items, expected a whole number from 1 to"
            f" {limits.documents_read_max:,} (documents_read_max)"
        )
    for name in ("maximum_rows_read", "maximum_bytes_read"):
        limit = values.get(name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise QueryError(f"paginate: got {limit!r} for {name}, expected a whole number above 0")
    return Paging(**values)


def _named(options: object) -> dict[str, Any]:
    """Return the options of one dict, in either spelling, by the names of the keywords."""
    if not isinstance(options, Mapping):
        raise QueryError(f"paginate: got {options!r:.80}, expected num_items=… or a dict such as {{'numItems': 100}}")
    values: dict[str, Any] = {}
    for name, value in cast("Mapping[str, Any]", options).items():
        if name in _OPTIONS or name in Paging._fields:
            values[_OPTIONS.get(name, name)] = value
        elif name != _OF_THE_CLIENT:
            raise QueryError(f"paginate: got the option {name!r}, expected one of {', '.join(_OPTIONS)}")
    return values


async def read_page(plan: QueryPlan, paging: Paging) -> Page[Any]:
    """Return the page behind the cursor."""
    query, ids = plan.fingerprint, plan.mapper.ids
    journal, request = None if paging.end_cursor is not None else plan.mapper.journal, (query, *paging)
    if journal is not None:
        end_cursor = journal.end_of(plan.mapper.transaction.usage, request)
        paging = paging._replace(end_cursor=end_cursor)
    start = None if paging.cursor is None else read_cursor(ids, query, paging.cursor)
    end = None if paging.end_cursor is None else read_cursor(ids, query, paging.end_cursor)
    scanned = _Scanned([], [], True, None)
    if start != END:
        plan = plan._replace(interval=_between(plan, start, end))
        scanned = await _read_rows(plan, paging)
    reached = end or (END if scanned.ended else _place(plan, scanned.rows[-1]))
    page: Page[Any] = {
        "page": [plan.present(document) for document in scanned.documents],
        "isDone": reached == END,
        "continueCursor": write_cursor(ids, query, reached),
    }
    if journal is not None:
        journal.record(request, page["continueCursor"])
    if scanned.status is not None:
        page["pageStatus"] = scanned.status
    if len(scanned.rows) > 2:
        page["splitCursor"] = write_cursor(ids, query, _place(plan, scanned.rows[len(scanned.rows) // 2]))
    return page


class _Scanned(NamedTuple):
    documents: list[Document]
    """The documents that pass the filters."""
    rows: list[FoundRow]
    """All rows that were read."""
    ended: bool
    """Whether there are no more rows after these."""
    status: str | None


async def _read_rows(plan: QueryPlan, paging: Paging) -> _Scanned:
    documents: list[Document] = []
    rows: list[FoundRow] = []
    to_end = paging.end_cursor is not None  # read all documents up to the end cursor
    scan = plan.scan(_rows_wanted(paging))
    while scan is not None and (to_end or len(documents) < paging.num_items):
        row = await scan.next_row()
        if row is None:
            return _Scanned(documents, rows, True, _advice(plan, scan, documents, rows))
        rows.append(row)
        document = plan.document(row)
        if plan.fits(document):
            documents.append(document)
        if not to_end and _has_read_enough(paging, scan, rows):
            return _Scanned(documents, rows, False, "SplitRequired")
    return _Scanned(documents, rows, scan is None, None if scan is None else _advice(plan, scan, documents, rows))


def _rows_wanted(paging: Paging) -> int:
    if paging.maximum_bytes_read is not None:
        return 1  # their size is unknown; the scan reads larger and larger pieces
    return min(paging.num_items, paging.maximum_rows_read or paging.num_items)


def _has_read_enough(paging: Paging, scan: IndexScan, rows: list[FoundRow]) -> bool:
    if paging.maximum_rows_read is not None and len(rows) >= paging.maximum_rows_read:
        return True
    return paging.maximum_bytes_read is not None and scan.size >= paging.maximum_bytes_read


def _advice(plan: QueryPlan, scan: IndexScan, documents: list[Document], rows: list[FoundRow]) -> str | None:
    limits = plan.mapper.transaction.usage.limits
    large = (
        len(rows) > _SPLIT_SHARE * limits.documents_read_max
        or scan.size > _SPLIT_SHARE * limits.bytes_read_max
        or len(documents) > _SPLIT_SHARE * limits.array_length_max
    )
    return "SplitRecommended" if large else None


def _between(plan: QueryPlan, start: Place | None, end: Place | None) -> Interval:
    interval = plan.interval
    if start is not None:
        interval = interval_after(interval, plan.descending, *start)
    if end is not None and end != END:
        interval = interval_up_to(interval, plan.descending, *end)
    return interval


def _place(plan: QueryPlan, row: FoundRow) -> Place:
    return Place(values_in(plan.order, row[1]), row[0])
