"""`v`: the validators as applications write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

from duly.values.schema.annotations import is_model, validator_of
from duly.values.schema.containers import (
    ArrayValidator,
    ObjectValidator,
    OptionalValidator,
    RecordValidator,
    UnionValidator,
    not_optional,
)
from duly.values.schema.scalars import (
    AnyValidator,
    FloatValidator,
    IdValidator,
    IntValidator,
    LiteralValidator,
    NumberValidator,
    TypeValidator,
)
from duly.values.schema.validator import Validator
from duly.values.text import show

Declared: TypeAlias = "Validator | type | Mapping[str, Declared]"
"""The ways to write a validator: itself, a dict for an object, or a class that is a model."""


class Validators:
    """The validators by name, as applications write them.

    >>> v.object({"items": v.array(v.string()), "note": v.optional(v.string())})
    <validator: object>
    """

    __slots__ = ()

    def string(self) -> TypeValidator:
        """A str."""
        return TypeValidator(str, "string")

    def number(self) -> NumberValidator:
        """An int or a float, not converted."""
        return NumberValidator()

    def float64(self) -> FloatValidator:
        """A number, converted to float."""
        return FloatValidator()

    def int64(self) -> IntValidator:
        """A 64-bit int; a float such as 3.0 is converted."""
        return IntValidator()

    def boolean(self) -> TypeValidator:
        """True or False; neither is a number."""
        return TypeValidator(bool, "boolean")

    def null(self) -> TypeValidator:
        """None, which is not the same as a missing field."""
        return TypeValidator(type(None), "null")

    def bytes(self) -> TypeValidator:
        """A bytes object."""
        return TypeValidator(bytes, "bytes")

    def any(self) -> AnyValidator:
        """Any value."""
        return AnyValidator()

    def id(self, table: str) -> IdValidator:
        """An id of the table, whether its document exists or not."""
        if table is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("v.id() takes the name of a table, got None")
        return IdValidator(table)

    def literal(self, value: str | int | float | bool) -> LiteralValidator:
        """This one string, number or boolean."""
        return LiteralValidator(value)

    def array(self, element: Declared) -> ArrayValidator:
        """A list; every element fits."""
        return ArrayValidator(as_validator(element, "v.array()"))

    def object(self, fields: Mapping[str, Declared]) -> ObjectValidator:
        """A dict with these fields and no others."""
        return _object(fields)

    def record(self, keys: Declared, values: Declared) -> RecordValidator:
        """A dict with any keys; all keys and all values must fit."""
        return RecordValidator(
            as_validator(keys, "the keys of v.record()"), as_validator(values, "the values of v.record()")
        )

    def union(self, *members: Declared) -> UnionValidator:
        """A value that one of the members accepts."""
        return UnionValidator(*(as_validator(member, "v.union()") for member in members))

    def nullable(self, member: Declared) -> UnionValidator:
        """A value that the member accepts, or None."""
        return UnionValidator(as_validator(member, "v.nullable()"), self.null())

    def optional(self, member: Declared) -> OptionalValidator:
        """A field of an object that may be missing, which is not the same as null."""
        return OptionalValidator(as_validator(member, "v.optional()"))


v: Final = Validators()
"""Makes validators: `v.string()`, `v.array(v.id("orders"))`."""


def as_validator(declared: Declared, place: str = "a declaration") -> Validator:
    """Return the declared validator. Raises a TypeError that names `place` if there is none.

    >>> as_validator({"text": v.string()}) == v.object({"text": v.string()})
    True
    """
    return not_optional(_validator(declared, place), place)


def _object(fields: Mapping[str, Declared]) -> ObjectValidator:
    if not isinstance(fields, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"v.object() takes a dict of validators, got {show(fields)}")
    for name in fields:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"v.object() takes fields with names that are strings, got {show(name)}")
    return ObjectValidator(
        {name: _validator(part, f"v.object(), field {show(name)},") for name, part in fields.items()}
    )


def _validator(declared: Declared, place: str) -> Validator:
    if isinstance(declared, Validator):
        return declared
    if isinstance(declared, Mapping):
        return _object(declared)
    if is_model(declared):
        return validator_of(declared)
    method = cast("Any", declared)
    if getattr(method, "__self__", None) is v:
        name = f"v.{method.__name__}"
        raise TypeError(f"{place} got {name} without its parentheses, expected {name}(…)")
    raise TypeError(f"{place} takes validators such as v.string(), got {show(declared)}")
