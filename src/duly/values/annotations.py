"""Python annotations as validators: of types, of models, of a handler's parameters and result."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeGuard, cast

from duly.values.calls import CtxValidator, check_called, names_of_ctx
from duly.values.checks import (
    AnyValidator,
    FloatValidator,
    IdValidator,
    IntValidator,
    LiteralValidator,
    Mismatch,
    TypeValidator,
    Validator,
)
from duly.values.containers import (
    ArrayValidator,
    ObjectValidator,
    OptionalValidator,
    RecordValidator,
    UnionValidator,
    never_absent,
)
from duly.values.forms import form_of, has_forms
from duly.values.models import DataclassValidator, LeftToPydantic, PydanticValidator, parses_itself, pydantic_keys
from duly.values.plain import to_plain
from duly.values.pydantic_data import is_pydantic
from duly.values.value import UNSET

if TYPE_CHECKING:  # Python 3.11 has no defaults of type variables; type checkers bring this package themselves
    from typing_extensions import TypeVar

    Model = TypeVar("Model", default=Any)
else:
    Model = typing.TypeVar("Model")

__all__ = [
    "Id",
    "arguments_of",
    "check_handler_accepts",
    "ctx_of",
    "is_model",
    "returns_of",
    "to_plain",
    "validator_of",
]

Handler: TypeAlias = Callable[..., Any]
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
    """In annotations: the id of a document, `Id[Order]` of one in the table described by `Order`.

    For type checkers only: ids are plain strings when the program runs.

        async def get(ctx: QueryCtx, order_id: Id[Order]) -> Order | None: ...
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(str)


def validator_of(annotation: object) -> Validator:
    """The validator an annotation stands for; a TypeError names one that stands for none.

    >>> validator_of(dict[str, int | None]).describe()
    'record of integer or null'
    """
    return _read(annotation, ())


def is_model(annotation: object) -> TypeGuard[type]:
    """Whether it describes the fields of an object: a TypedDict, a dataclass or a pydantic model."""
    if not isinstance(annotation, type):
        return False
    model = cast("type[object]", annotation)
    return _is_typed_dict(model) or is_pydantic(model) or dataclasses.is_dataclass(model)


def arguments_of(handler: Handler) -> ObjectValidator:
    """What a handler takes besides its first parameter, `ctx`.

    A parameter without annotation takes anything, one with a default may be absent, `**rest` takes more: whatever
    has another name, or with `**rest: Unpack[Options]` the fields of a TypedDict.

    >>> async def greet(ctx, name: str, times: int = 1): ...
    >>> arguments_of(greet) == v.object({"name": v.string(), "times": v.optional(v.int64())})
    True
    """
    fields: dict[str, Validator] = {}
    rest: Validator | None = None
    for parameter in _parameters(handler):
        place = f"parameter {parameter.name} of {_name(handler)}()"
        if parameter.kind is parameter.VAR_KEYWORD:
            fields, rest = _with_rest(fields, parameter.annotation, handler, place)
            continue
        validator = _declared(parameter.annotation, handler, place)
        optional = parameter.default is not parameter.empty
        if optional and parameter.default is not UNSET:
            _check_default(validator, parameter.default, place)
        fields[parameter.name] = OptionalValidator(validator) if optional else validator
    arguments = ObjectValidator(fields, rest)
    check_called(handler, arguments)
    return arguments


def _with_rest(
    fields: dict[str, Validator], annotation: object, handler: Handler, place: str
) -> tuple[dict[str, Validator], Validator | None]:
    """The fields with those that `**rest` stands for, and what it says of others."""
    evaluated = None if annotation is inspect.Parameter.empty else _evaluated(annotation, handler, place)
    if _qualifier(evaluated) != "Unpack":
        taken = {name: OptionalValidator(CtxValidator()) for name in names_of_ctx(handler)}
        return {**taken, **fields}, _declared(annotation, handler, place)
    [model] = typing.get_args(evaluated)
    options = _declared(model, handler, place)
    if not isinstance(options, ObjectValidator):
        raise TypeError(f"{place}: got the annotation Unpack of {options.expected()}, expected that of a TypedDict")
    if twice := fields.keys() & options.fields.keys():
        raise TypeError(f"{place}: got the field {min(twice)}, expected one that is no parameter beside it")
    return {**fields, **options.fields}, options.rest


def _check_default(validator: Validator, default: object, place: str) -> None:
    """Raise a TypeError if callers may not give the value that is the default."""
    store = _NoStore()
    try:
        if not isinstance(validator, AnyValidator):  # for those, a default may be a mark that no caller can give
            validator.plain(default, store)
    except Mismatch as error:
        if not store.was_asked:
            advice = "; add `| None` to its annotation" if default is None else ""
            raise TypeError(f"{place}: its default: {error}{advice}") from None


class _NoStore:
    """Knows no ids, and whether that matters."""

    was_asked = False

    def table_of(self, id: str, /) -> None:
        self.was_asked = True


def returns_of(handler: Handler) -> Validator | None:
    """What a handler says it returns, None if it does not say."""
    annotation = inspect.signature(handler).return_annotation
    if annotation is inspect.Signature.empty:
        return None
    return _declared(annotation, handler, f"the result of {_name(handler)}()")


