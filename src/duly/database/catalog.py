"""The tables and the schema of a store, and the keys that rows have in indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from duly.errors import LimitError
from duly.limits import INDEX_KEY_BYTES_MAX, TABLES_MAX
from duly.storage.rows import JOBS, SYSTEM_TABLES, USER_NUMBER_MIN, Job, Row
from duly.values.fingerprints import fingerprint
from duly.values.keys import encode, encode_id, field_of
from duly.values.schema import BY_CREATION_TIME, UNDECLARED, Index, SchemaDefinition, Table
from duly.values.value import loads


class Catalog:
    """The tables of one version of the store, and the schema its documents fit.

    It never changes: a new table makes a new catalog.
    """

    __slots__ = ("_outdated", "by_number", "deploy", "schema", "tables")

    def __init__(self, tables: Iterable[Table], schema: SchemaDefinition = UNDECLARED, deploy: str = "") -> None:
        self.schema = schema
        self.deploy = deploy
        """What the newest version of the application has declared; empty where nobody has said."""
        self._outdated: frozenset[str] | None = None
        self.tables: Mapping[str, Table] = {table.name: table for table in tables}
        self.by_number: Mapping[int, Table] = {table.number: table for table in self.tables.values()}

    @property
    def outdated(self) -> frozenset[str]:
        """The tables that a newer version of the application declares otherwise than this schema does."""
        if self._outdated is None:
            declared = {name: table.document for name, table in self.schema.tables.items() if name in self.tables}
            self._outdated = frozenset(
                name
                for name, document in declared.items()
                if self.tables[name].declared not in ("", fingerprint(document))
            )
        return self._outdated

    def with_table(self, table: Table) -> Catalog:
        """The same catalog with one more table, or with another state of a table it has."""
        return Catalog({**self.tables, table.name: table}.values(), self.schema, self.deploy)

    def with_schema(self, schema: SchemaDefinition) -> Catalog:
        """The same tables under another schema."""
        return Catalog(self.tables.values(), schema, self.deploy)

    def with_deploy(self, deploy: str) -> Catalog:
        """The same catalog after another version of the application was deployed."""
        return Catalog(self.tables.values(), self.schema, deploy)

    def new_table(self, name: str) -> Table:
        tables = len(self.tables) - len(SYSTEM_TABLES) + 1
        if tables > TABLES_MAX:
            raise LimitError(f"{name}: got {tables:,} tables in a store, expected at most {TABLES_MAX:,} (TABLES_MAX)")
        return Table(name, max((*self.by_number, USER_NUMBER_MIN - 1)) + 1)

    def new_index_number(self) -> int:
        numbers = [index.number for table in self.tables.values() for index in table.indexes]
        return max((*numbers, USER_NUMBER_MIN - 1)) + 1


_JOB_FIELDS: Final = {"state.kind": "state", "scheduledTime": "scheduled_time", "name": "name", "due": "due"}

DUE: Final = Index("by_due", 3, ("due",))
"""The order in which pending jobs become due: what the executor watches."""


def keys_of(table: Table, id: int, row: Row | None) -> tuple[bytes, ...]:
    """The keys of a document in the indexes of its table."""
    if row is None or not table.indexes or table is JOBS:
        return ()
    document = loads(row)  # pyright: ignore[reportArgumentType]
    return tuple(document_key(index, id, document) for index in table.indexes)


def key_in(table: Table, index: Index | None, id: int, row: Row) -> bytes:
    """The key of one row in one index; None is the index by creation."""
    return b"".join(map(encode, values_in(index, row))) + encode_id(id)


def values_in(index: Index | None, row: Row) -> tuple[object, ...]:
    """The values of one row that an index sorts by, before its id."""
    if index is None:
        return ()
    if isinstance(row, Job):
        return tuple(getattr(row, _JOB_FIELDS[path]) for path in index.fields)
    document = loads(row)
    return tuple(field_of(document, path) for path in index.fields)


def document_key(index: Index, id: int, document: dict[str, object]) -> bytes:
    """The key of one document in one index. LimitError where it is longer than every engine can hold."""
    key = b"".join([encode(field_of(document, path)) for path in index.fields]) + encode_id(id)
    if len(key) > INDEX_KEY_BYTES_MAX:
        raise LimitError(
            f"the values of a document in index {index.name!r} ({', '.join(index.fields)}) take {len(key):,} bytes,"
            f" expected at most {INDEX_KEY_BYTES_MAX:,} (INDEX_KEY_BYTES_MAX); index a shorter field, such as a hash"
        )
    return key


def name_of(index: Index | None) -> str:
    """The name by which queries and read sets know an index; None is the one by creation."""
    return BY_CREATION_TIME if index is None else index.name


def index_named(table: Table, name: str) -> Index | None:
    """The index, None for the one by creation. KeyError where there is none."""
    if name == BY_CREATION_TIME:
        return None
    index = table.index(name)
    if index is None:
        raise KeyError(name)
    return index
