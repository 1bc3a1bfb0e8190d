"""The base class of validators, and the error of a value that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from duly.errors import ValidationError
from duly.values.plain import to_plain
from duly.values.text import show

Kinds: TypeAlias = frozenset[type] | None
"""The exact Python types a validator may accept; None stands for every type."""


class Ids(Protocol):
    """The ids of a store."""

    def table_of(self, id: str, /) -> str | None:
        """Return the name of the table of an id; None for a text that is no id of this store."""
        ...


class Mismatch(ValidationError):
    """A value that does not fit. `path` grows at its front while the error leaves nested values.

    >>> str(Mismatch("expected a string, got 5 (int)").under("[3]").under(".tags"))
    'at .tags[3]: expected a string, got 5 (int)'
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def under(self, step: str) -> Mismatch:
        """Return the same error with a step added to the front of its path."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"at {self.path.lstrip()}: {self.problem}" if self.path else self.problem


class Validator:
    """What a value must look like. A validator is immutable, and equal to another one that accepts the same values.

    `sure` is a type of which all values pass unchanged: containers do not call `check` for them.
    """

    __slots__ = ("_shape",)
    sure: type | None = None
    _shape: Validator

    def check(self, value: Any, ids: Ids) -> Any:
        """Return the value, converted where the validator says so, or raise `Mismatch`. `value` itself never changes.

        >>> v.object({"price": v.float64()}).check({"price": 3}, ids)
        {'price': 3.0}
        """
        raise NotImplementedError

    def plain(self, value: Any, ids: Ids) -> Any:
        """Check what a handler returns or stores: a model may be an instance or a dict. The result is plain.

        >>> validator_of(Order).plain(Order(items=["tea"]), ids)
        {'items': ['tea']}
        """
        return self.shape.check(to_plain(value), ids)

    def written(self, value: Any) -> Any:
        """Return a plain value with instances of classes such as datetime in their stored form.

        All else stays as it is, whether it fits or not. `value` itself never changes.

        >>> validator_of(list[date]).written([date(2030, 1, 31), 5])
        ['2030-01-31', 5]
        """
        return value

    def describe(self) -> str:
        """Return a few words for messages: `array of string`."""
        raise NotImplementedError

    def expected(self) -> str:
        """Return the description with its article: `an array of string`."""
        words = self.describe()
        return f"an {words}" if words[0] in "aeioAEIO" else f"a {words}"

    def kinds(self) -> Kinds:
        """Return the types of which some values may be accepted; None for all types."""
        return None

    @property
    def shape(self) -> Validator:
        """The same validator for plain values: it accepts the fields of models as dicts and builds no instances."""
        try:
            return self._shape
        except AttributeError:
            self._shape = self.shaped()
            return self._shape

    def shaped(self) -> Validator:
        """Return the validator that `shape` keeps."""
        return self.over(lambda part: part.shape)

    def bind(self, tables: Mapping[type, str]) -> Validator:
        """Return a validator in which every `Id[Model]` knows the table of its model; itself if nothing changes.

        >>> validator_of(list[Id[Order]]).bind({Order: "orders"}).describe()
        'array of id of table "orders"'
        """
        return self.over(lambda part: part.bind(tables))

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        """Return the same kind of validator with every part changed; the validator itself if no part changes."""
        return self

    def mismatch(self, value: object, why: str = "") -> Mismatch:
        """Return the error of a value that does not fit."""
        return Mismatch(f"expected {self.expected()}, got {show(value)}{why}")

    def parts(self) -> tuple[object, ...]:
        """Return what makes two validators of one class equal."""
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Validator) and type(other) is type(self) and other.parts() == self.parts()

    def __hash__(self) -> int:
        return hash((type(self), self.parts()))

    def __repr__(self) -> str:
        return f"<validator: {self.describe()}>"
