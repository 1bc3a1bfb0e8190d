"""`duly dev`: the functions of a folder run, are loaded anew when a file changes, and each run is printed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from duly.app import App, sqlite_path
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.clock import to_datetime
from duly.errors import DulyError, LoadError, SchemaValidationError
from duly.functions.acting import ACTION_THREADS
from duly.functions.call_log import APP_LOG
from duly.functions.failure import describe
from duly.functions.registry import Registry
from duly.functions.runner import Run
from duly.limits import GRACE_SECONDS
from duly.server import door
from duly.storage.postgres.address import PREFIXES as POSTGRES

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.argument("folder", default=options.default_folder)
@options.store
def dev(folder: str, store: str) -> None:
    """Execute the functions in FOLDER, reload them when a file changes, and print each run.

    FOLDER defaults to [tool.duly] folder, then to ./backend. Call functions from another terminal
    with `duly run`.
    """
    if not Path(folder).is_dir():
        raise click.ClickException(f"got the folder {folder!r}, which does not exist; name one: duly dev FOLDER")
    with errors_as_text(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_dev(folder, store))
    click.echo("stopped")
    _abandon_threads()


async def _dev(folder: str, store: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    _print_runs()
    _on_signal(task.cancel)
    app = App(folder, store, development=True)
    changes = _Changes(folder)
    await asyncio.sleep(0)  # from here on a change is noticed
    try:
        while not await _opened(app):
            await changes.next()
        async with nullcontext() if store.startswith(POSTGRES) else door.open_door(app, sqlite_path(store)):
            click.echo(
                f"duly {version('duly')} runs {_counted(app.runner.registry)} of {folder} on {options.shown(store)}"
            )
            click.echo(click.style("Call one from another terminal with `duly run`; Ctrl-C ends this.", dim=True))
            while True:
                await changes.next()
                await _reload(app)
    finally:
        changes.close()
        await _close(app)


def _on_signal(act: Callable[[], object]) -> None:
    """Do this at the next Ctrl-C or SIGTERM, and nothing at those after it."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        for number in _SIGNALS:
            loop.add_signal_handler(number, lambda: None)
        act()

    for number in _SIGNALS:
        loop.add_signal_handler(number, once)


async def _close(app: App) -> None:
    if app.is_open and (running := app.executor.running):
        executor, task = app.executor, asyncio.current_task()
        assert task is not None
        _on_signal(lambda: executor.running and task.cancel())
        actions, them = ("1 running action", "it") if running == 1 else (f"{running} running actions", "them")
        click.echo(f"waiting up to {GRACE_SECONDS:g} s for {actions}; Ctrl-C again interrupts {them}")
    await app.close()


def _abandon_threads() -> None:
    """End now, though an action goes on in a thread: nothing can stop it, and that it was interrupted is recorded."""
    for thread in threading.enumerate():
        if thread.name.startswith(ACTION_THREADS):
            thread.join(0.1)  # idle ones end at once
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


async def _opened(app: App) -> bool:
    try:
        await app.__aenter__()
    except (LoadError, SchemaValidationError) as error:
        _print_error("cannot start; waiting for a change", error)
        return False
    return True


class _Changes:
    """Changes of the Python files of a folder, none of them missed while others are looked at."""

    def __init__(self, folder: str) -> None:
        # Here: it costs the other commands their start.
        from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

        self._changes = awatch(folder, watch_filter=PythonFilter(), debounce=200)
        self._next = asyncio.ensure_future(anext(self._changes))

    async def next(self) -> None:
        await self._next
        self._next = asyncio.ensure_future(anext(self._changes))

    def close(self) -> None:
        self._next.cancel()


async def _reload(app: App) -> None:
    try:
        registry = await app.reload()
    except DulyError as error:
        _print_error("not reloaded, the last good code goes on", error)
    else:
        click.echo(click.style(f"reloaded {_counted(registry)}", fg="cyan"))


def _counted(registry: Registry) -> str:
    count = len(registry.functions)
    return "1 function" if count == 1 else f"{count} functions"


def _print_error(what: str, error: Exception) -> None:
    click.echo(click.style(f"{what}:", fg="red", bold=True), err=True)
    click.echo(click.style(f"  {error}", fg="red"), err=True)


class _Terminal(logging.Handler):
    """Prints runs and log lines, one below the other."""

    def emit(self, record: logging.LogRecord) -> None:
        time = click.style(f"{to_datetime(record.created * 1000).astimezone():%H:%M:%S}", dim=True)
        run = getattr(record, "run", None)
        if isinstance(run, Run):
            click.echo(f"{time} {_line_of(run)}")
        else:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
            text = record.getMessage() if not record.exc_info else self.format(record)
            click.echo(f"{time} {click.style('│', dim=True)} {record.name}: {level}{text}")


def _line_of(run: Run) -> str:
    mark = click.style("✓", fg="green") if run.error is None else click.style("✗", fg="red")
    scheduled = click.style(" scheduled", dim=True) if run.is_scheduled else ""
    line = f"{mark} {run.kind:8} {click.style(run.function, bold=True)}{scheduled} {run.milliseconds:.1f} ms"
    if run.error is None:
        return line
    text = describe(run.error).replace("\n", "\n           ")
    return f"{line}\n           {click.style(text, fg='red')}"


def _print_runs() -> None:
    for name in ("duly", APP_LOG, "duly.run"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("duly").addHandler(_Terminal())
    logging.getLogger("duly").propagate = False
