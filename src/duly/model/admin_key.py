"""The key of the administrator: one document with its hash, present if the store has a key."""

from __future__ import annotations

import hashlib
from typing import Final

from duly.database.transaction import Transaction
from duly.storage.rows import SERVER
from duly.values.json import dumps, loads

_ID: Final = 3  # no other row of any table has this id: 1 is the pause, 2 the origin, other ids begin with the time


def hash_of(key: str) -> str:
    """Return what is stored of a key. A plain hash will do, for a key is random, and too long to be guessed."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


async def stored_hash(transaction: Transaction) -> str | None:
    """Return the hash of the key; None if the store has none."""
    row = await transaction.get(SERVER, _ID)
    return str(loads(row)["adminKeyHash"]) if isinstance(row, str) else None


async def replace(transaction: Transaction, hash: str | None) -> bool:
    """Store the hash of a new key, or of none. Return whether there was one before, which is not valid any more."""
    row = await transaction.get(SERVER, _ID)
    new = None if hash is None else dumps({"adminKeyHash": hash})
    if row != new:
        transaction.write(SERVER, _ID, row, new)
    return row is not None
