"""Fingerprints of validators: they show whether a declaration has changed since documents were checked."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, cast
from warnings import catch_warnings, simplefilter
from weakref import WeakKeyDictionary

from duly.values.pydantic_data import is_pydantic
from duly.values.schema.models import ModelValidator
from duly.values.schema.tables import SchemaDefinition
from duly.values.schema.validator import Validator

_DIGEST_BYTES: Final = 16


def fingerprint(validator: Validator) -> str:
    """Return a text that is the same in all processes until the declaration changes.

    It covers the source of dataclasses and pydantic models, because their code takes part in the check, and the JSON
    schema of pydantic models. It does not cover code that they import.

    >>> fingerprint(v.object({"a": v.string(), "b": v.any()})) == fingerprint(v.object({"b": v.any(), "a": v.string()}))
    True
    """
    return hashlib.blake2b(_text(validator).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def fingerprint_of_schema(schema: SchemaDefinition) -> str:
    """Return the fingerprint of all tables and their indexes."""
    tables = sorted((name, fingerprint(table.document), table.indexes) for name, table in schema.tables.items())
    text = repr([(name, document, sorted(indexes.items())) for name, document, indexes in tables])
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _text(part: object) -> str:
    if isinstance(part, Validator):
        sources = _sources(part.model) if isinstance(part, ModelValidator) else ()
        return f"{type(part).__name__}({', '.join([*map(_text, part.parts()), *sources])})"
    if isinstance(part, frozenset):
        return f"{{{', '.join(sorted(map(_text, cast('frozenset[object]', part))))}}}"
    if isinstance(part, tuple):
        return f"({', '.join(map(_text, cast('tuple[object, ...]', part)))})"
    return part.__qualname__ if isinstance(part, type) else repr(part)


_known: Final = WeakKeyDictionary[type[Any], str]()
"""The source of classes. To find one class, Python parses its whole file."""


def _source(kind: type[Any]) -> str:
    source = _known.get(kind)
    if source is None:
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError, SyntaxError):  # defined at run time, or its file has changed
            source = ""
        _known[kind] = source
    return source


def _sources(model: type[Any]) -> Iterator[str]:
    """Yield the source of a class and of its bases, as far as it can be read."""
    for kind in model.__mro__:
        package = kind.__module__.partition(".")[0]
        if package not in sys.stdlib_module_names and package != "pydantic":
            yield _source(kind)
    if is_pydantic(model):
        with suppress(Exception), catch_warnings():  # not every model has a JSON schema
            simplefilter("ignore")
            yield repr(model.model_json_schema())
