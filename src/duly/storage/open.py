"""The engine for the address of a store."""

from __future__ import annotations

import re
from typing import Final

from duly.errors import StoreError
from duly.limits import DEFAULTS, Limits
from duly.storage.engine import Engine
from duly.storage.postgres.address import is_postgres, parse, redacted, require_driver
from duly.storage.sqlite.engine import SqliteEngine
from duly.storage.sqlite.ownership import COMPANION_SUFFIXES


def engine_of(store: str, limits: Limits = DEFAULTS, executes: bool = True) -> Engine:
    """Return the storage engine for an address. Raises StoreError if the address is malformed."""
    if not isinstance(store, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StoreError(f"got the store {store!r:.80} ({type(store).__name__}), expected {_STORES}")
    if is_postgres(store):
        require_driver()
        from duly.storage.postgres.engine import PostgresEngine  # it needs asyncpg, an extra

        return PostgresEngine(parse(store), limits, executes)
    return SqliteEngine(sqlite_path(store))


def sqlite_path(store: str) -> str:
    """Return the file of a `sqlite:///` address."""
    prefix = "sqlite:///"
    path = store.removeprefix(prefix)
    if not store.startswith(prefix) or not path:
        raise StoreError(f"got the store {redacted(store) if '://' in store else store!r}, expected {_STORES}")
    for mistake, expected in _MISTAKES:
        if mistake.search(path):
            raise StoreError(f"got the store {store!r}, {expected}")
    return path


_MISTAKES: Final = tuple(
    (re.compile(pattern), expected)
    for pattern, expected in (
        ("^:memory:", "expected a file, which several threads open; in tests, use Harness"),
        ("^file:", "expected a path after sqlite:///, such as sqlite:///app.db: it is no URI of a file"),
        ("^~", "expected a path: ~ is not replaced by your home; write it out, or use os.path.expanduser"),
        (r"[?#]", "expected a path alone: it takes no options, and the name of a store has no ? or #"),
        (r"[\0\ud800-\udfff]", "expected a path without NUL and other characters that no file name has"),
        ("/$", "expected a file, not a folder: name one in it, such as sqlite:///data/app.db"),
        (
            f"({'|'.join(COMPANION_SUFFIXES)})$",
            "expected a store: such files belong to the store next to them",
        ),
    )
)
"""Mistakes that look like a path and would make an unexpected file, or none."""
_STORES: Final = (
    "sqlite:///relative/path.db, sqlite:////absolute/path.db or postgresql://user:password@host:port/database"
)
