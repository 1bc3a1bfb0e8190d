"""The origin of the timestamps that remote clients get: a timestamp is the origin plus the version of a commit.

Clients want timestamps that never go back. Versions do not, as long as a store lives; but a backup that is restored is
an older store. So the origin is a time, in nanoseconds since 1970, and it is moved forward when a client has seen a
timestamp which this store cannot have given: then all that is given from now on is later than all that was before.
"""

from __future__ import annotations

from typing import Final

from duly.database.transaction import Transaction
from duly.storage.rows import SERVER
from duly.values.json import dumps, loads

_ID: Final = 2  # no other row of any table has this id: 1 is the pause, other ids begin with the time


async def origin(transaction: Transaction) -> int:
    """Return the origin; 0 if no server has set one."""
    row = await transaction.get(SERVER, _ID)
    return int(loads(row)["origin"]) if isinstance(row, str) else 0


async def advance(transaction: Transaction, beyond: int = 0) -> int:
    """Move the origin to now, if there is none or a client has seen a timestamp `beyond` it. Return the origin.

    A timestamp that lies in the future was never given. Nobody can move the origin further ahead than the clock.
    """
    before, now = await origin(transaction), int(transaction.now * 1_000_000)
    if before and not before < beyond < now:
        return before
    row = await transaction.get(SERVER, _ID)
    transaction.write(SERVER, _ID, row, dumps({"origin": now}))
    return now
