"""What `duly dev` and `duly serve` have in common: an open app, its store and its addresses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import click

from duly.app import App
from duly.cli import options
from duly.cli.printing.times import local_and_utc
from duly.cli.process.ending import exit_when_gone
from duly.cli.process.server_options import DEFAULT_PORT, ServerOptions
from duly.declare.registry import Registry
from duly.errors import StoreError
from duly.model import executor_pause
from duly.server import control_socket
from duly.storage.open import sqlite_path
from duly.storage.postgres.address import is_postgres

PORTS_TRIED: Final = 100
"""How many ports `duly dev` tries, if the first ones are in use: one may run for each of several applications."""


class Place(NamedTuple):
    """What is served, and where."""

    folder: str
    store: str
    server: ServerOptions
    tries: int = 1
    """How many ports to try if none is named."""


def check_folder(command: str, folder: str) -> None:
    """Raise a ClickException if a folder of functions is none."""
    if not Path(folder).is_dir():
        problem = "which is a file" if Path(folder).is_file() else "which does not exist"
        raise click.ClickException(
            f"got the folder {folder!r}, {problem} ({Path(folder).absolute()}); name one: duly {command} FOLDER"
        )
    if options.is_project(folder):
        raise click.ClickException(
            f"got the folder {folder!r}, which is a project ([tool.duly] in its pyproject.toml), expected the folder of"
            f" its functions: run duly {command} there, without FOLDER"
        )


@asynccontextmanager
async def serving(app: App, place: Place) -> AsyncGenerator[None]:
    """Serve an open app while the context lasts, and print what happens to it."""
    from importlib.metadata import version  # other commands do not need it, and it takes a tenth of their start

    folder, store, server, tries = place
    # Print this at once: due functions start during the next await.
    click.echo(f"duly {version('duly')} runs {counted(app.runner.registry)} of {folder} on {options.redacted(store)}")
    if not app.runner.registry.functions and not app.runner.registry.http:
        click.echo(f"There is no decorated function in {Path(folder).absolute()} yet: write one, and it is loaded")  # noqa: ASYNC240
    from duly.server.asgi import application  # other commands need no server
    from duly.server.listen import Transport, listening

    async with AsyncExitStack() as stack:
        stack.callback(asyncio.create_task(_print_pauses(app, store)).cancel)
        if not is_postgres(store):
            file = os.path.abspath(sqlite_path(store))  # noqa: ASYNC240  it takes no time
            stack.callback(asyncio.create_task(exit_when_gone(app, file)).cancel)
            await stack.enter_async_context(control_socket.serve(app, sqlite_path(store)))
        ports = [server.port] if server.port is not None else range(DEFAULT_PORT, DEFAULT_PORT + tries)
        asgi = application(app, allow_origins=server.allow_origin or None)
        transport = Transport(server.ssl_certfile, server.ssl_keyfile, server.proxy_headers, server.forwarded_allow_ips)
        address = await stack.enter_async_context(listening(asgi, server.host, ports, transport))
        click.echo(f"Clients connect to {address}")
        if app.runner.registry.http:
            click.echo(f"HTTP actions are below {address}/http")
        yield


def counted(registry: Registry) -> str:
    """Return how many functions an application has, and how many routes, if it has any."""
    functions, routes = len(registry.functions), len(registry.http)
    text = "1 function" if functions == 1 else f"{functions} functions"
    if not routes:
        return text
    return f"{text} and 1 HTTP route" if routes == 1 else f"{text} and {routes} HTTP routes"


async def _print_pauses(app: App, store: str) -> None:
    """Print when the executor is paused or resumed."""
    how = "duly jobs resume" if is_postgres(store) else "end this, run `duly jobs resume`, and start it again"
    was_paused = False
    while app.is_open:
        try:
            paused = await app.database.read(executor_pause.paused_since)
        except StoreError:
            continue  # the store did not answer, or the app is closed
        if paused.value is not None and not was_paused:
            click.echo(click.style(f"nothing starts: it was paused {local_and_utc(paused.value)}; {how}", fg="yellow"))
        elif paused.value is None and was_paused:
            click.echo(click.style("resumed: what is due starts", fg="cyan"))
        was_paused = paused.value is not None
        await app.database.watch(paused.reads, paused.version)
