"""The validators of single values: strings, numbers, ids, literals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from duly.values.ids import hint_of
from duly.values.schema.validator import Ids, Kinds, Mismatch, Validator
from duly.values.text import show

_NUMBERS: Final = frozenset((int, float))
_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 63) - 1


class TypeValidator(Validator):
    """Accepts the instances of one Python type."""

    __slots__ = ("kind", "sure", "words")

    def __init__(self, kind: type, words: str) -> None:
        self.kind = self.sure = kind
        self.words = words

    def check(self, value: Any, ids: Ids) -> Any:
        if isinstance(value, self.kind):
            return value
        raise self.mismatch(value)

    def kinds(self) -> Kinds:
        return frozenset((self.kind,))

    def describe(self) -> str:
        return self.words

    def expected(self) -> str:
        return self.words if self.words in ("bytes", "null") else super().expected()

    def parts(self) -> tuple[object, ...]:
        return (self.kind,)


class AnyValidator(Validator):
    """Accepts everything."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        return value

    def describe(self) -> str:
        return "any value"


class NumberValidator(Validator):
    """Accepts int and float, and converts neither."""

    __slots__ = ()
    sure: type | None = float

    def check(self, value: Any, ids: Ids) -> Any:
        if isinstance(value, float):
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.mismatch(value)
        return self._in_range(value)

    def _in_range(self, value: int) -> int:
        if _INT_MIN <= value <= _INT_MAX:
            return value
        raise self.mismatch(value, ", which does not fit 64 bits")

    def kinds(self) -> Kinds:
        return _NUMBERS

    def describe(self) -> str:
        return "number"


class FloatValidator(NumberValidator):
    """Accepts numbers and converts them to float."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        return value if type(value) is float else float(super().check(value, ids))


class IntValidator(NumberValidator):
    """Accepts 64-bit integers, and floats with an integral value, which it converts to int."""

    __slots__ = ()
    sure = None

    def check(self, value: Any, ids: Ids) -> Any:
        if type(value) is int and _INT_MIN <= value <= _INT_MAX:
            return value
        if not isinstance(value, float):
            return super().check(value, ids)
        if not value.is_integer():
            raise self.mismatch(value)
        return self._in_range(int(value))

    def describe(self) -> str:
        return "integer"


class IdValidator(Validator):
    """Accepts the ids of one table, or of all tables where `table` is None.

    `model` is the class in `Id[Model]`; `bind` finds its table.
    """

    __slots__ = ("table", "model")

    def __init__(self, table: str | None, model: type | None = None) -> None:
        if table is not None and (not isinstance(table, str) or not table):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"v.id() takes the name of a table, got {show(table)}")
        self.table = table
        self.model = model

    def check(self, value: Any, ids: Ids) -> Any:
        if not isinstance(value, str):
            raise self.mismatch(value)
        table = ids.table_of(value)
        if table is None:
            raise self.mismatch(value, hint_of(value))
        if table != self.table and self.table is not None:
            raise Mismatch(f"expected {self.expected()}, got an id of table {show(table)} ({show(value)})")
        return value

    def bind(self, tables: Mapping[type, str]) -> Validator:
        if self.model is None or tables.get(self.model, self.table) == self.table:
            return self
        return IdValidator(tables[self.model], self.model)

    def kinds(self) -> Kinds:
        return frozenset((str,))

    def describe(self) -> str:
        return "id" if self.table is None else f"id of table {show(self.table)}"

    def parts(self) -> tuple[object, ...]:
        return self.table, self.model


class LiteralValidator(Validator):
    """Accepts one string, number or boolean. `1` and `1.0` are the same number; `True` is not a number."""

    __slots__ = ("value", "_kinds")

    def __init__(self, value: str | int | float | bool) -> None:
        if type(value) not in (str, int, float, bool):
            raise TypeError(f"v.literal() takes a string, a number or a boolean, got {show(value)}")
        self.value = value
        self._kinds = _NUMBERS if type(value) in _NUMBERS else frozenset((type(value),))

    def check(self, value: object, ids: Ids) -> Any:
        kind = type(value)
        if (kind in self._kinds or isinstance(value, str)) and value == self.value:
            return self.value if kind in _NUMBERS and kind is not type(self.value) else value
        raise self.mismatch(value)

    def kinds(self) -> Kinds:
        return self._kinds

    def describe(self) -> str:
        return json.dumps(self.value, ensure_ascii=False) if isinstance(self.value, str) else repr(self.value)

    def expected(self) -> str:
        return self.describe()

    def parts(self) -> tuple[object, ...]:
        return type(self.value), self.value
