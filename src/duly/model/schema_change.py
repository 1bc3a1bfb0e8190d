"""Applies the schema of a deploy: checks existing documents, builds new indexes, then makes the schema active.

The work is done in short steps between other calls. These use the old schema until one commit makes the new one active.
No write of theirs is missed: from the commit that creates an index, every write maintains the index. The ids of
documents that are written to a table under check are tracked, and these documents are checked before the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from duly import faults
from duly.clock import monotonic
from duly.database.batch import Batch
from duly.database.database import Database
from duly.database.indexes.row_keys import document_key
from duly.errors import SchemaValidationError, StoreError, StoreLostError
from duly.limits import (
    APPLY_TRIES_MAX,
    SCHEMA_LATE_MAX,
    SCHEMA_STEP_ROWS,
    SCHEMA_STEP_SECONDS,
    STORE_LOST_SECONDS_MAX,
)
from duly.logs import log_of
from duly.model import crons
from duly.model.crons import Spec
from duly.storage.requests import Get, Scan
from duly.storage.rows import SYSTEM_TABLES
from duly.values.ids import IdCodec
from duly.values.index_keys import EVERYTHING, FIRST, Cut, Interval
from duly.values.json import loads
from duly.values.schema.fingerprints import fingerprint, fingerprint_of_schema
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.tables import Index, SchemaDefinition, Table
from duly.values.schema.validator import Mismatch

_log: Final = log_of("duly.schema")


@dataclass(frozen=True)
class Deploy:
    """What a version of an application declares to the store."""

    schema: SchemaDefinition
    mark: str = ""
    """The fingerprint of the version; that of the schema if it is empty."""
    takes_over: bool = True
    """Whether it replaces a newer version. If not, a node of an older version leaves the schema and the crons of the
    store as they are, and validates only its own writes by its own schema."""
    crons: Collection[Spec] | None = None
    """The crons from code. The commit that makes the schema active also applies them. None leaves the crons alone."""


async def apply_schema(database: Database, deploy: Deploy, on_active: Callable[[], None] = lambda: None) -> None:
    """Apply the schema and the crons of a deploy to the store. Other calls go on meanwhile; only one schema at a time.

    A SchemaValidationError names the first document that does not fit, an InvalidScheduleError a cron whose name is
    taken. After any error the store is as it was; if this is cancelled, the schema may be active. `on_active` is called
    in the committer's thread, before the next call uses the schema.
    """
    given_up = monotonic() + STORE_LOST_SECONDS_MAX
    for left in reversed(range(APPLY_TRIES_MAX)):
        change = SchemaChange(deploy, database.ids, on_active)
        try:
            while not await database.commit(change.step, exclusive=True):
                faults.at("schema.step")
            break
        except BaseException as error:
            with suppress(StoreError):  # the next start drops what is left in the store
                await database.commit(change.withdraw, exclusive=True)
            if not isinstance(error, StoreLostError) or not left or monotonic() > given_up:
                raise
    faults.at("schema.applied")


class SchemaChange:
    """A schema that is being applied, in steps. All of it runs in the committer's thread."""

    def __init__(self, deploy: Deploy, ids: IdCodec, on_active: Callable[[], None] = lambda: None) -> None:
        self._schema = deploy.schema
        self._crons = deploy.crons
        self._mark = deploy.mark or fingerprint_of_schema(deploy.schema)
        self._takes_over = deploy.takes_over
        self._ids = ids
        self._on_active = on_active
        self._declared = {name: fingerprint(table.document) for name, table in self._schema.tables.items()}
        self._unchecked: list[str] = []
        """The tables whose documents may not fit."""
        self._filled: set[int] = set()
        """The numbers of the indexes that are complete."""
        self._batch: Batch
        self._steps = self._run()

    def step(self, batch: Batch) -> bool:
        """Work for a few milliseconds. Return whether the schema is active, from this batch on."""
        self._batch = batch
        began = monotonic()
        while (must_pause := next(self._steps, None)) is not None:
            if must_pause or monotonic() - began >= SCHEMA_STEP_SECONDS:
                return False
        return True

    def withdraw(self, batch: Batch) -> None:
        """Stop tracking, and drop the indexes that were begun."""
        batch.track()
        for table in _tables(batch):
            if table.indexes != table.readable:
                batch.put_table(replace(table, indexes=table.readable))

    def table_of(self, id: str, /) -> str | None:
        """Return the name of the table of an id."""
        decoded = self._ids.decode(id)
        return None if decoded is None else self._batch.catalog.name_of(decoded[0])

    def _run(self) -> Iterator[bool]:
        """Do all the work. At each yield a step may end; at a yield of True it must."""
        if not self._takes_over and self._batch.is_superseded(self._mark):
            _log.warning(
                "another version of the application was deployed after this one, and its schema and its crons stay. To"
                " go back to this one, make it the newest: `duly migrate --folder` with its folder, or `app.reload()`"
            )
            self._batch.put_schema(self._schema)
            self._on_active()
            return
        self._unchecked = self._changed_tables()
        self._batch.track(*self._unchecked)
        for name in self._unchecked:
            for rows in self._documents(name):
                for id, row in rows:
                    self._check(name, id, row)
                yield False
        is_complete = False
        while not is_complete:
            if self._create_indexes():
                yield True
                yield from self._fill_indexes()
            yield from self._check_late()
            # No other call ran since the last check, but one may have created a table before it.
            is_complete = not self._create_indexes()
        self._activate()

    # Checking.

    def _changed_tables(self) -> list[str]:
        """Return the tables whose declaration changed since their documents were last checked."""
        tables, known = self._schema.tables, self._batch.catalog.tables
        return [
            name
            for name, declared in self._declared.items()
            if not isinstance(tables[name].document, AnyValidator)
            and (name not in known or known[name].declared != declared)
        ]

    def _check(self, name: str, id: int, row: str) -> None:
        try:
            self._schema.tables[name].document.check(loads(row), self)
        except Exception as error:  # the code of a model may raise anything
            problem = str(error) if isinstance(error, Mismatch) else f"{type(error).__name__}: {error}"
            text = self._ids.encode(self._batch.catalog.tables[name].number, id)
            raise SchemaValidationError(
                f"{name}: the document {text} does not fit the schema: {problem}. The schema was not applied and"
                " nothing has changed; declare what fits this document too, or change the document first"
            ) from error

    def _check_late(self) -> Iterator[bool]:
        """Check what was written during the check. At the end, every write has been checked."""
        step_size = SCHEMA_LATE_MAX
        while len(late := self._written()) > step_size:
            for position, (name, id) in enumerate(late, 1):
                self._check_again(name, id)
                if position % step_size == 0:
                    yield True
            step_size *= 2  # longer steps, until checking is faster than writing
        for name, id in late:
            self._check_again(name, id)

    def _written(self) -> list[tuple[str, int]]:
        """Return what was written since the last call of this method."""
        return [(name, id) for name, ids in self._batch.track(*self._unchecked).items() for id in sorted(ids)]

    def _check_again(self, name: str, id: int) -> None:
        row = self._batch.answer(Get(self._batch.catalog.tables[name], id))
        if row is not None:
            self._check(name, id, row)

    # Building.

    def _indexes(self, table: str) -> Mapping[str, tuple[str, ...]]:
        """Return the declared indexes of a table."""
        return self._schema.tables[table].indexes if table in self._schema.tables else {}

    def _create_indexes(self) -> bool:
        """Create the missing indexes, empty. Return whether some have to be filled.

        An index that an earlier process began is filled from the start if it is declared the same, else dropped.
        """
        unfilled = False
        for table in _tables(self._batch):
            declared = self._indexes(table.name)
            kept = [index for index in table.indexes if index.ready or declared.get(index.name) == index.fields]
            existing = {(index.name, index.fields) for index in kept}
            missing = [item for item in declared.items() if item not in existing]
            for number, (name, fields) in enumerate(missing, self._batch.catalog.new_index_number()):
                kept.append(Index(name, number, fields, ready=False))
            self._batch.put_table(replace(table, indexes=tuple(kept)))
            if missing:
                faults.at("schema.index_created")
            unfilled = unfilled or any(not index.ready and index.number not in self._filled for index in kept)
        return unfilled

    def _fill_indexes(self) -> Iterator[bool]:
        for table in _tables(self._batch):
            building = [index for index in table.indexes if not index.ready and index.number not in self._filled]
            for rows in self._documents(table.name) if building else ():
                documents = [(id, loads(row)) for id, row in rows]
                for index in building:
                    self._batch.fill_index(index, [(document_key(index, id, held), id) for id, held in documents])
                yield False
            self._filled.update(index.number for index in building)

    def _documents(self, name: str) -> Iterator[list[tuple[int, str]]]:
        """Yield the documents that a table has now, a few at a time, in the order of creation."""
        interval = Interval(FIRST, Cut((), after=True, id=self._last_id(name)))
        while rows := self._scan(name, interval, SCHEMA_STEP_ROWS):
            yield rows
            interval = interval._replace(lower=Cut((), after=True, id=rows[-1][0]))

    def _last_id(self, name: str) -> int:
        last = self._scan(name, EVERYTHING, 1, descending=True)
        return last[0][0] if last else 0

    def _scan(self, name: str, interval: Interval, limit: int, descending: bool = False) -> list[tuple[int, str]]:
        table = self._batch.catalog.tables.get(name)
        return [] if table is None else self._batch.answer(Scan(table, None, interval, descending, limit))

    # The end.

    def _activate(self) -> None:
        """Make the tables equal to their declaration, and validate all later calls by the schema."""
        batch = self._batch
        catalog = batch.catalog
        new = [name for name in self._schema.tables if name not in catalog.tables]
        for name in new:
            catalog = catalog.with_table(catalog.new_table(name))  # raises if there are too many
        if self._crons is not None:
            batch.attempt(crons.sync, self._crons)  # raises if a name is taken
        for name in new:
            batch.put_table(catalog.tables[name])
        self._create_indexes()  # of the new tables, which are empty
        for table in _tables(batch):
            batch.put_table(self._final(table))
        batch.put_schema(self._schema)
        batch.deploy(self._mark)
        batch.track()
        self._on_active()
        faults.at("schema.ready")

    def _final(self, table: Table) -> Table:
        declared = self._indexes(table.name)
        kept = [replace(index, ready=True) for index in table.indexes if declared.get(index.name) == index.fields]
        return replace(table, indexes=tuple(kept), declared=self._declared.get(table.name, ""))


def _tables(batch: Batch) -> list[Table]:
    """Return the tables of the application."""
    return [table for table in batch.catalog.tables.values() if table.name not in SYSTEM_TABLES]
