"""The document mapper of one call: rows of its transaction to documents, ids to tables and numbers."""

from __future__ import annotations

from typing import Any, Final, cast

from duly.ctx.db.cursor import Journal
from duly.database.transaction import Transaction
from duly.errors import InvalidIdError, QueryError, SchemaValidationError
from duly.model import crons
from duly.model.jobs import document_of
from duly.storage.rows import CRONS, SYSTEM_TABLES, Job, Row
from duly.values.ids import IdCodec, creation_time, hint_of
from duly.values.json import Document, loads
from duly.values.plain import SYSTEM_FIELDS
from duly.values.schema.models import with_system_fields, without_system_fields
from duly.values.schema.tables import SchemaDefinition, Table
from duly.values.schema.validator import Mismatch


class DocumentMapper:
    """Shared by the readers and writers of one call: its transaction, the ids of the store, and the schema."""

    __slots__ = ("_found", "_found_id", "ids", "journal", "schema", "transaction")
    # Made by `mapper_of` and not by `__init__`: see `Usage`.
    transaction: Transaction
    ids: IdCodec
    journal: Journal | None
    """The ends of the pages of a live query; None for a call that runs once."""
    schema: SchemaDefinition
    """The schema, as of the version of the store that this call reads."""
    _found_id: object  # the last id of a document of the application, which is often located again: read, then patched
    _found: tuple[Table, int]

    def table_of(self, id: str, /) -> str | None:
        """Return the name of the table that a string is an id of; None if it is no id."""
        decoded = self.ids.decode(id)
        return None if decoded is None else self.transaction.catalog.name_of(decoded[0])

    def locate(self, id: object, system: bool = False) -> tuple[Table | None, int]:
        """Return the table (None if it does not exist) and the number of an id."""
        if id is self._found_id and not system:
            return self._found
        decoded = self.ids.decode(id)
        if decoded is None:
            raise InvalidIdError(f"got {id!r:.80} ({type(id).__name__}){hint_of(id)}, expected the id of a document")
        table = self.transaction.catalog.by_number.get(decoded[0])
        if table is not None and (table.name in SYSTEM_TABLES) != system:
            where, instead = ("ctx.db.system", "ctx.db") if system else ("ctx.db", "ctx.db.system")
            raise InvalidIdError(f"{where} got the id of a document of {table.name!r}; read it with {instead}")
        if table is None or system:
            return table, decoded[1]
        self._found_id, self._found = id, (table, decoded[1])
        return self._found

    def locate_in(self, name: str, id: object, system: bool = False) -> tuple[Table | None, int]:
        """Locate an id that must be one of the table `name`."""
        if self.ids.decode(name) is not None:
            raise InvalidIdError(f"got an id where the table was expected: the table comes first, ({id!r:.80}, id)")
        table, number = self.locate(id, system)
        if table is not None and table.name != name:
            raise InvalidIdError(f"got the id {id} of a document of {table.name!r}, expected one of {name!r}")
        return table, number

    def name_of(self, table: str | type[Any]) -> str:
        """Return the name of a table that is given by its name, or by the class that describes it in the schema."""
        if isinstance(table, str):
            return table
        name = self.schema.table_of(table) if isinstance(table, type) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if name is None:
            given = table.__name__ if isinstance(table, type) else repr(table)  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(
                f"got {given:.80} as a table, expected its name, or a class that a table of the schema was defined"
                f" with: define_table({given if given.isidentifier() else 'Order'})"
            )
        return name

    def present(self, table: str, document: Document) -> Any:
        """Return a document as the application gets it: in the form of its class, if that is more than a dict."""
        if not self.has_instances(table):
            return document
        definition = self.schema.tables[table]
        try:
            read = definition.document.check(without_system_fields(document), self)
            if isinstance(read, dict):
                return cast("Document", read) | {name: document[name] for name in SYSTEM_FIELDS}
            return with_system_fields(read, document)
        except Mismatch as error:
            raise SchemaValidationError(f"{table}: the document {document['_id']} does not fit: {error}") from error

    def documents(self, table: str, rows: list[tuple[int, Row]]) -> list[Any]:
        """Return rows of a table as the application gets them."""
        of_table = self.transaction.catalog.tables[table]
        document, encode, number = self.document, self.ids.encode, of_table.number
        found = [document(of_table, id, row, encode(number, id)) for id, row in rows]
        return [self.present(table, one) for one in found] if self.has_instances(table) else found

    def has_instances(self, table: str) -> bool:
        """Return whether documents of a table are or hold instances, such as a dataclass or a datetime."""
        return table in self.schema.with_instances

    def document(self, table: Table, id: int, row: Row, text: str) -> Document:
        """Return a row as a dict, with the system's fields; `text` is its id."""
        if isinstance(row, Job):
            retry_of = None if row.retry_of is None else self.ids.encode(table.number, row.retry_of)
            return document_of(row, text, creation_time(id), loads(row.args), retry_of)
        document: Document = loads(row)
        if table is CRONS:
            return crons.document_of(document, text, creation_time(id))
        document["_id"] = text
        document["_creationTime"] = creation_time(id)
        return document


_NO_ID: Final = object()


def mapper_of(transaction: Transaction, ids: IdCodec, journal: Journal | None = None) -> DocumentMapper:
    """Return the mapper of a call that begins."""
    mapper = DocumentMapper()
    mapper.transaction = transaction
    mapper.ids = ids
    mapper.journal = journal
    mapper.schema = transaction.catalog.schema
    mapper._found_id = _NO_ID  # pyright: ignore[reportPrivateUsage]
    return mapper
