"""The names of an application's tables and indexes in PostgreSQL."""

from __future__ import annotations

from typing import Final

from duly.values.schema.tables import Index, Table

_LENGTH_MAX: Final = 63  # PostgreSQL truncates longer names; the number keeps them unique


def of_table(table: Table) -> str:
    return f"t{table.number}_{table.name}"[:_LENGTH_MAX]


def of_index(index: Index) -> str:
    return f"i{index.number}_{index.name}"[:_LENGTH_MAX]
