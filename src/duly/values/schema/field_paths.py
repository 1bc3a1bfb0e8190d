"""Paths such as `a.b.c` into documents: whether a validator declares them, and what they hold."""

from __future__ import annotations

from duly.errors import SchemaValidationError
from duly.values.plain import to_plain
from duly.values.schema.containers import ObjectValidator, RecordValidator, UnionValidator, present_field
from duly.values.schema.models import ModelValidator
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.validator import Validator


def check_path(document: Validator, path: str, place: str) -> None:
    """Raise a SchemaValidationError that names `place` if no valid document can have the field `a.b.c`."""
    parts: list[Validator] = [document]
    for name in path.split("."):
        held = _held_by(parts, name)
        if not held:
            names = sorted({name for part in parts for name in _names(part)})
            known = f"one of {', '.join(names)}" if names else "no field below it, for it is no object"
            raise SchemaValidationError(
                f"{place}: got the field {path!r}, which no document of the table has; instead of {name!r}"
                f" expected {known}"
            )
        parts = held


def written_at(document: Validator | None, path: str, value: object) -> object:
    """Return a value that the field `a.b.c` is compared with, in the form that documents store there.

    >>> written_at(validator_of(Order), "at", datetime(2030, 1, 31))
    '2030-01-31T00:00:00.000000'
    """
    parts: list[Validator] = [] if document is None else [document]
    for name in path.split("."):
        parts = _held_by(parts, name)
    return UnionValidator(*map(present_field, parts)).written(to_plain(value))


def _held_by(parts: list[Validator], name: str) -> list[Validator]:
    return [part for whole in parts for part in _held(whole, name)]


def declares(document: Validator, name: str) -> bool:
    """Return whether valid documents have a field of exactly this name, dots included."""
    return name in _names(document)


def _held(validator: Validator, name: str) -> list[Validator]:
    """Return the validators of a field, one for each alternative; none if there is no such field."""
    validator = present_field(validator)
    if isinstance(validator, UnionValidator):
        return [part for member in validator.members for part in _held(member, name)]
    if isinstance(validator, ModelValidator):
        return _held(validator.fields, name)
    if isinstance(validator, ObjectValidator):
        found = validator.fields.get(name, validator.rest)
        return [] if found is None else [found]
    if isinstance(validator, RecordValidator):
        return [validator.values]
    return [validator] if isinstance(validator, AnyValidator) else []


def _names(validator: Validator) -> list[str]:
    validator = present_field(validator)
    if isinstance(validator, UnionValidator):
        return [name for member in validator.members for name in _names(member)]
    if isinstance(validator, ModelValidator):
        return _names(validator.fields)
    return list(validator.fields) if isinstance(validator, ObjectValidator) else []
