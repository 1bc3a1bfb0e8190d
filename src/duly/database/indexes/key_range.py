"""A range of keys of one index: the unit in which read sets know what was read."""

from __future__ import annotations

from typing import NamedTuple


class KeyRange(NamedTuple):
    """Keys in the order of one index, from `lower` up to, but not including, `upper`."""

    table: str
    order: str
    lower: bytes
    upper: bytes
