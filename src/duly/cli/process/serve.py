"""`duly serve`: serve and run the functions of a folder, in production."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import click

from duly.app import App
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.cli.process.ending import SignalHandler, close
from duly.cli.process.server_options import ServerOptions, print_log, server_options
from duly.cli.process.serving import Place, check_folder, serving


@click.command()
@click.argument("folder", default=options.default_folder)
@options.store
@server_options
def serve(folder: str, store: str, server: ServerOptions) -> None:
    """Serve and execute the functions in FOLDER, as in production.

    Clients get no text of errors but that of AppError, and no log lines. FOLDER defaults to
    [tool.duly] folder, then to ./backend. The port defaults to 3210.
    """
    check_folder("serve", folder)
    with errors_as_text(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_serve(folder, store, server))
    click.echo("stopped")


async def _serve(folder: str, store: str, server: ServerOptions) -> None:
    task = asyncio.current_task()
    assert task is not None
    print_log(server)
    signals = SignalHandler()
    signals.on_next(task.cancel)
    app = App(folder, store)
    await app.__aenter__()
    try:
        async with serving(app, Place(folder, store, server)):
            await asyncio.get_running_loop().create_future()  # until a signal
    finally:
        await close(app, signals)
