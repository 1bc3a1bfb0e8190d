"""What several commands are told: the folder of the functions, the address of the store."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import click

from duly.app import DEFAULT_STORE
from duly.storage.postgres.address import PREFIXES as POSTGRES
from duly.storage.postgres.address import parse

_DEFAULT_FOLDER: Final = "backend"


def _setting(name: str, default: str) -> str:
    """A key of [tool.duly] in ./pyproject.toml."""
    file = Path("pyproject.toml")
    tools: dict[str, Any] = tomllib.loads(file.read_text()).get("tool", {}) if file.is_file() else {}
    return str(tools.get("duly", {}).get(name, default))


def default_folder() -> str:
    return _setting("folder", _DEFAULT_FOLDER)


store = click.option(
    "--store",
    default=lambda: _setting("store", DEFAULT_STORE),
    metavar="ADDRESS",
    help=f"Where the data is. Default: [tool.duly] store, then {DEFAULT_STORE}",
)


def shown(store: str) -> str:
    """An address that may be seen: without its password."""
    return parse(store).shown if store.startswith(POSTGRES) else store
