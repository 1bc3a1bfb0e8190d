"""The tables and indexes of an application in PostgreSQL: a table has (id, document) rows, an index (key, id) rows."""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from duly.storage.postgres.connection import BlockingConnection
from duly.storage.rows import SYSTEM_TABLES
from duly.values.schema.tables import Index, Table

_NAME_LENGTH_MAX: Final = 63  # PostgreSQL truncates longer names; the number keeps them unique


def table_name(table: Table) -> str:
    return f"t{table.number}_{table.name}"[:_NAME_LENGTH_MAX]


def index_name(index: Index) -> str:
    return f"i{index.number}_{index.name}"[:_NAME_LENGTH_MAX]


def read(connection: BlockingConnection, schema: str) -> tuple[Table, ...]:
    """Return all tables, with their indexes."""
    indexes: dict[int, list[Index]] = {}
    for number, table, name, fields, ready in connection.fetch(_GET_INDEXES.format(schema=schema)):
        indexes.setdefault(table, []).append(Index(name, number, tuple(orjson.loads(fields)), ready))
    return (
        *SYSTEM_TABLES.values(),
        *(
            Table(name, number, tuple(indexes.get(number, ())), declared)
            for number, name, declared in connection.fetch(_GET_TABLES.format(schema=schema))
        ),
    )


def create(connection: BlockingConnection, schema: str, table: Table) -> None:
    connection.execute(_CREATE_TABLE.format(schema=schema, table=table_name(table)))
    connection.fetch(_INSERT_TABLE.format(schema=schema), table.number, table.name, table.declared)


def declare(connection: BlockingConnection, schema: str, table: Table) -> None:
    connection.fetch(_DECLARE_TABLE.format(schema=schema), table.declared, table.number)


def create_index(connection: BlockingConnection, schema: str, table: Table, index: Index) -> None:
    connection.execute(_CREATE_INDEX.format(schema=schema, index=index_name(index)))
    fields = orjson.dumps(index.fields).decode()
    connection.fetch(_INSERT_INDEX.format(schema=schema), index.number, table.number, index.name, fields, index.ready)


def fill_index(connection: BlockingConnection, schema: str, index: Index, keys: Iterable[tuple[bytes, int]]) -> None:
    pairs = list(keys)
    sql = _FILL_INDEX.format(schema=schema, index=index_name(index))
    connection.fetch(sql, [key for key, _ in pairs], [id for _, id in pairs])


def finish_index(connection: BlockingConnection, schema: str, index: Index) -> None:
    connection.fetch(_FINISH_INDEX.format(schema=schema), index.number)


def drop_index(connection: BlockingConnection, schema: str, index: Index) -> None:
    connection.execute(_DROP_INDEX.format(schema=schema, index=index_name(index)))
    connection.fetch(_DELETE_INDEX.format(schema=schema), index.number)


def deploys(connection: BlockingConnection, schema: str) -> list[str]:
    return [mark for (mark,) in connection.fetch(_GET_DEPLOYS.format(schema=schema))]


def newest(connection: BlockingConnection, schema: str) -> tuple[int, int, int]:
    """Return the version of the store, the last id, and the last version that changed its tables."""
    [row] = connection.fetch(
        f"SELECT version, last_id, (SELECT reshaped FROM {schema}.store) FROM {schema}.log"
        " ORDER BY version DESC LIMIT 1"
    )
    return row[0], row[1], row[2]


def newest_deploy(connection: BlockingConnection, schema: str) -> str:
    return (deploys(connection, schema) or [""])[-1]


def deploy(connection: BlockingConnection, schema: str, mark: str) -> None:
    connection.fetch(_DEPLOY.format(schema=schema), mark)


# SQL.

_GET_DEPLOYS: Final = "SELECT mark FROM {schema}.deploys ORDER BY number"
_DEPLOY: Final = """
INSERT INTO {schema}.deploys (mark, number) SELECT $1, coalesce(max(number), 0) + 1 FROM {schema}.deploys
ON CONFLICT (mark) DO UPDATE SET number = excluded.number
"""
_GET_TABLES: Final = "SELECT number, name, declared FROM {schema}.tables ORDER BY number"
_GET_INDEXES: Final = "SELECT number, table_number, name, fields, ready FROM {schema}.indexes ORDER BY number"
_CREATE_TABLE: Final = 'CREATE TABLE {schema}."{table}" (id bigint PRIMARY KEY, document text NOT NULL)'
_INSERT_TABLE: Final = "INSERT INTO {schema}.tables (number, name, declared) VALUES ($1, $2, $3)"
_DECLARE_TABLE: Final = "UPDATE {schema}.tables SET declared = $1 WHERE number = $2"
_CREATE_INDEX: Final = 'CREATE TABLE {schema}."{index}" (key bytea PRIMARY KEY, id bigint NOT NULL)'
_INSERT_INDEX: Final = (
    "INSERT INTO {schema}.indexes (number, table_number, name, fields, ready) VALUES ($1, $2, $3, $4, $5)"
)
_FILL_INDEX: Final = """
INSERT INTO {schema}."{index}" (key, id) SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING
"""
_FINISH_INDEX: Final = "UPDATE {schema}.indexes SET ready = true WHERE number = $1"
_DROP_INDEX: Final = 'DROP TABLE {schema}."{index}"'
_DELETE_INDEX: Final = "DELETE FROM {schema}.indexes WHERE number = $1"
