"""`ctx.db` of a query: documents by id, and the beginning of queries."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Final, cast, overload

from duly.ctx.db.document_mapper import DocumentMapper
from duly.ctx.db.query import Query
from duly.ctx.db.query_plan import QueryPlan
from duly.database.transaction import Transaction
from duly.errors import InvalidIdError, QueryError
from duly.hints import name_hint
from duly.storage.rows import JOBS, SYSTEM_TABLES, Row
from duly.values.json import Document, size
from duly.values.plain import UNSET
from duly.values.schema.annotations import Id
from duly.values.schema.documents import D, M
from duly.values.schema.tables import Table
from duly.values.text import show

_WRITES: Final = ("insert", "patch", "replace", "delete")


class _Reader:
    """Reads the tables of the application, or those of the system."""

    __slots__ = ("_mapper", "transaction")
    _system: bool = False

    # Set by those who make one and not by an `__init__`: see `Usage`.
    _mapper: DocumentMapper
    transaction: Transaction

    def _get(self, id: str, of: Any = UNSET, system: bool = False) -> Any:
        mapper = self._mapper
        table, number = mapper.locate(id, system) if of is UNSET else self._located(of, id)
        row = None if table is None else self.transaction.row(table, number)
        self.transaction.usage.get(row)
        if table is None or row is None:
            return None
        document, name = mapper.document(table, number, row, id), table.name
        return mapper.present(name, document) if name in self.transaction.catalog.with_instances else document

    def _located(self, of: Any, id: object) -> tuple[Table | None, int]:
        """Return the table and the number of an id. If `of` is given, the id must be one of that table."""
        mapper, system = self._mapper, self._system
        return mapper.locate(id, system) if of is UNSET else mapper.locate_in(mapper.name_of(of), id, system)

    async def _get_many(self, table: Any, ids: Any) -> list[Any]:
        of, ids = (UNSET, table) if ids is UNSET else (table, ids)
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InvalidIdError(f"get_many: got {show(ids)}, expected a list of ids")
        mapper, usage = self._mapper, self.transaction.usage
        located = [(id, *self._located(of, id)) for id in cast("Iterable[str]", ids)]
        rows: dict[tuple[str, int], Row] = {}
        for known in {one.name: one for _, one, _ in located if one is not None}.values():
            numbers = {number for _, one, number in located if one is known}
            usage.begin_read()
            found = await self._rows(known, sorted(numbers))
            usage.read(len(numbers), sum(size(row if isinstance(row, str) else row.args) for row in found.values()))
            rows |= {(known.name, number): row for number, row in found.items()}
        documents: list[Any] = []
        for id, one, number in located:
            row = None if one is None else rows.get((one.name, number))
            document = None if one is None or row is None else mapper.document(one, number, row, id)
            documents.append(document and mapper.present(cast("Table", one).name, document))
        return documents

    async def _rows(self, table: Table, numbers: list[int]) -> dict[int, Row]:
        if table is not JOBS:
            return await self.transaction.get_many(table, numbers)
        found = {number: self.transaction.row(table, number) for number in numbers}
        return {number: row for number, row in found.items() if row is not None}

    def _query(self, table: str) -> Query[Any]:
        if (table in SYSTEM_TABLES) != self._system:
            raise QueryError(_wrong_reader(table, self._system))
        return Query(QueryPlan(self._mapper, table))

    def _normalize_id(self, table: str, id: str) -> Id[Any] | None:
        if (table in SYSTEM_TABLES) != self._system:
            raise QueryError(_wrong_reader(table, self._system))
        return cast("Id[Any]", id) if self._mapper.table_of(id) == table else None


@name_hint("got ctx.db.system.{name}, but only the system writes its tables", *_WRITES)
class SystemReader(_Reader):
    """`ctx.db.system`: the tables that the system writes, such as `_scheduled_functions`."""

    __slots__ = ()
    _system = True

    @overload
    async def get(self, id: str) -> Document | None: ...

    @overload
    async def get(self, table: str, id: str) -> Document | None: ...

    async def get(  # type: ignore[misc]  # its first parameter has two names
        self, table: Any = UNSET, id: Any = UNSET
    ) -> Document | None:
        """Return the document of an id; None if it does not exist (any more). Raises InvalidIdError if it is no id."""
        document: Document | None = self._get(table, system=True) if id is UNSET else self._get(id, table, system=True)
        return document

    @overload
    async def get_many(self, ids: Iterable[str]) -> list[Document | None]: ...

    @overload
    async def get_many(self, table: str, ids: Iterable[str]) -> list[Document | None]: ...

    def get_many(  # type: ignore[misc]  # its first parameter has two names
        self, table: Any = UNSET, ids: Any = UNSET
    ) -> Coroutine[Any, Any, list[Document | None]]:
        """Return the documents of several ids, in their order; None for each that does not exist (any more)."""
        return self._get_many(table, ids)

    def query(self, table: str) -> Query[Document]:
        """Start a query of a system table.

        jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(10)
        """
        return self._query(table)

    def normalize_id(self, table: str, id: str) -> Id[Any] | None:
        """Return `id` if it is an id of `table`, else None. It does not check whether the document exists."""
        return self._normalize_id(table, id)


@name_hint("got ctx.db.{name} in a query, which only reads: make it a @mutation", *_WRITES)
@name_hint(
    "got ctx.db.{name}, expected ctx.db.get(id), ctx.db.get_many(ids), or a query such as"
    ' ctx.db.query("orders").with_index(…).collect()',
    *("find", "find_one", "fetch", "select", "table", "all", "list", "get_all", "first", "collect", "filter", "where"),
)
@name_hint('got ctx.db.{name}, expected ctx.db.query("orders").count()', "count")
@name_hint("got ctx.db.{name}, expected ctx.db.normalize_id(table, text)", "normalizeId")
@name_hint(
    "got ctx.db.{name}: a mutation is one transaction, which is committed when it returns and undone when it raises; a"
    " part that may fail alone is a mutation of its own, ctx.run_mutation(…)",
    *("commit", "rollback", "begin", "atomic", "flush"),
)
@name_hint("got ctx.db.{name}, expected ctx.db.query(…) or a write: there is no SQL", "execute", "raw", "sql")
class DatabaseReader(_Reader):
    """`ctx.db` of a query: get, query, normalize_id, and `system`."""

    __slots__ = ()

    @overload
    async def get(self, id: Id[D]) -> D | None: ...

    @overload
    async def get(self, id: str) -> Any | None: ...

    @overload
    async def get(self, table: type[M], id: Id[M]) -> M | None: ...

    @overload
    async def get(self, table: str, id: str) -> Any | None: ...

    async def get(  # type: ignore[misc]  # its first parameter has two names
        self, table: Any = UNSET, id: Any = UNSET
    ) -> Any | None:
        """Return the document of an id; None if it does not exist (any more).

            order = await ctx.db.get(order_id)
            order = await ctx.db.get("orders", order_id)  # or get(Order, order_id)

        Raises InvalidIdError if it is no id, or an id of another table than the given one.
        """
        return self._get(table) if id is UNSET else self._get(id, table)

    @overload
    async def get_many(self, ids: Iterable[Id[D]]) -> list[D | None]: ...

    @overload
    async def get_many(self, ids: Iterable[str]) -> list[Any | None]: ...

    @overload
    async def get_many(self, table: type[M], ids: Iterable[Id[M]]) -> list[M | None]: ...

    @overload
    async def get_many(self, table: str, ids: Iterable[str]) -> list[Any | None]: ...

    def get_many(  # type: ignore[misc]  # its first parameter has two names
        self, table: Any = UNSET, ids: Any = UNSET
    ) -> Coroutine[Any, Any, list[Any]]:
        """Return the documents of several ids, in their order; None for each that does not exist (any more).

            users = await ctx.db.get_many([order["user"] for order in orders])

        All are read at once, and count as one read. Each id, found or not, counts as one document. An id may come
        twice. Raises InvalidIdError as `get` does.
        """
        return self._get_many(table, ids)

    @overload
    def query(self, table: type[M]) -> Query[M]: ...

    @overload
    def query(self, table: str) -> Query[Any]: ...

    def query(self, table: str | type[Any]) -> Query[Any]:
        """Start a query of a table: all documents in the order of creation, until it is narrowed.

            orders = await ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", "new")).take(10)

        `table` is a name, or the class that describes a table in the schema: `ctx.db.query(Order)`.
        """
        return self._query(self._mapper.name_of(table))

    @overload
    def normalize_id(self, table: type[M], id: str) -> Id[M] | None: ...

    @overload
    def normalize_id(self, table: str, id: str) -> Id[Any] | None: ...

    def normalize_id(self, table: str | type[Any], id: str) -> Id[Any] | None:
        """Return `id` if it is an id of `table`, else None. It does not check whether the document exists."""
        return self._normalize_id(self._mapper.name_of(table), id)

    @property
    def system(self) -> SystemReader:
        """A reader of the system tables: `ctx.db.system.query("_scheduled_functions")`."""
        reader = SystemReader()
        reader._mapper, reader.transaction = self._mapper, self.transaction
        return reader


def _wrong_reader(table: object, system: bool) -> str:
    if system:
        return f"ctx.db.system got the table {table!r}, expected one of {', '.join(SYSTEM_TABLES)}"
    return f"ctx.db got the system table {table!r}; read it with ctx.db.system.query({table!r})"
