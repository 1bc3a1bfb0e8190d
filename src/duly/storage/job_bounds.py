"""Cuts of the order of creation and of the columns of scheduled functions, as SQL can compare them."""

from __future__ import annotations

from typing import Any, Final

from duly.values.ids import ID_MAX
from duly.values.index_keys import Cut
from duly.values.plain import UNSET


def first_id(cut: Cut) -> int:
    """The smallest id behind a cut of the index by creation."""
    if cut.id is None:
        return ID_MAX + 1 if cut.after else 0
    return cut.id + 1 if cut.after else cut.id


COLUMNS: Final = {"state.kind": "state", "scheduledTime": "scheduled_time", "name": "name"}


def native(cut: Cut, columns: tuple[str, ...]) -> Cut:
    """The same cut with values that the columns can be compared with."""
    for position, value in enumerate(cut.values):
        wants_text = columns[position] != "scheduled_time"
        if value is UNSET or value is None or (wants_text and isinstance(value, int | float)):
            return Cut(cut.values[:position], after=False)  # sorts before all that the column holds
        fits = isinstance(value, str) if wants_text else isinstance(value, int | float)
        if not fits or isinstance(value, bool):
            return Cut(cut.values[:position], after=True)  # … and after it
    return cut


def shape(cut: Cut) -> tuple[int, bool]:
    return len(bound(cut)), cut.after


def bound(cut: Cut) -> tuple[Any, ...]:
    return cut.values if cut.id is None else (*cut.values, cut.id)
