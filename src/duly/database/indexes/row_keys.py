"""The keys that rows have in the indexes of their table."""

from __future__ import annotations

from typing import Final, cast

from duly.errors import LimitError
from duly.limits import INDEX_KEY_BYTES_MAX
from duly.storage.engine import JOBS, Job, Row
from duly.values.index_keys import encode, encode_id, field_of
from duly.values.json import loads
from duly.values.schema.tables import BY_CREATION_TIME, Index, Table

_JOB_FIELDS: Final = {"state.kind": "state", "scheduledTime": "scheduled_time", "name": "name", "due": "due"}

DUE: Final = Index("by_due", 3, ("due",))
"""The order in which pending jobs become due: what the executor watches."""


def keys_of(table: Table, id: int, row: Row | None) -> tuple[bytes, ...]:
    """The keys of a document in the indexes of its table."""
    if row is None or not table.indexes or table is JOBS:
        return ()
    document = loads(cast("str", row))
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


def index_name(index: Index | None) -> str:
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
