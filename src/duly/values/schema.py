"""Tables and indexes: as an application declares them, and as a store has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from duly.errors import SchemaValidationError
from duly.limits import IDENTIFIER_LENGTH_MAX
from duly.values.annotations import validator_of
from duly.values.checks import Validator
from duly.values.validators import as_validator

BY_CREATION_TIME: Final = "by_creation_time"
RESERVED_INDEXES: Final = (BY_CREATION_TIME, "by_id")

_identifier = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{IDENTIFIER_LENGTH_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a store. Its number tells it from others of the same name."""

    name: str
    number: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a store. Its number stands in the ids of its documents and is never used again."""

    name: str
    number: int
    indexes: tuple[Index, ...] = ()

    def index(self, name: str) -> Index | None:
        return next((index for index in self.indexes if index.name == name), None)


@dataclass(frozen=True)
class TableDefinition:
    """A declared table: what its documents hold and how they are found. Made by `define_table`."""

    document: Validator
    model: type | None = None
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def index(self, name: str, fields: list[str]) -> TableDefinition:
        """The same table with one more index.

        `fields` are names of the document, or paths like `"address.city"`; every index ends with the time of
        creation.

            define_table({"author": v.string(), "at": v.number()}).index("by_author", ["author", "at"])
        """
        _check_identifier(name, "index")
        if name in RESERVED_INDEXES or name in self.indexes:
            raise SchemaValidationError(f"got the index {name!r} twice, expected each name once in a table")
        if not fields or len(set(fields)) != len(fields):
            raise SchemaValidationError(
                f"index {name!r}: got the fields {fields}, expected at least one and none of them twice"
            )
        for path in fields:
            for part in path.split("."):
                _check_identifier(part, f"index {name!r}: field")
        return TableDefinition(self.document, self.model, {**self.indexes, name: tuple(fields)})


@dataclass(frozen=True)
class SchemaDefinition:
    """The declared tables. Made by `define_schema`."""

    tables: Mapping[str, TableDefinition]

    def models(self) -> dict[type, str]:
        """Which class describes the documents of which table, for `Id[Order]`."""
        return {table.model: name for name, table in self.tables.items() if table.model is not None}


def define_table(document: Mapping[str, Validator] | Validator | type) -> TableDefinition:
    """Declare what the documents of a table hold, without `_id` and `_creationTime`.

    `document` is a dict of validators, a validator, or a TypedDict, dataclass or pydantic model.

        define_table({"text": v.string(), "sent": v.boolean()}).index("by_sent", ["sent"])
    """
    if isinstance(document, type):
        return TableDefinition(validator_of(document), document)
    return TableDefinition(as_validator(document, "define_table"))


def define_schema(tables: Mapping[str, TableDefinition]) -> SchemaDefinition:
    """Declare the tables of an application, in its module `schema`, as `schema`.

        schema = define_schema({"reminders": define_table({"text": v.string()})})

    Tables that are not declared may hold anything.
    """
    for name, table in tables.items():
        check_table_name(name)
        if not isinstance(table, TableDefinition):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SchemaValidationError(f"table {name!r}: got {table!r}, expected define_table(…)")
    return SchemaDefinition(dict(tables))


def check_table_name(name: object) -> None:
    _check_identifier(name, "table")


def _check_identifier(name: object, what: str) -> None:
    if not isinstance(name, str) or not _identifier.fullmatch(name):
        raise SchemaValidationError(
            f"{what}: got the name {name!r}, expected letters, digits and '_', a letter first, at most"
            f" {IDENTIFIER_LENGTH_MAX} characters"
        )
