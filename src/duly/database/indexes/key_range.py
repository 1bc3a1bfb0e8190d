"""A range of keys of one index: read sets record what was read in such ranges."""

from __future__ import annotations

from typing import NamedTuple


class KeyRange(NamedTuple):
    """Keys in the order of one index, from `lower` up to, but not including, `upper`."""

    table: str
    order: str
    lower: bytes
    upper: bytes
