"""The commits of a node: numbered, one after the other, and none whose outcome stays unknown."""

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
FENCED: Final = -2


class CommitClient:
    """What a node asks `commit_1`. Where an answer is lost, it finds out whether the batch is committed, if it can."""

    def __init__(self, link: BlockingConnection, address: Address, nodes: Membership, lost: Callable[[], None]) -> None:
        self._link = link
        self._address = address
        self._nodes = nodes
        self._lost = lost
        self._number = 0
        """That of the last batch that was committed, or never will be."""
        self._doubted = 0
        """The number of one that was perhaps committed."""

    def begin(self) -> None:
        """Count those of another epoch."""
        self._number = 0

    def commit(self, arguments: tuple[Any, ...], within: bool) -> int:
        """Returns a version, CONFLICT or FENCED. `within` the transaction of an exclusive batch, ends that."""

        def ask() -> list[Any]:
            rows = self._link.fetch(*self._statement(arguments))
            if within and rows[0][0] > 0:
                self._link.execute("COMMIT")
            return rows

        return self._found(ask)

    def send(self, arguments: tuple[Any, ...]) -> None:
        """Have it answered by `answer`, which must be the next call."""
        self._link.send(*self._statement(arguments))

    def answer(self) -> int:
        return self._found(self._link.answer)

    def _statement(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return _COMMIT.format(schema=self._address.schema), self._nodes.epoch, self._number + 1, *arguments

    def _found(self, ask: Callable[[], list[Any]]) -> int:
        version: int
        try:
            [(version,)] = ask()
        except StoreLostError as lost:
            self._lost()
            self._doubted = self._number + 1
            found = self._settled(lost)
            if found is None:
                raise
            return found
        if version > 0:
            self._number += 1
        return version

    def _settled(self, lost: StoreLostError) -> int | None:
        """What `settle` finds at once: most often only the connection was lost."""
        try:
            return self.settle()
        except StoreLostError:
            raise CommitInDoubt(
                f"{self._address.redacted}: the connection was lost while a batch was committed, and did not come"
                " back: whether it is stored is not known"
            ) from lost

    def settle(self) -> int | None:
        """The version that the doubted batch has made; None if there is none: it will not be committed any more."""
        if not self._doubted:
            return None
        sql = _SETTLE.format(schema=self._address.schema)
        version: int | None
        [(version,)] = self._link.fetch(sql, self._nodes.epoch, self._doubted)
        self._number, self._doubted = self._doubted, 0  # its number is used up
        return version


# SQL.

_COMMIT: Final = "SELECT {schema}.commit_1(" + ", ".join(f"${n}" for n in range(1, 47)) + ")"
_SETTLE: Final = "SELECT {schema}.settle_1($1, $2)"
