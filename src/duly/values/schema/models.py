"""Dataclasses and pydantic models: their validators, which build instances from dicts, and their system fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from typing import Any, cast

from duly.errors import SchemaValidationError
from duly.values.plain import SYSTEM_FIELDS, fields_of, writers
from duly.values.pydantic_data import is_pydantic
from duly.values.schema.containers import ObjectValidator, UnionValidator
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.stored_forms import TextFormValidator, has_forms
from duly.values.schema.validator import Ids, Kinds, Mismatch, Validator
from duly.values.text import show, step


def stored(validator: Validator) -> Validator:
    """Return the validator of stored documents: without the fields `_id` and `_creationTime`, if a class declares them.

    Raises SchemaValidationError if instances of the class cannot be made without them.
    """
    if isinstance(validator, UnionValidator):
        return validator.over(stored)
    if isinstance(validator, ObjectValidator) and validator.model is not None:
        fields = without_system_fields(validator.fields)
        return ObjectValidator(fields, validator.rest, validator.name, validator.model)
    if isinstance(validator, ModelValidator):
        for name in SYSTEM_FIELDS:
            if name in _names_in_data(validator.model):
                raise SchemaValidationError(_made_from(name, validator.model))
    return validator


def _names_in_data(model: Any) -> set[object]:
    """Return the names that instances are built from. Of several aliases in pydantic, none is required."""
    if is_pydantic(model):
        return {alias for info in model.model_fields.values() if isinstance(alias := info.validation_alias, str)}
    return {field.name for field in dataclasses.fields(model) if field.init}


def _made_from(name: str, model: type) -> str:
    declaration = f"_id: Id[{model.__name__}]" if name == "_id" else f"{name}: float"
    instead = "leave it out" if is_pydantic(model) else f"write `{declaration} = field(init=False)`"
    return (
        f"define_table: got {name!r} among the fields that {model.__name__} is made from, expected it to be left to"
        f" the system, which sets it on what is read: {instead}; id_of(document) gives the id"
    )


def without_system_fields(fields: Any, names: Container[str] = SYSTEM_FIELDS) -> Any:
    """Return the fields without `_id` and `_creationTime`, or without those of them that are in `names`."""
    document = cast("dict[str, Any]", fields)
    if not isinstance(fields, dict) or not any(name in fields for name in SYSTEM_FIELDS):
        return document
    return {name: value for name, value in document.items() if name not in names}


def with_system_fields(instance: Any, fields: Mapping[str, Any]) -> Any:
    """Return the instance with `_id` and `_creationTime` as attributes, as far as `fields` has them."""
    for name in SYSTEM_FIELDS:
        if name in fields:
            with suppress(AttributeError):  # a class with slots, and none for them
                object.__setattr__(instance, name, fields[name])
    return instance


class ModelValidator(Validator):
    """Accepts instances of a class, and dicts that fit its fields. The checked value is an instance."""

    __slots__ = ("fields", "left_to_system", "model")

    def __init__(self, model: type, fields: Validator) -> None:
        self.model = model
        self.fields = fields
        own = _names_in_data(model)
        self.left_to_system = tuple(name for name in SYSTEM_FIELDS if name not in own)

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        fields = change(self.fields)
        return self if fields is self.fields else type(self)(self.model, fields)

    def written(self, value: Any) -> Any:
        return self.fields.written(value)

    def kinds(self) -> Kinds:
        kinds = self.fields.kinds()
        return None if kinds is None else kinds | {self.model}

    def describe(self) -> str:
        return self.model.__name__

    def parts(self) -> tuple[object, ...]:
        return self.model, self.fields


class DataclassValidator(ModelValidator):
    """The validator of a dataclass. A `ValueError` of the class, for example in `__post_init__`, is a mismatch."""

    __slots__ = ()

    def __init__(self, model: type, fields: Validator) -> None:
        super().__init__(model, fields)
        if has_forms(fields):
            writers[model] = fields.written

    def check(self, value: Any, ids: Ids) -> Any:
        given = fields_of(value) if isinstance(value, self.model) else value
        fields = self.fields.check(given, ids)
        if isinstance(value, self.model) and fields is given:
            return value
        try:
            instance = self.model(**without_system_fields(fields, self.left_to_system))
        except ValueError as error:
            raise self.mismatch(value, f": {error}") from error
        return with_system_fields(instance, fields)

    def shaped(self) -> Validator:
        return _DataclassShape(self) if hasattr(self.model, "__post_init__") else self.fields.shape


class _DataclassShape(ModelValidator):
    """Accepts what the class accepts, and returns it as a plain value."""

    __slots__ = ("_whole",)

    def __init__(self, whole: DataclassValidator) -> None:
        super().__init__(whole.model, whole.fields.shape)
        self._whole = whole

    def check(self, value: Any, ids: Ids) -> Any:
        fields = self.fields.check(value, ids)
        self._whole.check(fields, ids)
        return fields

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        return self._whole.over(change).shape

    def shaped(self) -> Validator:
        return self


class LeftToPydantic(AnyValidator):
    """The validator of a field that only pydantic reads, because pydantic accepts more forms of times.

    Instances are stored in the form that they have in other classes.
    """

    __slots__ = ("_named",)

    def __init__(self, named: Validator) -> None:
        self._named = named

    def written(self, value: Any) -> Any:
        return self._named.written(value)

    def shaped(self) -> Validator:
        named = self._named.members if isinstance(self._named, UnionValidator) else (self._named,)
        forms = [one for one in named if one.kinds() != frozenset((type(None),))]
        # In a union, with str for example, only pydantic knows which member a text belongs to.
        is_clear = len(forms) == 1 and isinstance(forms[0], TextFormValidator)
        return _Normalized(forms[0].shape) if is_clear else self


class _Normalized(AnyValidator):
    """Converts texts that duly can read to the stored form of instances, because two spellings would not sort."""

    __slots__ = ("_form",)

    def __init__(self, form: Validator) -> None:
        self._form = form

    def check(self, value: Any, ids: Ids) -> Any:
        try:
            return self._form.check(value, ids)
        except Mismatch:
            return value


class PydanticValidator(ModelValidator):
    """The validator of a pydantic model: duly checks the fields that it understands, then pydantic checks all."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        if not isinstance(value, self.model):
            return self._built(self.fields.check(value, ids))
        self.plain(value, ids)
        return value

    def _built(self, fields: Any) -> Any:
        model: Any = self.model
        try:
            instance = model.model_validate(without_system_fields(fields, self.left_to_system))
        except ValueError as error:
            raise _mismatch(error) from error
        return with_system_fields(instance, fields)

    def shaped(self) -> Validator:
        return _PydanticShape(self.model, self.fields.shape)


