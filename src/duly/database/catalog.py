"""The tables and the schema of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from duly.errors import LimitError
from duly.limits import TABLES_MAX
from duly.storage.engine import SYSTEM_TABLES, USER_NUMBER_MIN
from duly.values.schema.fingerprints import fingerprint
from duly.values.schema.tables import UNDECLARED, SchemaDefinition, Table


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
