"""The bounds of scans in a form that SQL can compare: ids, and columns of jobs. Both engines use them."""

from __future__ import annotations

from typing import Any, Final

from duly.values.ids import ID_MAX
from duly.values.index_keys import Cut
from duly.values.plain import UNSET


def first_id(cut: Cut) -> int:
    """Return the smallest id after a cut in the order of creation."""
    if cut.id is None:
        return ID_MAX + 1 if cut.after else 0
    return cut.id + 1 if cut.after else cut.id


COLUMNS: Final = {"state.kind": "state", "scheduledTime": "scheduled_time", "name": "name"}


def native(cut: Cut, columns: tuple[str, ...]) -> Cut:
    """Return the same cut, with values that the columns can be compared with."""
    for position, value in enumerate(cut.values):
        wants_text = columns[position] != "scheduled_time"
        if value is UNSET or value is None or (wants_text and isinstance(value, int | float)):
            return Cut(cut.values[:position], after=False)  # sorts before all values of the column
        fits = isinstance(value, str) if wants_text else isinstance(value, int | float)
        if not fits or isinstance(value, bool):
            return Cut(cut.values[:position], after=True)  # … and after them
    return cut


def shape(cut: Cut) -> tuple[int, bool]:
    """Return what the text of a statement depends on: the number of values, and the side of the cut."""
    return len(bound(cut)), cut.after


def bound(cut: Cut) -> tuple[Any, ...]:
    """Return the values that the columns of a row are compared with."""
    return cut.values if cut.id is None else (*cut.values, cut.id)
