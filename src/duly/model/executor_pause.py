"""The pause of the executor: one document, present while no process that shares the store may start due functions.

The pause is not a flag of one process. Every batch of due functions reads the document, so a batch that commits after
the pause starts nothing, on every node.
"""

from __future__ import annotations

from typing import Final

from duly import faults
from duly.database.read_set import ReadSet
from duly.database.transaction import Transaction
from duly.storage.rows import EXECUTOR
from duly.values.json import dumps, loads

_ID: Final = 1  # no other row has this id: ids begin with the time


async def paused_since(transaction: Transaction) -> float | None:
    """Return the time of the pause, in milliseconds since 1970; None if the executor is not paused."""
    row = await transaction.get(EXECUTOR, _ID)
    return loads(row)["pausedTime"] if isinstance(row, str) else None


async def pause(transaction: Transaction) -> bool:
    """Pause the executor. Return False if it was paused already."""
    if await paused_since(transaction) is not None:
        return False
    transaction.write(EXECUTOR, _ID, None, dumps({"pausedTime": transaction.now}))
    faults.at("executor.paused")
    return True


async def resume(transaction: Transaction) -> bool:
    """Resume the executor. Return False if it was not paused."""
    row = await transaction.get(EXECUTOR, _ID)
    if row is None:
        return False
    transaction.write(EXECUTOR, _ID, row, None)
    return True


def watch(reads: ReadSet) -> ReadSet:
    """Add the pause to a read set."""
    reads.points.add((EXECUTOR.name, _ID))
    return reads
