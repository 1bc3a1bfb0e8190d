"""A function under one name of one application, with its compiled validators."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from duly.declare.function import ACTION, Function
from duly.errors import ArgumentValidationError, FunctionError, ReturnsValidationError
from duly.limits import OF_ANY_SIZE, Limits
from duly.values.json import CHARACTER_BYTES_MAX, NotAValueError, check_size, dumps, loads
from duly.values.plain import to_plain
from duly.values.pydantic_data import without_hidden
from duly.values.schema.scalars import IdValidator, TypeValidator
from duly.values.schema.stored_forms import has_forms
from duly.values.schema.validator import Ids, Mismatch, Validator

_ESCAPED_BYTES_MAX: Final = 6
"""The bytes that a character of ASCII has at most in JSON: as `\\u0000`."""
_ATOMS: Final = frozenset((type(None), str, int, float, bool))


class RegisteredFunction:
    """A function under one name of one application, with its compiled validators."""

    __slots__ = (
        "_arguments",
        "_check_shape",
        "_limits",
        "_returns",
        "_returns_instances",
        "_short_text",
        "blocking",
        "function",
        "handler",
        "is_plain",
        "kind",
        "name",
        "public",
        "returns_none",
    )

    def __init__(self, name: str, function: Function[Any, Any], models: Mapping[type, str], limits: Limits) -> None:
        self.name = name
        self._limits = limits
        self._short_text = limits.result_bytes_max // _ESCAPED_BYTES_MAX - 1
        """The length up to which an ASCII text is a result that needs no check."""
        self.function = function
        self.kind = function.kind
        self.public = function.public
        self.handler: Callable[..., Any] = function.handler
        self.blocking = function.kind == ACTION and not inspect.iscoroutinefunction(function.handler)
        self._arguments = function.argument_validator.bind(models)
        self._check_shape = self._arguments.shape.check
        returns = function.return_validator
        self._returns = None if returns is None else returns.bind(models)
        self._returns_instances = self._returns is not None and self._returns.shape is not self._returns
        """Whether its annotation names instances: of models, or of types that are stored in another form."""
        is_coroutine, has_instances = inspect.iscoroutinefunction(function.handler), self._returns_instances
        self.is_plain = is_coroutine and not has_instances and self._arguments.shape is self._arguments
        """Whether it is a coroutine whose arguments and result are made without a line of the application's code."""
        # Most handlers return None: the runner reads this and does not call `result` for them.
        self.returns_none = self._returns is None or _accepts_none(self._returns)

    def encode(self, args: object) -> str:
        """Return the arguments of a call as JSON; None stands for no arguments."""
        try:
            return encode_arguments(self.name, args, self._limits)
        except ArgumentValidationError:
            plain = to_plain(args)
            written = self._arguments.written(plain)  # a datetime as text, where the function declares a datetime
            if written is plain:
                self._explain(written)
                raise
        try:
            return encode_arguments(self.name, written, self._limits)
        except ArgumentValidationError:
            self._explain(written)
            raise

    def _explain(self, args: object) -> None:
        """Raise a better error for arguments that are no values, such as a date where a datetime is expected."""
        if not isinstance(args, dict) or not has_forms(self._arguments):
            return
        try:
            _of_any_ids(self._arguments).shape.check(args, _NoIds())
        except Mismatch as error:
            raise ArgumentValidationError(f"{self.name}: {error}") from None
        except Exception:  # a class of the application may raise anything
            return

    def arguments(self, text: str, ids: Ids) -> dict[str, Any]:
        """Return the keyword arguments for the handler, from their JSON."""
        try:
            arguments: dict[str, Any] = self._arguments.check(loads(text) if text != "{}" else {}, ids)
        except Mismatch as error:
            raise ArgumentValidationError(f"{self.name}: {error}") from None
        return arguments

    def misfit(self, args: object, text: str, ids: Ids) -> ArgumentValidationError | None:
        """Return the error of arguments that do not fit a later run; None if they fit. `text` is `args` as JSON.

        The check begins with `args`: most are plain values, and then the JSON need not be parsed.
        """
        try:
            self._check_shape({} if args is None else args, ids)
        except Exception:  # a class of the application may raise anything
            try:
                self.arguments(text, ids)
            except ArgumentValidationError as error:
                return error
            except Exception as error:
                return ArgumentValidationError(f"{self.name}: {type(error).__name__}: {error}")
        return None

    def result(self, value: object, ids: Ids, as_plain: bool = False) -> Any:
        """Return the validated value of the handler: in the form of its annotation, or plain with `as_plain`."""
        is_atom = type(value) in _ATOMS
        if not is_atom and inspect.isawaitable(value):
            raise FunctionError(f"{self.name}: it returned {_not_awaited(value)}")
        try:
            if is_atom and not self._returns_instances:  # as are ids
                checked = value if self._returns is None else self._returns.check(value, ids)
                if type(checked) is not str or not checked.isascii() or len(checked) > self._short_text:
                    self._result_text(checked)
                return checked
            plain = to_plain(value)
            if self._returns is not None and self._returns_instances and not as_plain:
                return self._returns.check(loads(self._built_text(plain, self._returns, ids)), ids)
            checked = plain if self._returns is None else self._returns.shape.check(plain, ids)
            value = checked if plain is value else without_hidden(value, checked)
            text = self._result_text(value)
        except (Mismatch, NotAValueError) as error:
            raise ReturnsValidationError(f"{self.name}: its return value: {error}") from None
        return value if value is None or type(value) is str else loads(text)

    def _built_text(self, plain: object, returns: Validator, ids: Ids) -> str:
        try:
            return self._result_text(plain)
        except NotAValueError:
            returns.shape.check(plain, ids)  # which says what is expected there, if something is
            raise

    def _result_text(self, plain: object) -> str:
        text = self._text(plain, self._limits)
        if len(text) * CHARACTER_BYTES_MAX > self._limits.result_bytes_max:
            check_size(text, self._limits, "result_bytes_max", f"{self.name}: its return value")
        return text

    def text_of(self, result: object) -> str:
        """Return a result as JSON, for comparison with an earlier one."""
        return self._text(to_plain(result), OF_ANY_SIZE)

    def _text(self, plain: object, limits: Limits) -> str:
        try:
            return dumps(plain, limits)
        except NotAValueError:
            written = plain if self._returns is None else self._returns.written(plain)
            if written is plain:
                raise
        return dumps(written, limits)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


