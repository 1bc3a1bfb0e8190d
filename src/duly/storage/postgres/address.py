"""The address of a store in PostgreSQL."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from duly.errors import StoreError

PREFIXES: Final = ("postgresql://", "postgres://")
SCHEMA: Final = "duly"
"""The schema of a store whose address names none."""

_schema = re.compile(r"[a-z_][a-z0-9_]{0,47}")


class Address(NamedTuple):
    """Where a store is: `postgresql://user:password@host:port/database?schema=duly`.

    All that asyncpg understands may be given, too, such as `sslmode`.
    """

    dsn: str
    """What asyncpg gets."""
    schema: str
    listen: str
    """Where hints are listened for: the same, unless `?listen=host:port` goes around a pooler."""

    @property
    def lock(self) -> int:
        """The key of the advisory lock of this store in its database."""
        return int.from_bytes(hashlib.blake2b(f"duly {self.schema}".encode(), digest_size=8).digest(), signed=True)

    @property
    def shown(self) -> str:
        """The address without its password."""
        return shown(self.dsn)


def shown(dsn: str) -> str:
    """An address that may be seen: without its user, password and options."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def need_driver() -> None:
    """Raise a StoreError that says what to do where the driver is not installed, which is an extra."""
    if find_spec("asyncpg") is None:
        raise StoreError("got a store in PostgreSQL, expected its driver too; run pip install asyncpg")


def names_schema(store: str) -> bool:
    """Whether an address says in which schema the store is."""
    return "schema" in dict(parse_qsl(urlsplit(store).query))


def with_schema(store: str, schema: str) -> str:
    """The same address with a schema; it names none yet."""
    return f"{store}{'&' if urlsplit(store).query else '?'}schema={schema}"


def parse(store: str) -> Address:
    try:
        parts = urlsplit(store)
    except ValueError as error:
        raise StoreError(f"got a store's address that cannot be read: {error}") from error
    options = dict(parse_qsl(parts.query))
    schema, listen = options.pop("schema", SCHEMA), options.pop("listen", "")
    if not _schema.fullmatch(schema):
        raise StoreError(
            f"got the schema {schema!r} in the store's address, expected at most 48 lower-case letters, digits and _"
        )
    dsn = urlunsplit(parts._replace(query=urlencode(options)))
    user = parts.netloc.rpartition("@")[0]
    there = parts._replace(netloc=f"{user}@{listen}" if user else listen, query=urlencode(options))
    return Address(dsn, schema, urlunsplit(there) if listen else dsn)
