"""Python annotations as validators: of types, and of the fields of models."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeGuard, cast

from duly.values.pydantic_data import is_pydantic
from duly.values.schema.containers import (
    ArrayValidator,
    ObjectValidator,
    OptionalValidator,
    RecordValidator,
    UnionValidator,
    not_optional,
)
from duly.values.schema.models import (
    DataclassValidator,
    LeftToPydantic,
    PydanticValidator,
    parses_itself,
    pydantic_keys,
)
from duly.values.schema.scalars import (
    AnyValidator,
    FloatValidator,
    IdValidator,
    IntValidator,
    LiteralValidator,
    TypeValidator,
)
from duly.values.schema.stored_forms import form_of, has_forms
from duly.values.schema.validator import Validator

if TYPE_CHECKING:  # Python 3.11 has no defaults of type variables; type checkers bring this package themselves
    from typing_extensions import TypeVar

    Model = TypeVar("Model", default=Any)
else:
    Model = typing.TypeVar("Model")

_Within: TypeAlias = tuple[type[object], ...]
"""The models a field is part of."""

_UNDERSTOOD: Final = (
    "str, int, float, bool, bytes, None, Any, list[T], dict[str, T], X | None, Literal[…], Id, Id[Model],"
    " datetime, date, time, timedelta, UUID, Decimal, an Enum, a TypedDict, a dataclass, a pydantic model or a"
    " validator"
)
_INSTEAD: Final = {
    **dict.fromkeys(("tuple", "set", "frozenset", "Sequence", "Iterable"), "use list[T]"),
    **dict.fromkeys(("Mapping", "MutableMapping", "OrderedDict", "defaultdict"), "use dict[str, T]"),
}


class Id(str, Generic[Model]):
    """The id of a document, in annotations. `Id[Order]` is the id of a document in the table that `Order` describes.

    It is for type checkers: at run time ids are plain strings.

        async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None: ...
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(str)


def validator_of(annotation: object) -> Validator:
    """Return the validator for an annotation. Raises a TypeError that names an annotation without a validator.

    >>> validator_of(dict[str, int | None]).describe()
    'record of integer or null'
    """
    return _read(annotation, ())


def is_model(annotation: object) -> TypeGuard[type]:
    """Return whether a class describes the fields of an object: a TypedDict, a dataclass or a pydantic model."""
    if not isinstance(annotation, type):
        return False
    model = cast("type[object]", annotation)
    return _is_typed_dict(model) or is_pydantic(model) or dataclasses.is_dataclass(model)


def _read(annotation: Any, within: _Within) -> Validator:
    if isinstance(annotation, Validator):
        return not_optional(annotation, "an annotation")
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _read_generic(origin, typing.get_args(annotation), annotation, within)
    if isinstance(annotation, Hashable) and annotation in _PLAIN:
        return _PLAIN[annotation]
    if (form := form_of(annotation)) is not None:
        return form
    if is_model(annotation):
        return _read_model(annotation, within)
    for alias in ("__value__", "__supertype__"):  # `type Name = …` and NewType
        if hasattr(annotation, alias):
            return _read(getattr(annotation, alias), within)
    raise _not_understood(annotation)


_PLAIN: Final[dict[object, Validator]] = {
    str: TypeValidator(str, "string"),
    int: IntValidator(),
    float: FloatValidator(),
    bool: TypeValidator(bool, "boolean"),
    bytes: TypeValidator(bytes, "bytes"),
    None: TypeValidator(type(None), "null"),
    type(None): TypeValidator(type(None), "null"),
    Any: AnyValidator(),
    object: AnyValidator(),
    list: ArrayValidator(AnyValidator()),
    dict: RecordValidator(TypeValidator(str, "string"), AnyValidator()),
    Id: IdValidator(None),
}


def _read_generic(origin: Any, args: tuple[Any, ...], annotation: object, within: _Within) -> Validator:
    if origin is typing.Annotated:
        return _read(args[0], within)
    if origin in (typing.Union, types.UnionType):
        return UnionValidator(*(_read(arg, within) for arg in args))
    if origin is typing.Literal:
        members = [_PLAIN[None] if arg is None else LiteralValidator(arg) for arg in args]
        return members[0] if len(members) == 1 else UnionValidator(*members)
    if origin is Id:
        return _read_id(args[0], annotation)
    if origin is list and args:
        return ArrayValidator(_read(args[0], within))
    if origin is dict and args:
        return RecordValidator(_read(args[0], within), _read(args[1], within))
    if is_model(origin) and _is_typed_dict(origin):
        return _read_model(origin, within, args)
    if origin in _PLAIN:  # typing.List and typing.Dict, bare
        return _PLAIN[origin]
    raise _not_understood(annotation)


