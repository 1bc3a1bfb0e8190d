"""One connection to PostgreSQL for one thread, which blocks until each answer is there.

asyncpg is made for asyncio. A `BlockingConnection` has an event loop of its own, which runs while its thread waits for
an answer, and at no other time.
"""

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

_FATAL_STATES: Final = ("08", "57P", "53300", "25P03", "25P04", "25006", "57014")
"""SQLSTATEs after which the connection is useless: it broke, the server shuts down, there are too many of them, …

A table that has changed under a prepared statement has the same effect: a newer duly is migrating the store.
"""
_ARRAYS: Final = {
    1000: ("bool", 16),
    1001: ("bytea", 17),
    1007: ("int4", 23),
    1016: ("int8", 20),
    1022: ("float8", 701),
}
"""The arrays sent or received, by the OID of their type: element and its OID. All servers use the same OIDs."""
_POOLER_STATES: Final = ("26000", "42P05")
"""SQLSTATEs of a statement that was prepared on another connection: a pooler has switched connections meanwhile."""
_CONFLICT_STATES: Final = ("40001", "40P01", "55P03")
"""SQLSTATEs that another node causes: it has changed something meanwhile, or it holds the lock for long, say."""


class _Connection(asyncpg.Connection):  # type: ignore[misc, unused-ignore]  # of no type for mypy
    """A connection that knows the array types used here.

    asyncpg asks the server for each array type, again on every connection. This takes longer than all other statements
    of a start together (asyncpg issue 1272). A version of asyncpg without this method asks as usual.
    """

    async def _introspect_types(self, typeoids: Iterable[int], timeout: Any) -> Any:  # noqa: ASYNC109
        if not _ARRAYS.keys() >= set(typeoids):
            return await super()._introspect_types(typeoids, timeout)
        # The second value replaces the statement of that query: with this name, asyncpg prepares nothing again.
        return [_array(oid, *_ARRAYS[oid]) for oid in typeoids], SimpleNamespace(name="none")


def _array(oid: int, element: str, element_oid: int) -> dict[str, Any]:
    array = {"oid": oid, "ns": "pg_catalog", "name": f"_{element}", "kind": b"b"}
    holds = {"elemtype": element_oid, "elemtype_name": element, "elemdelim": ","}
    return {**array, **holds, "basetype": None, "range_subtype": None, "attrtypoids": None, "attrnames": None}


