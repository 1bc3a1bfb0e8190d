"""Read sets: exactly what a function has read, so that it is run again when, and only when, that changed."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Range(NamedTuple):
    """Keys in the order of one index, from `lower` up to, but not including, `upper`."""

    table: str
    order: str
    lower: bytes
    upper: bytes


class Spanning(Protocol):
    """A reader of a range that knows how far it has come."""

    def span(self) -> Range: ...


class ReadSet:
    """The ids and the index ranges that were read, found or not."""

    __slots__ = ("points", "ranges", "walks")

    def __init__(self) -> None:
        self.points: set[tuple[str, int]] = set()
        self.ranges: list[Range] = []
        self.walks: list[Spanning] = []
        """Those who are under way; `seal` notes the ranges they have read."""

    def seal(self) -> None:
        """The function has ended: what was read now stands in `ranges`."""
        self.ranges += [walk.span() for walk in self.walks]
        self.walks.clear()
