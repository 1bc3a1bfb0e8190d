"""The tables and the schema of a store, now and as of its last versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from duly.errors import LimitError
from duly.limits import CATALOGS_MAX, TABLES_MAX
from duly.storage.conflicts import Conflict
from duly.storage.requests import View
from duly.storage.rows import SYSTEM_TABLES, USER_NUMBER_MIN
from duly.values.schema.fingerprints import fingerprint
from duly.values.schema.tables import UNDECLARED, SchemaDefinition, Table


class Catalog:
    """The tables of one version of the store, and the schema that its documents fit.

    Immutable: a new table makes a new catalog.
    """

    __slots__ = ("_outdated", "by_number", "deploy", "schema", "tables", "with_instances")

    def __init__(self, tables: Iterable[Table], schema: SchemaDefinition = UNDECLARED, deploy: str = "") -> None:
        self.schema = schema
        self.deploy = deploy
        """What the newest version of the application declares; empty if no version has declared anything."""
        self.with_instances = schema.with_instances
        self._outdated: frozenset[str] | None = None
        self.tables: Mapping[str, Table] = {table.name: table for table in tables}
        self.by_number: Mapping[int, Table] = {table.number: table for table in self.tables.values()}

    @property
    def outdated(self) -> frozenset[str]:
        """Return the tables that a newer version of the application declares differently from this schema."""
        if self._outdated is None:
            declared = {name: table.document for name, table in self.schema.tables.items() if name in self.tables}
            self._outdated = frozenset(
                name
                for name, document in declared.items()
                if self.tables[name].declared not in ("", fingerprint(document))
            )
        return self._outdated

    def with_table(self, table: Table) -> Catalog:
        """Return this catalog with one more table, or with another state of one of its tables."""
        return Catalog({**self.tables, table.name: table}.values(), self.schema, self.deploy)

    def with_schema(self, schema: SchemaDefinition) -> Catalog:
        """Return the same tables under another schema."""
        return Catalog(self.tables.values(), schema, self.deploy)

    def with_deploy(self, deploy: str) -> Catalog:
        """Return this catalog after another version of the application was deployed."""
        return Catalog(self.tables.values(), self.schema, deploy)

    def new_table(self, name: str) -> Table:
        tables = len(self.tables) - len(SYSTEM_TABLES) + 1
        if tables > TABLES_MAX:
            raise LimitError(f"{name}: got {tables:,} tables in a store, expected at most {TABLES_MAX:,} (TABLES_MAX)")
        return Table(name, max((*self.by_number, USER_NUMBER_MIN - 1)) + 1)

    def name_of(self, number: int) -> str | None:
        """Return the name of the table with a number; None if there is none."""
        table = self.by_number.get(number)
        return None if table is None else table.name

    def new_index_number(self) -> int:
        numbers = [index.number for table in self.tables.values() for index in table.indexes]
        return max((*numbers, USER_NUMBER_MIN - 1)) + 1


class CatalogHistory:
    """The catalogs of the last versions that changed tables, for readers that see an older version of the store.

    The committer's thread changes it, and replaces a field as a whole; so any thread may read it.
    """

    __slots__ = ("_versions", "current")

    def __init__(self, version: int, catalog: Catalog) -> None:
        self.current = catalog
        """The catalog as of the last commit."""
        self._versions = [(version, catalog)]

    def at(self, view: View) -> Catalog:
        """Return the catalog of the version that a view shows. Raises Conflict if this node does not know it yet.

        Either another node has changed the tables, or a server that lacks commits which this node knows has taken over.
        """
        for since, catalog in reversed(self._versions):
            if since <= view.version:
                if since < view.catalog_version:
                    raise Conflict("another node has changed the tables")
                return catalog
        raise Conflict("the store has gone back to an older version than this node knows")

    def add(self, version: int, catalog: Catalog) -> None:
        """Add the catalog of a version before its commit: once that is durable, a snapshot may show the version."""
        self._versions = [*self._versions[1 - CATALOGS_MAX :], (version, catalog)]

    def drop_from(self, version: int) -> None:
        """Drop the catalogs of a version that was not committed, and of later versions."""
        self._versions = [entry for entry in self._versions if entry[0] < version]
