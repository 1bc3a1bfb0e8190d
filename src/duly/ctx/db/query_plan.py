"""The plan of a query: a range of an index in one direction, and the filters that its documents pass."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from duly.ctx.db.cursor import fingerprint
from duly.ctx.db.document_mapper import DocumentMapper
from duly.ctx.db.filters import Predicate
from duly.database.index_scan import FoundRow, IndexScan
from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import index_named
from duly.errors import QueryError
from duly.storage.requests import Count
from duly.storage.rows import JOBS, SYSTEM_TABLES
from duly.values.ids import ID_MAX
from duly.values.index_keys import EVERYTHING, Interval
from duly.values.json import Document
from duly.values.schema.tables import BY_CREATION_TIME, BY_ID, Index, Table
from duly.values.schema.validator import Validator

_ROWS_AHEAD: Final = 8  # of a reader that may stop at any row; each further read gets twice as many
_COUNTED_MAX: Final = 1 << 31  # where there is no limit


class QueryPlan(NamedTuple):
    """A range, a direction and filters. It never changes; `_replace` makes another one."""

    mapper: DocumentMapper
    table_name: str
    index_name: str = BY_CREATION_TIME
    interval: Interval = EVERYTHING
    descending: bool = False
    filters: tuple[Predicate, ...] = ()
    chosen: tuple[str, ...] = ()
    """The steps of the query that may be taken only once, and were taken."""

    @property
    def table(self) -> Table | None:
        return self.mapper.transaction.catalog.tables.get(self.table_name)

    @property
    def declared(self) -> Validator | None:
        """The validator of the table's documents; None if the schema does not declare the table."""
        definition = self.mapper.schema.tables.get(self.table_name)
        return None if definition is None else definition.document

    @property
    def order(self) -> Index | None:
        """The index that is read; None for the one by creation. Raises QueryError if there is no such index."""
        table = self.table or Table(self.table_name, 0)
        if self.index_name == BY_ID:
            return None  # ids grow with time
        try:
            return index_named(table, self.index_name)
        except KeyError:
            known = ", ".join((BY_CREATION_TIME, *(index.name for index in table.readable), BY_ID))
            raise QueryError(f"{self.table_name}: got the index {self.index_name!r}, expected one of {known}") from None

    def first_id(self, id: object, after: bool) -> int:
        """Return the place of an id among the ids of the table."""
        _, number = self.mapper.locate_in(self.table_name, id, self.table_name in SYSTEM_TABLES)
        return min(number + after, ID_MAX)

    def scan(self, ahead: int = _ROWS_AHEAD) -> IndexScan | None:
        """Start a scan. Return None if the table does not exist; the read set then contains this fact, too.

        `ahead` is the number of rows that will probably be read.
        """
        transaction = self.mapper.transaction
        if self.table is not None:
            return IndexScan(transaction, self.table, self.order, self.interval, self.descending, ahead)
        if transaction.reads is not None:
            transaction.reads.ranges.append(KeyRange(self.table_name, BY_CREATION_TIME, b"", b"\xff"))
        return None

    async def read(self, limit: int) -> list[Any]:
        """Return the first documents, at most `limit`."""
        scan = self.scan()
        if scan is None:
            return []
        if not self.filters:
            return self.mapper.documents(self.table_name, await scan.rows(limit))
        found: list[Any] = []
        while len(found) < limit and (document := await self.next(scan)) is not None:
            found.append(self.present(document))
        return found

    async def number(self) -> int:
        """Count the documents. They are read only if the plan has filters."""
        table, usage = self.table, self.mapper.transaction.usage
        if table is None or table is JOBS or self.filters:
            scan, found = self.scan(), 0
            while scan is not None and await (self.next(scan) if self.filters else scan.next_row()) is not None:
                found += 1
            return found
        usage.begin_read()
        left = min(usage.limits.documents_read_max - usage.documents_read, _COUNTED_MAX)
        found = await self.mapper.transaction.count(Count(table, self.order, self.interval, int(left) + 1))
        usage.read(found, 0)
        return found

    async def next(self, scan: IndexScan) -> Document | None:
        """Return the next document that passes the filters; None at the end."""
        while (row := await scan.next_row()) is not None:
            document = self.document(row)
            if self.fits(document):
                return document
        return None

    def fits(self, document: Document) -> bool:
        return all(one.test(document) for one in self.filters)

    def document(self, row: FoundRow) -> Document:
        table = self.table
        assert table is not None  # it has a row
        id, text = row
        return self.mapper.document(table, id, text, self.mapper.ids.encode(table.number, id))

    def present(self, document: Document) -> Any:
        """Return a document in the form that the application gets."""
        return self.mapper.present(self.table_name, document)

    @property
    def fingerprint(self) -> str:
        """Return a hash that ties cursors to this query."""
        fields = () if self.order is None else self.order.fields
        bounds = (cut.key().hex() for cut in self.interval)
        direction = "desc" if self.descending else "asc"
        filters = (one.fingerprint for one in self.filters)
        return fingerprint(self.table_name, self.index_name, *fields, *bounds, direction, *filters)
