"""Tables and indexes, as an application declares them and as a store has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from duly.errors import LimitError, SchemaValidationError
from duly.hints import argument_hint
from duly.limits import IDENTIFIER_LENGTH_MAX, INDEX_FIELDS_MAX, INDEXES_MAX, TABLES_MAX
from duly.made_once import made_once
from duly.values.schema.annotations import validator_of
from duly.values.schema.containers import ObjectValidator, UnionValidator
from duly.values.schema.field_paths import check_path
from duly.values.schema.models import ModelValidator, stored
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.v import Declared, as_validator
from duly.values.schema.validator import Validator

BY_CREATION_TIME: Final = "by_creation_time"
BY_ID: Final = "by_id"
RESERVED_INDEXES: Final = (BY_CREATION_TIME, BY_ID)

Place = tuple[str, str]
"""The module of a class or a function, and its name there."""

_identifier = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{IDENTIFIER_LENGTH_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a store. Its number distinguishes it from others of the same name."""

    name: str
    number: int
    fields: tuple[str, ...]
    ready: bool = True
    """Whether it has every document. Until then it is being built: writes maintain it, queries do not use it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a store. Its number stands in the ids of its documents and is never used again."""

    name: str
    number: int
    indexes: tuple[Index, ...] = ()
    """All indexes that writes maintain, including those that are being built."""
    declared: str = ""
    """The fingerprint of the declaration that all documents fit; empty if there is none."""

    @property
    def readable(self) -> tuple[Index, ...]:
        """The indexes that a query may use."""
        return tuple(index for index in self.indexes if index.ready)

    def index(self, name: str) -> Index | None:
        """Return the index of that name, if a query may use it; None if there is none."""
        return next((index for index in self.indexes if index.name == name and index.ready), None)


_OF_INDEXES: Final[dict[str, str]] = dict.fromkeys(
    ("unique", "is_unique", "primary_key"),
    "which no index has: let the mutation that inserts look first, .with_index(…).first() is None; as mutations are"
    " transactions, no other comes between",
)


@dataclass(frozen=True)
class TableDefinition:
    """A declared table: its documents and its indexes. Made by `define_table`."""

    document: Validator
    model: type | None = None
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @argument_hint(SchemaValidationError, 'expected .index(name, ["field", …])', _OF_INDEXES)
    def index(self, name: str, fields: list[str]) -> TableDefinition:
        """Return the same table with one more index.

        `fields` are names of fields, or paths such as `"address.city"`. Every index ends with the time of creation.

            define_table({"author": v.string(), "at": v.number()}).index("by_author", ["author", "at"])
        """
        self._check_index_name(name)
        _check_index_fields(name, fields)
        for path in fields:
            check_path(self.document, path, f"index {name!r}")
        for other, others in self.indexes.items():
            if others == tuple(fields):
                raise SchemaValidationError(
                    f"index {name!r}: got the fields of the index {other!r}, expected other ones; one of them will do"
                )
        if len(self.indexes) >= INDEXES_MAX:
            raise LimitError(
                f"index {name!r}: got {len(self.indexes) + 1} indexes of one table, expected at most {INDEXES_MAX}"
                " (INDEXES_MAX): each costs every write"
            )
        return replace(self, indexes={**self.indexes, name: tuple(fields)})

    def _check_index_name(self, name: object) -> None:
        _check_identifier(name, "index")
        if name in RESERVED_INDEXES:
            raise SchemaValidationError(f"got the index {name!r}, expected another name: that one is the system's own")
        if name in self.indexes:
            raise SchemaValidationError(f"got the index {name!r} twice, expected each name once in a table")


@dataclass(frozen=True)
class SchemaDefinition:
    """The declared tables. Made by `define_schema`."""

    tables: Mapping[str, TableDefinition]

    @made_once
    def models(self) -> Mapping[type, str]:
        """The table of each class that describes documents, for `Id[Order]`."""
        return {table.model: name for name, table in self.tables.items() if table.model is not None}

    @made_once
    def with_instances(self) -> frozenset[str]:
        """The tables whose documents are instances of a class, or contain instances, such as a datetime."""
        documents = {name: self.tables[name].document for name in self.models.values()}
        return frozenset(name for name, document in documents.items() if document.shape is not document)

    def table_of(self, model: type) -> str | None:
        """Return the table whose documents a class describes, even if its module was reloaded since."""
        return self.models.get(model) or self._places.get(place_of(model))

    @made_once
    def _places(self) -> Mapping[Place | None, str]:
        places = {place_of(model): name for model, name in self.models.items()}
        return {place: name for place, name in places.items() if place is not None}


