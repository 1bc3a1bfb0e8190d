"""The application's tables: makes the store have what the schema declares."""

from __future__ import annotations

from dataclasses import replace

from duly.database.catalog import key_in
from duly.database.committer import Batch
from duly.storage.engine import SYSTEM_TABLES, Scan
from duly.values.keys import EVERYTHING, Cut
from duly.values.schema import Index, SchemaDefinition, Table, TableDefinition

_ROWS_AT_ONCE = 1_000


def apply_schema(batch: Batch, schema: SchemaDefinition) -> None:
    """Create the tables and indexes that are declared and missing, drop the indexes that no longer are."""
    batch.flush()  # what is in memory has the keys of the indexes there were
    for name, definition in schema.tables.items():
        batch.put_table(batch.catalog.tables.get(name) or batch.catalog.new_table(name))
        _apply_indexes(batch, batch.catalog.tables[name], definition)
    for table in tuple(batch.catalog.tables.values()):
        if table.name not in SYSTEM_TABLES and table.name not in schema.tables and table.indexes:
            _drop(batch, table, table.indexes)


def _apply_indexes(batch: Batch, table: Table, definition: TableDefinition) -> None:
    gone = tuple(index for index in table.indexes if definition.indexes.get(index.name) != index.fields)
    if gone:
        table = _drop(batch, table, gone)
    for name, fields in definition.indexes.items():
        if table.index(name) is None:
            index = Index(name, batch.catalog.new_index_number(), fields)
            batch.create_index(table, index)
            _fill(batch, table, index)
            table = replace(table, indexes=(*table.indexes, index))
            batch.put_table(table)


def _drop(batch: Batch, table: Table, indexes: tuple[Index, ...]) -> Table:
    for index in indexes:
        batch.drop_index(index)
    left = replace(table, indexes=tuple(index for index in table.indexes if index not in indexes))
    batch.put_table(left)
    return left


def _fill(batch: Batch, table: Table, index: Index) -> None:
    interval = EVERYTHING
    while True:
        rows = batch.answer(Scan(table, None, interval, False, _ROWS_AT_ONCE))
        batch.write_keys(index, ((key_in(table, index, id, row), id) for id, row in rows))
        if len(rows) < _ROWS_AT_ONCE:
            return
        interval = interval._replace(lower=Cut((), after=True, id=rows[-1][0]))
