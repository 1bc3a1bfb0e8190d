"""`ctx.db`: documents by id, and queries over indexes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from duly.database.catalog import index_named
from duly.database.transaction import Transaction, must_be_awaited
from duly.errors import DocumentNotFoundError, InvalidIdError, QueryError, SchemaValidationError
from duly.functions.ranges import IndexRange
from duly.limits import DOCUMENT_BYTES_MAX
from duly.model.jobs import document_of
from duly.storage.engine import SYSTEM_TABLES, Job, Row
from duly.values.annotations import Id
from duly.values.checks import Mismatch
from duly.values.ids import IdCodec, creation_time
from duly.values.keys import EVERYTHING, Interval
from duly.values.schema import BY_CREATION_TIME, SchemaDefinition, Table, check_table_name
from duly.values.value import UNSET, Document, NotAValueError, check_document, check_size, dumps, loads

_ALL: Final = 1 << 31  # more rows than a query may read


class Access:
    """What the readers and writers of one call share: its transaction, the ids and the schema."""

    __slots__ = ("ids", "schema", "transaction")

    def __init__(self, transaction: Transaction, ids: IdCodec, schema: SchemaDefinition) -> None:
        self.transaction = transaction
        self.ids = ids
        self.schema = schema

    def table_of(self, id: str, /) -> str | None:
        """The name of the table a string is an id of, None if it is no id."""
        decoded = self.ids.decode(id)
        table = None if decoded is None else self.transaction.catalog.by_number.get(decoded[0])
        return None if table is None else table.name

    def locate(self, id: object, system: bool = False) -> tuple[Table | None, int]:
        """The table (None: it does not exist) and the number of an id."""
        decoded = self.ids.decode(id)
        if decoded is None:
            raise InvalidIdError(f"got {id!r:.80} ({type(id).__name__}), expected the id of a document")
        table = self.transaction.catalog.by_number.get(decoded[0])
        if table is not None and (table.name in SYSTEM_TABLES) != system:
            where, instead = ("ctx.db.system", "ctx.db") if system else ("ctx.db", "ctx.db.system")
            raise InvalidIdError(f"{where} got the id of a document of {table.name!r}; read it with {instead}")
        return table, decoded[1]

    def document(self, table: Table, id: int, row: Row, text: str) -> Document:
        if isinstance(row, Job):
            return document_of(row, text, creation_time(id), loads(row.args))
        document: Document = loads(row)
        document["_id"] = text
        document["_creationTime"] = creation_time(id)
        return document


class SystemReader:
    """`ctx.db.system`: the tables that the system writes, such as `_scheduled_functions`."""

    __slots__ = ("_access", "transaction")
    _system: bool = True

    def __init__(self, access: Access) -> None:
        self._access = access
        self.transaction = access.transaction

    async def get(self, id: str) -> Document | None:
        """The document of an id, None if there is none (any more). InvalidIdError if it is no id."""
        table, number = self._access.locate(id, self._system)
        row = None if table is None else await self.transaction.get(table, number)
        return None if table is None or row is None else self._access.document(table, number, row, id)

    def query(self, table: str) -> Query:
        """Start a query of a table: all documents in the order of creation, until it is narrowed.

        orders = await ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", "new")).take(10)
        """
        if (table in SYSTEM_TABLES) != self._system:
            raise QueryError(_wrong_reader(table, self._system))
        return Query(self._access, table)

    def normalize_id(self, table: str, id: str) -> Id[Any] | None:
        """`id` if it is one of `table`, else None. Reads nothing: whether the document exists is not checked."""
        return cast("Id[Any]", id) if self._access.table_of(id) == table else None


class DatabaseReader(SystemReader):
    """`ctx.db` of a query: get, query, normalize_id, and `system`."""

    __slots__ = ()
    _system = False

    @property
    def system(self) -> SystemReader:
        """The same for system tables: `ctx.db.system.query("_scheduled_functions")`."""
        return SystemReader(self._access)


class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation: insert, patch, replace and delete as well."""

    __slots__ = ()

    @must_be_awaited
    async def insert(self, table: str, document: Any) -> Id[Any]:
        """Store a document and return its id. The table is made if there is none.

        order_id = await ctx.db.insert("orders", {"items": ["tea"], "status": "new"})
        """
        access = self._access
        found = self.transaction.catalog.tables.get(table) or self._new_table(table)
        if found.name in SYSTEM_TABLES:
            raise SchemaValidationError(f"got an insert into {table!r}, expected a table of the application")
        text = self._stored(table, check_document(document, f"{table}.insert"), "insert")
        id = self.transaction.new_id()
        self.transaction.write(found, id, None, text)
        return cast("Id[Any]", access.ids.encode(found.number, id))

    @must_be_awaited
    async def patch(self, id: str, fields: Any) -> None:
        """Change the given top-level fields of a document; a field set to UNSET is removed.

        await ctx.db.patch(order_id, {"status": "paid", "note": UNSET})
        """
        table, number, row = await self._existing(id, "patch")
        document: Document = loads(row)
        for name, value in self._own_fields(id, number, fields, "patch").items():
            if value is UNSET:
                document.pop(name, None)
            else:
                document[name] = value
        self._change(table, number, row, document, "patch")

    @must_be_awaited
    async def replace(self, id: str, document: Any) -> None:
        """Put another document in the place of one; its id and time of creation stay."""
        table, number, row = await self._existing(id, "replace")
        self._change(table, number, row, self._own_fields(id, number, document, "replace"), "replace")

    @must_be_awaited
    async def delete(self, id: str) -> None:
        """Delete a document."""
        table, number, row = await self._existing(id, "delete")
        self.transaction.write(table, number, row, None)

    def _new_table(self, name: str) -> Table:
        check_table_name(name)
        return self.transaction.create_table(name)

    async def _existing(self, id: str, act: str) -> tuple[Table, int, str]:
        table, number = self._access.locate(id)
        row = None if table is None else await self.transaction.get(table, number)
        if table is None or row is None:
            name = "a table that does not exist" if table is None else repr(table.name)
            raise DocumentNotFoundError(f"{act}: got the id {id} of {name}, expected one of a document that exists")
        return table, number, cast("str", row)

    def _own_fields(self, id: str, number: int, fields: Any, act: str) -> Document:
        """The application's own fields; the system's may stand beside them if they are unchanged."""
        given: Document = cast("Document", fields) if isinstance(fields, dict) else {}
        if "_id" in given or "_creationTime" in given:
            system = {"_id": id, "_creationTime": creation_time(number)}
            for name in system.keys() & given.keys():
                if given[name] != system[name]:
                    raise SchemaValidationError(f"{act}: got {given[name]!r} as {name}, which never changes")
            fields = {name: value for name, value in given.items() if name not in system}
        return check_document(cast("object", fields), act)

    def _change(self, table: Table, number: int, row: str, document: Document, act: str) -> None:
        text = self._stored(table.name, document, act)
        if text != row:  # what changes nothing wakes nobody
            self.transaction.write(table, number, row, text)

    def _stored(self, table: str, document: Document, act: str) -> str:
        definition = self._access.schema.tables.get(table)
        try:
            if definition is not None:
                document = definition.document.plain(document, self._access)
            text = dumps(document)
        except (Mismatch, NotAValueError) as error:
            raise SchemaValidationError(f"{table}.{act}: {error}") from None
        return check_size(text, DOCUMENT_BYTES_MAX, "DOCUMENT_BYTES_MAX", f"{table}.{act}: a document")


