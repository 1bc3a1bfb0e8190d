"""The keys of rows in the indexes of their table."""

from __future__ import annotations

from typing import Final, cast

from duly.errors import LimitError
from duly.limits import INDEX_KEY_BYTES_MAX
from duly.storage.rows import JOBS, Job, Row
from duly.values.index_keys import encode, encode_id, field_of
from duly.values.json import loads
from duly.values.schema.tables import BY_CREATION_TIME, Index, Table

_JOB_FIELDS: Final = {"state.kind": "state", "scheduledTime": "scheduled_time", "name": "name", "due": "due"}

DUE: Final = Index("by_due", 3, ("due",))
"""The order in which pending jobs become due, which the executor watches."""


def keys_of(table: Table, id: int, row: Row | None) -> tuple[bytes, ...]:
    """Return the keys of a document in the indexes of its table."""
    if row is None or not table.indexes or table is JOBS:
        return ()
    document = loads(cast("str", row))
    return tuple(document_key(index, id, document) for index in table.indexes)


def key_in(table: Table, index: Index | None, id: int, row: Row) -> bytes:
    """Return the key of a row in an index; None is the index by creation time."""
    return b"".join(map(encode, values_in(index, row))) + encode_id(id)


def values_in(index: Index | None, row: Row) -> tuple[object, ...]:
    """Return the values of a row that an index sorts by, before its id."""
    if index is None:
        return ()
    if isinstance(row, Job):
        return tuple(getattr(row, _JOB_FIELDS[path]) for path in index.fields)
    document = loads(row)
    return tuple(field_of(document, path) for path in index.fields)


def document_key(index: Index, id: int, document: dict[str, object]) -> bytes:
    """Return the key of a document in an index. Raises LimitError if an engine could not store so long a key."""
    key = b"".join([encode(field_of(document, path)) for path in index.fields]) + encode_id(id)
    if len(key) > INDEX_KEY_BYTES_MAX:
        raise LimitError(
            f"the values of a document in index {index.name!r} ({', '.join(index.fields)}) take {len(key):,} bytes,"
            f" expected at most {INDEX_KEY_BYTES_MAX:,} (INDEX_KEY_BYTES_MAX); index a shorter field, such as a hash"
        )
    return key


def index_name(index: Index | None) -> str:
    """Return the name of an index in queries and read sets; None is the index by creation time."""
    return BY_CREATION_TIME if index is None else index.name


def index_named(table: Table, name: str) -> Index | None:
    """Return the index of a name; None for the index by creation time. Raises KeyError if there is none."""
    if name == BY_CREATION_TIME:
        return None
    index = table.index(name)
    if index is None:
        raise KeyError(name)
    return index
