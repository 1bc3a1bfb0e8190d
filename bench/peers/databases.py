"""Where the other systems keep their jobs: databases of a PostgreSQL server, or SQLite files of a folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import asyncpg

ID = {"postgres": "bigserial PRIMARY KEY", "sqlite": "integer PRIMARY KEY"}
COUNTERS = {
    "postgres": "SELECT n, 0 FROM generate_series(0, 999) n",
    "sqlite": "WITH RECURSIVE n (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM n LIMIT 1000) SELECT n, 0 FROM n",
}
TABLES = (
    "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)",
    "INSERT INTO counters {counters}",
    "CREATE TABLE events (id {id}, job int NOT NULL, counter int NOT NULL)",
)
WRITTEN = """
    SELECT (SELECT sum(n) FROM counters) AS counted, count(*) AS events, count(DISTINCT job) AS jobs FROM events
"""


class Open(Protocol):
    """A database that is asked what is in it, beside those who work on it."""

    async def is_unfinished(self, sql: str) -> bool:
        """Whether jobs are left, which the SQL tells."""
        ...

    async def written(self) -> Mapping[str, int]:
        """What jobs have written."""
        ...

    async def settle(self) -> None:
        """Have it written out what there is, so that it is not while something is measured."""
        ...


class Databases(Protocol):
    def address(self, name: str) -> str: ...

    async def create(self, name: str, like: str | None = None) -> None:
        """Make it, in place of one that is there: with the tables of the jobs that write, or as a copy."""
        ...

    async def drop(self, name: str) -> None: ...

    def opened(self, name: str) -> AbstractAsyncContextManager[Open]: ...


# PostgreSQL.


class PostgresDatabases:
    def __init__(self, address: str) -> None:
        self._server = address

    def address(self, name: str) -> str:
        server = urlsplit(self._server)
        return f"postgresql://{server.netloc}/{name}?{server.query}"

    async def create(self, name: str, like: str | None = None) -> None:
        async with _connected(self._server) as server:
            await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await server.execute(f"CREATE DATABASE {name} TEMPLATE {like or 'template0'}")
        if like is None:
            async with _connected(self.address(name)) as connection:
                for sql in TABLES:
                    await connection.execute(sql.format(id=ID["postgres"], counters=COUNTERS["postgres"]))

    async def drop(self, name: str) -> None:
        async with _connected(self._server) as server:
            await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Open]:
        async with _connected(self.address(name)) as connection:
            yield _OpenPostgres(connection)


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    import asyncpg

    connection = await asyncpg.connect(address)
    try:
        yield connection
    finally:
        await connection.close()


class _OpenPostgres:
    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def is_unfinished(self, sql: str) -> bool:
        return bool(await self._connection.fetchval(sql))

    async def written(self) -> Mapping[str, int]:
        found = await self._connection.fetchrow(WRITTEN)
        assert found is not None
        return found

    async def settle(self) -> None:
        await self._connection.execute("CHECKPOINT")


# SQLite.


class SqliteDatabases:
    """Each is a folder: `queue.db` is the system's own, `data.db` what jobs write, as durable as with duly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self, name: str) -> str:
        return str(self._folder / name)

    async def create(self, name: str, like: str | None = None) -> None:
        await self.drop(name)
        if like is not None:
            shutil.copytree(self.address(like), self.address(name))
            return
        os.mkdir(self.address(name))
        with closing(sqlite3.connect(f"{self.address(name)}/data.db")) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")
            for sql in TABLES:
                connection.execute(sql.format(id=ID["sqlite"], counters=COUNTERS["sqlite"]))

    async def drop(self, name: str) -> None:
        shutil.rmtree(self.address(name), ignore_errors=True)

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Open]:
        with closing(sqlite3.connect(f"{self.address(name)}/queue.db", isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("ATTACH ? AS data", (f"{self.address(name)}/data.db",))
            yield _OpenSqlite(connection)


class _OpenSqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def is_unfinished(self, sql: str) -> bool:
        [(is_unfinished,)] = self._connection.execute(sql).fetchall()
        return bool(is_unfinished)

    async def written(self) -> Mapping[str, int]:
        return dict(self._connection.execute(WRITTEN).fetchone())

    async def settle(self) -> None: ...
