"""`duly run`."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import click
import orjson

from duly.app import App, sqlite_path
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.server import door
from duly.storage.postgres.address import PREFIXES as POSTGRES
from duly.values.value import dumps


@click.command()
@click.argument("function")
@click.argument("args", default="{}", metavar="[JSON]")
@click.option("--folder", default=options.default_folder, help="Where the functions are.")
@options.store
def run(function: str, args: str, folder: str, store: str) -> None:
    """Run FUNCTION, such as orders:create_order, with the arguments in JSON, and print what it returns.

    While `duly dev` runs on the same store, it is the one that runs the function.
    """
    with errors_as_text():
        arguments = _arguments(args)
        try:
            value = door.call(_file_of(store), function, dumps(arguments))
        except door.NobodyThereError:
            value = asyncio.run(_run(function, arguments, folder, store))
        click.echo(orjson.dumps(orjson.loads(dumps(value)), option=orjson.OPT_INDENT_2).decode())


def _arguments(text: str) -> dict[str, Any]:
    try:
        # As from every client: a number with an integral value is an int, 3.0 as well as 3.
        value = json.loads(text, parse_float=_number)
    except ValueError as error:
        raise click.BadParameter(f'got {text!r}, expected JSON such as \'{{"items": ["tea"]}}\': {error}') from None
    if not isinstance(value, dict):
        raise click.BadParameter(f'got {text!r}, expected a JSON object such as \'{{"items": ["tea"]}}\'')
    return cast("dict[str, Any]", value)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _file_of(store: str) -> str:
    """The file that one process owns. NobodyThereError where the store is not a file: many processes open it."""
    if store.startswith(POSTGRES):
        raise door.NobodyThereError
    return sqlite_path(store)


async def _run(function: str, args: dict[str, Any], folder: str, store: str) -> Any:
    async with App(folder, store, executor=False) as app:
        return await app.run(function, args)
