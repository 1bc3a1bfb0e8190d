"""The mutations that remote clients have sent: each is recorded by its own commit, so it runs once.

A client that was disconnected sends again all mutations without an answer. Then the record is found and has the answer.
Only what was committed is recorded: a mutation that failed has done nothing, and may run again.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from duly import faults
from duly.database.batch import Batch
from duly.database.transaction import Transaction
from duly.limits import OF_ANY_SIZE, REQUEST_RETENTION_MS
from duly.logs import LogLine
from duly.storage.requests import Scan
from duly.storage.rows import REQUESTS
from duly.values.ids import creation_time
from duly.values.index_keys import EVERYTHING, Cut, Interval
from duly.values.json import dumps, loads

_SWEPT_AT_ONCE: Final = 200


class RequestKey(NamedTuple):
    """What distinguishes a mutation of a client from all others."""

    session: str
    """A UUID that the client keeps over all its connections."""
    request: int


class Answer(NamedTuple):
    """What a mutation has returned."""

    value: Any
    lines: list[LogLine]


async def find(transaction: Transaction, key: RequestKey) -> Answer | None:
    """Return the answer of a mutation that was committed before; None if it was not."""
    interval = Interval(Cut(tuple(key), after=False), Cut(tuple(key), after=True))
    rows = await transaction.scan(Scan(REQUESTS, REQUESTS.indexes[0], interval, False, 1))
    if not rows:
        return None
    row = loads(cast("str", rows[0][1]))
    return Answer(loads(row["value"]), [*map(_line, row["lines"])])


def _line(stored: str | list[str]) -> LogLine:
    """Return a log line. Older records have its text only."""
    return LogLine("LOG", stored) if isinstance(stored, str) else LogLine(*stored)


def record(transaction: Transaction, key: RequestKey, answer: Answer) -> None:
    """Record the answer of a mutation in its own transaction."""
    # Texts may hold lone surrogates.
    lines = [[line.level, line.text.encode("utf-8", "replace").decode()] for line in answer.lines]
    row = {**key._asdict(), "value": dumps(answer.value, OF_ANY_SIZE), "lines": lines}
    transaction.write(REQUESTS, transaction.new_id(), None, dumps(row, OF_ANY_SIZE))


def sweep(batch: Batch) -> float:
    """Delete some old records. Return when to sweep next: now, if some are left."""
    oldest: list[tuple[int, str]] = batch.answer(Scan(REQUESTS, None, EVERYTHING, False, _SWEPT_AT_ONCE + 1))
    expired = [(id, row) for id, row in oldest[:_SWEPT_AT_ONCE] if _expires(id) <= batch.now]
    if expired:
        batch.attempt(_delete, expired)
        faults.at("requests.swept")
    left = oldest[len(expired) :]
    return _expires(left[0][0]) if left else batch.now + REQUEST_RETENTION_MS


def _expires(id: int) -> float:
    return creation_time(id) + REQUEST_RETENTION_MS


async def _delete(transaction: Transaction, expired: list[tuple[int, str]]) -> None:
    for id, row in expired:
        transaction.write(REQUESTS, id, row, None)
