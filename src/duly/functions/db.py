"""`ctx.db`: documents by id, the beginning of queries, and writes."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Mapping
from typing import Any, Final, cast, overload

from duly.database.asking import must_be_awaited
from duly.errors import DocumentNotFoundError, QueryError, SchemaValidationError
from duly.functions.absent import lacks
from duly.functions.access import Access
from duly.functions.queries import Query
from duly.functions.reading import Reading
from duly.storage.engine import SYSTEM_TABLES
from duly.values.annotations import Id
from duly.values.checks import Mismatch
from duly.values.documents import D, M
from duly.values.ids import creation_time
from duly.values.paths import declares
from duly.values.plain import to_plain
from duly.values.schema import Table, check_table_name
from duly.values.value import UNSET, Document, NotAValueError, check_document, check_size, dumps, loads, size

_WRITES: Final = ("insert", "patch", "replace", "delete")


class _Reader:
    """Reads the tables of the application, or those of the system."""

    __slots__ = ("_access", "transaction")
    _system: bool = False

    def __init__(self, access: Access) -> None:
        self._access = access
        self.transaction = access.transaction

    async def _get(self, id: str) -> Any:
        access = self._access
        table, number = access.locate(id, self._system)
        row = None if table is None else await self.transaction.get(table, number)
        self.transaction.usage.get(row)
        if table is None or row is None:
            return None
        document = access.document(table, number, row, id)
        return access.present(table.name, document) if table.name in access.schema.with_instances else document

    def _query(self, table: str) -> Query[Any]:
        if (table in SYSTEM_TABLES) != self._system:
            raise QueryError(_wrong_reader(table, self._system))
        return Query(Reading(self._access, table))

    def _normalize_id(self, table: str, id: str) -> Any:
        if (table in SYSTEM_TABLES) != self._system:
            raise QueryError(_wrong_reader(table, self._system))
        return id if self._access.table_of(id) == table else None


@lacks("got ctx.db.system.{name}, but only the system writes its tables", *_WRITES)
class SystemReader(_Reader):
    """`ctx.db.system`: the tables that the system writes, such as `_scheduled_functions`."""

    __slots__ = ()
    _system = True

    def get(self, id: str) -> Coroutine[Any, Any, Document | None]:
        """The document of an id, None if there is none (any more). InvalidIdError if it is no id."""
        return self._get(id)

    def query(self, table: str) -> Query[Document]:
        """Start a query of a system table.

        jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(10)
        """
        return self._query(table)

    def normalize_id(self, table: str, id: str) -> Id[Any] | None:
        """`id` if it is one of `table`, else None. Reads nothing: whether the document exists is not checked."""
        return self._normalize_id(table, id)


@lacks("got ctx.db.{name} in a query, which only reads: make it a @mutation", *_WRITES)
class DatabaseReader(_Reader):
    """`ctx.db` of a query: get, query, normalize_id, and `system`."""

    __slots__ = ()

    @overload
    def get(self, id: Id[D]) -> Coroutine[Any, Any, D | None]: ...

    @overload
    def get(self, id: str) -> Coroutine[Any, Any, Any | None]: ...

    def get(self, id: str) -> Coroutine[Any, Any, Any | None]:
        """The document of an id, None if there is none (any more). InvalidIdError if it is no id.

        order = await ctx.db.get(order_id)
        """
        return self._get(id)

    @overload
    def query(self, table: type[M]) -> Query[M]: ...

    @overload
    def query(self, table: str) -> Query[Any]: ...

    def query(self, table: str | type[Any]) -> Query[Any]:
        """Start a query of a table: all documents in the order of creation, until it is narrowed.

            orders = await ctx.db.query("orders").with_index("by_status", lambda q: q.eq("status", "new")).take(10)

        `table` is a name, or the class that describes a table in the schema: `ctx.db.query(Order)`.
        """
        return self._query(self._access.name_of(table))

    @overload
    def normalize_id(self, table: type[M], id: str) -> Id[M] | None: ...

    @overload
    def normalize_id(self, table: str, id: str) -> Id[Any] | None: ...

    def normalize_id(self, table: str | type[Any], id: str) -> Id[Any] | None:
        """`id` if it is one of `table`, else None. Reads nothing: whether the document exists is not checked."""
        return self._normalize_id(self._access.name_of(table), id)

    @property
    def system(self) -> SystemReader:
        """The same for system tables: `ctx.db.system.query("_scheduled_functions")`."""
        return SystemReader(self._access)


class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation: insert, patch, replace and delete as well."""

    __slots__ = ()

    @overload
    def insert(self, table: type[M], document: M) -> types.CoroutineType[Any, Any, Id[M]]: ...

    @overload
    def insert(self, table: str, document: Any) -> types.CoroutineType[Any, Any, Id[Any]]: ...

    @must_be_awaited
    async def insert(self, table: str | type[Any], document: Any) -> Id[Any]:
        """Store a document and return its id. The table is made if there is none.

            order_id = await ctx.db.insert("orders", {"items": ["tea"], "status": "new"})

        `table` is a name, or the class that describes a table in the schema: `ctx.db.insert(Order, {…})`.
        """
        access = self._access
        name = access.name_of(table)
        found = self.transaction.catalog.tables.get(name) or self._new_table(name)
        if found.name in SYSTEM_TABLES:
            raise SchemaValidationError(f"got an insert into {name!r}, expected a table of the application")
        text = self._stored(name, check_document(document, f"{name}.insert"), "insert")
        id = self.transaction.new_id()
        self.transaction.write(found, id, None, text)
        return cast("Id[Any]", access.ids.encode(found.number, id))

    @must_be_awaited
    async def patch(self, id: str, fields: Mapping[str, Any]) -> None:
        """Change the given top-level fields of a document; a field set to UNSET is removed.

        await ctx.db.patch(order_id, {"status": "paid", "note": UNSET})
        """
        table, number, row = await self._existing(id, "patch")
        document: Document = loads(row)
        for name, value in self._own_fields(id, number, fields, "patch").items():
            if "." in name and name not in document:
                self._check_is_field(table.name, name)
            if value is UNSET:
                document.pop(name, None)
            else:
                document[name] = value
        self._change(table, number, row, document, "patch")

    @must_be_awaited
    async def replace(self, id: Id[D] | str, document: D) -> None:
        """Put another document in the place of one; its id and time of creation stay."""
        table, number, row = await self._existing(id, "replace")
        self._change(table, number, row, self._own_fields(id, number, document, "replace"), "replace")

    @must_be_awaited
    async def delete(self, id: str) -> None:
        """Delete a document."""
        table, number, row = await self._existing(id, "delete")
        self.transaction.usage.write(0)
        self.transaction.write(table, number, row, None)

    def _new_table(self, name: str) -> Table:
        check_table_name(name)
        return self.transaction.create_table(name)

    async def _existing(self, id: str, act: str) -> tuple[Table, int, str]:
        table, number = self._access.locate(id)
        row = None if table is None else await self.transaction.get(table, number)
        self.transaction.usage.get(row)
        if table is None or row is None:
            name = "a table that does not exist" if table is None else repr(table.name)
            raise DocumentNotFoundError(f"{act}: got the id {id} of {name}, expected one of a document that exists")
        return table, number, cast("str", row)

    def _own_fields(self, id: str, number: int, fields: object, act: str) -> Document:
        """The application's own fields; the system's may stand beside them if they are unchanged."""
        if type(fields) is not dict:
            fields = dict(cast("Document", fields)) if isinstance(fields, dict) else to_plain(fields)
        given: Document = cast("Document", fields) if isinstance(fields, dict) else {}
        if "_id" in given or "_creationTime" in given:
            system = {"_id": id, "_creationTime": creation_time(number)}
            for name in system:
                if given.get(name, system[name]) != system[name]:
                    raise SchemaValidationError(f"{act}: got {given[name]!r} as {name}, which never changes")
            fields = {name: value for name, value in given.items() if name not in system}
        return check_document(cast("object", fields), act)

    def _check_is_field(self, table: str, name: str) -> None:
        """Raise for what is meant as a path: a patch of it would make another field beside the one that is meant."""
        definition = self._access.schema.tables.get(table)
        if definition is None or not declares(definition.document, name):
            outer, _, inner = name.partition(".")
            raise SchemaValidationError(
                f"{table}.patch: got the field {name!r}, which the document does not have, expected names of its own"
                f" fields: patch puts whole fields in the place of others. To change {inner!r} in {outer!r}, read the"
                f" document, and patch {outer!r} with all it is to hold"
            )

    def _change(self, table: Table, number: int, row: str, document: Document, act: str) -> None:
        text = self._stored(table.name, document, act)
        if text != row:  # what changes nothing wakes nobody
            self.transaction.write(table, number, row, text)

    def _stored(self, table: str, document: Document, act: str) -> str:
        access, usage = self._access, self.transaction.usage
        definition, limits = access.schema.tables.get(table), usage.quota.limits
        try:
            if definition is not None:
                given: Any = document
                if access.has_instances(table):  # as a whole, with its defaults: indexes and filters see them
                    given = definition.document.check(to_plain(document), access)
                document = definition.document.plain(given, access)
            text = dumps(document, limits)
        except (Mismatch, NotAValueError) as error:
            raise SchemaValidationError(f"{table}.{act}: {error}") from None
        length = size(text)
        if length > limits.document_bytes_max:
            check_size(text, limits, "document_bytes_max", f"{table}.{act}: a document")
        usage.write(length)
        return text


def _wrong_reader(table: object, system: bool) -> str:
    if system:
        return f"ctx.db.system got the table {table!r}, expected one of {', '.join(SYSTEM_TABLES)}"
    return f"ctx.db got the system table {table!r}; read it with ctx.db.system.query({table!r})"