UNDECLARED: Final = SchemaDefinition({})
"""The schema of an application without one."""


def define_table(document: Declared) -> TableDefinition:
    """Declare the fields of the documents of a table, without `_id` and `_creationTime`.

    `document` is a dict of validators, a TypedDict, a dataclass, a pydantic model, a union of these, or `v.any()`.

        define_table({"text": v.string(), "sent": v.boolean()}).index("by_sent", ["sent"])
    """
    if isinstance(document, type):
        definition = TableDefinition(stored(validator_of(document)), document)
    else:
        definition = TableDefinition(stored(as_validator(document, "define_table")))
    _check_document(definition.document)
    return definition


def define_schema(tables: Mapping[str, TableDefinition]) -> SchemaDefinition:
    """Declare the tables of an application, as `schema` in its module `schema`.

        schema = define_schema({"reminders": define_table({"text": v.string()})})

    Tables that are not declared may hold any documents.
    """
    if len(tables) > TABLES_MAX:
        raise LimitError(f"got {len(tables):,} tables in a schema, expected at most {TABLES_MAX:,} (TABLES_MAX)")
    for name, table in tables.items():
        check_table_name(name)
        if not isinstance(table, TableDefinition):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SchemaValidationError(f"table {name!r}: got {table!r}, expected define_table(…)")
    models = SchemaDefinition(tables).models
    for name, table in tables.items():
        if table.model is not None and models[table.model] != name:
            one = table.model.__name__
            raise SchemaValidationError(
                f"got the class {one} for the tables {name!r} and {models[table.model]!r}, expected one of its own for"
                f" each, so that Id[{one}] means one table; a subclass will do"
            )
    return SchemaDefinition({name: replace(table, document=_bound(table, models)) for name, table in tables.items()})


def _bound(table: TableDefinition, models: Mapping[type, str]) -> Validator:
    # Part by part: `bind` would add the fields of the system to the document itself.
    return table.document.over(lambda part: part.bind(models))


def place_of(named: Any) -> Place | None:
    """Return where a class or function is defined; None for one that is defined within a function."""
    return None if "<locals>" in named.__qualname__ else (named.__module__, named.__qualname__)


def check_table_name(name: object) -> None:
    _check_identifier(name, "table")


def _check_document(validator: Validator) -> None:
    members = validator.members if isinstance(validator, UnionValidator) else (validator,)
    for member in members:
        if isinstance(member, ObjectValidator):
            if member.model is None:
                _check_own_fields(member)
        elif not isinstance(member, AnyValidator | ModelValidator):
            raise SchemaValidationError(
                f"define_table: got {validator.expected()}, expected what a document can be: an object (a dict of"
                " validators, a TypedDict, a dataclass or a pydantic model), a union of objects, or v.any()"
            )


def _check_own_fields(document: ObjectValidator) -> None:
    for name in document.fields:
        if name.startswith("_"):
            raise SchemaValidationError(
                f"define_table: got the field {name!r}, expected names that do not start with '_'; those belong to"
                " the system, which adds `_id` and `_creationTime` to every document by itself"
            )


def _check_index_fields(index: str, fields: object) -> None:
    if not isinstance(fields, list | tuple) or not fields:
        raise SchemaValidationError(f"index {index!r}: got the fields {fields!r}, expected a list of at least one")
    paths = cast("list[object] | tuple[object, ...]", fields)
    if len(paths) > INDEX_FIELDS_MAX:
        raise LimitError(
            f"index {index!r}: got {len(paths)} fields, expected at most {INDEX_FIELDS_MAX} (INDEX_FIELDS_MAX)"
        )
    for position, path in enumerate(paths):
        if isinstance(path, str) and path in _INSTEAD:
            raise SchemaValidationError(f"index {index!r}: got the field {path!r}, {_INSTEAD[path]}")
        for part in path.split(".") if isinstance(path, str) else (path,):
            _check_identifier(part, f"index {index!r}: field")
        if path in paths[:position]:
            raise SchemaValidationError(f"index {index!r}: got the field {path!r} twice, expected each once")


_INSTEAD: Final = {
    "_id": "which needs no index: ctx.db.get finds a document by its id",
    "_creationTime": "which is added to the end of every index by itself",
}


def _check_identifier(name: object, what: str) -> None:
    if not isinstance(name, str) or not _identifier.fullmatch(name):
        system = "; names that start with '_' are the system's" if isinstance(name, str) and name[:1] == "_" else ""
        raise SchemaValidationError(
            f"{what}: got the name {name!r}, expected letters, digits and '_', a letter first, at most"
            f" {IDENTIFIER_LENGTH_MAX} characters{system}"
        )
