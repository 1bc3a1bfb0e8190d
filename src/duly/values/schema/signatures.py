"""What the signature of a handler declares: its arguments, all of them passed by name after ctx, and its result."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from duly.values.plain import UNSET
from duly.values.schema.annotations import qualifier, validator_of
from duly.values.schema.containers import ObjectValidator, OptionalValidator
from duly.values.schema.scalars import AnyValidator
from duly.values.schema.validator import Ids, Mismatch, Validator

Handler: TypeAlias = Callable[..., Any]


def arguments_of(handler: Handler) -> ObjectValidator:
    """Return the validator of the arguments of a handler: its parameters after the first, which is `ctx`.

    A parameter without annotation accepts any value. One with a default is optional. `**rest` accepts arguments with
    any other name, and `**rest: Unpack[Options]` the fields of a TypedDict.

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
    check_call(handler, arguments)
    return arguments


def _with_rest(
    fields: dict[str, Validator], annotation: object, handler: Handler, place: str
) -> tuple[dict[str, Validator], Validator | None]:
    """Return the fields with those that `**rest` adds, and the validator of all other arguments."""
    evaluated = None if annotation is inspect.Parameter.empty else _evaluated(annotation, handler, place)
    if qualifier(evaluated) != "Unpack":
        refused = {name: OptionalValidator(CtxValidator()) for name in names_of_ctx(handler)}
        return {**refused, **fields}, _declared(annotation, handler, place)
    [model] = typing.get_args(evaluated)
    options = _declared(model, handler, place)
    if not isinstance(options, ObjectValidator):
        raise TypeError(f"{place}: got the annotation Unpack of {options.expected()}, expected that of a TypedDict")
    if twice := fields.keys() & options.fields.keys():
        raise TypeError(f"{place}: got the field {min(twice)}, expected one that is no parameter beside it")
    return {**fields, **options.fields}, options.rest


def _check_default(validator: Validator, default: object, place: str) -> None:
    """Raise a TypeError if the default is a value that callers may not pass."""
    store = _NoStore()
    try:
        if not isinstance(validator, AnyValidator):  # their default may be a marker that callers cannot pass
            validator.plain(default, store)
    except Mismatch as error:
        if not store.was_used:
            advice = "; add `| None` to its annotation" if default is None else ""
            raise TypeError(f"{place}: its default: {error}{advice}") from None


class _NoStore:
    """The ids of no store. It records whether a check needed one."""

    was_used = False

    def table_of(self, id: str, /) -> None:
        self.was_used = True


def returns_of(handler: Handler) -> Validator | None:
    """Return the validator of the result; None if the handler does not declare one."""
    annotation = inspect.signature(handler).return_annotation
    if annotation is inspect.Signature.empty:
        return None
    return _declared(annotation, handler, f"the result of {_name(handler)}()")


def check_handler_accepts(handler: Handler, arguments: ObjectValidator) -> None:
    """Raise a TypeError unless the handler accepts all calls that the declared arguments allow."""
    parameters = {parameter.name: parameter for parameter in _parameters(handler)}
    has_rest = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, field in arguments.fields.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
            if not has_rest:
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
    check_call(handler, arguments)


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    """Return the parameters after ctx. Raises TypeError if one of them cannot be passed by name."""
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
    """Return whether a parameter is ctx, by its name or the text of its annotation, which need not be evaluable."""
    by_name = parameter.name.strip("_") in ("", "c", "ctx", "context")
    return by_name or _text_of(parameter).endswith(("Ctx", "Context"))


def ctx_of(handler: Handler) -> tuple[str, str]:
    """Return the names of the first parameter and of the class in its annotation, "" if that is no plain name."""
    # A wrapper may pass another ctx to the function that it wraps: its own first parameter counts.
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
        return validator_of(evaluated)
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from None


def _evaluated(annotation: object, handler: Handler, place: str) -> object:
    """Return the annotation with the names in its strings looked up where the handler is defined."""
    function: Any = inspect.unwrap(handler)
    # Any object with annotations will do. One at a time, so that the annotation of ctx is never evaluated.
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


class CtxValidator(Validator):
    """Accepts nothing: Python would pass an argument of this name as ctx."""

    __slots__ = ()

    def check(self, value: Any, ids: Ids) -> Any:
        raise Mismatch("this is the name of the first parameter, which is ctx; expected another name")

    def describe(self) -> str:
        return "nothing"


def names_of_ctx(handler: Callable[..., Any]) -> set[str]:
    """Return the names by which the first parameter of a handler, and of what it wraps, can be passed."""
    signatures = (inspect.signature(handler, follow_wrapped=inner) for inner in (False, True))
    firsts = [next(iter(signature.parameters.values()), None) for signature in signatures]
    return {first.name for first in firsts if first is not None and first.kind is first.POSITIONAL_OR_KEYWORD}


def check_call(handler: Callable[..., Any], arguments: ObjectValidator) -> None:
    """Raise a TypeError if an argument has the name of ctx, or if a wrapper of the handler does not accept it."""
    outer = list(inspect.signature(handler, follow_wrapped=False).parameters.values())[1:]
    has_rest = any(parameter.kind is parameter.VAR_KEYWORD for parameter in outer)
    by_name = {one.name for one in outer if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    for name, field in arguments.fields.items():
        if isinstance(field, OptionalValidator) and isinstance(field.member, CtxValidator):
            continue
        if name in names_of_ctx(handler):
            raise TypeError(
                f"{_name(handler)}() has the argument {name}, expected another name: its ctx bears that one"
            )
        if not has_rest and name not in by_name:
            raise TypeError(
                f"{_name(handler)}() takes the argument {name}, but what wraps it does not: give the wrapper"
                " `**arguments`, and hand them on"
            )
