"""One connection to PostgreSQL for one thread, which waits for each answer."""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]  # an extra, without types for mypy

from duly.errors import StoreError, StoreLostError
from duly.storage.conflicts import Conflict

T = TypeVar("T")

_LOST: Final = ("08", "57P", "53300", "25P03", "25P04", "25006", "57014")
"""SQLSTATEs after which the connection is of no use: it broke, the server stops, there are too many, …

So it is when a table has changed that a statement was prepared for: another duly migrates the store.
"""
_ARRAYS: Final = {
    1000: ("bool", 16),
    1001: ("bytea", 17),
    1007: ("int4", 23),
    1016: ("int8", 20),
    1022: ("float8", 701),
}
"""The arrays that are sent or answered, by the OID of their type, the same on every server: what they hold, its OID."""
_UNPREPARED: Final = ("26000", "42P05")
"""Those of a statement that was prepared on another connection: a pooler has changed it meanwhile."""
_CONFLICTS: Final = ("40001", "40P01", "55P03")
"""Those of what another node has done meanwhile, or is about to do, such as to keep the lock for long."""


class _Connection(asyncpg.Connection):  # type: ignore[misc, unused-ignore]  # of no type for mypy
    """One that knows the arrays that are used here.

    asyncpg asks the server for each, anew on every connection, by a statement that takes longer than all others of a
    start together (its issue 1272). An asyncpg that does not come by here asks as ever.
    """

    async def _introspect_types(self, typeoids: Iterable[int], timeout: Any) -> Any:  # noqa: ASYNC109
        if not _ARRAYS.keys() >= set(typeoids):
            return await super()._introspect_types(typeoids, timeout)
        # In place of the statement that asks: nothing has to be prepared anew because of it.
        return [_array(oid, *_ARRAYS[oid]) for oid in typeoids], SimpleNamespace(name="none")


def _array(oid: int, element: str, element_oid: int) -> dict[str, Any]:
    array = {"oid": oid, "ns": "pg_catalog", "name": f"_{element}", "kind": b"b"}
    holds = {"elemtype": element_oid, "elemtype_name": element, "elemdelim": ","}
    return {**array, **holds, "basetype": None, "range_subtype": None, "attrtypoids": None, "attrnames": None}


class BlockingConnection:
    """A connection that is made when it is needed, and again after it was lost.

    Whatever goes wrong in a way that nobody expected, the connection is thrown away: what is left on the wire or
    open on the server would be taken for the answer to the next question.
    """

    def __init__(self, dsn: str, connect_seconds: float, answer_seconds: float) -> None:
        self._dsn = dsn
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: asyncpg.Connection | None = None
        self.connections = 0
        """How many there have been, one after the other."""
        self._sent: asyncio.Task[list[Any]] | None = None
        self._within = False
        """Whether a transaction was open after the last statement: then another connection is no substitute."""

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    def connect(self) -> None:
        """Make the connection now. StoreLostError where there can be none."""
        self._connected()

    def fetch(self, sql: str, *values: object) -> list[Any]:
        """The rows of one statement. StoreLostError, Conflict or StoreError."""
        return self._run(lambda connection: connection.fetch(sql, *values, timeout=self._answer_seconds))

    def execute(self, sql: str, answer_seconds: float | None = None) -> None:
        """Run statements, several of them in one go, without values and without rows."""
        seconds = self._answer_seconds if answer_seconds is None else answer_seconds
        self._run(lambda connection: connection.execute(sql, timeout=seconds))

    def send(self, sql: str, *values: object) -> None:
        """Send one statement and leave it at that; the next call must be `answer`."""
        connection = self._connected()
        self._sent = self._own_loop().create_task(connection.fetch(sql, *values, timeout=self._answer_seconds))
        self._await(asyncio.sleep(0))  # in this turn it is written, as far as the socket takes it

    def answer(self) -> list[Any]:
        """The rows of the statement that was sent."""
        sent, self._sent = self._sent, None
        assert sent is not None
        return self._run(lambda _: sent, self._connection)

    def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Have `heard` called with what comes while this thread waits for an answer, or in `wait`."""
        self._run(lambda connection: connection.add_listener(channel, lambda *message: heard(message[-1])))

    def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until an event, which `heard` may set, or for some time."""
        with suppress(TimeoutError):
            self._await(asyncio.wait_for(event.wait(), seconds))

    def soon(self, act: Callable[[], None]) -> None:
        """Have something done in the thread of this link while it waits; from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(act)

    def drop(self) -> None:
        """Throw the connection away."""
        self._within = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
            self._await(asyncio.sleep(0))  # the transport closes in the loop

    def close(self) -> None:
        """Say good-bye. The link may be used again."""
        self._within = False
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with suppress(Exception):
                self._await(connection.close(timeout=1.0))
        if self._loop is not None:
            self._await(asyncio.sleep(0))
            self._loop.close()
            self._loop = None

    def _await(self, awaitable: Awaitable[T]) -> T:
        return self._own_loop().run_until_complete(awaitable)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def _connected(self) -> asyncpg.Connection:
        """The connection, another one if it is lost."""
        if not self.is_connected:
            within = self._within
            self.drop()
            if within:
                raise StoreLostError("PostgreSQL gave no answer: the connection was lost within a transaction")
            self._connection = self._connect()
            self.connections += 1
        assert self._connection is not None
        return self._connection

    def _run(
        self, ask: Callable[[asyncpg.Connection], Awaitable[T]], connection: asyncpg.Connection | None = None
    ) -> T:
        connection = connection or self._connected()
        try:
            answer = self._await(ask(connection))
            self._within = connection.is_in_transaction()
            return answer
        except asyncpg.PostgresError as error:
            code = str(getattr(error, "sqlstate", ""))
            if code in _CONFLICTS:
                raise Conflict(str(error)) from error
            if code.startswith(_LOST) or isinstance(error, asyncpg.InvalidCachedStatementError):
                self.drop()
                raise StoreLostError(f"PostgreSQL gave no answer: {error}") from error
            if code in _UNPREPARED:
                self.drop()
                raise StoreError(
                    "got a pooler that forgets prepared statements, expected PgBouncer 1.21 or newer with"
                    " max_prepared_statements above 0, or one in session mode"
                ) from error
            if isinstance(error, asyncpg.InterfaceError):
                self.drop()  # a value that cannot be sent leaves the server within a statement
            raise StoreError(f"PostgreSQL refused a statement: {error}") from error
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self.drop()
            raise StoreLostError(f"PostgreSQL gave no answer: {_why(error, self._answer_seconds)}") from error
        except BaseException:
            self.drop()
            raise

    def _connect(self) -> asyncpg.Connection:
        options: dict[str, Any] = {"timeout": self._connect_seconds, "statement_cache_size": 256}
        connecting = asyncpg.connect(self._dsn, connection_class=_Connection, **options)
        try:
            return self._await(connecting)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreLostError(f"PostgreSQL cannot be reached: {_why(error, self._connect_seconds)}") from error
        except (ValueError, OverflowError) as error:
            raise StoreError(f"PostgreSQL cannot be reached, its address is wrong: {error}") from error


def _why(error: Exception, seconds: float) -> str:
    """What an error says, which may be nothing."""
    return str(error) or (f"nothing within {seconds:g} s" if isinstance(error, TimeoutError) else type(error).__name__)
