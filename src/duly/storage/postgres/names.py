"""The names that tables and indexes of an application have in PostgreSQL."""

from __future__ import annotations

from typing import Final

from duly.values.schema.tables import Index, Table

_LENGTH_MAX: Final = 63  # PostgreSQL cuts off what is longer; the number tells them apart


def of_table(table: Table) -> str:
    return f"t{table.number}_{table.name}"[:_LENGTH_MAX]


def of_index(index: Index) -> str:
    return f"i{index.number}_{index.name}"[:_LENGTH_MAX]
