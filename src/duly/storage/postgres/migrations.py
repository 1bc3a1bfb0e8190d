"""The tables and functions of duly in a database, in versions: each is one file of SQL, applied in one transaction.

A version only adds. The functions of older ones stay, with their number in their name, so that nodes of the version
before go on while a newer one has migrated the store.
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

FORMAT: Final = 1
"""The newest version of the layout, which this duly makes and needs."""


def format_of(link: BlockingConnection, address: Address) -> int:
    """The version a store has; 0 where there is none."""
    if not link.fetch(_STORE, address.schema):
        return 0
    version: int = link.fetch(f"SELECT format FROM {address.schema}.store")[0][0]
    return version


def missing(link: BlockingConnection, address: Address) -> list[int]:
    """The versions that a store lacks, to be applied in this order."""
    return list(range(format_of(link, address) + 1, FORMAT + 1))


def migrate(link: BlockingConnection, address: Address) -> None:
    """Give a store what it lacks. Others may do the same at the same time, and work on meanwhile."""
    check_settings(link)
    if not missing(link, address):
        return
    # One transaction: what is interrupted leaves nothing behind. Of several that come at once, one does it.
    link.execute(f"BEGIN; SELECT pg_advisory_xact_lock({address.lock})", MIGRATION_SECONDS)
    try:
        for version in missing(link, address):
            link.execute(sql_of(version, address), MIGRATION_SECONDS)
        link.execute("COMMIT", MIGRATION_SECONDS)
    except BaseException:
        link.drop()
        raise


def exists(address: Address) -> bool:
    with _linked(address) as link:
        return format_of(link, address) > 0


def plan(address: Address) -> list[str]:
    """What `migrate_store` would do, a line each."""
    with _linked(address) as link:
        check_settings(link)
        lacking = missing(link, address)
    if not lacking:
        return [f"{address.redacted}, schema {address.schema}: nothing to do"]
    return [f"{address.redacted}, schema {address.schema}: apply format {version}" for version in lacking]


def migrate_store(address: Address) -> None:
    """Migrate a store that is not open."""
    with _linked(address) as link:
        migrate(link, address)
        check_format(link, address)


def drop(address: Address) -> None:
    """Remove a store with all that it holds. Nobody may have it open."""
    with _linked(address) as link:
        link.execute(f"DROP SCHEMA IF EXISTS {address.schema} CASCADE")


@contextmanager
def _linked(address: Address) -> Generator[BlockingConnection]:
    """A connection, in whose errors the address stands."""
    link = BlockingConnection(address.dsn, CONNECT_SECONDS, MIGRATION_SECONDS)
    try:
        yield link
    except StoreError as error:
        raise type(error)(f"{address.redacted}: {error}") from error
    finally:
        link.close()


def check_settings(link: BlockingConnection) -> None:
    """StoreError where the database could not hold every text, or takes a text of duly's for another."""
    [(encoding, conforming)] = link.fetch(_SETTINGS)
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


def check_format(link: BlockingConnection, address: Address) -> None:
    [(needs,)] = link.fetch(f"SELECT needs FROM {address.schema}.store")
    if needs > FORMAT:
        raise StoreError(f"got a store that needs format {needs}, expected at most {FORMAT}; use a newer duly")


def sql_of(version: int, address: Address) -> str:
    """What makes a store of the version before one of this version."""
    text = files("duly.storage.postgres").joinpath(f"{version}.sql").read_text()
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
    """Where nodes tell each other that there is news."""
    return f"duly_{address.schema}"


_SETTINGS: Final = "SELECT current_setting('server_encoding'), current_setting('standard_conforming_strings')"
# Not to_regclass: within a transaction it may answer what was so before, also when another has made a store meanwhile.
# Not the view pg_tables: to plan it takes a new connection longer than all the rest.
_STORE: Final = """
SELECT FROM pg_catalog.pg_class AS relation JOIN pg_catalog.pg_namespace AS schema ON schema.oid = relation.relnamespace
WHERE schema.nspname = $1 AND relation.relname = 'store' AND relation.relkind = 'r'"""
# Not IF NOT EXISTS: that asks for the right to create schemas, though somebody else has created this one.
_FIRST: Final = "DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; END $$;\n"
_LAST: Final = """
INSERT INTO {schema}.store (format, secret) VALUES (0, '\\x{secret}');
INSERT INTO {schema}.log VALUES (0, 0, 0, NULL, false, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"""
