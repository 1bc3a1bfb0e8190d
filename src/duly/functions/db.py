"""`ctx.db`: documents by id, the beginning of queries, and writes."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final, cast, overload

from duly.database.asking import must_be_awaited
from duly.errors import DocumentNotFoundError, FunctionError, InvalidIdError, QueryError, SchemaValidationError
from duly.functions.absent import lacks
from duly.functions.access import Access
from duly.functions.queries import Query
from duly.functions.reading import Reading
from duly.storage.rows import JOBS, SYSTEM_TABLES, Row
from duly.values.annotations import Id
from duly.values.checks import Mismatch, show
from duly.values.documents import D, I, M
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

    async def _get(self, id: str, of: Any = UNSET) -> Any:
        access = self._access
        table, number = access.locate(id, self._system) if of is UNSET else self._located(of, id)
        row = None if table is None else await self.transaction.get(table, number)
        self.transaction.usage.get(row)
        if table is None or row is None:
            return None
        document = access.document(table, number, row, id)
        return access.present(table.name, document) if table.name in access.schema.with_instances else document

    def _located(self, of: Any, id: object) -> tuple[Table | None, int]:
        """The table and the number of an id, which must be one of the table `of`, if that is given."""
        access, system = self._access, self._system
        return access.locate(id, system) if of is UNSET else access.locate_in(access.name_of(of), id, system)

    async def _get_many(self, table: Any, ids: Any) -> list[Any]:
        of, ids = (UNSET, table) if ids is UNSET else (table, ids)
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InvalidIdError(f"get_many: got {show(ids)}, expected a list of ids")
        access, usage = self._access, self.transaction.usage
        located = [(id, *self._located(of, id)) for id in cast("Iterable[Any]", ids)]
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
            document = None if one is None or row is None else access.document(one, number, row, id)
            documents.append(document and access.present(cast("Table", one).name, document))
        return documents

    async def _rows(self, table: Table, numbers: list[int]) -> dict[int, Row]:
        if table is not JOBS:
            return await self.transaction.get_many(table, numbers)
        found = {number: await self.transaction.get(table, number) for number in numbers}
        return {number: row for number, row in found.items() if row is not None}

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

    @overload
    async def get(self, id: str) -> Document | None: ...

    @overload
    async def get(self, table: str, id: str) -> Document | None: ...

    def get(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET
    ) -> Coroutine[Any, Any, Document | None]:
        """The document of an id, None if there is none (any more). InvalidIdError if it is no id."""
        return self._get(table) if id is UNSET else self._get(id, table)

    @overload
    async def get_many(self, ids: Iterable[str]) -> list[Document | None]: ...

    @overload
    async def get_many(self, table: str, ids: Iterable[str]) -> list[Document | None]: ...

    def get_many(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, ids: Any = UNSET
    ) -> Coroutine[Any, Any, list[Document | None]]:
        """The documents of several ids, in their order; None for those that there are not (any more)."""
        return self._get_many(table, ids)

    def query(self, table: str) -> Query[Document]:
        """Start a query of a system table.

        jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(10)
        """
        return self._query(table)

    def normalize_id(self, table: str, id: str) -> Id[Any] | None:
        """`id` if it is one of `table`, else None. Reads nothing: whether the document exists is not checked."""
        return self._normalize_id(table, id)


@lacks("got ctx.db.{name} in a query, which only reads: make it a @mutation", *_WRITES)
@lacks(
    "got ctx.db.{name}, expected ctx.db.get(id), ctx.db.get_many(ids), or a query such as"
    ' ctx.db.query("orders").with_index(…).collect()',
    *("find", "find_one", "fetch", "select", "table", "all", "list", "get_all", "first", "collect", "filter", "where"),
)
@lacks('got ctx.db.{name}, expected ctx.db.query("orders").count()', "count")
@lacks("got ctx.db.{name}, expected ctx.db.normalize_id(table, text)", "normalizeId")
@lacks(
    "got ctx.db.{name}: a mutation is one transaction, which is committed when it returns and undone when it raises; a"
    " part that may fail alone is a mutation of its own, ctx.run_mutation(…)",
    *("commit", "rollback", "begin", "atomic", "flush"),
)
@lacks("got ctx.db.{name}, expected ctx.db.query(…) or a write: there is no SQL", "execute", "raw", "sql")
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

    def get(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET
    ) -> Coroutine[Any, Any, Any | None]:
        """The document of an id, None if there is none (any more).

            order = await ctx.db.get(order_id)
            order = await ctx.db.get("orders", order_id)  # or get(Order, order_id)

        InvalidIdError if it is no id, or one of another table than the one that is given.
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

    def get_many(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, ids: Any = UNSET
    ) -> Coroutine[Any, Any, list[Any]]:
        """The documents of several ids, in their order; None for those that there are not (any more).

            users = await ctx.db.get_many([order["user"] for order in orders])

        All are read at once, and count as one read; each id, found or not, as one document. An id may come twice.
        InvalidIdError as for `get`.
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


@lacks(
    "got ctx.db.{name}, expected ctx.db.patch(id, fields), which changes some fields, or ctx.db.replace(id, document)",
    *("update", "update_one", "set", "modify"),
)
@lacks(
    "got ctx.db.{name}, expected a look for the document, with .unique() or .first(), and then ctx.db.patch or"
    " ctx.db.insert: a mutation is one transaction, so nobody comes between",
    *("upsert", "save", "put", "get_or_create", "update_or_create"),
)
@lacks(
    "got ctx.db.{name}, expected ctx.db.insert(table, document), once for each: all of them are one commit",
    *("add", "add_all", "create", "insert_one", "insert_many", "bulk_insert", "store", "append"),
)
@lacks("got ctx.db.{name}, expected ctx.db.delete(id), once for each", "remove", "delete_many", "delete_all", "clear")
class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation: insert, patch, replace and delete as well."""

    __slots__ = ()

    @overload
    def insert(self, table: type[M], document: M) -> types.CoroutineType[Any, Any, Id[M]]: ...

    @overload
    def insert(self, table: str, document: Any) -> types.CoroutineType[Any, Any, Id[Any]]: ...

    @overload
    def insert(self, document: I) -> types.CoroutineType[Any, Any, Id[I]]: ...

    @must_be_awaited
    async def insert(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, document: Any = UNSET
    ) -> Id[Any]:
        """Store a document and return its id. The table is made if there is none.

            order_id = await ctx.db.insert("orders", {"items": ["tea"], "status": "new"})

        `table` is a name, or the class that describes a table in the schema: `ctx.db.insert(Order, {…})`. An instance
        of such a class, which is no kind of dict, knows its table: `ctx.db.insert(Payment(…))`.
        """
        access = self._access
        if document is UNSET or table is UNSET:
            table, document = _of_instance(document if table is UNSET else table)
        name = access.name_of(table)
        found = self.transaction.catalog.tables.get(name) or self._new_table(name)
        if found.name in SYSTEM_TABLES:
            raise SchemaValidationError(f"got an insert into {name!r}, expected a table of the application")
        text = self._stored(name, check_document(document, f"{name}.insert"), "insert")
        id = self.transaction.new_id()
        self.transaction.write(found, id, None, text)
        return cast("Id[Any]", access.ids.encode(found.number, id))

    @overload
    def patch(self, id: str, fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def patch(self, table: type[M], id: Id[M], fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def patch(self, table: str, id: str, fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @must_be_awaited
    async def patch(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET, fields: Any = UNSET
    ) -> None:
        """Change the given top-level fields of a document; a field set to UNSET is removed.

            await ctx.db.patch(order_id, {"status": "paid", "note": UNSET})

        With the table first, as in `get`, an id of another one is an InvalidIdError.
        """
        if id is UNSET or fields is UNSET:
            table, id, fields = _without_table("patch", "fields", table, id, fields)
        found, number, row = await self._existing(table, id, "patch")
        document: Document = loads(row)
        for name, value in self._own_fields(id, number, fields, "patch").items():
            if "." in name and name not in document:
                self._check_is_field(found.name, name)
            if value is UNSET:
                document.pop(name, None)
            else:
                document[name] = value
        self._change(found, number, row, document, "patch")

    @overload
    def replace(self, id: Id[D] | str, document: D) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def replace(self, table: type[M], id: Id[M], document: M) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def replace(self, table: str, id: str, document: Any) -> types.CoroutineType[Any, Any, None]: ...

    @must_be_awaited
    async def replace(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET, document: Any = UNSET
    ) -> None:
        """Put another document in the place of one; its id and time of creation stay. The table may stand first."""
        if id is UNSET or document is UNSET:
            table, id, document = _without_table("replace", "document", table, id, document)
        found, number, row = await self._existing(table, id, "replace")
        self._change(found, number, row, self._own_fields(id, number, document, "replace"), "replace")

    @overload
    def delete(self, id: str) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def delete(self, table: type[M], id: Id[M]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def delete(self, table: str, id: str) -> types.CoroutineType[Any, Any, None]: ...

    @must_be_awaited
    async def delete(self, table: Any = UNSET, id: Any = UNSET) -> None:  # pyright: ignore[reportInconsistentOverload]
        """Delete a document. The table may stand first, as in `get`."""
        if id is UNSET:
            table, id = UNSET, table
        found, number, row = await self._existing(table, id, "delete")
        self.transaction.usage.write(0)
        self.transaction.write(found, number, row, None)

    def _new_table(self, name: str) -> Table:
        check_table_name(name)
        return self.transaction.create_table(name)

    async def _existing(self, of: Any, id: Any, act: str) -> tuple[Table, int, str]:
        table, number = self._access.locate(id) if of is UNSET else self._located(of, id)
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


def _of_instance(given: object) -> tuple[type, object]:
    """The class that stands for its table, and the document."""
    if isinstance(given, type | str | dict) or given is UNSET:
        what = show(cast("object", given)) if isinstance(given, type | str) else "a document without its table"
        raise FunctionError(
            f'insert: got {what} alone, expected insert("orders", {{…}}), insert(Order, {{…}}) or an'
            " instance of a dataclass or pydantic model that a table of the schema was defined with"
        )
    return type(given), given


def _without_table(act: str, last: str, table: Any, id: Any, given: Any) -> tuple[Any, Any, Any]:
    """What `patch(id, fields)` was called with, whose parameters begin with a table that was left out."""
    if table is UNSET:
        id, given = id, given
    elif id is UNSET:
        id = table
    else:
        id, given = table, id
    if id is UNSET or given is UNSET:
        raise FunctionError(f"{act}: got no {'id' if id is UNSET else last}, expected {act}(id, {last})")
    return UNSET, id, given


def _wrong_reader(table: object, system: bool) -> str:
    if system:
        return f"ctx.db.system got the table {table!r}, expected one of {', '.join(SYSTEM_TABLES)}"
    return f"ctx.db got the system table {table!r}; read it with ctx.db.system.query({table!r})"