class _PydanticShape(PydanticValidator):
    """Accepts what pydantic accepts, and returns it as a plain value."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        fields = self.fields.check(value, ids)
        self._built(fields)
        return fields

    def shaped(self) -> Validator:
        return self


def _mismatch(error: ValueError) -> Mismatch:
    """Return the first error of pydantic as a mismatch."""
    found: Any = getattr(error, "errors", None)
    if found is None:
        return Mismatch(str(error))
    first = found()[0]
    problem = f"{first['msg']}, got {show(first['input'])}"
    if first["type"] == "missing":  # its input is the object around it
        problem = "missing required field"
    return Mismatch(problem).under("".join(map(step, first["loc"])))


def parses_itself(model: Any) -> bool:
    """Return whether a pydantic model may change its input before it checks the fields."""
    decorators = model.__pydantic_decorators__
    own = (*decorators.field_validators.values(), *decorators.model_validators.values())
    aliases = (info.validation_alias for info in model.model_fields.values())
    return (
        getattr(model, "__pydantic_root_model__", False)
        or any(one.info.mode != "after" for one in own)
        or any(alias is not None and not isinstance(alias, str) for alias in aliases)
    )


def pydantic_keys(model: Any, name: str, info: Any) -> list[str]:
    """Return the names under which a model accepts one of its fields."""
    if info.validation_alias is None:
        return [name]
    by_name = any(model.model_config.get(key) for key in ("populate_by_name", "validate_by_name"))
    return [info.validation_alias, name] if by_name else [info.validation_alias]