class BlockingConnection:
    """A connection that is made when it is first used, and again after it was lost.

    After any unexpected error the connection is discarded. Otherwise an answer that is still on the wire would be read
    as the answer to the next statement, or the next statement would run in a transaction that is still open.
    """

    def __init__(self, dsn: str, connect_seconds: float, answer_seconds: float) -> None:
        self._dsn = dsn
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: asyncpg.Connection | None = None
        self.generation = 0
        """The number of connections made so far. It changes when a lost one is replaced."""
        self._sent: asyncio.Task[list[Any]] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._in_transaction = False
        """Whether the last statement left a transaction open: then a new connection cannot replace this one."""

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    def connect(self) -> None:
        """Connect now. Raises StoreLostError if that fails."""
        self._ensure_connected()

    def fetch(self, sql: str, *values: object) -> list[Any]:
        """Run one statement and return its rows. Raises StoreLostError, Conflict or StoreError."""
        return self._run(lambda connection: connection.fetch(sql, *values, timeout=self._answer_seconds))

    def execute(self, sql: str, answer_seconds: float | None = None) -> None:
        """Run statements without values and without rows; several of them in one round trip."""
        seconds = self._answer_seconds if answer_seconds is None else answer_seconds
        self._run(lambda connection: connection.execute(sql, timeout=seconds))

    def send(self, sql: str, *values: object) -> None:
        """Send one statement without waiting for its answer. The next call must be `answer`."""
        connection, loop = self._ensure_connected(), self._own_loop()
        self._sent = loop.create_task(connection.fetch(sql, *values, timeout=self._answer_seconds))
        loop.call_soon(loop.stop)
        loop.run_forever()  # one pass of the loop writes it, as far as the socket takes it

    def answer(self) -> list[Any]:
        """Wait for the statement that was sent, and return its rows."""
        sent, self._sent = self._sent, None
        assert sent is not None
        return self._run(lambda _: sent, self._connection)

    def listen(self, channel: str, on_message: Callable[[str], None]) -> None:
        """Call `on_message` for each notification that arrives while this thread waits for an answer or in `wait`."""
        self._run(lambda connection: connection.add_listener(channel, lambda *message: on_message(message[-1])))

    def wait(self, seconds: float) -> None:
        """Wait until `wake` is called, for example by `on_message`, or until a timeout."""
        # A bare future and a timer: nodes that are busy wait anew for each commit of the others.
        self._waiting = self._own_loop().create_future()
        timer = self._own_loop().call_later(seconds, self.wake)
        self._await(self._waiting)
        timer.cancel()

    def wake(self) -> None:
        """End the wait of this thread, if it waits."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def call_soon(self, act: Callable[[], None]) -> None:
        """Call `act` in the thread of this connection while it waits. Called from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(act)

    def discard(self) -> None:
        """Drop the connection without ending it in order."""
        self._in_transaction = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
            self._await(asyncio.sleep(0))  # the transport closes in the loop

    def close(self) -> None:
        """Close the connection in order. It may be used again."""
        self._in_transaction = False
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

    def _ensure_connected(self) -> asyncpg.Connection:
        """Return the connection; a new one if it was lost."""
        if not self.is_connected:
            in_transaction = self._in_transaction
            self.discard()
            if in_transaction:
                raise StoreLostError("PostgreSQL gave no answer: the connection was lost within a transaction")
            self._connection = self._connect()
            self.generation += 1
        assert self._connection is not None
        return self._connection

    def _run(
        self, ask: Callable[[asyncpg.Connection], Awaitable[T]], connection: asyncpg.Connection | None = None
    ) -> T:
        connection = connection or self._ensure_connected()
        try:
            answer = self._await(ask(connection))
            self._in_transaction = connection.is_in_transaction()
            return answer
        except asyncpg.PostgresError as error:
            raise self._refused(error) from error
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self.discard()
            raise StoreLostError(f"PostgreSQL gave no answer: {_reason(error, self._answer_seconds)}") from error
        except BaseException:
            self.discard()
            raise

    def _refused(self, error: asyncpg.PostgresError) -> Exception:
        """Return what an error of the server means; discard the connection if it cannot be used any more."""
        code = str(getattr(error, "sqlstate", ""))
        if code in _CONFLICT_STATES:
            return Conflict(str(error))
        if code.startswith(_FATAL_STATES) or isinstance(error, asyncpg.InvalidCachedStatementError):
            self.discard()
            return StoreLostError(f"PostgreSQL gave no answer: {error}")
        if code in _POOLER_STATES:
            self.discard()
            return StoreError(
                "got a pooler that forgets prepared statements, expected PgBouncer 1.21 or newer with"
                " max_prepared_statements above 0, or one in session mode"
            )
        if isinstance(error, asyncpg.InterfaceError):
            self.discard()  # a value that cannot be sent leaves the server in the middle of a statement
        return StoreError(f"PostgreSQL refused a statement: {error}")

    def _connect(self) -> asyncpg.Connection:
        options: dict[str, Any] = {"timeout": self._connect_seconds, "statement_cache_size": 256}
        connecting = asyncpg.connect(self._dsn, connection_class=_Connection, **options)
        try:
            return self._await(connecting)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreLostError(f"PostgreSQL cannot be reached: {_reason(error, self._connect_seconds)}") from error
        except (ValueError, OverflowError) as error:
            raise StoreError(f"PostgreSQL cannot be reached, its address is wrong: {error}") from error


def _reason(error: Exception, seconds: float) -> str:
    """Return the text of an error; its class or the timeout if it has none."""
    return str(error) or (f"nothing within {seconds:g} s" if isinstance(error, TimeoutError) else type(error).__name__)