def check_handler_accepts(handler: Handler, arguments: ObjectValidator) -> None:
    """Raise a TypeError unless the handler can be called with whatever the declared arguments allow."""
    parameters = {parameter.name: parameter for parameter in _parameters(handler)}
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, field in arguments.fields.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
            if not takes_more:
                raise TypeError(f"{_name(handler)}() has no parameter for the declared argument {name}")
        elif isinstance(field, OptionalValidator) and parameter.default is parameter.empty:
            raise TypeError(
                f"parameter {name} of {_name(handler)}() has no default, expected one:"
                " its argument is declared optional"
            )
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and name not in arguments.fields:
            raise TypeError(f"parameter {name} of {_name(handler)}() has no default and no declared argument")
    check_called(handler, arguments)


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    """The parameters after ctx; all of them can be given by keyword."""
    parameters = list(inspect.signature(handler).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in by_position:
        raise TypeError(f"{_name(handler)}() has no place for ctx, expected it as the first parameter")
    if not _is_ctx(parameters[0]):
        raise TypeError(
            f"{_name(handler)}() has the first parameter {parameters[0]}, expected ctx before it; call that ctx, or"
            " annotate it with the class of its ctx, such as MutationCtx"
        )
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(
                f"parameter {parameter} of {_name(handler)}() is given by position,"
                " expected one that can be given by its name: arguments are passed as keywords"
            )
    return parameters[1:]


def _is_ctx(parameter: inspect.Parameter) -> bool:
    """Whether it is meant to be that, by its name or its annotation, which nobody may be able to evaluate."""
    by_name = parameter.name.strip("_") in ("", "c", "ctx", "context")
    return by_name or _text_of(parameter).endswith(("Ctx", "Context"))


def ctx_of(handler: Handler) -> tuple[str, str]:
    """The name of a handler's first parameter, and of the class it is annotated with; "" if that is no plain name."""
    # What wraps a function may hand it another ctx: what counts is what itself is given.
    for parameter in inspect.signature(handler, follow_wrapped=False).parameters.values():
        text = _text_of(parameter)
        return parameter.name, text.rpartition(".")[2] if text.replace(".", "").isidentifier() else ""
    return "", ""


def _text_of(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    text: str = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.strip("'\"")


def _name(handler: Handler) -> str:
    return getattr(handler, "__name__", None) or repr(handler)


def _declared(annotation: object, handler: Handler, place: str) -> Validator:
    if annotation is inspect.Parameter.empty:
        return AnyValidator()
    evaluated = _evaluated(annotation, handler, place)
    try:
        return _read(evaluated, ())
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from None


def _evaluated(annotation: object, handler: Handler, place: str) -> object:
    """The annotation with the names in its strings looked up where the handler was written."""
    function: Any = inspect.unwrap(handler)
    # Any object with annotations will do: one at a time, so that nobody evaluates that of ctx.
    alone = cast("Any", types.SimpleNamespace(__annotations__={"it": annotation}))
    try:
        scope: dict[str, Any] = getattr(function, "__globals__", {})
        hints = typing.get_type_hints(alone, scope, _nonlocals(function), include_extras=True)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise TypeError(f"{place}: cannot evaluate its annotation {annotation!r} ({cause})") from error
    return hints["it"]


def _nonlocals(function: Any) -> dict[str, object]:
    cells = getattr(function, "__closure__", None) or ()
    names: tuple[str, ...] = function.__code__.co_freevars if cells else ()
    found: dict[str, object] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # assigned later
            continue
    return found


def _read(annotation: Any, within: _Within) -> Validator:
    if isinstance(annotation, Validator):
        return never_absent(annotation, "an annotation")
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
    """`args` are what its own type variables stand for, as in `Page[Order]`; those of a bare `Page` for anything."""
    given = dict(zip_longest(getattr(model, "__parameters__", ()), args, fillvalue=Any))
    fields: dict[str, Validator] = {}
    for name, hint in _hints(model).items():
        annotation, needed = hint, name in model.__required_keys__
        while (qualifier := _qualifier(annotation)) in ("Required", "NotRequired", "ReadOnly"):
            needed = needed if qualifier == "ReadOnly" else qualifier == "Required"
            annotation = typing.get_args(annotation)[0]
        validator = _read_field(model, name, _filled(annotation, given), within)
        fields[name] = validator if needed else OptionalValidator(validator)
    return ObjectValidator(fields, name=model.__name__, model=model)


def _filled(annotation: Any, given: Mapping[Any, Any]) -> Any:
    """An annotation with what its type variables stand for in their places."""
    if isinstance(annotation, typing.TypeVar):
        return given.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if not any(one in given for one in variables):  # a class such as `Id` has variables of its own
        return annotation
    return annotation[tuple(given.get(one, one) for one in variables)]


def _qualifier(annotation: object) -> str:
    # By name, for typing_extensions has its own ones. __required_keys__ alone does not do: it is wrong
    # where annotations are strings.
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
        # Whether a field may be absent is pydantic's to say.
        validator = OptionalValidator(_read_pydantic_field(info, within))
        fields.update(dict.fromkeys(pydantic_keys(model, name, info), validator))
    rest = AnyValidator() if model.model_config.get("extra") in ("allow", "ignore") else None
    return PydanticValidator(model, ObjectValidator(fields, rest, model.__name__, model))


def _read_pydantic_field(info: Any, within: _Within) -> Validator:
    """What duly understands of a field it checks itself; the rest is left to pydantic, so are its forms of times."""
    if any(hasattr(extra, "__get_pydantic_core_schema__") for extra in info.metadata):
        return AnyValidator()
    try:
        validator = _read(info.annotation, within)
    except TypeError:
        return AnyValidator()
    return LeftToPydantic(validator) if has_forms(validator) else validator
