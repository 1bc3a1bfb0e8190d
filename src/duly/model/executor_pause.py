"""Whether the executors of all processes that share a store start what is due: a document while they do not."""

from __future__ import annotations

from typing import Final

from duly import faults
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction
from duly.storage.rows import EXECUTOR
from duly.values.json import dumps, loads

_ID: Final = 1  # no other row has it, for ids begin with the time


async def paused_since(transaction: Transaction) -> float | None:
    """Since when nothing starts, in milliseconds since 1970; None while functions start."""
    row = await transaction.get(EXECUTOR, _ID)
    return loads(row)["pausedTime"] if isinstance(row, str) else None


async def pause(transaction: Transaction) -> bool:
    """Start nothing from here on. Returns whether that is news."""
    if await paused_since(transaction) is not None:
        return False
    transaction.write(EXECUTOR, _ID, None, dumps({"pausedTime": transaction.now}))
    faults.at("executor.paused")
    return True


async def resume(transaction: Transaction) -> bool:
    """Start what is due again. Returns whether that is news."""
    row = await transaction.get(EXECUTOR, _ID)
    if row is None:
        return False
    transaction.write(EXECUTOR, _ID, row, None)
    return True


def watch(reads: ReadSet) -> ReadSet:
    """Watch it, too."""
    reads.points.add((EXECUTOR.name, _ID))
    return reads
