"""`duly run`: run a function, in the process that owns the store or in this one."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, Final, cast

import click
import orjson

from duly.app import App
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.cli.open_store import check_exists
from duly.declare.registered import encode_arguments
from duly.limits import DEFAULTS
from duly.server import control_socket
from duly.storage.open import sqlite_path
from duly.storage.postgres.address import is_postgres
from duly.values.json import dumps


@click.command()
@click.argument("function")
@click.argument("args", default="{}", metavar="[JSON]")
@click.option("--folder", default=options.default_folder, help="Where the functions are.")
@options.store
def run(function: str, args: str, folder: str, store: str) -> None:
    """Run FUNCTION, such as orders:create_order, with the arguments in JSON, and print what it returns.

    With - for JSON, the arguments are read from the standard input. What the function itself prints goes to the
    standard error.

    While `duly dev` runs on the same store, that process runs the function.

    In arguments as in what is printed, bytes are {"$bytes": "aGk="} (base64), and floats that JSON lacks are
    {"$float": "nan"}, "inf" or "-inf".
    """
    with errors_as_text():
        arguments = _arguments(args)
        try:
            value = control_socket.call(
                _file_of(store), function, encode_arguments(function, arguments, DEFAULTS), _print_waiting
            )
        except control_socket.NotServedError:
            with redirect_stdout(sys.stderr):  # what the function prints does not belong to the JSON
                value = asyncio.run(_run(function, arguments, folder, store))
        click.echo(orjson.dumps(orjson.loads(dumps(value)), option=orjson.OPT_INDENT_2).decode())


def _print_waiting(owner: int | None) -> None:
    process = "a process" if owner is None else f"process {owner}"
    click.echo(f"waiting for {process}, which owns the store and runs this; Ctrl-C ends only the waiting", err=True)


def _arguments(text: str) -> dict[str, Any]:
    if text == "-":
        text = sys.stdin.read()
    try:
        # As for every client: a number with an integral value is an int, so 3.0 is 3.
        value = json.loads(text, parse_float=_number, object_pairs_hook=_object)
    except ValueError as error:
        raise click.BadParameter(f'got {text!r:.99}, expected JSON such as \'{{"items": ["tea"]}}\': {error}') from None
    if not isinstance(value, dict):
        raise click.BadParameter(f'got {text!r:.99}, expected a JSON object such as \'{{"items": ["tea"]}}\'')
    return cast("dict[str, Any]", value)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Return a dict; or a value that JSON lacks, read from its printed form."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for position, (key, _) in enumerate(pairs) if key in dict(pairs[:position]))
        raise ValueError(f"the key {twice!r} is there twice")
    if len(fields) == 1 and (special := _SPECIAL.get(pairs[0][0])):
        return special(pairs[0][1])
    return fields


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(cast("str", value), validate=True)
    except (ValueError, TypeError):
        raise ValueError(f'got {value!r} for $bytes, expected base64 such as {{"$bytes": "aGk="}}') from None


def _float(value: object) -> float:
    if not isinstance(value, str) or value not in ("nan", "inf", "-inf"):
        raise ValueError(f'got {value!r} for $float, expected "nan", "inf" or "-inf"')
    return float(value)


_SPECIAL: Final[dict[str, Callable[[object], Any]]] = {"$bytes": _bytes, "$float": _float}


def _file_of(store: str) -> str:
    """Return the file of the store. Raises NotServedError for a store in PostgreSQL, which has no owner."""
    if is_postgres(store):
        raise control_socket.NotServedError
    return sqlite_path(store)


async def _run(function: str, args: dict[str, Any], folder: str, store: str) -> Any:
    app = App(folder, store, executor=False, wait_for_owner=0)
    await check_exists(store)
    async with app:
        return await app.run(function, args)
