"""The address of a store in PostgreSQL."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from duly.errors import StoreError

_PREFIXES: Final = ("postgresql://", "postgres://")
SCHEMA: Final = "duly"
"""The schema if the address names none."""

_schema = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_control = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPED: Final = "/ ? # @ [ ] % in a user or a password as %2F %3F %23 %40 %5B %5D %25"


class Address(NamedTuple):
    """Where a store is: `postgresql://user:password@host:port/database?schema=duly`.

    Any option that asyncpg knows may be given as well, such as `sslmode`.
    """

    dsn: str
    """The address for asyncpg."""
    schema: str
    listen: str
    """The address for notifications: the same, unless `?listen=host:port` bypasses a pooler."""

    @property
    def lock(self) -> int:
        """The key of the advisory lock of this store in its database."""
        return int.from_bytes(hashlib.blake2b(f"duly {self.schema}".encode(), digest_size=8).digest(), signed=True)

    @property
    def redacted(self) -> str:
        """The address without its password."""
        return redacted(self.dsn)


def redacted(dsn: str) -> str:
    """Return an address without its user, password and options, even if it is malformed."""
    scheme, _, rest = dsn.partition(":")
    rest = rest.removeprefix("//")  # urlunsplit leaves it out if there is no host
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    if rest.count("@") != place.partition("/")[0].count("@"):  # an unescaped password looks as if it ended before its @
        place = re.split(r"[?#&]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}://{place.rpartition('@')[2]}"


def is_postgres(store: str) -> bool:
    """Return whether a store is in PostgreSQL."""
    return store.startswith(_PREFIXES)


def require_driver() -> None:
    """Raise StoreError if the driver, which is an extra, is not installed."""
    if find_spec("asyncpg") is None:
        raise StoreError("got a store in PostgreSQL, expected its driver too; run pip install asyncpg")


def has_schema(store: str) -> bool:
    """Return whether an address names a schema. Raises StoreError if it is malformed."""
    return "schema" in _parts(store)[1]


def with_schema(store: str, schema: str) -> str:
    """Add a schema to an address that names none."""
    return f"{store}{'&' if urlsplit(store).query else '?'}schema={schema}"


def parse(store: str) -> Address:
    """Parse the address of a store. Raises StoreError, without the password, if it is malformed."""
    parts, options = _parts(store)
    schema, listen = options.pop("schema", SCHEMA), options.pop("listen", "")
    if not _schema.fullmatch(schema):
        raise _wrong(store, f"the schema {schema!r}", "at most 48 lower-case letters, digits and _")
    encoding = options.pop("client_encoding", "UTF8")
    if encoding.lower().replace("-", "") not in ("utf8", "unicode"):
        raise _wrong(store, f"client_encoding={encoding}", "UTF8, which is that of all documents")
    dsn = urlunsplit(parts._replace(query=urlencode(options)))
    if "@" in listen or not _has_port(listen):
        raise _wrong(store, f"listen={listen.rpartition('@')[2]}", "host:port, without a user and a password")
    user = parts.netloc.rpartition("@")[0]
    there = parts._replace(netloc=f"{user}@{listen}" if user else listen, query=urlencode(options))
    return Address(dsn, schema, urlunsplit(there) if listen else dsn)


def _parts(store: str) -> tuple[SplitResult, dict[str, str]]:
    """Split an address into its parts and its options."""
    if _control.search(store) or "%00" in store:
        wanted = "none; the file or the variable that it comes from may end with one"
        raise _wrong(store, "an address with a line break or another control character", wanted)
    try:
        parts = urlsplit(store)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
    except ValueError:  # its text may contain the password
        wanted = f"brackets around IPv6 addresses only, options as ?name=value&name=value, and {_ESCAPED}"
        raise _wrong(store, "an address that cannot be read", wanted) from None
    user, _, hosts = parts.netloc.rpartition("@")
    if "@" in user:
        raise _wrong(store, "an address with more than one @", f"one, before the host; {_ESCAPED}")
    if "@" in parts.path or parts.fragment or not all(map(_has_port, hosts.split(","))):
        wanted = f"host:port with a port below 65,536, and {_ESCAPED}"
        raise _wrong(store, "an address with ambiguous parts", wanted)
    return parts, options


def _has_port(host: str) -> bool:
    """Return whether a host has no port, or a valid one."""
    port = host.rpartition("]")[2].partition(":")[2]
    return not port or (port.isascii() and port.isdigit() and int(port) < 1 << 16)


def _wrong(store: str, got: str, expected: str) -> StoreError:
    return StoreError(f"{_control.sub('', redacted(store))}: got {got}, expected {expected}")