NOT_A_RESULT: Final = "__duly_not_a_result__"
"""An attribute of awaitable classes that a handler returns only by mistake. Its text says what to return instead."""


def _not_awaited(awaitable: Awaitable[object]) -> str:
    """Describe what was returned without `await`, and the remedy. Close a coroutine, or Python would warn, too."""
    hint: str | None = getattr(type(awaitable), NOT_A_RESULT, None)
    if hint is not None:
        return hint
    if inspect.iscoroutine(awaitable):
        awaitable.close()
        got = f"the coroutine of {awaitable.__qualname__}()"
    else:
        got = f"something to await ({type(awaitable).__name__})"
    return f"{got}, expected its value; forgot `await`?"


def encode_arguments(name: str, args: object, limits: Limits) -> str:
    """Return the arguments of a call of a function as JSON; None stands for no arguments."""
    if args is None:
        return "{}"
    given: object = args
    if not isinstance(args, dict):
        raise ArgumentValidationError(
            f"{name}: got {args!r:.80} ({type(args).__name__}), expected the arguments as a dict"
        )
    try:
        text = dumps(given, limits)
    except NotAValueError as error:
        raise ArgumentValidationError(f"{name}: {error}") from None
    if len(text) * CHARACTER_BYTES_MAX > limits.arguments_bytes_max:
        check_size(text, limits, "arguments_bytes_max", f"{name}: arguments")
    return text


def _of_any_ids(validator: Validator) -> Validator:
    """Return the same validator, with any string for an id: the ids of the store are not known yet."""
    return TypeValidator(str, "id") if isinstance(validator, IdValidator) else validator.over(_of_any_ids)


def _accepts_none(validator: Validator) -> bool:
    try:
        return validator.plain(None, _NoIds()) is None
    except Mismatch:
        return False


class _NoIds:
    def table_of(self, id: str, /) -> None:
        return None
