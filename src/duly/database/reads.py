"""Read sets: exactly what a function has read, so that it is run again when, and only when, that changed."""

from __future__ import annotations

from typing import NamedTuple


class Range(NamedTuple):
    """Keys in the order of one index, from `lower` up to, but not including, `upper`."""

    table: str
    order: str
    lower: bytes
    upper: bytes


class ReadSet:
    """The ids and the index ranges that were read, found or not."""

    __slots__ = ("points", "ranges")

    def __init__(self) -> None:
        self.points: set[tuple[str, int]] = set()
        self.ranges: list[Range] = []
