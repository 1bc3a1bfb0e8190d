"""Index ranges: `q.eq("a", 1).gt("b", 2)` becomes an interval of keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from duly.errors import QueryError
from duly.hints import name_hint
from duly.limits import OF_ANY_SIZE
from duly.values.ids import EPOCH_MS, ID_MAX, NODE_BITS, TICKS_PER_MS
from duly.values.index_keys import Cut, Interval
from duly.values.json import NotAValueError, dumps, loads
from duly.values.plain import UNSET
from duly.values.schema.field_paths import written_at
from duly.values.schema.stored_forms import check_order
from duly.values.schema.validator import Validator

CREATION_TIME: Final = "_creationTime"
"""The field that follows the declared ones in every index."""
ID: Final = "_id"
"""The only field of the index by id."""
FirstId = Callable[[object, bool], int]
"""Returns the smallest id at a bound or behind it; only behind it if the second argument is true."""


@name_hint(
    'got q.{name} in the range of an index, which is made of q.eq("field", value) and q.gt, gte, lt, lte; expected'
    " that, or .filter(lambda q: …), whose q has fields and more operators",
    *("field", "neq", "and_", "or_", "not_"),
)
class IndexRange:
    """A range of an index: `eq` on its leading fields in order, then a lower and an upper bound on the next.

    Each call makes a new range. Values of all types compare: missing (UNSET), None, numbers, booleans, strings,
    bytes, arrays, objects.
    """

    __slots__ = ("_document", "_equal", "_fields", "_first_id", "_index", "_lower", "_upper")

    def __init__(
        self,
        index: str,
        fields: tuple[str, ...],
        document: Validator | None = None,
        first_id: FirstId | None = None,
    ) -> None:
        """With `first_id` it is a range of the ids themselves."""
        self._index = index
        self._document = document
        self._first_id = first_id
        self._fields = (*fields, CREATION_TIME if first_id is None else ID)
        self._equal: tuple[object, ...] = ()
        self._lower: tuple[object, bool] | None = None
        self._upper: tuple[object, bool] | None = None

    def eq(self, field: str, value: object) -> IndexRange:
        """Only documents whose next field has this value."""
        value = self._next(field, value)
        self._check_free(field, self._lower, self._upper)
        if field == self._fields[-1]:
            return self.gte(field, value).lte(field, value)
        changed = self._copy()
        changed._equal = (*self._equal, value)
        return changed

    def gt(self, field: str, value: object) -> IndexRange:
        """Only documents whose next field is above this value."""
        return self._with_lower(field, value, inclusive=False)

    def gte(self, field: str, value: object) -> IndexRange:
        """Only documents whose next field is this value or above it."""
        return self._with_lower(field, value, inclusive=True)

    def lt(self, field: str, value: object) -> IndexRange:
        """Only documents whose next field is below this value."""
        return self._with_upper(field, value, inclusive=False)

    def lte(self, field: str, value: object) -> IndexRange:
        """Only documents whose next field is this value or below it."""
        return self._with_upper(field, value, inclusive=True)

    def interval(self) -> Interval:
        """Return the keys between the bounds."""
        lower, upper = Cut(self._equal, after=False), Cut(self._equal, after=True)
        if self._lower is not None:
            value, inclusive = self._lower
            lower = self._cut(value, after=not inclusive)
        if self._upper is not None:
            value, inclusive = self._upper
            upper = self._cut(value, after=inclusive)
        return Interval(lower, upper)

    def _cut(self, value: object, after: bool) -> Cut:
        if len(self._equal) < len(self._fields) - 1:
            return Cut((*self._equal, value), after)
        return Cut(self._equal, after=False, id=(self._first_id or _first_id)(value, after))

    def _with_lower(self, field: str, value: object, inclusive: bool) -> IndexRange:
        value = self._bound(field, value)
        self._check_free(field, self._lower)
        changed = self._copy()
        changed._lower = (value, inclusive)
        return changed

    def _with_upper(self, field: str, value: object, inclusive: bool) -> IndexRange:
        value = self._bound(field, value)
        self._check_free(field, self._upper)
        changed = self._copy()
        changed._upper = (value, inclusive)
        return changed

    def _copy(self) -> IndexRange:
        copy = IndexRange(self._index, self._fields[:-1], self._document, self._first_id)
        copy._equal, copy._lower, copy._upper = self._equal, self._lower, self._upper
        return copy

    def _bound(self, field: str, value: object) -> object:
        plain = self._next(field, value)
        if plain is not value:
            check_order(value, f"{self._index}: comparing {field!r}")
        return plain

    def _next(self, field: str, value: object) -> object:
        """Return the plain value that the next field is compared with."""
        value = self._plain(field, value)
        position = len(self._equal)
        expected = self._fields[position] if position < len(self._fields) else "no further field"
        if field != expected:
            raise QueryError(
                f"{self._index}: got a comparison of {field!r}, expected one of {expected!r}; an index"
                f" compares its fields in the order {', '.join(self._fields)}, bounds last"
            )
        return value

    def _plain(self, field: str, value: object) -> object:
        if value is UNSET:
            return value
        try:
            try:
                text = dumps(value, OF_ANY_SIZE)
                return value if type(value) in (str, int, float) else loads(text)
            except NotAValueError:  # it may be a datetime, which documents store as text
                return loads(dumps(written_at(self._document, field, value), OF_ANY_SIZE))
        except NotAValueError as error:
            raise QueryError(f"{self._index}: comparing {field!r}: {error}") from None

    def _check_free(self, field: str, *bounds: object) -> None:
        if any(bound is not None for bound in bounds):
            raise QueryError(f"{self._index}: got two bounds on the same side of {field!r}, expected one")


def _first_id(time: object, after: bool) -> int:
    """Return the smallest id that was made at a time of creation or later; only later if `after`."""
    if isinstance(time, bool) or not isinstance(time, int | float):
        # Other types sort before all numbers or after them.
        return 0 if time is None or not isinstance(time, bool | str | bytes | list | dict) else ID_MAX
    if not math.isfinite(time):
        return ID_MAX if time > 0 or math.isnan(time) else 0
    ticks = (time - EPOCH_MS) * TICKS_PER_MS
    tick = math.floor(ticks) + 1 if after else math.ceil(ticks)
    return min(max(tick, 0) << NODE_BITS, ID_MAX)
