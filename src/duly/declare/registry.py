"""The registry: the functions, the schema, the crons and the HTTP actions of one application, found by name."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, cast

from duly.declare.auth import providers_of
from duly.declare.cron_jobs import CronJobs, Declaration
from duly.declare.function import ACTION, QUERY, Function
from duly.declare.http_router import HttpRouter
from duly.declare.loading import Source, is_package, load_modules
from duly.declare.references import Ref, Reference, canonical
from duly.declare.registered import RegisteredFunction
from duly.errors import DulyError, FunctionNotFoundError, LoadError
from duly.limits import DEFAULTS, Limits
from duly.logs import log_of
from duly.model.crons import Spec
from duly.values.json import loads
from duly.values.schema.fingerprints import fingerprint_of_schema
from duly.values.schema.tables import Place, SchemaDefinition, define_schema, place_of
from duly.values.schema.validator import Ids

_log: Final = log_of("duly.run")


class Registry:
    """The functions and the schema of one application, as loaded at one moment."""

    def __init__(self, modules: Mapping[str, object], limits: Limits = DEFAULTS) -> None:
        _check_modules(modules)
        self.limits = limits
        self.schema = SchemaDefinition(_schema_of(modules).tables)  # a new object at each load
        self.functions: dict[str, RegisteredFunction] = {}
        self._names: dict[Function[Any, Any], str] = {}
        self._names_by_place: dict[Place | None, str] = {}  # for functions of code that was loaded before a reload
        models = self.schema.models
        for module, members in modules.items():
            for attribute, function in _functions_of(members) if not is_package(module) else ():
                self._add(f"{module}:{attribute}", function, models)
        self._found: dict[Ref[Any], RegisteredFunction] = dict(self.functions.items())
        self.crons = [self._cron(name, declared) for name, declared in _crons_of(modules).items()]
        self.providers = providers_of(modules)
        self.http = _http_of(modules)

    @cached_property
    def mark(self) -> str:
        """A text that identifies this version of the application: a hash of its tables, function names and crons."""
        names = sorted((name, function.kind) for name, function in self.functions.items())
        text = f"{fingerprint_of_schema(self.schema)}{names}{sorted(self.crons) or ''}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @staticmethod
    def load(source: Source, limits: Limits = DEFAULTS, *, reload: bool = False) -> Registry:
        """Load the application in a folder, a package, or a mapping of names to modules."""
        return Registry(load_modules(source, reload), limits)

    def _add(self, name: str, function: Function[Any, Any], models: Mapping[type, str]) -> None:
        try:
            self.functions[name] = RegisteredFunction(name, function, models, self.limits)
        except TypeError as error:
            raise LoadError(f"{name}: {error}") from error
        # If several modules import a function, its name is that of the module which defines it.
        own = function.__module__.rpartition(".")[2] == name.partition(":")[0].rpartition("/")[2]
        if own or function not in self._names:
            self._names[function] = name
            if (place := place_of(function)) is not None:
                self._names_by_place[place] = name

    def _cron(self, identifier: str, declared: Declaration) -> Spec:
        """Return the specification of a cron whose function exists and can be scheduled."""
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
        """Return the declared crons. Raises LoadError if a function does not accept its arguments. In production this
        is a warning, because a later version may accept them.
        """
        for cron in self.crons:
            misfit = self.functions[cron.function].misfit(loads(cron.args), cron.args, ids)
            if misfit is not None and development:
                raise LoadError(f"crons: {cron.name}: {misfit}") from misfit
            if misfit is not None:
                _log.warning("the cron %r fails whenever it runs: %s", cron.name, misfit)
        return self.crons

    def find(self, ref: Ref[Any], kinds: Iterable[str] = ()) -> RegisteredFunction:
        """Return the function that a reference names, if it is of one of `kinds`."""
        try:
            found = self._found.get(ref)
        except TypeError:  # a value that cannot be a reference
            found = None
        if found is None:
            found = self._found[ref] = self._resolve(ref)
        if kinds and found.kind not in kinds:
            wanted = " or ".join(map(_with_article, kinds))
            raise FunctionNotFoundError(f"{found.name} is {_with_article(found.kind)}, expected {wanted}")
        return found

    def get(self, name: str) -> RegisteredFunction | None:
        """Return the function of a name, in any spelling; None if there is none. Unlike `find` it looks for no similar
        names to suggest, which takes long for a long one.
        """
        return self.functions.get(canonical(name))

    def _resolve(self, ref: Ref[Any]) -> RegisteredFunction:
        if isinstance(ref, Function):
            name = self._names.get(ref) or self._names_by_place.get(place_of(ref))
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

    def suggestion(self, name: str, public_only: bool = False) -> str:
        """Return "did you mean …?" with functions of similar names; empty if there is none."""
        known = [one for one, function in self.functions.items() if function.public or not public_only]
        # A name without its module, or with another sign for the colon, counts as similar.
        wanted = _normalized(canonical(name).removesuffix(":default"))
        normalized = {_normalized(one): one for one in known}
        last = wanted.rpartition(".")[2]
        same = [one for one in known if one.rpartition(":")[2] == last]
        similar = [normalized[one] for one in difflib.get_close_matches(wanted, normalized, n=3, cutoff=0.75)]
        found = [normalized[wanted]] if wanted in normalized else same[:3] or similar
        return f"did you mean {' or '.join(map(repr, found))}?" if found else ""

    def _unknown(self, ref: str | Reference) -> str:
        given, suggestion = f"got the function {ref!r}", self.suggestion(str(ref))
        if suggestion:
            return f"{given}, which does not exist; {suggestion}"
        known = ", ".join(sorted(self.functions)[:_SHOWN_MAX]) or "none: its modules hold no decorated function"
        more = len(self.functions) - _SHOWN_MAX
        return f"{given}, expected one of this app: {known}{f' and {more} more' if more > 0 else ''}"


_SHOWN_MAX: Final = 12
_DECLARATIONS: Final = (SchemaDefinition, CronJobs, HttpRouter)
"""What may stand in place of the module that declares it."""


def _normalized(name: str) -> str:
    return name.replace("/", ".").replace(":", ".").strip(".")


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == ACTION else f"a {kind}"


def _check_modules(modules: Mapping[Any, object]) -> None:
    for name, module in modules.items():
        if not isinstance(name, str):
            raise LoadError(f"got {name!r:.80} ({type(name).__name__}) as the name of a module, expected a string")
        if not hasattr(module, "__dict__") and not isinstance(module, _DECLARATIONS):
            got = f"{module!r:.80} ({type(module).__name__})" if module is not None else "None"
            raise LoadError(f"got {got} for the module {name!r}, expected a module")
        if isinstance(module, Function):
            raise LoadError(f"got the function {module!r} for the module {name!r}, expected the module that holds it")


def _members_of(module: object) -> dict[str, object]:
    return {} if isinstance(module, _DECLARATIONS) else vars(module)


def _functions_of(module: object) -> list[tuple[str, Function[Any, Any]]]:
    members = _members_of(module).items()
    return [(name, cast("Function[..., Any]", member)) for name, member in members if isinstance(member, Function)]


def _crons_of(modules: Mapping[str, object]) -> dict[str, Declaration]:
    """Return the declarations in `crons` of the module `crons`. Raises LoadError if another module declares crons."""
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


def _http_of(modules: Mapping[str, object]) -> HttpRouter:
    """Return `http` of the module `http`. Raises LoadError if another module has a router."""
    module = modules.get("http")
    http = module if isinstance(module, HttpRouter) else getattr(module, "http", None)
    for place, other in modules.items():
        for name, member in _members_of(other).items():
            if isinstance(member, HttpRouter) and member is not http:
                raise LoadError(
                    f"{place}: got `{name} = http_router()`, expected all routes in one object: `http = http_router()`"
                    " in http.py, at the top of the application"
                )
    if http is None:
        return HttpRouter()
    if not isinstance(http, HttpRouter):
        raise LoadError(f"http: got {http!r:.80} as `http`, expected `http = http_router()`")
    return http


def _schema_of(modules: Mapping[str, object]) -> SchemaDefinition:
    module = modules.get("schema")
    if module is None:
        return define_schema({})
    schema = module if isinstance(module, SchemaDefinition) else getattr(module, "schema", None)
    if not isinstance(schema, SchemaDefinition):
        raise LoadError(f"schema: got {schema!r:.80} as `schema`, expected `schema = define_schema({{…}})`")
    return schema
