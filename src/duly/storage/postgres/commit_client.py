"""The commits of a node. They are numbered, so that none stays in doubt when its answer is lost.

Each call of `commit_1` has the number of the batch. If the connection is lost before the answer, `settle_1` says
whether a batch of this number was committed. If it was not, the server marks the number as used and refuses it from
then on. So this answer is final, even if the request of the commit is still on its way.
"""

# asyncpg is not typed as strictly as this package.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from duly.errors import StoreLostError
from duly.storage.conflicts import CommitInDoubt
from duly.storage.postgres.address import Address
from duly.storage.postgres.connection import BlockingConnection
from duly.storage.postgres.membership import Membership

CONFLICT: Final = -1
"""The answer of `commit_1` if something that the batch has read has changed."""
FENCED: Final = -2
"""The answer of `commit_1` if the node was declared lost: its epoch may not commit any more."""


class CommitClient:
    """Calls `commit_1`, and finds out the outcome of a commit whose answer was lost."""

    def __init__(
        self,
        connection: BlockingConnection,
        address: Address,
        membership: Membership,
        on_connection_lost: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._address = address
        self._sql = _COMMIT.format(schema=address.schema)  # once: asyncpg finds its statements by their text
        self._membership = membership
        self._on_connection_lost = on_connection_lost
        self._number = 0
        """The number of the last batch whose outcome is known: it was committed, or it never will be."""
        self._in_doubt = 0
        """The number of the batch that is in doubt; 0 if there is none."""

    def restart_numbering(self) -> None:
        """Begin at 1 again, for a new epoch."""
        self._number = 0

    def commit(self, arguments: tuple[Any, ...], in_transaction: bool) -> int:
        """Commit a batch. Return its version, CONFLICT or FENCED.

        With `in_transaction`, the transaction of an exclusive batch is open. A successful commit ends it.
        """

        def ask() -> list[Any]:
            rows = self._connection.fetch(*self._statement(arguments))
            if in_transaction and rows[0][0] > 0:
                self._connection.execute("COMMIT")
            return rows

        return self._outcome(ask)

    def send(self, arguments: tuple[Any, ...]) -> None:
        """Send the commit of a batch. The next call must be `answer`."""
        self._connection.send(*self._statement(arguments))

    def answer(self) -> int:
        """Wait for the commit that was sent, and return what `commit` would."""
        return self._outcome(self._connection.answer)

    def _statement(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._sql, self._membership.epoch, self._number + 1, *arguments

    def _outcome(self, ask: Callable[[], list[Any]]) -> int:
        version: int
        try:
            [(version,)] = ask()
        except StoreLostError as lost:
            self._on_connection_lost()
            self._in_doubt = self._number + 1
            resolved = self._resolve_now(lost)
            if resolved is None:
                raise
            return resolved
        if version > 0:
            self._number += 1
        return version

    def _resolve_now(self, lost: StoreLostError) -> int | None:
        """Try `resolve` once: usually only the connection was lost, and a new one can be made."""
        try:
            return self.resolve()
        except StoreLostError:
            raise CommitInDoubt(
                f"{self._address.redacted}: the connection was lost while a batch was committed, and did not come"
                " back: whether it is stored is not known"
            ) from lost

    def resolve(self) -> int | None:
        """Return the version that the batch in doubt has made; None if it was not committed and never will be."""
        if not self._in_doubt:
            return None
        sql = _SETTLE.format(schema=self._address.schema)
        version: int | None
        [(version,)] = self._connection.fetch(sql, self._membership.epoch, self._in_doubt)
        self._number, self._in_doubt = self._in_doubt, 0  # its number is used up
        return version


# SQL.

_COMMIT: Final = "SELECT {schema}.commit_1(" + ", ".join(f"${n}" for n in range(1, 47)) + ")"
_SETTLE: Final = "SELECT {schema}.settle_1($1, $2)"
