"""`duly dev`: serve and run the functions of a folder, reload them when a file changes, print each run."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import click

from duly.app import App
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.cli.process.ending import SignalHandler, close
from duly.cli.process.file_changes import FileChanges
from duly.cli.process.server_options import ServerOptions, print_log, server_options
from duly.cli.process.serving import PORTS_TRIED, Place, check_folder, counted, serving
from duly.errors import DulyError, LoadError, SchemaValidationError


@click.command()
@click.argument("folder", default=options.default_folder)
@options.store
@server_options
def dev(folder: str, store: str, server: ServerOptions) -> None:
    """Serve and execute the functions in FOLDER, reload them when a file changes, and print each run.

    FOLDER defaults to [tool.duly] folder, then to ./backend. Call functions from another terminal
    with `duly run`, or with a Convex client at the address that is printed. Without --port, it is
    the first free port from 3210 on.
    """
    check_folder("dev", folder)
    with errors_as_text(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_dev(folder, store, server))
    click.echo("stopped")


async def _dev(folder: str, store: str, server: ServerOptions) -> None:
    task = asyncio.current_task()
    assert task is not None
    print_log(server)
    signals = SignalHandler()
    signals.on_next(task.cancel)
    app = App(folder, store, development=True)
    changes = FileChanges(folder)
    await asyncio.sleep(0)  # from here on a change is noticed
    try:
        while not await _open(app):
            await changes.next()
        async with serving(app, Place(folder, store, server, tries=PORTS_TRIED)):
            # Not earlier, because such a call is answered only from here on.
            click.echo(click.style("Call one from another terminal with `duly run`; Ctrl-C ends this.", dim=True))
            while True:
                await changes.next()
                await _reload(app)
    finally:
        changes.close()
        await close(app, signals)


async def _open(app: App) -> bool:
    try:
        await app.__aenter__()
    except (LoadError, SchemaValidationError) as error:
        _print_error("cannot start; waiting for a change", error)
        return False
    return True


async def _reload(app: App) -> None:
    try:
        registry = await app.reload()
    except DulyError as error:
        _print_error("not reloaded, the last good code goes on", error)
    else:
        click.echo(click.style(f"reloaded {counted(registry)}", fg="cyan"))


def _print_error(what: str, error: Exception) -> None:
    click.echo(click.style(f"{what}:", fg="red", bold=True), err=True)
    click.echo(click.style(f"  {error}", fg="red"), err=True)
