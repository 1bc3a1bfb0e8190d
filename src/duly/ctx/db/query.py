"""Queries of a table: built step by step, read by the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, cast

from duly.ctx.db.filters import Expression, Filters, predicate
from duly.ctx.db.index_range import IndexRange
from duly.ctx.db.pagination import Page, paging_of, read_page
from duly.ctx.db.query_plan import QueryPlan
from duly.database.index_scan import IndexScan
from duly.errors import LimitError, QueryError
from duly.hints import argument_hint, name_hint
from duly.limits import FILTER_OPERATORS_MAX
from duly.values.schema.tables import BY_ID
from duly.values.text import show

M = TypeVar("M")

_A_FILTER: Final = (
    'expected a function: .filter(lambda q: q.field("status") == "new"), or .with_index(name, lambda q: q.eq("status",'
    ' "new")), which does not read the others in the first place'
)
_A_RANGE: Final = 'expected a function of the range: .with_index("by_status", lambda q: q.eq("status", "new"))'
_A_COUNT: Final = 'expected what to count before it: .with_index("by_status", lambda q: q.eq("status", "new")).count()'
_ALL: Final = 1 << 31  # more documents than a function may read


@name_hint(
    "got .{name}(…) of a query, which comes in the order of an index: declare"
    ' define_table(…).index("by_due", ["due"]), and write .with_index("by_due").order("desc")',
    *("order_by", "sort", "sort_by", "sorted", "orderBy"),
)
@name_hint(f"got .{{name}}(…) of a query, {_A_FILTER}", "where", "filter_by", "find", "match", "exclude")
@name_hint("got .{name}(…) of a query, expected .take(n)", "limit", "top", "head")
@name_hint("got .{name}(…) of a query, expected .collect()", "all", "fetch", "fetchall", "to_list", "list", "execute")
@name_hint(
    "got .{name}(…) of a query, expected .unique() or .first()", "one", "one_or_none", "get", "fetch_one", "scalar"
)
@name_hint('got .{name}(…) of a query, expected .order("desc").first()', "last")
@name_hint("got .{name}(…) of a query, expected .paginate(num_items=…, cursor=…)", "skip", "offset", "page", "batch")
@name_hint(
    "got .{name}() of a query, expected `await ….first() is not None`, or .count()", "exists", "any", "len", "size"
)
@name_hint("got .{name}(…) of a query, expected .with_index(name, lambda q: …)", "withIndex", "using", "index")
@name_hint(
    "got .{name}(…) of a query, which reads whole documents: do that in Python with what .collect() gives",
    *("select", "only", "values", "distinct", "group_by", "join", "map", "sum", "max", "min"),
)
@name_hint(
    "got .{name}(…) of a query, which only reads: in a mutation, `async for document in query` and"
    " await ctx.db.{name}(document['_id'], …)",
    *("delete", "patch", "replace"),
)
@name_hint(
    "got .{name}(…) of a query, which only reads: in a mutation, `async for document in query` and"
    " await ctx.db.patch(document['_id'], …)",
    *("update", "set"),
)
class Query(Generic[M]):
    """A query of a table. Each step makes a new query; nothing is read before the last one is awaited."""

    __slots__ = ("_plan",)
    __duly_not_a_result__ = "a query, expected its documents: end it with .collect()"

    def __init__(self, plan: QueryPlan) -> None:
        self._plan = plan

    if not TYPE_CHECKING:  # a type checker says it better

        def __await__(self) -> Any:
            raise QueryError(_unfinished(self._plan.table_name, "await"))

        def __iter__(self) -> Any:
            raise QueryError(_unfinished(self._plan.table_name, "for"))

        def __len__(self) -> Any:
            raise QueryError(_unfinished(self._plan.table_name, "len()"))

        def __bool__(self) -> Any:
            raise QueryError(_unfinished(self._plan.table_name, "if"))

        def __getitem__(self, key: object) -> Any:
            raise QueryError(_unfinished(self._plan.table_name, "[…]"))

    # Building.

    @argument_hint(QueryError, _A_RANGE)
    def with_index(self, name: str, range: Callable[[IndexRange], IndexRange] | None = None) -> Query[M]:
        """Read an index instead: equal values of leading fields, then bounds of the next one.

        .with_index("by_author", lambda q: q.eq("author", "ada").gte("at", yesterday))
        """
        if range is not None and not callable(range):
            raise QueryError(
                f"{self._plan.table_name}.{name}: got the range {show(range)}, expected a function such as"
                ' lambda q: q.eq("author", "ada")'
            )
        plan = self._chosen("with_index")._replace(index_name=name)
        index = plan.order
        first_id = plan.first_id if name == BY_ID else None
        fields = () if index is None else index.fields
        whole = IndexRange(f"{plan.table_name}.{name}", fields, plan.declared, first_id)
        built: Any = whole if range is None else range(whole)
        if not isinstance(built, IndexRange):
            hint = "; a def needs a return" if built is None else ""
            raise QueryError(
                f"{plan.table_name}.{name}: the function of the range returned {show(built)}, expected a range made"
                f' with its parameter, such as q.eq("author", "ada"){hint}'
            )
        return Query(plan._replace(interval=built.interval()))

    @argument_hint(QueryError, 'expected .order("asc") or .order("desc"), of the index that .with_index(name) chooses')
    def order(self, direction: Literal["asc", "desc"]) -> Query[M]:
        """Read in the index's order, "asc", or from its end, "desc"."""
        if direction not in ("asc", "desc"):
            raise QueryError(f'got the order {direction!r}, expected "asc" or "desc"')
        return Query(self._chosen("order")._replace(descending=direction == "desc"))

    def _chosen(self, step: str) -> QueryPlan:
        plan = self._plan
        if step in plan.chosen:
            raise QueryError(f"{plan.table_name}: got .{step}(…) twice in one query, expected it once")
        return plan._replace(chosen=(*plan.chosen, step))

    @argument_hint(QueryError, _A_FILTER)
    def filter(self, build: Callable[[Filters], Expression | bool]) -> Query[M]:
        """Leave out documents that do not fit. Unlike an index, a filter reads every document of the range.

        .filter(lambda q: q.field("expiresAt") < ctx.now)
        .filter(lambda q: q.and_(q.eq(q.field("status"), "new"), q.gt(q.field("cart.items"), 3)))
        """
        filters = (*self._plan.filters, predicate(build, self._plan.declared))
        operators = sum(one.operators for one in filters)
        if operators > FILTER_OPERATORS_MAX:
            raise LimitError(
                f"{self._plan.table_name}: got {operators} operators in the filters of one query, expected at"
                f" most {FILTER_OPERATORS_MAX} (FILTER_OPERATORS_MAX); look at the documents in Python instead"
            )
        return Query(self._plan._replace(filters=filters))

    # QueryPlan.

    async def collect(self) -> list[M]:
        """Return all documents. Raises LimitError if there are too many."""
        return await self._plan.read(_ALL)

    @argument_hint(QueryError, _A_COUNT)
    async def count(self) -> int:
        """Return the number of documents.

            open = await ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", "open")).count()

        Without a filter, only the index is read. Each document still counts as a document read, but its bytes do not
        count. To count more than `documents_read_max`, keep a counter in a document.
        """
        return await self._plan.number()

    async def take(self, n: int) -> list[M]:
        """Return the first `n` documents, or as many as there are."""
        if type(n) is not int or n < 0:
            raise QueryError(f"take: got {n!r}, expected a whole number of documents, 0 or more")
        return await self._plan.read(min(n, _ALL)) if n else []

    async def first(self) -> M | None:
        """Return the first document; None if there is none."""
        found = await self._plan.read(1)
        return found[0] if found else None

    async def unique(self) -> M | None:
        """Return the only document; None if there is none. Raises QueryError if there are more."""
        plan = self._plan
        scan = plan.scan(2)
        found = None if scan is None else await plan.next(scan)
        if scan is None or found is None:
            return None
        other = await plan.next(scan)
        if other is not None:
            raise QueryError(
                f"{plan.table_name}: unique() found {found['_id']}, {other['_id']} and perhaps more, expected at"
                " most one document"
            )
        return cast("M", plan.present(found))

    @argument_hint(QueryError, "expected .paginate(num_items=…, cursor=…)")
    async def paginate(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        num_items: int | None = None,
        cursor: str | None = None,
        end_cursor: str | None = None,
        maximum_rows_read: int | None = None,
        maximum_bytes_read: int | None = None,
    ) -> Page[M]:
        """Return the next `num_items` documents behind a cursor; None is the beginning.

            orders = await ctx.db.query("orders").paginate(num_items=100, cursor=cursor)
            orders["page"], orders["isDone"], orders["continueCursor"]

        The cursor is a place in the order. So documents that are inserted or deleted meanwhile do not make a page skip
        or repeat a document. With `end_cursor` the page ends there, however long it is. `maximum_rows_read` and
        `maximum_bytes_read` end a page early if few documents pass its filters. `options` are the `paginationOpts` of
        the official clients: the same in one dict.
        """
        given = {
            "num_items": num_items,
            "cursor": cursor,
            "end_cursor": end_cursor,
            "maximum_rows_read": maximum_rows_read,
            "maximum_bytes_read": maximum_bytes_read,
        }
        limits = self._plan.mapper.transaction.usage.limits
        return await read_page(self._plan, paging_of(options, given, limits))

    def __aiter__(self) -> Iteration[M]:
        """`async for order in ctx.db.query("orders")` reads documents as it goes, and no further.

        It sees what its own transaction writes ahead of its position. It returns no document twice.
        """
        return Iteration(self._plan)


class Iteration(Generic[M]):
    """An iteration over the documents of a query."""

    # Not an async generator: one that is left with `break` would stay open.
    __slots__ = ("_met", "_plan", "_scan")

    def __init__(self, plan: QueryPlan) -> None:
        self._plan = plan
        self._scan: IndexScan | None = plan.scan()
        self._met: set[str] = set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M:
        while self._scan is not None and (document := await self._plan.next(self._scan)) is not None:
            if document["_id"] not in self._met:  # it may have been moved ahead since
                self._met.add(document["_id"])
                return cast("M", self._plan.present(document))
        raise StopAsyncIteration


def _unfinished(table: str, word: str) -> str:
    return (
        f"got `{word}` of a query of {table!r}, expected its documents: end it with .collect(), .take(n), .first(),"
        " .unique(), .count() or .paginate(…), or read it with `async for`"
    )
