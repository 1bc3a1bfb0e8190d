"""What a database answers, said plainly: the documents are a dict, and an index is that dict, sorted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import ge, gt, le, lt
from typing import Any, Final

from duly import UNSET

INDEXES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "items": {
        "by_creation_time": (),
        "by_x": ("x",),
        "by_x_y": ("x", "y"),
        "by_nested": ("a.b",),
        "by_nested_x": ("a.b", "x"),
    },
    "notes": {"by_creation_time": ()},
    "scraps": {"by_creation_time": ()},
}
"""The tables, and the fields of their indexes; all but the first table are made by their first insert."""
CREATION_TIME: Final = "_creationTime"
TICK_MS: Final = 1 / 4096
"""Documents that are inserted at the same time are this far from each other."""

OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}

Place = tuple[Any, ...]
"""Where a document stands in an index: the order of its indexed fields, then how many were inserted before it."""
END: Final[Place] = ()
"""Behind all documents."""


def order_of(value: Any) -> tuple[Any, ...]:
    """What values of all types are sorted by.

    Missing, None, numbers, False, True, strings, bytes, lists, dicts. Python compares ints with floats exactly and
    strings by code point, as duly does. NaN comes after all other numbers, infinity included, and equals itself.
    """
    if value is UNSET:
        return (0,)
    if value is None:
        return (1,)
    if isinstance(value, bool):
        return (4,) if value else (3,)
    if isinstance(value, int | float):
        return (2, 1, 0) if math.isnan(value) else (2, 0, value)
    if isinstance(value, list):
        return (7, [order_of(item) for item in value])
    if isinstance(value, dict):
        return (8, [(name, order_of(value[name])) for name in sorted(value)])
    return (5 if isinstance(value, str) else 6, value)


def shown(document: dict[str, Any]) -> str:
    """A document as a text that tells 1 from 1.0 and 0.0 from -0.0."""
    return repr(sorted(document.items()))


@dataclass(frozen=True, eq=False)
class Row:
    """A document. Whatever changes one makes another."""

    id: str
    table: str
    number: int
    """How many were inserted before it."""
    time: float
    fields: dict[str, Any]
    _orders: dict[str, tuple[Any, ...]] = field(default_factory=dict, init=False)  # by path, once they are asked for

    @cached_property
    def document(self) -> dict[str, Any]:
        return {**self.fields, "_id": self.id, CREATION_TIME: self.time}

    @cached_property
    def shown(self) -> str:
        return shown(self.document)

    def at(self, path: str) -> Any:
        value: Any = self.document
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return UNSET
            value = value[name]
        return value

    def order_at(self, path: str) -> tuple[Any, ...]:
        if path not in self._orders:
            self._orders[path] = order_of(self.at(path))
        return self._orders[path]


# Conditions of filters.


@dataclass(frozen=True)
class Compare:
    operator: str
    path: str
    value: Any

    def holds(self, row: Row) -> bool:
        one, other = row.order_at(self.path), order_of(self.value)
        if self.operator in OPERATORS:
            return OPERATORS[self.operator](one, other)
        return (one == other) is (self.operator == "eq")


@dataclass(frozen=True)
class Not:
    condition: Condition

    def holds(self, row: Row) -> bool:
        return not self.condition.holds(row)


@dataclass(frozen=True)
class All:
    conditions: list[Condition]

    def holds(self, row: Row) -> bool:
        return all(condition.holds(row) for condition in self.conditions)


@dataclass(frozen=True)
class Some:
    conditions: list[Condition]

    def holds(self, row: Row) -> bool:
        return any(condition.holds(row) for condition in self.conditions)


Condition = Compare | Not | All | Some


# What a query selects.


@dataclass(frozen=True)
class Bound:
    operator: str
    value: Any


@dataclass(frozen=True)
class Select:
    """A range of an index in one direction, and the conditions that its documents are to fulfil."""

    table: str
    index: str | None = None
    equal: tuple[Any, ...] = ()
    """What the leading fields are equal to."""
    bounds: tuple[Bound, ...] = ()
    """Bounds of the next field."""
    descending: bool = False
    filters: tuple[Condition, ...] = ()

    def __repr__(self) -> str:
        given = ((one.name, getattr(self, one.name)) for one in fields(self))
        return f"Select({', '.join(f'{name}={value!r}' for name, value in given if value not in (None, (), False))})"

    @property
    def fields(self) -> tuple[str, ...]:
        return INDEXES[self.table][self.index or "by_creation_time"]

    @property
    def compared(self) -> tuple[str, ...]:
        """The fields that a range may compare."""
        return (*self.fields, CREATION_TIME)

    def place_of(self, row: Row) -> Place:
        return (*[row.order_at(path) for path in self.fields], row.number)

    def spans(self, row: Row) -> bool:
        """Whether a row is in the range."""
        if row.table != self.table:
            return False
        equal = zip(self.compared, self.equal, strict=False)
        return all(row.order_at(path) == order_of(value) for path, value in equal) and all(
            OPERATORS[bound.operator](row.order_at(self.compared[len(self.equal)]), order_of(bound.value))
            for bound in self.bounds
        )

    def passes(self, row: Row) -> bool:
        return all(condition.holds(row) for condition in self.filters)

    def is_beyond(self, row: Row, place: Place | None) -> bool:
        """Whether a row comes behind a place in the order of reading; None is before all of them."""
        if place is None or place == END:
            return place is None
        return self.place_of(row) < place if self.descending else self.place_of(row) > place


@dataclass(frozen=True)
class ModelPage:
    rows: list[Row]
    end: Place
    """Behind what was read."""
    scanned: list[Row]
    is_cut: bool
    """Whether it ends because it has looked at as many documents as it may."""


class Model:
    """All documents of a store."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.inserted = 0
        self.last_time = -math.inf

    # Writing. What does not exist cannot be changed: KeyError.

    def insert(self, id: str, table: str, fields: dict[str, Any], now: float) -> None:
        self.last_time = max(now, self.last_time + TICK_MS)
        self.rows[id] = Row(id, table, self.inserted, self.last_time, fields)
        self.inserted += 1

    def patch(self, id: str, fields: dict[str, Any]) -> None:
        changed = {**self.rows[id].fields, **fields}
        self.replace(id, {name: value for name, value in changed.items() if value is not UNSET})

    def replace(self, id: str, fields: dict[str, Any]) -> None:
        if shown(fields) != shown(self.rows[id].fields):
            self.rows[id] = replace(self.rows[id], fields=fields)

    def delete(self, id: str) -> None:
        del self.rows[id]

    # Reading.

    def scan(self, select: Select, after: Place | None = None) -> Iterator[Row]:
        """The rows of a range in order, whether they pass the filters or not."""
        rows = [row for row in self.rows.values() if select.spans(row) and select.is_beyond(row, after)]
        rows.sort(key=select.place_of, reverse=select.descending)
        return iter(rows)

    def find(self, select: Select, after: Place | None = None) -> list[Row]:
        return [row for row in self.scan(select, after) if select.passes(row)]

    def page(self, select: Select, after: Place | None, items: int, looks: int | None) -> ModelPage:
        """At most `items` rows behind a place, which are found by looking at no more than `looks`."""
        rows: list[Row] = []
        scanned: list[Row] = []
        for row in self.scan(select, after):
            scanned.append(row)
            if select.passes(row):
                rows.append(row)
            is_cut = len(scanned) == looks
            if is_cut or len(rows) == items:
                return ModelPage(rows, select.place_of(row), scanned, is_cut)
        return ModelPage(rows, END, scanned, False)

    def between(self, select: Select, after: Place | None, until: Place) -> list[Row]:
        """The rows behind a place, up to and including another."""
        return [row for row in self.find(select, after) if not select.is_beyond(row, until)]
