"""What a validator is, and the validators of single values: strings, numbers, ids, literals."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from duly.errors import ValidationError
from duly.values.ids import hint_of
from duly.values.plain import to_plain

Kinds: TypeAlias = frozenset[type] | None
"""The exact Python types a validator may accept; None stands for every type."""

_NUMBERS: Final = frozenset((int, float))
_SHOWN_LENGTH_MAX: Final = 80
_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 63) - 1


class Ids(Protocol):
    """What knows the ids of a store."""

    def table_of(self, id: str, /) -> str | None:
        """The name of the table an id belongs to, None for a text that is no id of this store."""
        ...


class Mismatch(ValidationError):
    """A value does not fit; `path` grows at its front while the error rises out of nested values.

    >>> str(Mismatch("expected a string, got 5 (int)").under("[3]").under(".tags"))
    'at .tags[3]: expected a string, got 5 (int)'
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def under(self, step: str) -> Mismatch:
        """The same error, seen from one level further out."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"at {self.path.lstrip()}: {self.problem}" if self.path else self.problem


class Validator:
    """What a value must look like. Immutable, equal to another one that accepts the same.

    `sure` is a type all of whose own values pass unchanged: containers skip the call for them.
    """

    __slots__ = ("_shape",)
    sure: type | None = None
    _shape: Validator

    def check(self, value: Any, ids: Ids) -> Any:
        """The value, converted where that is asked for, or `Mismatch`. The value given is never changed.

        >>> v.object({"price": v.float64()}).check({"price": 3}, ids)
        {'price': 3.0}
        """
        raise NotImplementedError

    def plain(self, value: Any, ids: Ids) -> Any:
        """Check what a handler returned or stores: models may be instances or dicts, the result is plain.

        >>> validator_of(Order).plain(Order(items=["tea"]), ids)
        {'items': ['tea']}
        """
        return self.shape.check(to_plain(value), ids)

    def written(self, value: Any) -> Any:
        """A plain value with what this names by another class, such as a datetime, in the form it is stored in.

        The rest is left as it is, whether it fits or not. The value given is never changed.

        >>> validator_of(list[date]).written([date(2030, 1, 31), 5])
        ['2030-01-31', 5]
        """
        return value

    def describe(self) -> str:
        """A few words for messages: `array of string`."""
        raise NotImplementedError

    def expected(self) -> str:
        """The description with its article: `an array of string`."""
        words = self.describe()
        return f"an {words}" if words[0] in "aeioAEIO" else f"a {words}"

    def kinds(self) -> Kinds:
        """The types of which some value may be accepted."""
        return None

    @property
    def shape(self) -> Validator:
        """This validator for plain values: where it would build models it accepts their fields as dicts."""
        try:
            return self._shape
        except AttributeError:
            self._shape = self.shaped()
            return self._shape

    def shaped(self) -> Validator:
        return self.over(lambda part: part.shape)

    def bind(self, tables: Mapping[type, str]) -> Validator:
        """Give every `Id[Model]` inside the table of its model; the validator itself if nothing changes.

        >>> validator_of(list[Id[Order]]).bind({Order: "orders"}).describe()
        'array of id of table "orders"'
        """
        return self.over(lambda part: part.bind(tables))

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        """The same kind of validator over changed parts; the validator itself if no part changes."""
        return self

    def mismatch(self, value: object, why: str = "") -> Mismatch:
        return Mismatch(f"expected {self.expected()}, got {show(value)}{why}")

    def parts(self) -> tuple[object, ...]:
        """What makes two validators of one class equal."""
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Validator) and type(other) is type(self) and other.parts() == self.parts()

    def __hash__(self) -> int:
        return hash((type(self), self.parts()))

    def __repr__(self) -> str:
        return f"<validator: {self.describe()}>"


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
    """Accepts int and float and leaves each what it is."""

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
    """Accepts numbers and makes floats of them."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        return value if type(value) is float else float(super().check(value, ids))


class IntValidator(NumberValidator):
    """Accepts 64-bit integers, and floats with an integral value, of which it makes ints."""

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
    """Accepts the ids of one table, or of any table when none is given.

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
    """Accepts one string, number or boolean; `1` and `1.0` are one number, `True` is none."""

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


def show(value: object) -> str:
    """A value for a message, with its type where that is not plain to see; never long.

    >>> show("tea"), show(5)
    ('"tea"', '5 (int)')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        text = value if len(value) <= _SHOWN_LENGTH_MAX - 4 else f"{value[: _SHOWN_LENGTH_MAX - 5]}…"
        # Text that is not Unicode would make of the message one that cannot be sent.
        return _shortened(json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False))
    try:
        text = _REPR.repr(value)
    except Exception:  # an int of thousands of digits, or an object of the application's
        return f"a value of type {type(value).__name__}"
    return f"{_shortened(text)} ({type(value).__name__})"


def step(key: object) -> str:
    """A key or position as a piece of a path: `.name`, `["any text"]`, `[3]`."""
    if isinstance(key, int):
        return f"[{key}]"
    if isinstance(key, str) and key.isidentifier() and len(key) <= _SHOWN_LENGTH_MAX:
        return f".{key}"
    return f"[{show(key)}]"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[: _SHOWN_LENGTH_MAX - 1]}…"


_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN_LENGTH_MAX