def _read_id(model: Any, annotation: object) -> Validator:
    if model is Any:
        return IdValidator(None)
    if isinstance(model, type):
        return IdValidator(None, cast("type[object]", model))
    raise _not_understood(annotation)


def _not_understood(annotation: object) -> TypeError:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    origin = typing.get_origin(annotation) or annotation
    instead = _INSTEAD.get(getattr(origin, "__name__", ""), "")
    return TypeError(f"got the annotation {text}, expected {_UNDERSTOOD}{'; ' if instead else ''}{instead}")


def _read_model(model: type[object], within: _Within, args: tuple[Any, ...] = ()) -> Validator:
    if model in within:
        raise TypeError(f"{model.__name__} contains itself, expected dict for the inner one")
    if _is_typed_dict(model):
        return _read_typed_dict(model, (*within, model), args)
    if dataclasses.is_dataclass(model):
        return _read_dataclass(model, (*within, model))
    return _read_pydantic(model, (*within, model))


def _is_typed_dict(model: type[object]) -> bool:
    return hasattr(model, "__required_keys__") and issubclass(model, dict)


def _read_typed_dict(model: Any, within: _Within, args: tuple[Any, ...]) -> Validator:
    """Read the fields of a TypedDict.

    `args` are the types for its type variables, as in `Page[Order]`. In a bare `Page` they stand for any type.
    """
    given = dict(zip_longest(getattr(model, "__parameters__", ()), args, fillvalue=Any))
    fields: dict[str, Validator] = {}
    for name, hint in _hints(model).items():
        annotation, needed = hint, name in model.__required_keys__
        while (mark := qualifier(annotation)) in ("Required", "NotRequired", "ReadOnly"):
            needed = needed if mark == "ReadOnly" else mark == "Required"
            annotation = typing.get_args(annotation)[0]
        validator = _read_field(model, name, _filled(annotation, given), within)
        fields[name] = validator if needed else OptionalValidator(validator)
    return ObjectValidator(fields, name=model.__name__, model=model)


def _filled(annotation: Any, given: Mapping[Any, Any]) -> Any:
    """Return an annotation with its type variables replaced."""
    if isinstance(annotation, typing.TypeVar):
        return given.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if not any(one in given for one in variables):  # a class such as `Id` has variables of its own
        return annotation
    return annotation[tuple(given.get(one, one) for one in variables)]


def qualifier(annotation: object) -> str:
    """Return the name of what an annotation is wrapped in, such as NotRequired or Unpack."""
    # By name, because typing_extensions has classes of its own. __required_keys__ would be wrong where annotations are
    # strings.
    return str(typing.get_origin(annotation)).rpartition(".")[2]


def _read_dataclass(model: Any, within: _Within) -> Validator:
    hints = _hints(model)
    fields: dict[str, Validator] = {}
    for field in dataclasses.fields(model):
        if field.init:
            validator = _read_field(model, field.name, hints[field.name], within)
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            fields[field.name] = validator if needed else OptionalValidator(validator)
    return DataclassValidator(model, ObjectValidator(fields, name=model.__name__, model=model))


def _read_field(model: type, name: str, annotation: object, within: _Within) -> Validator:
    try:
        return _read(annotation, within)
    except TypeError as error:
        raise TypeError(f"field {name} of {model.__name__}: {error}") from None


def _hints(model: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(model, include_extras=True)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise TypeError(f"cannot evaluate the annotations of {model.__name__} ({cause})") from error


def _read_pydantic(model: Any, within: _Within) -> Validator:
    if parses_itself(model):
        return PydanticValidator(model, AnyValidator())
    fields: dict[str, Validator] = {}
    for name, info in model.model_fields.items():
        # Pydantic decides whether a field may be missing.
        validator = OptionalValidator(_read_pydantic_field(info, within))
        fields.update(dict.fromkeys(pydantic_keys(model, name, info), validator))
    rest = AnyValidator() if model.model_config.get("extra") in ("allow", "ignore") else None
    return PydanticValidator(model, ObjectValidator(fields, rest, model.__name__, model))


def _read_pydantic_field(info: Any, within: _Within) -> Validator:
    """Return the validator of a field. Pydantic reads what duly does not understand, and forms of times of its own."""
    if any(hasattr(extra, "__get_pydantic_core_schema__") for extra in info.metadata):
        return AnyValidator()
    try:
        validator = _read(info.annotation, within)
    except TypeError:
        return AnyValidator()
    return LeftToPydantic(validator) if has_forms(validator) else validator
