"""The functions of an application: loads its modules, compiles what they declare, finds what is called."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, cast

from duly.errors import (
    ArgumentValidationError,
    DulyError,
    FunctionError,
    FunctionNotFoundError,
    LoadError,
    ReturnsValidationError,
)
from duly.functions.cron_jobs import CronJobs, Declaration
from duly.functions.define import ACTION, QUERY, Function, Ref, Reference, canonical
from duly.functions.modules import Source, is_package, load_modules
from duly.functions.queries import Query
from duly.limits import DEFAULTS, OF_ANY_SIZE, Limits
from duly.logs import log_of
from duly.model.crons import Spec
from duly.values.checks import Ids, IdValidator, Mismatch, TypeValidator, Validator
from duly.values.fingerprints import fingerprint_of_schema
from duly.values.forms import has_forms
from duly.values.plain import to_plain
from duly.values.pydantic_data import without_hidden
from duly.values.schema import Place, SchemaDefinition, define_schema, place_of
from duly.values.value import NotAValueError, check_size, dumps, loads

_log: Final = log_of("duly.run")


class Registered:
    """A function under one name of one application, with its compiled validators."""

    __slots__ = (
        "_arguments",
        "_builds",
        "_fits",
        "_limits",
        "_returns",
        "blocking",
        "function",
        "handler",
        "kind",
        "name",
        "public",
        "returns_none",
    )

    def __init__(self, name: str, function: Function[Any, Any], models: Mapping[type, str], limits: Limits) -> None:
        self.name = name
        self._limits = limits
        self.function = function
        self.kind = function.kind
        self.public = function.public
        self.handler: Callable[..., Any] = function.handler
        self.blocking = function.kind == ACTION and not inspect.iscoroutinefunction(function.handler)
        self._arguments = function.takes.bind(models)
        self._fits = self._arguments.shape.check
        self._returns = None if function.gives is None else function.gives.bind(models)
        self._builds = self._returns is not None and self._returns.shape is not self._returns
        """Whether its annotation names instances: of models, or of what is stored in another form."""
        # Most handlers return nothing: the runner asks this before it asks for `result`.
        self.returns_none = self._returns is None or _accepts_none(self._returns)

    def encode(self, args: object) -> str:
        """The arguments of a call as JSON; None is no arguments."""
        try:
            return encode_arguments(self.name, args, self._limits)
        except ArgumentValidationError:
            plain = to_plain(args)
            written = self._arguments.written(plain)  # a datetime, where the function asks for one
            if written is plain:
                self._explain(written)
                raise
        try:
            return encode_arguments(self.name, written, self._limits)
        except ArgumentValidationError:
            self._explain(written)
            raise

    def _explain(self, args: object) -> None:
        """Raise what says more of arguments that are no values: a date, where the function asks for a datetime."""
        if not isinstance(args, dict) or not has_forms(self._arguments):
            return
        try:
            _of_any_ids(self._arguments).shape.check(args, _NoIds())
        except Mismatch as error:
            raise ArgumentValidationError(f"{self.name}: {error}") from None
        except Exception:  # those of an application's classes are any
            return

    def arguments(self, text: str, ids: Ids) -> dict[str, Any]:
        """The keyword arguments for the handler, from their JSON."""
        try:
            arguments: dict[str, Any] = self._arguments.check(loads(text) if text != "{}" else {}, ids)
        except Mismatch as error:
            raise ArgumentValidationError(f"{self.name}: {error}") from None
        return arguments

    def misfit(self, args: object, text: str, ids: Ids) -> ArgumentValidationError | None:
        """What is wrong with arguments that it is to run with later, given as they are and as JSON; None if nothing is.

        Most are plain values, so that nothing has to be made of the JSON: what does not fit as it is may do so as that.
        """
        try:
            self._fits({} if args is None else args, ids)
        except Exception:  # those of an application's classes are any
            try:
                self.arguments(text, ids)
            except ArgumentValidationError as error:
                return error
            except Exception as error:
                return ArgumentValidationError(f"{self.name}: {type(error).__name__}: {error}")
        return None

    def result(self, value: object, ids: Ids, as_plain: bool = False) -> Any:
        """What the handler returned, as what its annotation says; `as_plain` for who is to get plain values."""
        if isinstance(value, Query):
            raise FunctionError(f"{self.name}: it returned a query, expected its documents: end it with .collect()")
        if inspect.isawaitable(value):
            raise FunctionError(f"{self.name}: it returned {_closed(value)}, expected its value; forgot `await`?")
        try:
            plain = to_plain(value)
            if self._returns is not None and self._builds and not as_plain:
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
        return check_size(text, self._limits, "result_bytes_max", f"{self.name}: its return value")

    def text_of(self, result: object) -> str:
        """A result as JSON, to tell whether it is another one."""
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


def _closed(awaitable: Awaitable[object]) -> str:
    """What was not awaited; closed, so that Python does not warn of it, too."""
    if not inspect.iscoroutine(awaitable):
        return f"something to await ({type(awaitable).__name__})"
    awaitable.close()
    return f"the coroutine of {awaitable.__qualname__}()"


def encode_arguments(name: str, args: object, limits: Limits) -> str:
    """The arguments of a call of a function as JSON; None is no arguments."""
    if args is None:
        return "{}"
    if not isinstance(args, dict):
        raise ArgumentValidationError(
            f"{name}: got {args!r:.80} ({type(args).__name__}), expected the arguments as a dict"
        )
    try:
        text = dumps(cast("object", args), limits)
    except NotAValueError as error:
        raise ArgumentValidationError(f"{name}: {error}") from None
    return check_size(text, limits, "arguments_bytes_max", f"{name}: arguments")


def _of_any_ids(validator: Validator) -> Validator:
    """The same, where nobody knows yet which ids there are."""
    return TypeValidator(str, "id") if isinstance(validator, IdValidator) else validator.over(_of_any_ids)


def _accepts_none(validator: Validator) -> bool:
    try:
        return validator.plain(None, _NoIds()) is None
    except Mismatch:
        return False


class _NoIds:
    def table_of(self, id: str, /) -> None:
        return None


class Registry:
    """The functions and the schema of one application, as loaded at one moment."""

    def __init__(self, modules: Mapping[str, object], limits: Limits = DEFAULTS) -> None:
        _check_modules(modules)
        self.limits = limits
        self.schema = SchemaDefinition(_schema_of(modules).tables)  # another one each time it is loaded
        self.functions: dict[str, Registered] = {}
        self._names: dict[Function[Any, Any], str] = {}
        self._anew: dict[Place | None, str] = {}  # for code that runs since before it was loaded anew
        models = self.schema.models
        for module, members in modules.items():
            for attribute, function in _functions_of(members) if not is_package(module) else ():
                self._add(f"{module}:{attribute}", function, models)
        self._found: dict[Ref[Any], Registered] = dict(self.functions.items())
        self.crons = [self._cron(name, declared) for name, declared in _crons_of(modules).items()]

    @cached_property
    def mark(self) -> str:
        """Tells one version of the application from others: its tables, the names of its functions, its crons."""
        names = sorted((name, function.kind) for name, function in self.functions.items())
        text = f"{fingerprint_of_schema(self.schema)}{names}{sorted(self.crons) or ''}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @staticmethod
    def load(source: Source, limits: Limits = DEFAULTS, *, anew: bool = False) -> Registry:
        """The application in a folder, a package, or a mapping of names to modules."""
        return Registry(load_modules(source, anew), limits)

    def _add(self, name: str, function: Function[Any, Any], models: Mapping[type, str]) -> None:
        try:
            self.functions[name] = Registered(name, function, models, self.limits)
        except TypeError as error:
            raise LoadError(f"{name}: {error}") from error
        # A function that several modules import bears the name of the one that defines it.
        own = function.__module__.rpartition(".")[2] == name.partition(":")[0].rpartition("/")[2]
        if own or function not in self._names:
            self._names[function] = name
            if (place := place_of(function)) is not None:
                self._anew[place] = name

    def _cron(self, identifier: str, declared: Declaration) -> Spec:
        """A cron whose function is known to exist and to be one that can be scheduled."""
        ref, args, schedule, options = declared
        try:
            function = self.find(ref)
            text = function.encode(args)
        except DulyError as error:
            raise LoadError(f"crons: {identifier}: {error}") from error
        if function.kind == QUERY:
            raise LoadError(f"crons: {identifier}: {function.name} is a query, expected a mutation or an action")
        return Spec(identifier, function.name, function.kind, text, schedule, options)

    def checked_crons(self, ids: Ids, development: bool) -> list[Spec]:
        """The crons that are declared. LoadError where a function does not take its arguments; in production a warning,
        for a later version may take them.
        """
        for cron in self.crons:
            misfit = self.functions[cron.function].misfit(loads(cron.args), cron.args, ids)
            if misfit is not None and development:
                raise LoadError(f"crons: {cron.name}: {misfit}") from misfit
            if misfit is not None:
                _log.warning("the cron %r fails whenever it runs: %s", cron.name, misfit)
        return self.crons

    def find(self, ref: Ref[Any], kinds: Iterable[str] = ()) -> Registered:
        """The function a reference names, if it is of one of `kinds`."""
        try:
            found = self._found.get(ref)
        except TypeError:  # nothing that can be a reference
            found = None
        if found is None:
            found = self._found[ref] = self._resolve(ref)
        if kinds and found.kind not in kinds:
            wanted = " or ".join(map(_with_article, kinds))
            raise FunctionNotFoundError(f"{found.name} is {_with_article(found.kind)}, expected {wanted}")
        return found

    def _resolve(self, ref: Ref[Any]) -> Registered:
        if isinstance(ref, Function):
            name = self._names.get(ref) or self._anew.get(place_of(ref))
            if name is None:
                raise FunctionNotFoundError(f"{ref!r} is no function of this app, expected one of a module it loads")
            return self.functions[name]
        if not isinstance(ref, str | Reference):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise FunctionNotFoundError(
                f'got {ref!r:.80} ({type(ref).__name__}), expected a function: "module:function",'
                " api.module.function or the decorated function itself"
            )
        found = self.functions.get(canonical(str(ref)))
        if found is None:
            raise FunctionNotFoundError(self._unknown(ref))
        return found

    def meant(self, name: str) -> str:
        """A question for who may have meant another function; empty where there is none like it."""
        # A name without its module, or with another sign for the colon, is meant as it sounds.
        sound = _sound(canonical(name).removesuffix(":default"))
        sounds = {_sound(known): known for known in self.functions}
        last = sound.rpartition(".")[2]
        same = [known for known in self.functions if known.rpartition(":")[2] == last]
        alike = [sounds[one] for one in difflib.get_close_matches(sound, sounds, n=3, cutoff=0.75)]
        meant = [sounds[sound]] if sound in sounds else same[:3] or alike
        return f"did you mean {' or '.join(map(repr, meant))}?" if meant else ""

    def _unknown(self, ref: str | Reference) -> str:
        given, meant = f"got the function {ref!r}", self.meant(str(ref))
        if meant:
            return f"{given}, which does not exist; {meant}"
        known = ", ".join(sorted(self.functions)[:_SHOWN_MAX]) or "none: its modules hold no decorated function"
        more = len(self.functions) - _SHOWN_MAX
        return f"{given}, expected one of this app: {known}{f' and {more} more' if more > 0 else ''}"


_SHOWN_MAX: Final = 12


def _sound(name: str) -> str:
    return name.replace("/", ".").replace(":", ".").strip(".")


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == ACTION else f"a {kind}"


def _check_modules(modules: Mapping[Any, object]) -> None:
    for name, module in modules.items():
        if not isinstance(name, str):
            raise LoadError(f"got {name!r:.80} ({type(name).__name__}) as the name of a module, expected a string")
        if not hasattr(module, "__dict__") and not isinstance(module, SchemaDefinition | CronJobs):
            got = f"{module!r:.80} ({type(module).__name__})" if module is not None else "None"
            raise LoadError(f"got {got} for the module {name!r}, expected a module")
        if isinstance(module, Function):
            raise LoadError(f"got the function {module!r} for the module {name!r}, expected the module that holds it")


def _members_of(module: object) -> dict[str, object]:
    return {} if isinstance(module, SchemaDefinition | CronJobs) else vars(module)


def _functions_of(module: object) -> list[tuple[str, Function[Any, Any]]]:
    members = _members_of(module).items()
    return [(name, cast("Function[..., Any]", member)) for name, member in members if isinstance(member, Function)]


def _crons_of(modules: Mapping[str, object]) -> dict[str, Declaration]:
    """What is declared in `crons` of the module `crons`. LoadError where crons are declared anywhere else."""
    module = modules.get("crons")
    crons = module if isinstance(module, CronJobs) else getattr(module, "crons", None)
    for place, other in modules.items():
        for name, member in _members_of(other).items():
            if isinstance(member, CronJobs) and member is not crons:
                raise LoadError(
                    f"{place}: got `{name} = cron_jobs()`, expected all crons in one object: `crons = cron_jobs()` in"
                    " crons.py, at the top of the application"
                )
    if isinstance(crons, CronJobs):
        return crons.declared
    if hasattr(crons, "register"):
        raise LoadError(
            "crons: got `from duly import crons` in crons.py, which is for functions to use; expected"
            " `from duly import cron_jobs` and `crons = cron_jobs()`. Functions that register crons belong elsewhere"
        )
    if crons is not None:
        raise LoadError(f"crons: got {crons!r:.80} as `crons`, expected `crons = cron_jobs()`")
    return {}


def _schema_of(modules: Mapping[str, object]) -> SchemaDefinition:
    module = modules.get("schema")
    if module is None:
        return define_schema({})
    schema = module if isinstance(module, SchemaDefinition) else getattr(module, "schema", None)
    if not isinstance(schema, SchemaDefinition):
        raise LoadError(f"schema: got {schema!r:.80} as `schema`, expected `schema = define_schema({{…}})`")
    return schema