class Query:
    """A query of a table. Each step makes a new query; nothing is read before the last one is awaited."""

    __slots__ = ("_access", "_descending", "_index", "_interval", "_table")

    def __init__(
        self,
        access: Access,
        table: str,
        index: str = BY_CREATION_TIME,
        interval: Interval = EVERYTHING,
        descending: bool = False,
    ) -> None:
        self._access = access
        self._table = table
        self._index = index
        self._interval = interval
        self._descending = descending

    def with_index(self, name: str, range: Callable[[IndexRange], IndexRange] | None = None) -> Query:
        """Read an index instead: equal values of leading fields, then bounds of the next one.

        .with_index("by_author", lambda q: q.eq("author", "ada").gte("at", yesterday))
        """
        table = self._access.transaction.catalog.tables.get(self._table) or Table(self._table, 0)
        try:
            index = index_named(table, name)
        except KeyError:
            known = ", ".join((BY_CREATION_TIME, *(index.name for index in table.indexes)))
            raise QueryError(f"{self._table}: got the index {name!r}, expected one of {known}") from None
        built = IndexRange(f"{self._table}.{name}", () if index is None else index.fields)
        interval = (built if range is None else range(built)).interval()
        return Query(self._access, self._table, name, interval, self._descending)

    def order(self, direction: str) -> Query:
        """Read in the index's order, "asc", or from its end, "desc"."""
        if direction not in ("asc", "desc"):
            raise QueryError(f'got the order {direction!r}, expected "asc" or "desc"')
        return Query(self._access, self._table, self._index, self._interval, direction == "desc")

    async def collect(self) -> list[Document]:
        """All documents."""
        return await self._read(_ALL)

    async def take(self, n: int) -> list[Document]:
        """The first `n` documents, or as many as there are."""
        if type(n) is not int or n < 0:
            raise QueryError(f"take: got {n!r}, expected a whole number of documents, 0 or more")
        return await self._read(min(n, _ALL)) if n else []

    async def first(self) -> Document | None:
        """The first document, None if there is none."""
        found = await self._read(1)
        return found[0] if found else None

    async def unique(self) -> Document | None:
        """The only document, None if there is none. QueryError if there are more."""
        found = await self._read(2)
        if len(found) > 1:
            ids = ", ".join(document["_id"] for document in found)
            raise QueryError(f"{self._table}: unique() found {ids} and perhaps more, expected at most one document")
        return found[0] if found else None

    async def _read(self, limit: int) -> list[Document]:
        transaction = self._access.transaction
        table = transaction.catalog.tables.get(self._table)
        if table is None:
            transaction.scan_missing(self._table)
            return []
        index = index_named(table, self._index)
        rows = await transaction.scan(table, index, self._interval, self._descending, limit)
        encode, number = self._access.ids.encode, table.number
        return [self._access.document(table, id, row, encode(number, id)) for id, row in rows]


def _wrong_reader(table: object, system: bool) -> str:
    if system:
        return f"ctx.db.system got the table {table!r}, expected one of {', '.join(SYSTEM_TABLES)}"
    return f"ctx.db got the system table {table!r}; read it with ctx.db.system.query({table!r})"
