"""The arguments of a function that is declared with `args=`, a validator: compared with its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from duly.values.schema.containers import ObjectValidator, OptionalValidator, RecordValidator, UnionValidator
from duly.values.schema.models import DataclassValidator, PydanticValidator
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.signatures import CtxValidator, check_handler_accepts, names_of_ctx
from duly.values.schema.validator import Validator


def declared_arguments(handler: Callable[..., Any], declared: Validator) -> Validator:
    """Return the validator of a handler's arguments. Raises TypeError if it accepts arguments for which the handler has
    no parameter.

    Of a union of objects, each member is compared. `v.any()` becomes an object of all parameters of the handler.
    """
    if isinstance(declared, UnionValidator) and declared.members:
        return UnionValidator(*(declared_arguments(handler, member) for member in declared.members))
    if isinstance(declared, AnyValidator):
        declared = _all_of(handler, declared)
    if isinstance(declared, DataclassValidator | PydanticValidator):
        declared = declared.fields.shape  # a handler gets the fields, not the instance
    if isinstance(declared, RecordValidator) and declared.keys.sure is str:
        declared = ObjectValidator(_names_of_ctx(handler), declared.values)
    if not isinstance(declared, ObjectValidator):
        expected = "an object, a union of objects or v.any()"
        raise TypeError(f"{handler.__name__}() got {declared.expected()} as args=, expected {expected}")
    if declared.rest is not None and not _has_rest(handler):
        raise TypeError(f"{handler.__name__}() has no `**rest`, expected it, for its arguments may have any names")
    check_handler_accepts(handler, declared)
    return declared


def _names_of_ctx(handler: Callable[..., Any]) -> dict[str, Validator]:
    """Return fields that refuse the name of the first parameter, `ctx`, if all other names are allowed."""
    return {name: OptionalValidator(CtxValidator()) for name in names_of_ctx(handler)}


def _all_of(handler: Callable[..., Any], anything: Validator) -> ObjectValidator:
    """Return an object with a field for each parameter of a handler."""
    fields = _names_of_ctx(handler) if _has_rest(handler) else {}
    for parameter in [*inspect.signature(handler).parameters.values()][1:]:
        if parameter.kind is not parameter.VAR_KEYWORD:
            is_needed = parameter.default is parameter.empty
            fields[parameter.name] = anything if is_needed else OptionalValidator(anything)
    return ObjectValidator(fields, anything if _has_rest(handler) else None)


def _has_rest(handler: Callable[..., Any]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(handler).parameters.values())
