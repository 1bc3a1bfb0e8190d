"""Options of several commands: the folder of the functions, the address of the store."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final, cast

import click

from duly.app import DEFAULT_STORE
from duly.storage.postgres.address import is_postgres, parse, with_schema

_FILE: Final = "pyproject.toml"
_DEFAULTS: Final = {"folder": "backend", "store": DEFAULT_STORE}
"""The keys that [tool.duly] may have, and their defaults."""
_KEYS: Final = " and ".join(_DEFAULTS)


def _setting(name: str) -> str:
    return {**_DEFAULTS, **_settings()}[name]


def _settings(project: str = ".") -> dict[str, str]:
    """Return [tool.duly] of the pyproject.toml of a folder. A ClickException says what is wrong with it."""
    file = Path(project, _FILE)
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    try:
        ours: object = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{file} is no TOML: {error}") from None
    for name in ("tool", "duly"):
        if not isinstance(ours, dict):
            break
        ours = cast("dict[str, object]", ours).get(name, {})
    if not isinstance(ours, dict):
        raise click.ClickException(f"{file}: got {ours!r} for tool.duly, expected a table with {_KEYS}")
    return {name: _text(file, name, value) for name, value in cast("dict[str, object]", ours).items()}


def _text(file: Path, name: str, value: object) -> str:
    if name not in _DEFAULTS:
        raise click.ClickException(f"{file}: got the key {name!r} in [tool.duly], expected {_KEYS} only")
    if not isinstance(value, str) or not value:
        raise click.ClickException(
            f"{file}: got {value!r} for {name} in [tool.duly], expected text such as {_DEFAULTS[name]!r}"
        )
    return value


def default_folder() -> str:
    return _setting("folder")


def is_project(folder: str) -> bool:
    """Return whether a folder is a project whose functions are in another one."""
    place = _settings(folder).get("folder", ".")
    return Path(folder, place).resolve() != Path(folder).resolve()


store = click.option(
    "--store",
    default=lambda: _setting("store"),
    metavar="ADDRESS",
    help=f"Where the data is. Default: [tool.duly] store, then {DEFAULT_STORE}",
)


def redacted(store: str) -> str:
    """Return an address that may be printed: without its password, with its schema."""
    if not is_postgres(store):
        return store
    address = parse(store)
    return with_schema(address.redacted, address.schema)
