"""`ctx.db` of a mutation: insert, patch, replace and delete, in addition to the methods of a reader."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, cast, overload

from duly.ctx.db.reader import DatabaseReader
from duly.database.driver.unawaited import must_be_awaited
from duly.errors import DocumentNotFoundError, FunctionError, SchemaValidationError
from duly.hints import name_hint
from duly.storage.rows import SYSTEM_TABLES
from duly.values.ids import creation_time
from duly.values.json import Document, NotAValueError, check_document, check_size, dumps, loads, size
from duly.values.plain import UNSET, to_plain
from duly.values.schema.annotations import Id
from duly.values.schema.documents import D, I, M
from duly.values.schema.field_paths import declares
from duly.values.schema.tables import Table, check_table_name
from duly.values.schema.validator import Mismatch
from duly.values.text import show


@name_hint(
    "got ctx.db.{name}, expected ctx.db.patch(id, fields), which changes some fields, or ctx.db.replace(id, document)",
    *("update", "update_one", "set", "modify"),
)
@name_hint(
    "got ctx.db.{name}, expected a look for the document, with .unique() or .first(), and then ctx.db.patch or"
    " ctx.db.insert: a mutation is one transaction, so nobody comes between",
    *("upsert", "save", "put", "get_or_create", "update_or_create"),
)
@name_hint(
    "got ctx.db.{name}, expected ctx.db.insert(table, document), once for each: all of them are one commit",
    *("add", "add_all", "create", "insert_one", "insert_many", "bulk_insert", "store", "append"),
)
@name_hint(
    "got ctx.db.{name}, expected ctx.db.delete(id), once for each", "remove", "delete_many", "delete_all", "clear"
)
class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation: insert, patch, replace and delete as well."""

    __slots__ = ()

    @overload
    def insert(self, table: type[M], document: M) -> types.CoroutineType[Any, Any, Id[M]]: ...

    @overload
    def insert(self, table: str, document: Any) -> types.CoroutineType[Any, Any, Id[Any]]: ...

    @overload
    def insert(self, document: I) -> types.CoroutineType[Any, Any, Id[I]]: ...

    @must_be_awaited  # type: ignore[misc]  # its first parameter has two names
    async def insert(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, document: Any = UNSET
    ) -> Id[Any]:
        """Store a document and return its id. The table is created if it does not exist.

            order_id = await ctx.db.insert("orders", {"items": ["tea"], "status": "new"})

        `table` is a name, or the class that describes a table in the schema: `ctx.db.insert(Order, {…})`. An instance
        of such a class, except a dict, determines its table: `ctx.db.insert(Payment(…))`.
        """
        mapper = self._mapper
        if document is UNSET or table is UNSET:
            table, document = _of_instance(document if table is UNSET else table)
        name = table if type(table) is str else mapper.name_of(table)
        found = self.transaction.catalog.tables.get(name) or self._new_table(name)
        if found.name in SYSTEM_TABLES:
            raise SchemaValidationError(f"got an insert into {name!r}, expected a table of the application")
        text = self._stored(name, check_document(document, f"{name}.insert"), "insert")
        id = self.transaction.new_id()
        self.transaction.write(found, id, None, text)
        made: Id[Any] = mapper.ids.encode(found.number, id)  # type: ignore[assignment]  # a call of `cast` takes time
        return made

    @overload
    def patch(self, id: str, fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def patch(self, table: type[M], id: Id[M], fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def patch(self, table: str, id: str, fields: Mapping[str, Any]) -> types.CoroutineType[Any, Any, None]: ...

    @must_be_awaited  # type: ignore[misc]  # its first parameter has two names
    async def patch(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET, fields: Any = UNSET
    ) -> None:
        """Change the given top-level fields of a document; a field set to UNSET is removed.

            await ctx.db.patch(order_id, {"status": "paid", "note": UNSET})

        The table may stand first, as in `get`. Then an id of another table raises InvalidIdError.
        """
        if fields is UNSET and table is not UNSET and id is not UNSET:
            table, id, fields = UNSET, table, id
        elif id is UNSET or fields is UNSET:
            table, id, fields = _without_table("patch", "fields", table, id, fields)
        found, number, row = self._existing(table, id, "patch")
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

    @must_be_awaited  # type: ignore[misc]  # its first parameter has two names
    async def replace(  # pyright: ignore[reportInconsistentOverload]
        self, table: Any = UNSET, id: Any = UNSET, document: Any = UNSET
    ) -> None:
        """Replace a document by another one; its id and time of creation stay. The table may stand first."""
        if id is UNSET or document is UNSET:
            table, id, document = _without_table("replace", "document", table, id, document)
        found, number, row = self._existing(table, id, "replace")
        self._change(found, number, row, self._own_fields(id, number, document, "replace"), "replace")

    @overload
    def delete(self, id: str) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def delete(self, table: type[M], id: Id[M]) -> types.CoroutineType[Any, Any, None]: ...

    @overload
    def delete(self, table: str, id: str) -> types.CoroutineType[Any, Any, None]: ...

    @must_be_awaited  # type: ignore[misc]  # its first parameter has two names
    async def delete(self, table: Any = UNSET, id: Any = UNSET) -> None:  # pyright: ignore[reportInconsistentOverload]
        """Delete a document. The table may stand first, as in `get`."""
        if id is UNSET:
            table, id = UNSET, table
        found, number, row = self._existing(table, id, "delete")
        self.transaction.usage.write(0)
        self.transaction.write(found, number, row, None)

    def _new_table(self, name: str) -> Table:
        check_table_name(name)
        return self.transaction.create_table(name)

    def _existing(self, of: Any, id: Any, act: str) -> tuple[Table, int, str]:
        table, number = self._mapper.locate(id) if of is UNSET else self._located(of, id)
        row = None if table is None else self.transaction.row(table, number)
        self.transaction.usage.get(row)
        if table is None or row is None:
            name = "a table that does not exist" if table is None else repr(table.name)
            raise DocumentNotFoundError(f"{act}: got the id {id} of {name}, expected one of a document that exists")
        return table, number, row  # type: ignore[return-value]

    def _own_fields(self, id: str, number: int, fields: object, act: str) -> Document:
        """Return the fields without the system fields, which may be present if they are unchanged."""
        given: Any = fields
        if type(fields) is not dict:
            given = dict(cast("Document", fields)) if isinstance(fields, dict) else to_plain(fields)
        own: Document = given
        if isinstance(given, dict) and ("_id" in own or "_creationTime" in own):
            system = {"_id": id, "_creationTime": creation_time(number)}
            for name in system:
                if own.get(name, system[name]) != system[name]:
                    raise SchemaValidationError(f"{act}: got {own[name]!r} as {name}, which never changes")
            own = {name: value for name, value in own.items() if name not in system}
        return check_document(own, act)

    def _check_is_field(self, table: str, name: str) -> None:
        """Raise for a dotted name that was meant as a path: patching it would create a second field."""
        definition = self._mapper.schema.tables.get(table)
        if definition is None or not declares(definition.document, name):
            outer, _, inner = name.partition(".")
            raise SchemaValidationError(
                f"{table}.patch: got the field {name!r}, which the document does not have, expected names of its own"
                f" fields: patch puts whole fields in the place of others. To change {inner!r} in {outer!r}, read the"
                f" document, and patch {outer!r} with all it is to hold"
            )

    def _change(self, table: Table, number: int, row: str, document: Document, act: str) -> None:
        text = self._stored(table.name, document, act)
        if text != row:  # an unchanged document notifies no subscription
            self.transaction.write(table, number, row, text)

    def _stored(self, table: str, document: Document, act: str) -> str:
        mapper, usage = self._mapper, self.transaction.usage
        definition, limits = mapper.schema.tables.get(table), usage.soft_limits.limits
        try:
            if definition is not None:
                given: Any = document
                if mapper.has_instances(table):  # with all fields and defaults, because indexes and filters use them
                    given = definition.document.check(to_plain(document), mapper)
                document = definition.document.plain(given, mapper)
            text = dumps(document, limits)
        except (Mismatch, NotAValueError) as error:
            raise SchemaValidationError(f"{table}.{act}: {error}") from None
        length = size(text)
        if length > limits.document_bytes_max:
            check_size(text, limits, "document_bytes_max", f"{table}.{act}: a document")
        usage.write(length)
        return text


def _of_instance(given: object) -> tuple[type, object]:
    """Return the class of an instance, which names its table, and the instance as the document."""
    if isinstance(given, type | str | dict) or given is UNSET:
        what = show(cast("object", given)) if isinstance(given, type | str) else "a document without its table"
        raise FunctionError(
            f'insert: got {what} alone, expected insert("orders", {{…}}), insert(Order, {{…}}) or an'
            " instance of a dataclass or pydantic model that a table of the schema was defined with"
        )
    return type(given), given


def _without_table(act: str, last: str, table: Any, id: Any, given: Any) -> tuple[Any, Any, Any]:
    """Shift the arguments of a call without the table, such as `patch(id, fields)`, to their parameters."""
    if table is UNSET:
        id, given = id, given
    elif id is UNSET:
        id = table
    else:
        id, given = table, id
    if id is UNSET or given is UNSET:
        raise FunctionError(f"{act}: got no {'id' if id is UNSET else last}, expected {act}(id, {last})")
    return UNSET, id, given
