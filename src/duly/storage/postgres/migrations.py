"""The tables and functions of duly in a database. Each version is a set of SQL files, applied in one transaction.

A version only adds. The functions of older versions stay, with the version in their name, so that older nodes keep
running after a newer one has migrated the store.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

from duly.errors import StoreError
from duly.limits import CONNECT_SECONDS, MIGRATION_SECONDS, NODE_LOG_COMMITS_MAX
from duly.storage.postgres.address import Address
from duly.storage.postgres.connection import BlockingConnection
from duly.values.ids import SECRET_BYTES

FORMAT: Final = 2
"""The newest version, which this duly creates and needs."""


def format_of(connection: BlockingConnection, address: Address) -> int:
    """Return the version of a store; 0 if there is none."""
    if not connection.fetch(_STORE, address.schema):
        return 0
    version: int = connection.fetch(f"SELECT format FROM {address.schema}.store")[0][0]
    return version


def pending_versions(connection: BlockingConnection, address: Address) -> list[int]:
    """Return the versions that a store lacks, in the order in which they are applied."""
    return list(range(format_of(connection, address) + 1, FORMAT + 1))


def migrate(connection: BlockingConnection, address: Address) -> None:
    """Apply the versions that a store lacks. Other nodes may do the same at the same time, and keep running."""
    check_settings(connection)
    if not pending_versions(connection, address):
        return
    # One transaction: an interrupted migration leaves nothing behind. The lock lets only one of several nodes migrate.
    connection.execute(f"BEGIN; SELECT pg_advisory_xact_lock({address.lock})", MIGRATION_SECONDS)
    try:
        for version in pending_versions(connection, address):
            connection.execute(sql_of(version, address), MIGRATION_SECONDS)
        connection.execute("COMMIT", MIGRATION_SECONDS)
    except BaseException:
        connection.discard()
        raise


def exists(address: Address) -> bool:
    with _connected(address) as connection:
        return format_of(connection, address) > 0


def plan(address: Address) -> list[str]:
    """Return what `migrate_store` would do, one line per step."""
    with _connected(address) as connection:
        check_settings(connection)
        lacking = pending_versions(connection, address)
    if not lacking:
        return [f"{address.redacted}, schema {address.schema}: nothing to do"]
    return [f"{address.redacted}, schema {address.schema}: apply format {version}" for version in lacking]


def migrate_store(address: Address) -> None:
    """Migrate a store that is not open."""
    with _connected(address) as connection:
        migrate(connection, address)
        check_format(connection, address)


def drop(address: Address) -> None:
    """Remove a store and everything in it. No process may have it open."""
    with _connected(address) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {address.schema} CASCADE")


@contextmanager
def _connected(address: Address) -> Generator[BlockingConnection]:
    """Connect for a while. Errors name the address."""
    connection = BlockingConnection(address.dsn, CONNECT_SECONDS, MIGRATION_SECONDS)
    try:
        yield connection
    except StoreError as error:
        raise type(error)(f"{address.redacted}: {error}") from error
    finally:
        connection.close()


def check_settings(connection: BlockingConnection) -> None:
    """Raise StoreError if the database cannot hold every text, or reads escape sequences in the texts of duly."""
    [(encoding, conforming)] = connection.fetch(_SETTINGS)
    if encoding != "UTF8":
        raise StoreError(
            f"got a database whose encoding is {encoding}, expected UTF8, for a document may hold any text: make"
            " another one, CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )
    if conforming != "on":
        raise StoreError(
            f"got standard_conforming_strings = {conforming}, expected on, which is PostgreSQL's own default: see"
            " what sets it, postgresql.conf, the database, the role or the address"
        )


def check_format(connection: BlockingConnection, address: Address) -> None:
    [(needs,)] = connection.fetch(f"SELECT needs FROM {address.schema}.store")
    if needs > FORMAT:
        raise StoreError(f"got a store that needs format {needs}, expected at most {FORMAT}; use a newer duly")


def sql_of(version: int, address: Address) -> str:
    """Return the statements that turn a store of the previous version into one of this version."""
    folder = files("duly.storage.postgres")
    parts = [folder.joinpath(f"{version}_{part}.sql") for part in ("tables", "functions")]
    text = "\n".join(part.read_text() for part in parts if part.is_file())
    for mark, value in (
        ("duly.", f"{address.schema}."),
        ("$lock", str(address.lock)),
        ("$channel", channel(address)),
        ("$kept", str(NODE_LOG_COMMITS_MAX)),
    ):
        text = text.replace(mark, value)
    first = _FIRST.format(schema=address.schema) if version == 1 else ""
    last = _LAST.format(schema=address.schema, secret=secrets.token_hex(SECRET_BYTES)) if version == 1 else ""
    return f"{first}{text}{last}; UPDATE {address.schema}.store SET format = {version}"


def channel(address: Address) -> str:
    """Return the channel of notifications about commits."""
    return f"duly_{address.schema}"


_SETTINGS: Final = "SELECT current_setting('server_encoding'), current_setting('standard_conforming_strings')"
# Not to_regclass: within a transaction its answer may be out of date, even if another node has created the store.
# Not the view pg_tables: planning it takes a new connection longer than all the rest.
_STORE: Final = """
SELECT FROM pg_catalog.pg_class AS relation JOIN pg_catalog.pg_namespace AS schema ON schema.oid = relation.relnamespace
WHERE schema.nspname = $1 AND relation.relname = 'store' AND relation.relkind = 'r'"""
# Not IF NOT EXISTS: this needs the right to create schemas, even if the schema is there already.
_FIRST: Final = "DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; END $$;\n"
_LAST: Final = """
INSERT INTO {schema}.store (format, secret) VALUES (0, '\\x{secret}');
INSERT INTO {schema}.log VALUES (0, 0, 0, NULL, false, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"""
